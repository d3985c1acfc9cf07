"""The engine over a cluster, on a cluster of real processes: the contract of engines, and what can go wrong."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator

import psutil
import pytest

from postgrad.engines.base import Engine, Exit
from postgrad.engines.hardware import cpu_kind
from postgrad.engines.remote import engine as engine_module
from postgrad.engines.remote.cluster import Capacity
from postgrad.engines.remote.engine import RemoteEngine, RemoteHandle
from postgrad.engines.remote.exchange import Shared
from postgrad.engines.remote.lease import Beat, Ended, Lease, read, write
from postgrad.records import EngineSpec, Hardware, Limits, Usage
from postgrad.testing.engine import EngineContract, until
from postgrad.testing.nodes import Processes

LIMITS = Limits(wall_s=60, memory_mb=1000, threads=1)


def work_of(folder: Path) -> Path:
    """Where the last attempt at a job runs."""
    found = sorted((folder / "remote").glob("[0-9]*"), key=lambda path: int(path.name))
    return found[-1] / "work" / folder.name if found else folder


def attempt_of(folder: Path) -> Path:
    """The folder of the last attempt at a job."""
    return work_of(folder).parent.parent


class TestRemoteEngine(EngineContract):
    def make(self, program: Path) -> Engine:
        return RemoteEngine(Processes(program.parent / "cluster"), (sys.executable, str(program)))

    def inside(self, folder: Path) -> Path:
        return work_of(folder)


# --- what can go wrong ------------------------------------------------------------------------------------------------

# Counts its starts and its steps; goes on where an attempt before it stopped.
STEPS = """
import json, os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
state = folder / "state.json"
done = json.loads(state.read_text()) if state.exists() else {"starts": 0, "steps": 0}
def keep():
    part = folder / "state.part"
    part.write_text(json.dumps(done)); part.replace(state)
done["starts"] += 1
keep()
while done["steps"] < 20:
    if (folder / "hold").exists():
        time.sleep(0.05)
        continue
    time.sleep(0.05)
    done["steps"] += 1
    keep()
(folder / "result").write_text("whole")
"""


def held_at(step: int, program: str = STEPS) -> str:
    """The program, whose first start gets no further than a step until it finds `go`: what is done to it in between
    comes before its end, however slow this machine is."""
    held = f'done["starts"] == 1 and done["steps"] == {step} and not (folder / "go").exists()'
    return program.replace('(folder / "hold").exists()', held)


def held_each_time(steps: int, program: str = STEPS) -> str:
    """The same, each of whose starts but the last one goes so many steps further."""
    return program.replace('(folder / "hold").exists()', f'done["steps"] == {steps} * done["starts"]')


def steps_of(folder: Path) -> dict[str, int]:
    """How often the job in a folder was begun, and how far it came."""
    for place in (work_of(folder), folder):
        if (place / "state.json").exists():
            found: dict[str, int] = json.loads((place / "state.json").read_text())
            return found
    return {"starts": 0, "steps": 0}


class Place:
    """A job on a cluster, which was begun."""

    def __init__(self, tmp_path: Path, program: str = STEPS, **spec: float) -> None:
        self.program = tmp_path / "program.py"
        self.program.write_text(program)
        self.cluster = Processes(tmp_path / "cluster")
        self.spec = EngineSpec.model_validate({"workers": 2, "threads": 1, "lease_s": 10.0, **spec})
        self.folder = tmp_path / "job"
        self.folder.mkdir()
        self.limits = LIMITS
        self.engine = self.opened()

    def opened(self) -> RemoteEngine:
        engine = RemoteEngine(self.cluster, (sys.executable, str(self.program)))
        engine.open(self.spec)
        return engine

    def started(self) -> RemoteHandle:
        handle = self.engine.start(self.folder, self.limits)
        assert isinstance(handle, RemoteHandle)
        return handle

    def steps(self) -> dict[str, int]:
        return steps_of(self.folder)

    def go(self) -> None:
        """Let the last attempt go on to its end."""
        (work_of(self.folder) / "go").touch()

    def beat(self) -> Beat | None:
        """What the last attempt said last."""
        return read(Shared(attempt_of(self.folder)), "beat.json", Beat)

    def lose(self) -> None:
        """Lose the node of the last attempt; nothing of it writes any more."""
        name = self.cluster.submitted[-1]
        self.cluster.lose(name)
        until(lambda: not self.cluster.alive(name))

    def ended(self, handle: RemoteHandle, patience_s: float = 120) -> Exit:
        found = handle.wait(patience_s)
        assert found is not None, "it did not end"
        return found


def said(folder: Path) -> str:
    log = folder / "log.txt"
    return log.read_text() if log.exists() else ""


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """A file that can be seen, and not be read. At no moment is there none, which would say something else."""
    kept, folder = path.with_name("kept"), path.with_name("away")
    os.link(path, kept)
    folder.symlink_to(".")
    folder.replace(path)
    yield
    kept.replace(path)


def begun(place: Place, handle: RemoteHandle, number: int) -> None:
    """Wait until a node has taken this attempt at the job."""
    until(lambda: handle.wait(0.1) is not None or len(place.cluster.submitted) == number)
    until(lambda: (attempt_of(place.folder) / "lease.json").exists())


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster on this machine says at once what became of a job."""
    monkeypatch.setattr(engine_module, "GRACE_S", 1.0)
    monkeypatch.setattr(engine_module, "ASK_S", 0.2)


