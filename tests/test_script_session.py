"""What the session of a script remembers, and what that must not change: items that were named, versions that are the
same but for seeds."""

from __future__ import annotations

from pathlib import Path

from postgrad.events import JobFinished
from postgrad.records import JobResult, UnitResult, Usage
from postgrad.runner import opened
from postgrad.scripts.scores import stored
from postgrad.scripts.session import ScriptSession
from postgrad.session import Session
from postgrad.store.sqlite import SqliteStore
from test_scripts import run_of, task_of


def finished(session: Session, experiment: str, names: str) -> str:
    """A job of an experiment on the select split that ended, in the log; what the referee named in it."""
    outputs = session.store.artifacts.put_bytes(stored({name: float(len(experiment)) for name in names}))
    unit = UnitResult(name="select", outputs=outputs, wall_s=1.0)
    result = JobResult(job=f"{experiment}-select", units=(unit,), usage=Usage())
    session.append(JobFinished(job=result.job, experiment=experiment, purpose="select", result=result))
    return outputs


def test_what_the_referee_named_is_read_once_and_known_after_a_resume(tmp_path: Path) -> None:
    folder = run_of(tmp_path, task_of(tmp_path))
    with opened(SqliteStore.open(folder, write=True)) as session:
        assert isinstance(session, ScriptSession)
        outputs = finished(session, "e0000", "abc")
        assert set(session.rows("select")) == set("abc") and not session.rows("search")
        place = session.store.artifacts.path(outputs)
        aside = place.rename(tmp_path / "aside")
        finished(session, "e0001", "bcd")
        assert list(session.rows("select")) == list("abcd"), "the first outputs are not read again"
        aside.rename(place)
    with opened(SqliteStore.open(folder, write=True)) as session:
        assert list(session.rows("select")) == list("abcd")
