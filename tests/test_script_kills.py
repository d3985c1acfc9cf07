"""A run of a script that is killed, by SIGKILL of its whole process group, while it imports, commits, trains, measures
and delivers, ends as if it had not been: the same log, one commit for each experiment, nothing half done."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from random import Random

import pytest

from postgrad.records import Choice, Proposal, TaskSpec
from postgrad.research.base import Context
from postgrad.runner import drive, opened
from postgrad.scripts.researcher import SAME, ScriptResearcher
from postgrad.scripts.session import ScriptSession
from postgrad.scripts.workspace import Workspace
from postgrad.store.artifacts import Artifacts
from postgrad.store.sqlite import SqliteStore
from script_kills import Killed, moments
from test_scripts import driven, in_child, run_of, task_of


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Killed, float]:
    """A run that nobody kills, and how long it took."""
    made = Killed.made(tmp_path_factory.mktemp("whole"))
    began = time.monotonic()
    made.ended()
    made.in_step()
    return made, time.monotonic() - began


def same(killed: Killed, whole: Killed) -> None:
    killed.ended()
    killed.in_step()
    assert killed.log() == whole.log()
    assert killed.delivered() == whole.delivered()


def test_killed_at_each_kind_of_moment(tmp_path: Path, whole: tuple[Killed, float]) -> None:
    killed = Killed.made(tmp_path)
    killed.kill_in_git("before", git_too=True)
    assert not (killed.run / "repo").exists(), "it was killed while the source was imported"
    killed.killed_when(killed.in_script)
    killed.kill_in_referee("search")
    killed.kill_in_git("before", git_too=False)
    killed.kill_in_git("before", git_too=True)
    killed.kill_in_git("after", git_too=False)
    killed.killed_when(lambda: killed.in_script("sealed"))
    killed.kill_in_referee("sealed")
    same(killed, whole[0])


def test_killed_at_any_moment(tmp_path: Path, whole: tuple[Killed, float]) -> None:
    killed, rng = Killed.made(tmp_path), Random(11)
    for seconds in moments(rng, 4, whole[1]):
        killed.killed_after(seconds)
    same(killed, whole[0])


def test_killed_while_it_delivers_the_model_is_whole(tmp_path: Path) -> None:
    folder = run_of(tmp_path, task_of(tmp_path, budget="2 experiments"))

    class Half(Artifacts):
        def restore_folder(self, digest: str, folder: Path) -> None:
            super().restore_folder(digest, folder)
            (folder / "train.py").unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        store = SqliteStore.open(folder, write=True)
        with opened(store) as session:
            store.artifacts = Half(store.artifacts.folder)
            drive(session)

    assert in_child(work) == -signal.SIGKILL
    assert not (folder / "model").exists(), "half of it is not delivered"
    driven(folder)
    assert {path.name for path in (folder / "model").iterdir()} == {"train.py", "prepare.py", "referee.py", "out"}
    assert not (folder / "model.part").exists()


def test_a_commit_that_became_no_experiment_is_none(tmp_path: Path) -> None:
    """Somebody thought of an edit, committed it, and proposed another training of the source."""
    folder = run_of(tmp_path, task_of(tmp_path, budget="3 experiments"))

    class Wavering(ScriptResearcher):
        def propose(self, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
            workspace, base = self.session.workspace, context.tree["e0000"]
            for index in (context.index, context.index + 1):
                workspace.commit(f"e{index:04d}", workspace.baseline, {"train.py": b"%d" % index}, "an idea")
            return self._again(task, choice, base, context, SAME)

    with opened(SqliteStore.open(folder, write=True)) as session:
        assert isinstance(session, ScriptSession)
        drive(session, researcher=Wavering(session))
    workspace = Workspace.open(folder, folder.name)
    assert workspace.commits() == {}
    kept = workspace.git.run("for-each-ref", "--format=%(refname)", "refs/postgrad/replaced/").decode().split()
    assert len(kept) >= 3, "nothing is lost"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_many_moments(tmp_path: Path, whole: tuple[Killed, float], seed: int) -> None:
    killed, rng = Killed.made(tmp_path), Random(seed)
    for seconds in moments(rng, 12, whole[1]):
        killed.killed_after(seconds)
    same(killed, whole[0])
