"""A run of a script that is killed, by SIGKILL of its whole process group, while it imports, commits, trains, measures
and delivers, ends as if it had not been: the same log, one commit for each experiment, nothing half done."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest

from script_kills import Killed, moments


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
    for seconds in moments(rng, 5, whole[1]):
        killed.killed_after(seconds)
    same(killed, whole[0])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_many_moments(tmp_path: Path, whole: tuple[Killed, float], seed: int) -> None:
    killed, rng = Killed.made(tmp_path), Random(seed)
    for seconds in moments(rng, 12, whole[1]):
        killed.killed_after(seconds)
    same(killed, whole[0])
