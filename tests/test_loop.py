"""The loop as a whole: killed at every event boundary and resumed, workers that fail, budgets that end, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import pytest

from postgrad.bench.overhead import SimulatedEngine, simulated_task
from postgrad.certify import finish_reserve_s
from postgrad.chooser import Chooser
from postgrad.errors import PostgradError, UserError
from postgrad.events import Event
from postgrad.loop import Control
from postgrad.people.desk import Desk
from postgrad.prepare import prepare
from postgrad.records import Budget, DataSpec, EngineSpec, Guard, Limits, Recipe, Stage, TaskSpec
from postgrad.research import edit
from postgrad.runner import drive, opened, start_run
from postgrad.session import Job, Session
from postgrad.store.sqlite import SqliteStore
from postgrad.tree import State, Tree


def outline(store: SqliteStore) -> str:
    """Everything of a run that must not depend on when it was killed: all but times and usage."""
    tree = Tree.from_events(store.events())
    parts: list[Any] = []
    for node in tree.all():
        parts.append(node.proposed.model_dump(mode="json"))
        parts.append(node.evaluation.model_dump(mode="json") if node.evaluation else None)
        parts += [found.model_dump(mode="json") for found in node.select]
        parts.append(node.analysis.model_dump(mode="json") if node.analysis else None)
    for event in store.events():
        if event.body.type in ("data_prepared", "search_ended", "certified", "sealed_done"):
            parts.append(event.body.model_dump(mode="json"))
    return json.dumps([tree.champion, *parts], sort_keys=True)


def run_in_child(store_folder: Path, kill_after: int | None) -> int:
    """Drive the run in a forked process that kills itself with SIGKILL once it has written event `kill_after`."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:

            def listen(event: Event) -> None:
                if kill_after is not None and event.seq >= kill_after:
                    os.kill(os.getpid(), signal.SIGKILL)

            with opened(SqliteStore.open(store_folder, write=True), listen, SimulatedEngine()) as session:
                drive(session)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def fresh(folder: Path, experiments: int = 5, **changes: Any) -> Path:
    """A started run with simulated jobs; returns its folder."""
    task = simulated_task(folder, experiments).model_copy(update=changes)
    with start_run(task, folder / "runs") as store:
        return store.folder


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_event_boundaries_the_resumed_tree_is_the_same(tmp_path: Path, every: int) -> None:
    whole = fresh(tmp_path / "whole")
    assert run_in_child(whole, None) == 0
    with SqliteStore.open(whole, write=False) as store:
        expected, last = outline(store), len(store.events())
    assert last > 30
    for boundary in range(2, last, every):
        folder = fresh(tmp_path / f"killed-{boundary}")
        assert os.WTERMSIG(run_in_child(folder, boundary)) == signal.SIGKILL
        assert run_in_child(folder, None) == 0
        with SqliteStore.open(folder, write=False) as store:
            assert outline(store) == expected, f"killed after event {boundary}"


def test_killed_around_a_test_and_a_further_seed_the_resumed_tree_is_the_same(tmp_path: Path) -> None:
    """A run of 30 experiments is long enough to ask for a second training of its leader and to test it on select."""
    whole = fresh(tmp_path / "whole", experiments=30)
    assert run_in_child(whole, None) == 0
    with SqliteStore.open(whole, write=False) as store:
        expected, events = outline(store), store.events()
    tests = [event.seq for event in events if event.body.type == "tested"]
    again = [e.seq for e in events if e.body.type == "analysed" and e.body.analysis.verdict == "retest"]
    assert tests and again, "the run tested nothing or trained nothing twice"
    for boundary in (tests[0] - 1, tests[0], again[0]):
        folder = fresh(tmp_path / f"killed-{boundary}", experiments=30)
        assert os.WTERMSIG(run_in_child(folder, boundary)) == signal.SIGKILL
        assert run_in_child(folder, None) == 0
        with SqliteStore.open(folder, write=False) as store:
            assert outline(store) == expected, f"killed after event {boundary}"


def test_two_runs_with_the_same_seed_are_equal_and_another_seed_differs(tmp_path: Path) -> None:
    outlines = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        folder = fresh(tmp_path / name, experiments=12, seed=seed)
        assert run_in_child(folder, None) == 0
        with SqliteStore.open(folder, write=False) as store:
            outlines.append(outline(store))
    assert outlines[0] == outlines[1]
    assert outlines[0] != outlines[2]


def driven(folder: Path, control: Control | None = None, watch: Callable[[Event], None] = lambda e: None) -> Tree:
    with opened(SqliteStore.open(folder, write=True), watch, SimulatedEngine()) as session:
        drive(session, control=control)
        assert session.sealed is not None
        return session.tree


def test_asking_to_finish_certifies_what_there_is(tmp_path: Path) -> None:
    control = Control()

    def watch(event: Event) -> None:
        if event.body.type == "analysed" and event.body.experiment == "e0004":
            control.finish = True

    tree = driven(fresh(tmp_path, experiments=200), control, watch)
    assert 5 <= len(tree) < 12
    assert tree.champion is not None


def test_an_experiment_budget_is_kept_exactly(tmp_path: Path) -> None:
    assert len(driven(fresh(tmp_path, experiments=9))) == 9


def chooser_of(session: Session) -> Chooser:
    return Chooser(session, Desk(session, lambda: False), 1, lambda: finish_reserve_s(session), None)


