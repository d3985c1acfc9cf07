"""What a run has stored and lost is made again from its recipe, or is missing with a message; a clock that jumps and a
disk that is full for a moment change nothing."""

from __future__ import annotations

import os
import resource
import shutil
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from postgrad.bench.chaos import checks
from postgrad.bench.overhead import SimulatedEngine
from postgrad.budget import Ledger
from postgrad.errors import PostgradError
from postgrad.events import Event, Rebuilt
from postgrad.records import Budget, Guard, Usage
from postgrad.runner import drive, opened, resume_event, start_run
from postgrad.session import Job
from postgrad.spending import unbounded
from postgrad.store.artifacts import Artifacts
from postgrad.store.sqlite import SqliteStore
from test_loop import fresh, outline, run_in_child, small_task


def driven(folder: Path, engine: Any = None) -> tuple[Event, ...]:
    with opened(SqliteStore.open(folder, write=True), engine=engine or SimulatedEngine()) as session:
        drive(session)
        return session.store.events()


def outlined(folder: Path) -> str:
    with SqliteStore.open(folder, write=False) as store:
        return outline(store)


def rebuilt(events: tuple[Event, ...]) -> list[Rebuilt]:
    return [event.body for event in events if isinstance(event.body, Rebuilt)]


def forget(folder: Path, names: set[str]) -> None:
    for name in names:
        Artifacts(folder / "artifacts").path(name).unlink(missing_ok=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended."""
    folder = fresh(tmp_path_factory.mktemp("whole"))
    driven(folder)
    return folder


# --- lost artefacts ---------------------------------------------------------------------------------------------------


def test_everything_that_a_finished_run_had_stored_is_made_again(tmp_path: Path) -> None:
    folder = fresh(tmp_path, guards=(Guard(metric="accuracy", min=0.0),))
    before = driven(folder)
    expected, there = outlined(folder), {path for path in (folder / "artifacts").glob("??/*")}
    for path in there:
        path.unlink()
    events = driven(folder)
    found = rebuilt(events)
    assert found and not any(body.lost for body in found)
    store = Artifacts(folder / "artifacts")
    assert all(store.verify(name) for name in checks.named(before)) and there <= set(
        (folder / "artifacts").glob("??/*")
    )
    assert outlined(folder) == expected, "and nothing of the run is another"
    jobs = [body.job for body in found if body.job]
    assert len(jobs) == len(set(jobs)) and checks.order(events) == [] and checks.repeated(events) == []


@pytest.mark.parametrize("kill_after", [12, 25])
def test_a_run_that_was_killed_and_lost_what_it_had_goes_on(whole: Path, tmp_path: Path, kill_after: int) -> None:
    folder = fresh(tmp_path)
    run_in_child(folder, kill_after)
    with SqliteStore.open(folder, write=False) as store:
        names = checks.named(store.events())
    forget(folder, names)
    events = driven(folder)
    assert rebuilt(events) and outlined(folder) == outlined(whole)


def test_a_job_that_is_repeated_is_bound_by_no_budget_that_is_spent(tmp_path: Path) -> None:
    folder = fresh(tmp_path, experiment=Budget(cpu_hours=0.001))
    driven(folder)
    with opened(SqliteStore.open(folder, write=True), engine=SimulatedEngine()) as session:
        body = next(each for each in session.finished.values() if each.purpose == "search")
        recipe = session.tree[body.experiment].proposed.proposal.recipe
        bound = session.job_spec(Job(body.experiment, "search", session.plan.search, recipe, 0))
        assert bound.limits.allowed is not None, "what is left of its experiment's budget"
        free = unbounded(bound, session)
        assert (free.limits.allowed, free.limits.wall_s) == (None, session.task.engine.job_wall_s)


def test_what_making_it_again_costs_is_charged_and_counts_as_no_job(tmp_path: Path) -> None:
    folder = fresh(tmp_path)
    before = Ledger.from_events(Budget(), driven(folder)).spent
    (lost,) = [e.body for e in driven(folder) if e.body.type == "job_finished" and e.body.result.model]
    forget(folder, {lost.result.units[0].outputs})
    events = driven(folder)
    after, (found,) = Ledger.from_events(Budget(), events).spent, rebuilt(events)
    assert found.job == lost.job and found.usage.cpu_s > 0
    assert after.cpu_s == pytest.approx(before.cpu_s + found.usage.cpu_s)
    assert (after.jobs, after.failures, after.experiments) == (before.jobs, before.failures, before.experiments)
    assert checks.account(events)["cpu_s"] == pytest.approx(after.cpu_s)


def test_what_comes_out_otherwise_is_lost_for_good_and_says_so(tmp_path: Path) -> None:
    class Moody(SimulatedEngine):
        """Trains another model each time."""

        def _unit(self, folder: Path, spec: Any, name: str, predict: str, seed: int, skill: float) -> Any:
            return super()._unit(folder, spec, name, predict, seed + 1, skill)

    folder = fresh(tmp_path)
    events = driven(folder)
    (final,) = [e.body for e in events if e.body.type == "job_finished" and e.body.result.model]
    forget(folder, {final.result.model or ""})
    shutil.rmtree(folder / "model")
    with pytest.raises(PostgradError, match="missing.*start a new run"):
        driven(folder, Moody())
    with SqliteStore.open(folder, write=False) as store:
        (found,) = rebuilt(store.events())
    assert found.lost == (final.result.model,) and found.artefacts == ()
    with pytest.raises(PostgradError, match="missing"):
        driven(folder)
    with SqliteStore.open(folder, write=False) as store:
        assert len(rebuilt(store.events())) == 1, "no second training is spent on it"


def test_a_real_model_that_is_lost_is_the_same_again(tmp_path: Path) -> None:
    with opened(start_run(small_task(tmp_path), tmp_path / "runs")) as session:
        drive(session)
        folder = session.store.folder
        answers = {path.name: path.read_bytes() for path in (folder / "model").iterdir()}
        (final,) = [body for body in session.finished.values() if body.result.model]
    lost = final.result.model or ""
    forget(folder, {lost, *(Artifacts(folder / "artifacts")._manifest(lost) or {}).values()})
    shutil.rmtree(folder / "model")
    with opened(SqliteStore.open(folder, write=True)) as session:
        drive(session)
        assert session.store.artifacts.verify(lost)
    assert {path.name: path.read_bytes() for path in (folder / "model").iterdir()} == answers


def test_usage_of_a_rebuild_is_no_time_of_the_wall() -> None:
    body = Rebuilt(artefacts=("a",), usage=Usage(wall_s=5.0, cpu_s=3.0, gpu_s=2.0, usd=1.0, max_rss_mb=7.0))
    spent = Ledger().with_event(Event(seq=1, at=0.0, clock=1.5, body=body)).spent
    assert (spent.wall_s, spent.cpu_s, spent.gpu_s, spent.usd, spent.max_rss_mb) == (1.5, 3.0, 2.0, 1.0, 7.0)
    assert spent.jobs == 0


# --- the clock and the disk -------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_changes_nothing(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, real, began = Random(1), time.time, time.monotonic()
    monkeypatch.setattr(time, "time", lambda: real() + rng.uniform(-1e7, 1e7))
    folder = fresh(tmp_path)
    events = driven(folder)
    assert [event.at for event in events] != sorted(event.at for event in events), "it did jump"
    assert outlined(folder) == outlined(whole)
    clocks = [event.clock for event in events]
    assert clocks == sorted(clocks) and clocks[-1] <= time.monotonic() - began


def full_after(folder: Path, number: int) -> str:
    """Drive a run in a process whose files cannot grow from event `number` on; what it stopped with."""
    said = folder.parent / f"said-{number}"
    pid = os.fork()
    if pid == 0:

        def listen(event: Event) -> None:
            if event.seq == number:
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))

        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        message = ""
        try:
            with opened(SqliteStore.open(folder, write=True), listen, SimulatedEngine()) as session:
                drive(session)
        except PostgradError as problem:
            message = str(problem)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            said.write_text(message)
            os._exit(0)
    os.waitpid(pid, 0)
    return said.read_text()


@pytest.mark.parametrize("number", [3, 10, 17, 30])
def test_a_disk_that_is_full_for_a_moment_stops_with_a_message(whole: Path, tmp_path: Path, number: int) -> None:
    folder = fresh(tmp_path)
    said = full_after(folder, number)
    assert "postgrad resume" in said and ("is lost" in said), said
    with SqliteStore.open(folder, write=True) as store:
        resume_event(store, None, "")
    events = driven(folder)
    assert outlined(folder) == outlined(whole)
    assert checks.order(events) == [] and checks.repeated(events) == []