def test_a_lost_node_is_replaced_and_the_job_goes_on_where_it_was(tmp_path: Path) -> None:
    place = Place(tmp_path, held_at(10))
    handle = place.started()
    until(lambda: (beat := place.beat()) is not None and beat.usage.wall_s > 0.0 and place.steps()["steps"] >= 5)
    place.lose()
    first = place.beat()
    found = place.ended(handle)
    assert (found.code, found.cause) == (0, None)
    assert (place.folder / "result").read_text() == "whole"
    assert place.steps() == {"starts": 2, "steps": 20}, "nothing was done twice"
    assert len(place.cluster.submitted) == 2
    second = read(Shared(attempt_of(place.folder)), "exit.json", Ended)
    assert first is not None and second is not None
    assert first.usage.wall_s > 0.0, "both attempts are paid for"
    assert found.usage.wall_s == pytest.approx(first.usage.wall_s + second.usage.wall_s)
    place.engine.close()


def test_what_made_the_results_is_told_apart_from_what_was_lost(tmp_path: Path) -> None:
    place = Place(tmp_path, held_at(10))
    place.limits = LIMITS.model_copy(update={"anew": True})
    handle = place.started()
    until(lambda: place.steps()["steps"] >= 5)
    place.lose()
    beat = attempt_of(place.folder) / "beat.json"
    write(
        Shared(beat.parent),
        beat.name,
        Beat(count=99, usage=Usage(wall_s=50.0, hardware=(Hardware(cpu="another kind"),))),
    )
    begun(place, handle, 2)
    place.go()
    found = place.ended(handle)
    assert found.code == 0 and place.steps() == {"starts": 1, "steps": 20}, "nothing was left to the second attempt"
    assert found.usage.wall_s > 50.0 and [each.cpu for each in found.usage.hardware] == ["another kind", cpu_kind()]
    assert [each.cpu for each in found.made_on] == [cpu_kind()]
    place.engine.close()


def test_what_begins_anew_each_time_is_not_begun_for_ever(tmp_path: Path) -> None:
    place = Place(tmp_path, "import time\ntime.sleep(60)", retries=20)
    place.limits = LIMITS.model_copy(update={"anew": True})
    handle = place.started()
    for number in (1, 2, 3):
        begun(place, handle, number)
        place.lose()
        write(Shared(attempt_of(place.folder)), "beat.json", Beat(count=99, usage=Usage(wall_s=1.2 * LIMITS.wall_s)))
    found = place.ended(handle)
    assert (found.cause, len(place.cluster.submitted)) == ("lost", 3) and found.usage.wall_s > 3.0 * LIMITS.wall_s
    assert "begin anew" in said(place.folder)
    place.engine.close()


def test_a_node_that_was_lost_is_left_out_for_a_while_unless_there_is_no_other(tmp_path: Path) -> None:
    place = Place(tmp_path, held_at(10))
    handle = place.started()
    until(lambda: place.steps()["steps"] >= 2)
    lost = attempt_of(place.folder)
    place.cluster.lose(handle.name)
    until(lambda: handle.wait(0.1) is not None or len(place.cluster.submitted) == 2)
    assert place.cluster.avoided == [(), ()], "the cluster has one node alone"
    assert lost != attempt_of(place.folder)
    engine, now = place.engine, time.monotonic()
    engine._capacity = Capacity(nodes=3)
    for node in ("a", "b", "c", "a"):
        engine.avoid(node)
    assert engine.avoided(now) == ("a", "c"), "the last ones, and one is left"
    assert engine.avoided(now + engine_module.AVOID_S + 60) == ()
    place.engine.close()


def test_a_job_whose_nodes_are_always_lost_ends_with_what_is_known(tmp_path: Path) -> None:
    place = Place(tmp_path, "print('the last words'); import os, time; time.sleep(100)", retries=1)
    handle = place.started()
    for number in (1, 2):
        begun(place, handle, number)
        until(lambda: "the last words" in said(work_of(place.folder)))
        place.cluster.lose(handle.name)
    found = place.ended(handle)
    assert found.cause == "lost" and len(place.cluster.submitted) == 2
    assert "the last words" in said(place.folder) and "left no result" in said(place.folder)
    place.engine.close()