def test_a_wall_clock_budget_ends_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of it is over when four experiments are: nobody knows how many a machine does in some seconds."""
    real, over = time.monotonic, list[str]()
    monkeypatch.setattr(time, "monotonic", lambda: real() + (999.5 if len(over) >= 4 else 0.0))
    task = simulated_task(tmp_path, 1).model_copy(update={"budget": Budget(wall_s=1000.0)})
    with start_run(task, tmp_path / "runs") as store:
        folder = store.folder
    tree = driven(folder, watch=lambda event: over.extend([event.body.type] * (event.body.type == "analysed")))
    assert 4 <= len(tree) < 12
    assert not tree.pending()
    with opened(SqliteStore.open(folder, write=True), engine=SimulatedEngine()) as session:
        known = [node.proposed.proposal for node in session.tree.all() if edit.valid(node.proposed.proposal.recipe)]
        new = known[0].model_copy(update={"recipe": Recipe(stage=Stage(backend="classic", params={"C": 0.123}))})
        chooser = chooser_of(session)
        nothing = [chooser.tells_nothing(each) for each in (*known, new)]
    assert nothing == [*(not edit.seeded(each.recipe) for each in known), False] and nothing[1], "the classic reference"


def test_what_an_experiment_may_cost_leaves_room_for_its_own_final_training(tmp_path: Path) -> None:
    folder = fresh(tmp_path, budget=Budget(wall_s=1000.0))
    with opened(SqliteStore.open(folder, write=True), engine=SimulatedEngine()) as session:
        prepare(session)
        trained = [len(unit.train) for unit in session.plan.search]
        assert session.final_share == pytest.approx(len(session.rows("train")) / sum(trained)) and len(trained) > 1
        may = chooser_of(session).affordable_s()
        first = Job("e0000", "search", session.plan.search, Recipe(stage=Stage(backend="classic")), 0)
        assert session.job_spec(first).limits.wall_s == pytest.approx(may, abs=20.0)
        last = replace(first, purpose="sealed")
        assert session.job_spec(last).limits.wall_s == 1000.0, "a reference takes no longer than the whole budget"
        whole = session.job_spec(replace(last, save_model=True)).limits.wall_s
        assert whole == session.task.engine.job_wall_s
        assert may == pytest.approx(1000.0 / (1 + session.final_share), abs=20.0) and may is not None and may < 800.0
    unlimited = fresh(tmp_path / "other")
    with opened(SqliteStore.open(unlimited, write=True), engine=SimulatedEngine()) as session:
        prepare(session)
        assert chooser_of(session).affordable_s() is None


def test_a_guard_that_nothing_keeps_leaves_no_champion_during_the_search(tmp_path: Path) -> None:
    folder = fresh(tmp_path, experiments=5, guards=(Guard(metric="accuracy", min=1.01),))
    champions: list[str | None] = []

    def watch(event: Event) -> None:
        if event.body.type == "analysed":
            champions.append(event.body.champion)

    with pytest.raises(PostgradError, match="guard"):
        driven(folder, None, watch)
    assert champions == [None] * 5


TEXTS = [f"{verb} my {noun} {extra}" for verb in ("open", "close", "find") for noun in ("account", "card", "order")
         for extra in ("now", "today", "please", "again", "quickly", "for me")]  # fmt: skip


def small_task(tmp_path: Path, **changes: Any) -> TaskSpec:
    """A tiny real task: three intents by verb, classic models only."""
    train = tmp_path / "train.csv"
    train.write_text("text,label\n" + "".join(f"{text},{text.split()[0]}\n" for text in TEXTS))
    task = TaskSpec(
        name="small",
        objective="tell verbs apart",
        data=DataSpec(train=str(train)),
        metric="accuracy",
        budget=Budget(experiments=4),
        engine=EngineSpec(workers=2, threads=1),
    )
    return task.model_copy(update=changes)


def test_real_jobs_end_to_end_and_replay(tmp_path: Path) -> None:
    from postgrad.replay import replay_champion

    with opened(start_run(small_task(tmp_path), tmp_path / "runs")) as session:
        drive(session)
        assert session.sealed is not None
        champion, baseline = session.sealed.read.scores[:2]
        assert champion.estimate.value >= 0.5
        assert baseline.role == "baseline"
        assert (session.store.folder / "model" / "postgrad.json").exists()
        found = replay_champion(session)
        assert found.reproduced and found.same_answer == 1.0


def test_a_job_over_its_limits_is_a_failure_and_the_loop_goes_on(tmp_path: Path) -> None:
    class Strangled(SimulatedEngine):
        """Every third job of the search runs into its time limit."""

        started = 0

        def start(self, folder: Path, limits: Limits) -> Any:
            self.started += 1
            if self.started % 3 == 0 and "-search-" in folder.name:
                return self.timed_out()
            return super().start(folder, limits)

    folder = fresh(tmp_path, experiments=12)
    with opened(SqliteStore.open(folder, write=True), engine=Strangled()) as session:
        drive(session)
        failed = [node for node in session.tree.all() if node.state is State.FAILED]
    assert failed
    assert all(node.failure is not None and node.failure.kind == "timeout" for node in failed)
    assert all(node.score is None for node in failed)
    assert {node.analysis.root.cause for node in failed if node.analysis and node.analysis.root} == {"timeout"}


def test_an_empty_train_file_stops_before_anything_is_spent(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\n")
    task = small_task(tmp_path)
    (tmp_path / "train.csv").write_text("text,label\n")
    with pytest.raises(UserError), opened(start_run(task, tmp_path / "runs")) as session:
        drive(session)
