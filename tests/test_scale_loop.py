"""`bench scale-loop`: the real loop over a simulated cluster; and what keeps a long run quick and small."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from postgrad import events
from postgrad.bench import BENCHMARKS, scale_cluster
from postgrad.bench.base import BenchSpec
from postgrad.bench.landscapes import landscape
from postgrad.bench.scale_cluster import Clock
from postgrad.bench.scale_loop import EVERY, Growth, ScaleLoop, _row, grown
from postgrad.bench.scale_parts import _pair, _value
from postgrad.bench.scale_run import Case, Run
from postgrad.bench.scale_trees import Growth as Nodes
from postgrad.errors import UserError
from postgrad.evaluate.statistics import effects, judge
from postgrad.evaluate.statistics.effects import Effects
from postgrad.evaluate.statistics.judge import Judge
from postgrad.evaluate.statistics.known import held
from postgrad.events import Event, Proposed
from postgrad.records import Choice, Estimate, Failure, JobResult, Move, Recipe, Stage
from postgrad.records.base import lean
from postgrad.removing import remove_tree
from postgrad.research import drafts
from postgrad.shelf import PIECE, Ranked
from postgrad.store.sqlite import SqliteStore
from postgrad.tree import Tree
from postgrad.unchanged import Unchanged

WORLD = "additive"


def played(folder: Path, experiments: int, workers: int, stop: int | None = None) -> Run:
    """A run of the greedy policy; one that is cut off after so many events is closed where it stands."""

    class CutOff(RuntimeError):
        pass

    def listen(event: Event) -> None:
        if event.seq == stop:
            raise CutOff

    run = Run(folder, Case("greedy", landscape(WORLD)(0), workers, experiments), listen)
    if stop is None:
        run.play()
    else:
        with pytest.raises(CutOff):
            run.play()
    return run


def proposed(tree: Tree) -> list[Proposed]:
    return [node.proposed for node in tree.all()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return played(tmp_path_factory.mktemp("whole"), 40, 8)


@pytest.mark.parametrize("stop", [None, 60, 90])
def test_where_nothing_is_new_it_waits_and_looks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int | None
) -> None:
    """Many workers ask before the first result shows, and there are few starting points: that ends no run."""
    monkeypatch.setattr(drafts, "COMPOSED", 0)
    monkeypatch.chdir(tmp_path)  # Recipes name the base model by its folder, and chance goes by recipes.
    tree = played(Path("run"), 40, 8).session.tree
    assert len(tree) == 40 and all(node.analysis for node in tree.all())
    shown = [node.proposed.shown for node in tree.all()]
    late = next(place for place, number in enumerate(shown) if number is not None)
    assert shown[late] == late < 2 * 8 - 1, "it saw all before it"
    first = [found for found in shown[late:] if found is not None]
    assert first == sorted(first) and len(first) > 1, "those after it see no less"
    assert all(found is None for found in shown[late + len(first) :]), "then it is as it always is"
    if stop is not None:
        remove_tree(Path("run"))
        played(Path("run"), 40, 8, stop)
        assert proposed(played(Path("run"), 40, 8).session.tree) == proposed(tree)


def test_a_simulated_run_is_a_run(whole: Run) -> None:
    with SqliteStore.open(whole.store.folder, write=False) as store:
        events = store.events()
        tree = Tree.from_events(events)
        kinds = [event.body.type for event in events]
        assert all(store.artifacts.verify(node.evaluation.items) for node in tree.all() if node.evaluation)
    assert len(tree) == 40 and not tree.pending() and kinds[-1] == "run_ended" and kinds.count("sealed_done") == 1
    assert tree.champion is not None and len(tree.scored()) > 30
    clocks = [event.clock for event in events]
    assert clocks == sorted(clocks) and clocks[-1] > 1.0, "time is simulated, and goes on"
    assert whole.cluster.started >= 40 and set(whole.loop.spent) == {"collect", "analyse", "propose", "start"}


def test_a_run_that_was_cut_off_goes_on_to_the_same_tree(tmp_path: Path) -> None:
    """Twice: jobs that were under way are started again, and what was decided is decided the same."""
    plain = played(tmp_path, 40, 8).session.tree
    remove_tree(tmp_path)
    played(tmp_path, 40, 8, stop=70)
    played(tmp_path, 40, 8, stop=130)
    again = played(tmp_path, 40, 8).session.tree
    assert proposed(again) == proposed(plain)
    assert [node.score for node in again.all()] == [node.score for node in plain.all()]
    assert again.champion == plain.champion


def test_a_test_that_fails_is_recorded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is owed is looked at again afterwards, though the failure has taught the referee nothing."""
    monkeypatch.setattr(judge, "TEST_POWER", 0.0)
    monkeypatch.chdir(tmp_path)  # Recipes name the base model by its folder, and chance goes by recipes.
    ended = scale_cluster.SimulatedJob._ended

    def failing(job: scale_cluster.SimulatedJob) -> JobResult:
        found = ended(job)
        if "-select-" not in found.job:
            return found
        killed = Failure(boundary="engine", kind="oom", message="no memory was left")
        return JobResult(job=found.job, usage=found.usage, failure=killed)

    monkeypatch.setattr(scale_cluster.SimulatedJob, "_ended", failing)
    run = played(Path("failing"), 80, 2)
    with SqliteStore.open(run.store.folder, write=False) as store:
        tested = [event.body.experiment for event in store.events() if isinstance(event.body, events.Tested)]
    assert tested and len(tested) == len(set(tested)) and run.session.tree.ended() >= 80


