"""Faults of a cluster and of the network before it that a job survives: each is invisible, or ends with a message."""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Iterator

import pytest

from postgrad.bench.chaos.cluster import AWAY, Shaky, ShakyEngine
from postgrad.engines.remote.lease import Beat
from postgrad.errors import UserError
from postgrad.records import EngineSpec
from postgrad.testing.engine import until
from test_engine_remote import LIMITS, Place, attempt_of, hasty, held_at, said, steps_of, unreadable, work_of

__all__ = ["hasty"]


@contextmanager
def cut(place: Place, *, cluster: bool = True) -> Iterator[None]:
    """Neither the cluster nor what was granted can be reached; or only the latter cannot."""
    with unreadable(place.folder / "remote" / "grant.json"):
        place.cluster.reachable = not cluster
        yield
        place.cluster.reachable = True


def moved(place: Place, before: Beat | None) -> bool:
    """True once the node says again that it lives."""
    return place.beat() != before


@pytest.mark.parametrize("jobs_live", [True, False])
def test_a_cluster_that_was_restarted_and_forgot_its_jobs(tmp_path: Path, jobs_live: bool) -> None:
    place = Place(tmp_path, held_at(10))
    handle = place.started()
    until(lambda: place.steps()["steps"] >= 3)
    if jobs_live:
        place.engine.grace_s = 30.0  # It is heard of within that.
    else:
        place.lose()
    for path in place.cluster.folder.iterdir():
        path.unlink()
    if jobs_live:
        assert handle.wait(3.0) is None
        place.go()
    assert place.ended(handle).code == 0
    assert place.steps() == {"starts": 1 if jobs_live else 2, "steps": 20}
    assert len(place.cluster.submitted) == (1 if jobs_live else 2)
    place.engine.close()


def test_a_slow_node_is_waited_for_while_its_lease_lasts(tmp_path: Path) -> None:
    place = Place(tmp_path, held_at(10), lease_s=15.0)
    handle = place.started()
    until(lambda: place.steps()["steps"] >= 3)
    for _ in range(2):
        place.cluster.freeze(handle.name)
        assert handle.wait(4.0) is None
        before = place.beat()
        place.cluster.freeze(handle.name, signal.SIGCONT)
        until(partial(moved, place, before))
        assert handle.wait(1.0) is None
    place.go()
    assert place.ended(handle).code == 0
    assert len(place.cluster.submitted) == 1 and place.steps() == {"starts": 1, "steps": 20}


def test_a_cut_network_ends_nothing_when_it_is_back_within_the_lease(tmp_path: Path) -> None:
    place = Place(tmp_path, held_at(10), lease_s=20.0)
    handle = place.started()
    until(lambda: place.steps()["steps"] >= 3)
    with cut(place):
        place.go()
        assert handle.wait(3.0) is None
    assert place.ended(handle).code == 0
    assert len(place.cluster.submitted) == 1 and place.steps() == {"starts": 1, "steps": 20}


@pytest.mark.parametrize("cluster", [True, False])
def test_a_node_that_is_lost_behind_a_cut_is_replaced_when_it_is_mended(tmp_path: Path, cluster: bool) -> None:
    place = Place(tmp_path, held_at(10), lease_s=8.0)
    handle = place.started()
    until(lambda: place.steps()["steps"] >= 3)
    with cut(place, cluster=cluster):
        place.lose()
        assert handle.wait(9.0 if cluster else 4.0) is None, "nobody can tell now"
    assert place.ended(handle).code == 0 and place.steps() == {"starts": 2, "steps": 20}
    granted = json.loads((place.folder / "remote" / "grant.json").read_text())
    assert (granted["attempt"], granted["lost"]) == (2, 1), "the second attempt, and not the first one once more"


def test_a_controller_that_comes_back_behind_a_cut_starts_nothing_anew(tmp_path: Path) -> None:
    place = Place(tmp_path, held_at(10), lease_s=20.0)
    first = place.started()
    until(lambda: place.steps()["steps"] >= 3)
    with cut(place):
        again = place.opened().start(place.folder, LIMITS)
        assert again.wait(1.0) is None, "nobody can tell now"
        assert attempt_of(place.folder).name == "1" and (work_of(place.folder) / "state.json").exists()
    place.go()
    found = again.wait(120)
    assert found is not None and found.code == 0 and steps_of(place.folder) == {"starts": 1, "steps": 20}
    assert place.cluster.submitted == [first.name]


def test_an_engine_is_closed_behind_a_cut(tmp_path: Path) -> None:
    place = Place(tmp_path, held_at(10))
    handle = place.started()
    until(lambda: place.steps()["steps"] >= 3)
    place.lose()
    with cut(place):
        place.engine.close()
    assert not place.cluster.alive(handle.name)


def test_the_cluster_of_the_chaos_is_away_while_it_is_told_to_be(tmp_path: Path) -> None:
    spec = EngineSpec(kind="chaos", address=str(tmp_path), workers=1, threads=1)
    engine = ShakyEngine()
    (tmp_path / AWAY).touch()
    with pytest.raises(UserError, match="does not answer"):
        engine.open(spec)
    (tmp_path / AWAY).unlink()
    engine.open(spec)
    (tmp_path / "a.json").touch()
    (tmp_path / "a").write_text("1")
    cluster = Shaky(tmp_path)
    assert cluster.names() == ["a"]
    cluster.forget()
    assert cluster.names() == [] and not list(tmp_path.iterdir())
    engine.close()


def test_what_a_cluster_said_is_not_written_through_a_link_of_the_job(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    program = """
import subprocess, sys, time
subprocess.run(["ln", "-sf", sys.argv[2], "log.txt"], cwd=sys.argv[1], check=True)
time.sleep(100)
"""
    place = Place(tmp_path, program.replace("sys.argv[2]", repr(str(tmp_path / "mine"))), retries=0)
    handle = place.started()
    until(lambda: handle.wait(0.1) is not None or (work_of(place.folder) / "log.txt").is_symlink())
    place.cluster.lose(handle.name)
    assert place.ended(handle).cause == "lost"
    assert (tmp_path / "mine").read_text() == "mine" and "left no result" in said(place.folder)
    place.engine.close()
