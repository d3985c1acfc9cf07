"""Chaos: runs of real jobs by the command line, on this machine and on a cluster of processes, while things break. The
version of half an hour is `postgrad bench chaos`."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from postgrad.bench.base import BenchSpec
from postgrad.bench.chaos import checks
from postgrad.bench.chaos.benchmark import Chaos, facts, table, told, undisturbed
from postgrad.bench.chaos.faults import LOCAL, REMOTE, Fault, drawn, kinds_of
from postgrad.bench.chaos.play import Alone, Play, Played
from postgrad.bench.chaos.scene import Scene
from postgrad.bench.chaos.scripted import in_step
from postgrad.bench.chaos.strikes import Strikes
from postgrad.bench.chaos.watch import Watch
from postgrad.errors import UserError
from postgrad.events import Event
from postgrad.records import Failure
from postgrad.store.sqlite import EVENTS, SqliteStore
from test_loop import fresh
from test_rebuild import driven


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """How the run ends that nothing strikes."""
    return undisturbed(tmp_path_factory.mktemp("alone") / "run")


def play(folder: Path, seed: str, remote: bool, alone: Alone, faults: tuple[Fault, ...]) -> Played:
    found = Play(Scene(folder, remote), faults, seed, alone).run()
    assert found.wrong == [], told(0, found)
    assert found.struck and found.end == "whole", told(0, found)
    return found


@pytest.mark.parametrize("remote", [False, True])
def test_a_run_under_faults_is_whole(tmp_path: Path, alone: Alone, remote: bool) -> None:
    faults = drawn("ci/0", REMOTE if remote else LOCAL, 10)
    assert play(tmp_path / "chaos", "ci/0", remote, alone, faults).resumes


@pytest.mark.parametrize("remote", [False, True])
def test_a_run_on_a_script_under_faults_is_whole(tmp_path: Path, remote: bool) -> None:
    alone = undisturbed(tmp_path / "alone", script=True)
    kinds = kinds_of(remote=remote, script=True)
    found = Play(Scene(tmp_path / "chaos", remote, script=True), drawn("ci/2", kinds, 8), "ci/2", alone).run()
    assert found.wrong == [] and found.end == "whole", told(0, found)
    assert found.struck["controller_killed"] and found.resumes, told(0, found)


def test_commits_that_are_out_of_step_are_found(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "chaos", remote=False, script=True, experiments=3)
    assert Play(scene, ()).run().wrong == []
    with SqliteStore.open(scene.run, write=False) as store:
        events = store.events()
    assert in_step(scene.run, events) == []
    branches = scene.run / "repo" / "refs" / "heads" / "postgrad" / scene.run.name
    (branches / "e0001.lock").touch()
    assert [each for each in in_step(scene.run, events) if "e0001.lock" in each]
    (branches / "e0001.lock").unlink()
    (branches / "e0001").rename(branches / "e0009")
    assert {"e0001 has no commit of its own, or one too many", "e0009 is a commit of no experiment"} <= set(
        in_step(scene.run, events)
    )


def test_only_controllers_are_killed_and_nobody_sees_it(tmp_path: Path, alone: Alone) -> None:
    kinds = {"controller_killed": 3, "delivered_twice": 1, "cluster_away": 1, "clock_jump": 1}
    found = play(tmp_path / "chaos", "ci/1", True, alone, drawn("ci/1", kinds, 8))
    assert found.same and not found.failed_jobs


# --- the schedule -----------------------------------------------------------------------------------------------------


def test_a_seed_decides_what_strikes_and_when() -> None:
    assert drawn("1", REMOTE, 50) == drawn("1", REMOTE, 50) != drawn("2", REMOTE, 50)
    assert {fault.kind for fault in drawn("1", REMOTE, 400)} == set(REMOTE)
    assert set(LOCAL) < set(REMOTE)
    for fault in drawn("1", REMOTE, 50):
        assert fault.kind == "controller_killed" or hasattr(Strikes, f"_{fault.kind}")
        assert 0 <= fault.of(3) < 3 and abs(fault.jump_s) <= 3.6e6


def test_the_benchmark_refuses_an_engine_that_it_does_not_know(tmp_path: Path) -> None:
    options = {name: default for name, (default, _) in Chaos.options.items()}
    spec = BenchSpec(quick=True, folder=tmp_path, command="", options={**options, "engine": "slurm"})
    with pytest.raises(UserError, match="local, cluster or both"):
        Chaos().run(spec, print)
    spec = BenchSpec(quick=True, folder=tmp_path, command="", options={**options, "task": "words"})
    with pytest.raises(UserError, match="labels, script or both"):
        Chaos().run(spec, print)


# --- the checks find what is wrong ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Event, ...]]:
    folder = fresh(tmp_path_factory.mktemp("run"))
    return folder, driven(folder)


def again(events: tuple[Event, ...], kind: str) -> list[Event]:
    """The events with one of a kind doubled."""
    at = next(number for number, event in enumerate(events) if event.body.type == kind)
    return [*events[: at + 1], events[at], *events[at + 1 :]]


def without(events: tuple[Event, ...], kind: str) -> list[Event]:
    first = next(event for event in events if event.body.type == kind)
    return [event for event in events if event is not first]


def test_a_whole_run_passes(run: tuple[Path, tuple[Event, ...]]) -> None:
    folder, events = run
    assert checks.order(events) == [] and checks.repeated(events) == []
    assert checks.ledger(events, None, 1e6, 2, 1e6) == []
    assert checks.ended(folder, events, 5, []) == [] and checks.left(folder, 0.0) == []


TWICE = (
    "job_finished",
    "proposed",
    "analysed",
    "sealed_done",
    "run_ended",
    "data_prepared",
    "evaluated",
    "final_model",
)


@pytest.mark.parametrize("kind", [*TWICE, "job_started"])
def test_what_is_there_twice_is_found(run: tuple[Path, tuple[Event, ...]], kind: str) -> None:
    assert checks.order(again(run[1], kind))


@pytest.mark.parametrize("kind", ["job_started", "proposed"])
def test_what_is_missing_is_found(run: tuple[Path, tuple[Event, ...]], kind: str) -> None:
    assert checks.order(without(run[1], kind))


def test_no_event_of_a_whole_run_may_be_missing(run: tuple[Path, tuple[Event, ...]]) -> None:
    """Each of them in its turn. What the guards of a baseline's final model are, the sealed read says again."""
    folder, events = run
    missed = []
    for number, event in enumerate(events):
        less = (*events[:number], *events[number + 1 :])
        if not (checks.order(less) or checks.ended(folder, less, 5, [])):
            missed.append(event.body.type)
    assert missed == ["final_model"], "the baseline's"
    champion = next(event.body.champion for event in events if event.body.type == "certified")
    own = [e for e in events if not (e.body.type == "final_model" and e.body.experiment == champion)]
    assert checks.ended(folder, own, 5, [])