def test_a_simulated_clock_goes_to_the_next_end() -> None:
    clock = Clock()
    for end in (5.0, 0.01, 7.0):
        clock.expect(end)
    seen = [clock.now]
    for _ in range(4):
        clock.pause(0.02)
        seen.append(clock.now)
    assert seen == [0.0, 0.02, 5.0, 7.0, 7.02]


def test_busy_workers_are_counted_over_the_time_that_is_looked_at() -> None:
    cluster = scale_cluster.Cluster(Clock(), 4, spans=[(0.0, 10.0), (2.0, 4.0), (9.0, 30.0), (20.0, 25.0)])
    assert cluster.busy(0.0, 10.0) == pytest.approx((10 + 2 + 1) / 10)
    assert cluster.busy(10.0, 20.0) == pytest.approx(1.0) and cluster.busy(40.0, 50.0) == 0.0


def test_what_simulating_takes_is_no_part_of_a_step(whole: Run) -> None:
    began = time.process_time()
    with whole.loop._timing("simulated"):
        while (took := time.process_time() - began) < 0.1:
            pass
        whole.cluster.own_s += took
    assert whole.loop.spent.pop("simulated") < 0.05


def test_long_runs_note_where_they_stand(tmp_path: Path) -> None:
    case = Growth(tmp_path / "run", "greedy", WORLD, 4, EVERY)
    marks = grown(case)
    assert [mark["to"] for mark in marks] == [EVERY] and grown(case) == marks, "a run that has ended is not run again"
    row = _row(case, marks, 0, EVERY)
    assert row is not None and row["cpu_ms"] > 0 and row["events"] > 4 * EVERY and row["peak_mb"] > 10
    parts = row["propose_ms"] + row["collect_ms"] + row["analyse_ms"] + row["start_ms"]
    assert 0 < parts < 1.1 * row["cpu_ms"]
    assert _row(case, marks, EVERY, 2 * EVERY) is None


def test_the_benchmark_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    bench = BENCHMARKS.get("scale-loop")
    assert isinstance(bench, ScaleLoop)
    options = {key: default for key, (default, _) in bench.options.items()}
    for wrong in ({"parts": "growth,other"}, {"policies": "none"}):
        spec = BenchSpec(quick=True, folder=tmp_path, command="", options=options | wrong)
        with pytest.raises(UserError, match="expected some of"):
            bench.run(spec, lambda text: None)
    for text in ("2", "0:1", "a:1", "2:-1"):
        with pytest.raises(UserError, match="WORKERS:SECONDS"):
            _pair(text)
    assert _value([[1, 0.5, 0.3], [2, 1.5, 0.6]], 1.0) == 0.3 and _value([[1, 0.5, 0.3]], 0.1) == 0.3


# --- what keeps a long run quick and small ----------------------------------------------------------------------------


def test_lean_records_are_the_same_records() -> None:
    recipe = Recipe(stage=Stage(backend="classic", params={"c": 1.5}))
    choice = Choice(parent=None, move=Move.DRAFT, recipe=recipe, kinds=("a", "b"))
    other, before = Choice(parent=None, move=Move.DRAFT, recipe=recipe), choice.model_dump_json()
    plain = choice.model_copy(deep=True)
    for each in (choice, other, Estimate(value=0.5, low=0.4, high=0.6, n=3)):
        lean(each)
    assert choice.model_dump_json() == before and choice == plain and choice.model_fields_set == plain.model_fields_set
    changed = other.model_copy(update={"gain": 1.0})
    assert "gain" in changed.model_fields_set and "gain" not in other.model_fields_set
    assert Choice.model_validate_json(before) == choice and json.loads(before)["kinds"] == ["a", "b"]