def test_a_frozen_node_is_given_up_and_writes_nothing_when_it_is_back(tmp_path: Path) -> None:
    place = Place(tmp_path, held_at(10), lease_s=4.0)
    handle = place.started()
    until(lambda: place.steps()["steps"] >= 3)
    first, old = handle.name, attempt_of(place.folder)
    place.cluster.freeze(first)
    until(lambda: handle.wait(0.1) is not None or len(place.cluster.submitted) == 2)
    place.cluster.freeze(first, signal.SIGCONT)
    found = place.ended(handle)
    assert (found.code, found.cause) == (0, None) and place.steps()["steps"] == 20
    until(lambda: not place.cluster.alive(first))
    assert not (old / "exit.json").exists(), "its token does not count any more"
    place.engine.close()


def test_a_controller_that_was_killed_finds_its_job(tmp_path: Path) -> None:
    place = Place(tmp_path, held_at(10))
    first = place.started()
    until(lambda: place.steps()["steps"] >= 3)
    place.engine = place.opened()
    second = place.started()
    assert second.name == first.name and len(place.cluster.submitted) == 1
    place.go()
    assert place.ended(second).code == 0 and place.steps() == {"starts": 1, "steps": 20}
    third = place.opened().start(place.folder, LIMITS)
    assert third.wait(60) is not None and len(place.cluster.submitted) == 1, "also one that has ended meanwhile"


