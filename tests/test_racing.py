"""Races: what stops an experiment early, and that a run which was killed around a race ends as if it had not been."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from postgrad import racing
from postgrad.bench.landscapes import Trained
from postgrad.bench.landscapes_families import Additive, Deceptive
from postgrad.bench.landscapes_planted import Planted
from postgrad.bench.overhead import simulated_task
from postgrad.bench.simulated import SimulatedRun
from postgrad.bench.simulated_parts import Grant
from postgrad.events import Analysed, JobFinished, JobStarted
from postgrad.racer import Racer
from postgrad.racing import Scores
from postgrad.records import Estimate, Failure, Move, Race, Recipe, Stage
from postgrad.report.tried import what_was_tried
from postgrad.runner import opened, start_run
from postgrad.search.prospects import _taken
from postgrad.store.sqlite import SqliteStore
from postgrad.testing.backend import LABELS, WORDS, example_rows
from postgrad.testing.encoder import make_tiny_encoder
from postgrad.testing.trees import Node, tree_of
from postgrad.train.base import FitJob, TrainingDiverged
from postgrad.train.curve import hopeless
from postgrad.train.embedder import Embedder
from postgrad.tree import Experiment, State, Tree
from test_loop import outline, run_in_child

OWN, OTHERS = ("m", "s"), ("m", "t")


def world(seed: int, count: int, spread: float, *, slope: float = 1.0) -> list[Scores]:
    """Ended experiments whose whole score is that at the rung, times a slope, and chance."""
    chance = np.random.default_rng(seed)
    parts = 0.7 + 0.05 * chance.standard_normal(count)
    wholes = 0.7 + slope * (parts - 0.7) + spread * chance.standard_normal(count)
    return [Scores(float(part), float(whole), OTHERS) for part, whole in zip(parts, wholes, strict=True)]


def decided(known: list[Scores], mine: float, theirs: float = 0.75, *, share: float = 0.5) -> Race | None:
    """The race of an experiment at this score against a champion, over 200 items whose luck both share."""
    same = np.random.default_rng(5).random(200)
    first, second = (same < mine).astype(float), (same < theirs).astype(float)
    rival = Scores(float(second.mean()), theirs, OTHERS)
    return racing.verdict(first, second, rival, known, kin=OWN, share=share)


# --- the rule -------------------------------------------------------------------------------------------------------


def test_rungs_grow_and_stop_short_of_the_whole() -> None:
    assert [racing.rungs(units) for units in (1, 2, 3, 4, 5, 9)] == [(), (1,), (1, 2), (1, 2), (1, 2, 4), (1, 2, 4, 8)]


def test_what_is_far_behind_is_stopped_and_what_is_not_goes_on() -> None:
    known = world(0, 20, 0.01)
    found = decided(known, 0.55)
    assert found is not None and found.chance < racing.LIMIT and found.ended == 20
    assert found.correlation > 0.8 and found.share == 0.5
    assert found.expected.low < found.expected.value < found.expected.high < 0.75
    assert decided(known, 0.74) is None and decided(known, 0.80) is None


def test_nothing_is_stopped_before_the_rung_is_known() -> None:
    assert decided(world(0, racing.FEWEST - 1, 0.001), 0.4) is None
    assert decided([], 0.4) is None
    assert decided(world(0, racing.FEWEST + 2, 0.001), 0.4) is not None


@pytest.mark.parametrize("slope", [0.0, -1.0])
def test_a_rung_that_misleads_stops_nothing(slope: float) -> None:
    known = world(1, 40, 0.02, slope=slope)
    assert (racing.rank_correlation(known) or 0.0) < 0.3 and racing.trusted(known) == 0.0
    assert decided(known, 0.4) is None


def test_trust_grows_with_correlation_and_with_what_it_was_measured_on() -> None:
    assert racing.trust(None, 50) == racing.trust(0.9, 5) == racing.trust(0.5, 10) == 0.0
    assert 0.0 < racing.trust(0.8, 12) < racing.trust(0.8, 100) < 0.8 < racing.trust(0.95, 100)
    assert racing.rank_correlation([Scores(0.5, 0.1)] * 5) is None


def test_a_wide_spread_makes_unsure_and_less_is_stopped() -> None:
    known = world(2, 30, 0.005), world(2, 30, 0.04)
    near, wide = (racing.outlook(-0.06, OWN, each, Scores(0.75, 0.75, OTHERS), 1e-4) for each in known)
    assert wide.sd > 3 * near.sd and wide.above(0.0) > near.above(0.0)
    assert near.above(-1.0) == pytest.approx(1.0, abs=1e-3) and 0 < near.above(0.0) < 0.05


def test_the_outlook_is_calibrated_where_its_assumptions_hold() -> None:
    """Over many worlds, whole gaps fall into the outlook's quantiles as often as they should."""
    ranks = []
    for seed in range(300):
        chance = np.random.default_rng(seed)
        spread = 0.02
        parts = -0.03 + 0.04 * chance.standard_normal(25)
        wholes = parts + spread * chance.standard_normal(25)
        known = [Scores(float(p), float(w), ("m", str(i))) for i, (p, w) in enumerate(zip(parts, wholes, strict=True))]
        found = racing.outlook(known[0].part, known[0].kin, known[1:], Scores(0.0, 0.0, ("m", "rival")), spread**2)
        ranks.append(found.above(known[0].whole))
    assert 0.02 <= np.mean(np.array(ranks) < 0.05) <= 0.09
    assert 0.02 <= np.mean(np.array(ranks) > 0.95) <= 0.09