@pytest.mark.parametrize(
    "values", [np.array([0.0, 1.0, 1.0]), np.array([0.3, 0.3]), np.array([0.1, 2e5]), np.array([np.nan, 1.0])]
)
def test_held_values_are_the_same_values(values: np.ndarray) -> None:
    kept = held(values)
    assert np.array_equal(kept.values, values, equal_nan=True)
    assert kept.values is not values, "whoever gave them may change them"
    few = len(np.unique(values)) <= 256
    room = kept.numbers.nbytes + (kept.places.nbytes if kept.places is not None else 0)
    assert room <= (9 * len(values) if few else values.nbytes) and (kept.places is not None) == few


def test_weights_that_are_fitted_in_part_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above a number that ordinary runs do not reach, effects are shared out part by part; below, nothing changes."""
    rng = np.random.default_rng(0)
    drawn = [(float(rng.normal(0.004 if rng.random() < 0.3 else -0.01, 0.02)), 2e-4) for _ in range(900)]

    def learnt(whole: int, count: int) -> Effects:
        monkeypatch.setattr(effects, "WHOLE", whole)
        found = Effects(1.0)
        for number, (observed, noise) in enumerate(drawn[:count]):
            found.add(observed, noise)
            if number % 97 == 0 and number:
                found.revise(number - 1, drawn[number - 1][0], 1e-4)
            found.learn()
        return found

    assert np.array_equal(learnt(300, 300)._weights, learnt(10_000, 300)._weights)
    part, all_ = learnt(300, 900), learnt(10_000, 900)
    assert np.abs(part._weights - all_._weights).max() < 0.01
    beliefs = [(part.belief(each, 2e-4).mean, all_.belief(each, 2e-4).mean) for each in (-0.02, 0.0, 0.01, 0.05)]
    assert all(abs(one - other) < 5e-4 for one, other in beliefs)


def test_what_is_believed_does_not_go_by_when_it_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on after a kill has not been asked what the undisturbed one was asked, and decides the same."""
    rng = np.random.default_rng(1)
    drawn = [(float(rng.normal(-0.005, 0.02)), 2e-4) for _ in range(260)]

    def learnt(every: int) -> Effects:
        found = Effects(1.0)
        for number, (observed, noise) in enumerate(drawn):
            found.add(observed, noise)
            if number % 41 == 40:
                found.revise(number - 30, drawn[number - 30][0], 1e-4)
            found.learn()
            for near in range(0, number + 1, every) if number % 7 == 0 else ():
                found.belief(drawn[near][0], 2e-4, near=near)
        return found

    asked, never = learnt(9), learnt(1000)
    for near in range(len(drawn)):
        assert asked.belief(0.01, 2e-4, near=near) == never.belief(0.01, 2e-4, near=near)
    late = asked.belief(0.01, 2e-4, near=3).mean
    assert abs(late - asked.belief(0.01, 2e-4).mean) < 0.01


def test_two_recipes_are_parted_where_their_lines_meet() -> None:
    rng, found = np.random.default_rng(2), Judge(horizon=400)
    names = ["first"]
    found.start("first", (rng.random(200) < 0.5).astype(float))
    for number in range(60):
        rival = names[int(rng.integers(max(0, len(names) - 6), len(names)))]
        name = f"r{number}"
        found.weigh(name, rival, (rng.random(200) < 0.5 + number / 300).astype(float), may_retest=False)
        names.append(name)

    def line(name: str) -> list[str]:
        rival = found.merits.nodes[name].rival
        return [name] if rival is None else [name, *line(rival)]

    for one, other in (("r59", "r58"), ("r3", "r59"), ("r20", "r20"), ("first", "r40"), ("r59", "first")):
        only = set(line(one)) ^ set(line(other))
        assert found.merits.ahead(one, other) == pytest.approx(found.merit(one) - found.merit(other), abs=1e-12)
        apart = sum(found.merits.belief(name).variance for name in only)
        assert found.merits.between(one, other) == pytest.approx(apart)


def test_what_was_noted_is_passed_over_until_it_changes() -> None:
    nodes = Tree.from_events(Nodes(3).events(4 * PIECE)).all()
    ranked, seen = Ranked(((0.0, node.index), node) for node in nodes), Unchanged()
    looked = list(seen.others(ranked))
    assert looked == list(nodes)
    for node in looked[1:]:
        seen.note(node)
    assert [node.id for node in seen.others(ranked)] == [nodes[0].id]
    seen.note(nodes[0])
    assert not list(seen.others(ranked)) and not list(seen.others(ranked))
    other = replace(nodes[PIECE + 5])
    changed = ranked.with_entry((0.0, other.index), (0.0, other.index), other)
    assert [each is other for each in seen.others(changed)] == [True]
    seen.note(other)
    less = changed.with_entry((0.0, nodes[7].index), None, nodes[7])
    assert not list(seen.others(less)) and not list(seen.others(Ranked())) and list(seen.others(ranked))