def test_a_model_of_another_recipe_is_not_the_champions(run: tuple[Path, tuple[Event, ...]], tmp_path: Path) -> None:
    folder, events = tmp_path / "run", run[1]
    shutil.copytree(run[0], folder)
    said = folder / "model" / "postgrad.json"
    facts = json.loads(said.read_text())
    facts["recipe"]["stage"]["params"]["classifier"] = "another"
    said.write_text(json.dumps(facts))
    assert "the champion's model was not delivered" in checks.ended(folder, events, 5, [])


def test_a_run_that_cannot_be_resumed_is_found_though_a_job_has_failed(run: tuple[Path, tuple[Event, ...]]) -> None:
    """Only a baseline that failed leaves nothing to go on with."""
    events = [event for event in run[1] if event.body.type in ("run_started", "proposed")]
    failure = Failure(boundary="engine", kind="killed", message="killed")
    done = next(event for event in run[1] if event.body.type == "job_finished")
    assert done.body.type == "job_finished" and done.body.experiment == "e0000"
    result = done.body.result.model_copy(update={"failure": failure, "units": ()})
    for name, found in (("e0001", ["it cannot be resumed: no"]), ("e0000", [])):
        body = done.body.model_copy(update={"experiment": name, "result": result})
        assert checks.dead_end([*events, done.model_copy(update={"body": body})], "no") == found