def test_a_controller_killed_between_grant_and_submission_submits_once(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.cluster.reachable = False
    place.started()
    assert place.cluster.submitted == []
    place.engine = place.opened()
    handle = place.started()
    place.cluster.reachable = True
    assert place.ended(handle).code == 0
    assert len(place.cluster.submitted) == 1 and place.steps()["starts"] == 1


def test_a_node_where_python_starts_slowly_is_waited_for(tmp_path: Path) -> None:
    slow = tmp_path / "python"
    slow.write_text(f'#!/bin/sh\nsleep 3\nexec {sys.executable} "$@"\n')
    slow.chmod(0o755)
    place = Place(tmp_path, lease_s=1.0)
    place.spec = place.spec.model_copy(update={"python": str(slow)})
    place.engine = RemoteEngine(place.cluster, ("/usr/bin/env", sys.executable, str(place.program)))
    place.engine.open(place.spec)
    handle = place.started()
    until(lambda: handle.wait(0.1) is not None or (place.folder / "remote" / "1" / "lease.json").exists())
    assert len(place.cluster.submitted) == 1
    handle.stop()


def test_a_node_that_was_seen_to_take_a_job_has_time_for_its_first_sign_of_life(tmp_path: Path) -> None:
    """However long it was waited for: each moment here is one of the clock that the controller goes by."""
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 100\n")
    slow.chmod(0o755)
    place = Place(tmp_path, lease_s=6.0)
    place.spec = place.spec.model_copy(update={"python": str(slow)})
    place.engine = RemoteEngine(place.cluster, ("/usr/bin/env", sys.executable, str(place.program)))
    place.engine.open(place.spec)
    handle = place.started()
    began = time.monotonic()
    handle._look(began + 90.0)
    assert len(place.cluster.submitted) == 1, "Python starts"
    write(Shared(attempt_of(place.folder)), "lease.json", Lease(node="here", pid=1))
    for later in (91.0, 96.0):
        handle._look(began + later)
        assert len(place.cluster.submitted) == 1
    handle._look(began + 98.0)
    assert len(place.cluster.submitted) == 2, "it said nothing for a lease"
    handle.stop()


def test_a_job_that_is_delivered_twice_runs_once(tmp_path: Path) -> None:
    place = Place(tmp_path, held_at(10))
    place.engine.grace_s = 60.0  # The cluster says what became of the second one.
    handle = place.started()
    until(lambda: place.steps()["steps"] >= 1)
    os.remove(place.cluster.folder / handle.name)
    (attempt,) = [handle._attempt]
    assert place.cluster.deliver(place.engine.request(attempt, LIMITS))
    until(lambda: "delivered twice" in (attempt.folder / "node.log").read_text())
    place.go()
    assert place.ended(handle).code == 0 and place.steps() == {"starts": 1, "steps": 20}


def test_a_cluster_out_of_reach_is_waited_for(tmp_path: Path) -> None:
    place = Place(tmp_path, held_at(10))
    handle = place.started()
    until(lambda: place.steps()["steps"] >= 1)
    place.cluster.reachable = False
    place.go()
    assert place.ended(handle).code == 0, "what counts is the lease"
    assert len(place.cluster.submitted) == 1


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_shared_folder_that_is_away_for_a_moment_ends_nothing(tmp_path: Path, at_the_end: bool) -> None:
    reached = 18 if at_the_end else 3
    place = Place(tmp_path, held_at(reached), lease_s=30.0)
    handle = place.started()
    until(lambda: place.steps()["steps"] == reached)
    with unreadable(place.folder / "remote" / "grant.json"):
        if at_the_end:
            place.go()  # Else it works on, and has signs of life to give.
            until((work_of(place.folder) / "result").exists)
        time.sleep(4.0)
    place.go()
    assert place.ended(handle).code == 0
    assert len(place.cluster.submitted) == 1 and place.steps() == {"starts": 1, "steps": 20}


def test_preemption_keeps_what_was_done_and_goes_on(tmp_path: Path) -> None:
    place = Place(tmp_path, held_each_time(5), retries=1)
    handle = place.started()
    for number in (1, 2, 3):
        begun(place, handle, number)
        until(lambda: place.steps()["starts"] == len(place.cluster.submitted))
        place.cluster.cancel(handle.name)
    found = place.ended(handle)
    assert (found.code, found.cause) == (0, None), "preemptions are no losses: more of them than retries"
    assert place.steps() == {"starts": 4, "steps": 20}


def test_a_node_that_the_cluster_takes_at_once_is_no_fault_of_the_node(tmp_path: Path) -> None:
    place = Place(tmp_path, held_at(10), retries=0)
    place.cluster.preempts = True
    handle = place.started()
    until(lambda: place.steps()["steps"] >= 1)
    place.lose()
    assert place.ended(handle).code == 0 and place.steps()["steps"] == 20
    granted = json.loads((place.folder / "remote" / "grant.json").read_text())
    assert (granted["preempted"], granted["lost"]) == (1, 0)


# Some clusters signal every process of a job at once: it ends without being asked by its node.
WAITS = "import sys, time; from pathlib import Path; (Path(sys.argv[1]) / 'ready').touch(); time.sleep(100)"


def test_a_job_that_is_signalled_beside_its_node_was_preempted(tmp_path: Path) -> None:
    place = Place(tmp_path, WAITS)
    handle = place.started()
    until(lambda: handle.wait(0.1) is not None or (work_of(place.folder) / "ready").exists())
    for process in place.cluster.tree(handle.name):
        with suppress(psutil.Error):
            process.terminate()
    until(lambda: handle.wait(0.1) is not None or len(place.cluster.submitted) == 2)
    granted = json.loads((place.folder / "remote" / "grant.json").read_text())
    assert (granted["preempted"], granted["lost"]) == (1, 0)
    handle.stop()


def test_a_stopped_job_is_gone_and_goes_on_when_it_is_started_again(tmp_path: Path) -> None:
    place = Place(tmp_path, held_at(10))
    handle = place.started()
    until(lambda: place.steps()["steps"] >= 3)
    handle.stop()
    assert place.ended(handle).cause == "stopped" and not place.cluster.alive(handle.name)
    before = place.steps()["steps"]
    assert 3 <= before < 20
    again = place.started()
    assert place.ended(again).code == 0 and place.steps() == {"starts": 2, "steps": 20}


def test_a_node_without_postgrad_is_told_in_the_clusters_words(tmp_path: Path) -> None:
    place = Place(tmp_path, retries=0)
    place.spec = place.spec.model_copy(update={"python": "/bin/false"})
    place.engine = place.opened()
    found = place.ended(place.started())
    assert found.cause == "lost" and "left no result" in (place.folder / "log.txt").read_text()


def test_a_job_that_is_called_off_while_it_waits_does_not_begin(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.cluster.reachable = False
    handle = place.started()
    request = place.engine.request(handle._attempt, LIMITS)
    handle.stop()
    place.cluster.reachable = True
    place.cluster.deliver(request)
    until(lambda: not place.cluster.alive(handle.name))
    log = Path(request.log).read_text()
    assert "called off" in log and not (attempt_of(place.folder) / "lease.json").exists()


def test_a_job_in_a_sandbox_that_is_signalled_as_a_whole_can_clean_up(tmp_path: Path) -> None:
    place = Place(
        tmp_path,
        """
import signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def clean(number, frame):
    (folder / "clean").touch()
    sys.exit(3)
signal.signal(signal.SIGTERM, clean)
(folder / "ready").touch()
time.sleep(100)
""",
        retries=0,
    )
    handle = place.started()
    until(lambda: (work_of(place.folder) / "ready").exists())
    first = attempt_of(place.folder)
    place.cluster.signal_all(handle.name)
    until(lambda: not place.cluster.alive(handle.name))
    assert (first / "work" / "job" / "clean").exists()
    place.engine.close()