def test_a_kind_that_makes_up_late_is_known_once_one_of_it_has_ended() -> None:
    """Slow starters of one structure gain ten points from the rung to the end: the next one of it is not stopped."""
    known = world(3, 20, 0.005)
    slow = [Scores(each.part - 0.1, each.whole, ("m", "slow")) for each in world(4, 4, 0.005)]
    rival = Scores(0.72, 0.72, OTHERS)
    seen = racing.outlook(-0.12, ("m", "slow"), [*known, *slow], rival, 1e-4)
    never = racing.outlook(-0.12, ("m", "new"), [*known, *slow], rival, 1e-4)
    assert seen.mean == pytest.approx(-0.02, abs=0.02) and seen.above(-0.06) > 0.9
    assert never.mean < -0.06 and never.sd > 1.3 * seen.sd, "a kind that was not seen yet is less sure"


def test_what_races() -> None:
    node = tree_of((Node("a"), Node("b", parent="a", nominal_s=100.0)))["b"]
    assert racing.races(node) and racing.saves(node, 0.5) and not racing.saves(node, 0.9)
    proposed = node.proposed
    again = proposed.model_copy(update={"choice": proposed.choice.model_copy(update={"move": Move.REPLICATE})})
    owed = proposed.model_copy(update={"proposal": proposed.proposal.model_copy(update={"proposer": "referee"})})
    for other in (again, owed, proposed.model_copy(update={"incumbent": None})):
        assert not racing.races(replace(node, proposed=other))


def test_the_constant_answer_and_what_has_no_score_say_nothing_about_a_rung() -> None:
    constant = Recipe(stage=Stage(backend="constant"))
    nodes = (Node("a", recipe=constant), Node("b", score=0.5), Node("c", state="failed"), Node("d", state="raced"))
    known = racing.ended(reversed(tree_of(nodes).all()), lambda node: 0.25)
    assert known == [Scores(0.25, 0.5, known[0].kin)]


def test_the_report_says_where_it_was_stopped_and_how_far_that_is_trusted() -> None:
    tree = tree_of((Node("a"), Node("b", parent="a", state="raced", kind="head.knn")))
    expected = Estimate(value=0.4, low=0.3, high=0.5, n=100)
    race = Race(share=0.25, chance=0.01, expected=expected, correlation=0.834, ended=12)
    node = tree["b"]
    assert node.analysis is not None
    node = replace(node, analysis=node.analysis.model_copy(update={"race": race}))
    (_, tried) = what_was_tried(tree.with_experiments((node,), tree.champion))
    assert tried.counts == "1 stopped early (after 25%, rank correlation 0.83)"


# --- in the simulator -----------------------------------------------------------------------------------------------


class Folds(Additive):
    """Dear trainings whose rungs are the first folds: items of the whole, without a lag."""

    def cost_s(self, recipe: Recipe) -> float:
        return 100 * super().cost_s(recipe)

    def train_part(self, recipe: Recipe, seed: int, rung: float) -> Trained | Failure:
        whole = self.train(recipe, seed)
        if isinstance(whole, Failure):
            return whole
        return Trained(whole.search[: round(rung * len(whole.search))], whole.select)


def raced_in(run: SimulatedRun) -> list[Experiment]:
    return [node for node in run.tree.all() if node.state is State.RACED]


@pytest.fixture
def dear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every experiment is worth a race."""
    monkeypatch.setattr(racing, "SAVES_S", 0.0)


@pytest.fixture
def eager(dear: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Races in a short run: a rung is known soon, hardly has to be trusted, and stops what is more likely behind."""
    for name, value in (("FEWEST", 4), ("LEAST_TRUST", 0.05), ("ERRORS", 0.1), ("LIMIT", 0.9)):
        monkeypatch.setattr(racing, name, value)


def test_simulated_runs_race_by_the_same_rule(dear: None) -> None:
    run = SimulatedRun(Folds(1), "random", Grant(40, racing=True), seed=1)
    run.play()
    stopped = raced_in(run)
    assert len(stopped) == run.out.raced > 5
    better = 0
    for node in stopped:
        race = node.analysis.race if node.analysis else None
        assert race is not None and race.share in run.landscape.rungs and race.chance < racing.LIMIT
        assert node.score is None and node.foreseen == race.expected.value
        whole = run.landscape.train(run.recipe(node.id), node.proposed.proposal.seed)
        assert isinstance(whole, Trained)
        better += float(whole.search.mean()) > (run.tree[node.proposed.incumbent or ""].score or 0.0)
    assert better <= 2, "what was stopped would have led"
    assert stopped[0] in _taken(run.tree)


