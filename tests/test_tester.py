"""Tests of the leader in the middle of a search: what goes on while one trains, and where its result is taken in."""

from __future__ import annotations

from pathlib import Path

import pytest

from postgrad.bench.landscapes import landscape
from postgrad.bench.scale_cluster import SimulatedExecutor, SimulatedJob
from postgrad.bench.scale_run import Case, Run
from postgrad.evaluate.statistics import judge
from postgrad.events import Analysed, Event, SearchEnded
from postgrad.events import TestBegun as Begun
from postgrad.events import Tested as Ended
from postgrad.execute.executor import Inputs
from postgrad.records import JobSpec
from postgrad.store.sqlite import SqliteStore

EXPERIMENTS = 30
AGES = 10_000.0


class CutOff(RuntimeError):
    pass


@pytest.fixture(autouse=True)
def eager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever leads is tested, and soon. Recipes name the base model by its folder, and chance goes by recipes."""
    monkeypatch.setattr(judge, "TEST_POWER", 0.0)
    monkeypatch.setattr(judge, "TEST_SHARE", 0.2)
    monkeypatch.chdir(tmp_path)


def played(workers: int, stop: int | None = None) -> list[Event]:
    """The log of a run; one that is cut off after so many events is closed where it stands."""

    def listen(event: Event) -> None:
        if event.seq == stop:
            raise CutOff

    run = Run(Path("run"), Case("greedy", landscape("additive")(0), workers, EXPERIMENTS), listen)
    if stop is None:
        run.play()
    else:
        with pytest.raises(CutOff):
            run.play()
    with SqliteStore.open(run.store.folder, write=False) as store:
        return list(store.events())


def slow_tests(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Trainings of a test take so much longer."""
    start = SimulatedExecutor.start

    def slow(self: SimulatedExecutor, spec: JobSpec, inputs: Inputs) -> SimulatedJob:
        job = start(self, spec, inputs)
        if "-select-" in spec.job:
            job._ends_at += seconds
            self.cluster.clock.expect(job._ends_at)
        return job

    patch.setattr(SimulatedExecutor, "start", slow)


def decisions(events: list[Event]) -> list[object]:
    """What has to be the same whichever job was faster, in order."""
    return [e.body for e in events if isinstance(e.body, Analysed | Begun | Ended | SearchEnded)]


def spans(events: list[Event]) -> list[tuple[Begun, int, int, bool]]:
    """(begun, experiments ended then, experiments ended at the result, no more followed) of each test of the search."""
    found, ended, begun = [], 0, None
    total = sum(isinstance(event.body, Analysed) for event in events)
    last = next(place for place, event in enumerate(events) if isinstance(event.body, SearchEnded))
    for event in events[:last]:
        ended += isinstance(event.body, Analysed)
        if isinstance(event.body, Begun):
            assert begun is None, "one at a time"
            begun = (event.body, ended)
        elif isinstance(event.body, Ended):
            assert begun is not None and begun[0].experiment == event.body.experiment
            found.append((*begun, ended, ended == total))
            begun = None
    assert begun is None, "every test that began has a result"
    return found


@pytest.mark.parametrize("workers", [1, 8])
def test_a_result_is_taken_in_when_it_is_due_however_long_its_trainings_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    quick = played(workers)
    found = spans(quick)
    assert len(found) >= 2
    for begun, before, after, at_the_end in found:
        assert begun.due == before + 2 * (workers - 1)
        assert after == begun.due or at_the_end
    monkeypatch.chdir(_folder(tmp_path / "slow"))
    slow_tests(monkeypatch, AGES)
    assert decisions(played(workers)) == decisions(quick)


def test_experiments_end_while_a_test_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    slow_tests(monkeypatch, AGES)
    events = played(4)
    first = next(place for place, event in enumerate(events) if isinstance(event.body, Begun))
    select = [e for e in events[first:] if e.body.type == "job_finished" and e.body.purpose == "select"]
    between = [e for e in events[first:] if isinstance(e.body, Analysed) and e.seq < select[0].seq]
    assert len(between) == 2 * (4 - 1), "all that could be open beside it, and nothing more"


@pytest.mark.parametrize("after", [0, 1, 4])
def test_killed_while_a_test_is_under_way_the_run_goes_on_to_the_same_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    plain = played(8)
    begun = [event.seq for event in plain if isinstance(event.body, Begun)]
    monkeypatch.chdir(_folder(tmp_path / "killed"))
    played(8, stop=begun[1] + after)
    assert decisions(played(8)) == decisions(plain)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
