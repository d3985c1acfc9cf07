"""What the session of a script remembers, and what that must not change: items that were named, versions that are the
same but for seeds."""

from __future__ import annotations

from pathlib import Path

from postgrad.events import JobFinished
from postgrad.records import JobResult, UnitResult, Usage
from postgrad.runner import drive, opened
from postgrad.scripts.researcher import ScriptResearcher
from postgrad.scripts.scores import stored
from postgrad.scripts.session import ScriptSession
from postgrad.scripts.versions import Versions
from postgrad.scripts.workspace import Workspace
from postgrad.session import Session
from postgrad.spec import load_task
from postgrad.store.sqlite import SqliteStore
from script_sources import HIDDEN, TRAIN, write_source
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


# --- versions of the files --------------------------------------------------------------------------------------------


def test_of_the_files_of_a_version_only_what_it_changed_is_read_and_once(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    (source / "linked.py").symlink_to("train.py")
    workspace = Workspace.create((tmp_path / "run").resolve(), "r", source, HIDDEN)
    seeded = workspace.commit("e0001", workspace.baseline, {"train.py": f"SEED = 1\n{TRAIN}".encode()}, "a seed")
    other = workspace.commit("e0002", workspace.baseline, {"train.py": f"SEED = 2\n{TRAIN}".encode()}, "another")
    same = workspace.commit("e0003", workspace.baseline, {"train.py": f"# a word\n{TRAIN}".encode()}, "a comment")
    gone = workspace.commit("e0004", workspace.baseline, {"lib/model.py": None}, "a file goes")
    versions = Versions(workspace, ["prepare.py"])
    assert "linked.py" not in versions.source and "train.py" in versions.source
    untouched = workspace.files(workspace.baseline)["prepare.py"]
    (workspace.git.folder / "objects" / untouched[:2] / untouched[2:]).unlink()
    names = {commit: versions.apart_from_seeds(workspace.tree_of(commit)) for commit in (seeded, other, same, gone)}
    assert names[same] == versions.apart_from_seeds("") and names[seeded] == names[other] != names[same]
    assert names[gone] == {("lib/model.py", "")}
    changed = workspace.files(seeded)["train.py"]
    (workspace.git.folder / "objects" / changed[:2] / changed[2:]).unlink()
    again = workspace.commit("e0005", seeded, {"lib/model.py": None}, "both")
    assert versions.apart_from_seeds(workspace.tree_of(again)) == names[seeded] | names[gone], "known by its name"


def test_each_editable_file_has_its_own_numbers(tmp_path: Path) -> None:
    task_of(tmp_path, budget="3 experiments", more={"model.py": "DROPOUT = 0.1\nprint(DROPOUT)\n"})
    path = tmp_path / "task.yaml"
    path.write_text(path.read_text().replace("editable: [train.py]", "editable: [train.py, model.py]"))
    folder = run_of(tmp_path, load_task(path))
    with opened(SqliteStore.open(folder, write=True)) as session:
        assert isinstance(session, ScriptSession)
        drive(session)
        researcher = ScriptResearcher(session)
        first = session.tree["e0001"]
        found = {name: researcher._tried(first, name).values for name in ("model.py", "train.py", "none.py")}
    assert set(found["model.py"]) == {"DROPOUT"} and "LEARNING_RATE" in found["train.py"]
    assert "DROPOUT" not in found["train.py"] and not found["none.py"]