def test_a_process_that_says_nothing_of_its_run_is_found(tmp_path: Path) -> None:
    """A script's own process has no word of the run on its command line."""
    waits = [sys.executable, "-c", "import time; time.sleep(60)"]
    for named in ({"cwd": tmp_path}, {"env": {"HOME": str(tmp_path / "scratch")}}):
        assert checks.left(tmp_path, 0.0) == []
        process = subprocess.Popen(waits, **named)
        try:
            assert [line for line in checks.left(tmp_path, 0.0) if line.startswith("still runs: ")]
        finally:
            process.kill()
            process.wait()


def test_an_account_that_is_not_exact_is_found(run: tuple[Path, tuple[Event, ...]]) -> None:
    _, events = run
    mine = checks.account(events)
    assert checks.ledger(events, mine, 1e6, 2, 1e6) == []
    for name in mine:
        assert checks.ledger(events, {**mine, name: mine[name] + 1.0}, 1e6, 2, 1e6), name
    assert checks.ledger(events, mine, 0.0, 2, 1e6), "more is charged than anybody lived"
    assert checks.ledger(events, mine, 1e6, 2, 0.0), "jobs cannot have run in no time"


def test_leftovers_and_lost_artefacts_are_found(run: tuple[Path, tuple[Event, ...]], tmp_path: Path) -> None:
    folder, events = tmp_path / "run", run[1]
    shutil.copytree(run[0], folder)
    assert checks.ended(folder, events, 5, []) == []
    (folder / "model.part").mkdir()
    (folder / "scratch").mkdir()
    assert len(checks.left(folder, 0.0)) == 2
    gone = next(folder.glob("artifacts/??/*"))
    gone.unlink()
    assert checks.ended(folder, events, 5, []) and not checks.ended(folder, events, 5, [gone.parent.name + gone.name])


@pytest.mark.parametrize("change", ["UPDATE events SET body = '{}' WHERE seq = 4", "DELETE FROM events WHERE seq > 9"])
def test_an_event_that_was_seen_and_is_another_is_found(
    run: tuple[Path, tuple[Event, ...]], tmp_path: Path, change: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    watch = Watch(folder)
    assert watch.look() == len(run[1])
    watch.compare()
    assert watch.wrong == []
    with closing(sqlite3.connect(folder / EVENTS)) as log, log:
        for name in ("events_are_not_deleted", "events_are_not_changed"):
            log.execute(f"DROP TRIGGER IF EXISTS {name}")
        log.execute(change)
    watch.compare()
    assert watch.wrong


def test_a_round_can_be_written_and_told() -> None:
    found = Played(True, "7/1", False, Counter(node_lost=2), ["stopped"], ["a job ended twice"], end="whole", same=True)
    assert json.loads(json.dumps(facts(found)))["struck"] == {"node_lost": 2}
    assert "node_lost 2" in told(1, found) and "WRONG: a job ended twice" in told(1, found)
    (row,) = table([found])
    assert (row["engine, task"], row["faults"], row["violations"], row["same tree"]) == ("cluster, labels", 2, 1, 1)


def test_the_outline_holds_what_counts(run: tuple[Path, tuple[Event, ...]]) -> None:
    with SqliteStore.open(run[0], write=False) as store:
        events = store.events()
    whole: Any = checks.outline(events)
    assert whole == checks.outline(run[1])
    for kind in ("evaluated", "analysed", "certified", "sealed_done"):
        assert whole != checks.outline(without(events, kind)), kind