def test_deceptive_rungs_are_found_out(dear: None) -> None:
    """Where the best look worst at a rung, few experiments are stopped."""
    count = [len(raced_in(_played(Deceptive(seed)))) for seed in range(4)]
    plain = [len(raced_in(_played(Folds(seed)))) for seed in range(4)]
    assert sum(count) < 0.5 * sum(plain)


def _played(landscape: Planted) -> SimulatedRun:
    run = SimulatedRun(landscape, "random", Grant(30, racing=True), seed=0)
    run.play()
    return run


# --- in a run -------------------------------------------------------------------------------------------------------


def started(folder: Path, experiments: int) -> Path:
    """A started run of a policy that costs little; returns its folder."""
    task = simulated_task(folder, experiments)
    task = task.model_copy(update={"search": task.search.model_copy(update={"policy": "random"}), "memory": False})
    with start_run(task, folder / "runs") as store:
        return store.folder


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_around_a_race_the_resumed_tree_is_the_same(eager: None, every: int, tmp_path: Path) -> None:
    whole = started(tmp_path / "whole", 11)
    assert run_in_child(whole, None) == 0
    with SqliteStore.open(whole, write=False) as store:
        expected, events = outline(store), store.events()
    tree = Tree.from_events(events)
    raced = [node for node in tree.all() if node.state is State.RACED]
    assert raced, "the run raced nothing"
    name = raced[0].id
    assert raced[0].analysis is not None and raced[0].analysis.race is not None
    about = [
        event.seq
        for event in events
        if isinstance(event.body, JobStarted | JobFinished | Analysed) and event.body.experiment == name
    ]
    for boundary in (about[-2], about[0], about[-2] + 1, about[-1])[::every]:
        folder = started(tmp_path / f"killed-{boundary}", 11)
        assert os.WTERMSIG(run_in_child(folder, boundary)) == signal.SIGKILL
        assert run_in_child(folder, None) == 0
        with SqliteStore.open(folder, write=False) as store:
            assert outline(store) == expected, f"killed after event {boundary}"


def test_a_race_is_decided_by_the_view_alone(eager: None, tmp_path: Path) -> None:
    """Asked again after the run, with everything in the log, each race comes out as it did."""
    folder = started(tmp_path, 11)
    assert run_in_child(folder, None) == 0
    with opened(SqliteStore.open(folder, write=True)) as session:
        racer = Racer(session, lambda index: reversed(session.tree.view(max(0, index - 2)).all()))
        nodes = [node for node in session.tree.all() if node.state is State.RACED]
        assert nodes
        for node in nodes:
            assert node.analysis is not None
            assert racer.race(node) == node.analysis.race
            assert [len(result.units) for result in node.results] in ([1], [2], [1, 1])


# --- learning curves ------------------------------------------------------------------------------------------------


def test_only_a_loss_that_rises_and_stays_is_hopeless() -> None:
    falling = [1.0 - 0.02 * step for step in range(30)]
    spike = [0.5] + [3.0 - 0.1 * step for step in range(26)] + [0.6, 0.5, 0.4]
    stays = [0.5] + [2.0 + 0.1 * (step % 3) for step in range(29)]
    alike = [1.38] + [1.40 + 0.05 * (step % 2) for step in range(29)]
    assert hopeless(falling, 90) is None and hopeless(spike, 90) is None
    assert hopeless(stays, 90) is not None and hopeless(stays[:29], 90) is None
    assert hopeless(alike, 90) is None and hopeless(alike, 90, chance=1.386) is not None
    assert hopeless([0.5, 2.0, 2.0], 9) is None, "too short to tell, and cheap"
    assert hopeless([0.0, *falling[1:]], 90) is None, "the first batch held no pair"


@pytest.mark.parametrize(("lr", "stopped"), [(2e-3, False), (1.0, True)])
def test_an_absurd_learning_rate_ends_after_a_third(lr: float, stopped: bool, tmp_path: Path) -> None:
    words = {word for phrases in WORDS.values() for phrase in phrases for word in phrase.split()}
    steps: list[int] = []
    job = FitJob(
        rows=example_rows(),
        labels=LABELS,
        out_of_scope=None,
        params=Embedder.Params.model_validate(
            {"batch_size": 8, "lr": lr, "head_lr": 2e-2, "epochs": 20, "precision": "fp32"}
        ),
        base_model=make_tiny_encoder(tmp_path / "tiny", sorted(words)),
        seed=0,
        threads=1,
        checkpoint=tmp_path / "checkpoint",
        report=lambda step, loss: steps.append(step),
    )
    if not stopped:
        Embedder().fit(job)
        assert steps[-1] == 80
        return
    with pytest.raises(TrainingDiverged, match="at first and is .* after 26 of 80"):
        Embedder().fit(job)
    assert steps[-1] == 24
