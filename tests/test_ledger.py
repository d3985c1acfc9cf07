"""The worked example on the public autoresearch ledger: its world has the published size, its noise is what it says,
and the project's rule claims fewer wrong things there than the session's rule."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from postgrad.bench.base import BenchSpec
from postgrad.bench.keep_rules import Bench, Fixed
from postgrad.bench.ledger import PROPOSALS, PUBLIC_RULE, PUBLISHED, SETTING, Ledger, play, summary
from postgrad.bench.ledger_arithmetic import (
    keeps_at_least,
    keeps_by_luck,
    level_of_many,
    noise_from_rulers,
    smallest_shown,
    trainings_needed,
)
from postgrad.bench.ledger_rules import Line, Seeded, ledger_of, shown
from postgrad.bench.ledger_world import BIG_WITHIN, GAIN, SIZES, Pretraining

ROOT = Path(__file__).resolve().parent.parent
LEDGERS, RUNS = 30, 5
# How far the mean of a figure over 30 simulated ledgers may lie from the published one.
TOLERANCE = {
    "keeps": 3.5,
    "gain": 0.0025,
    "big_share": 0.06,
    "near_discards": 0.07,
    "below_no_op": 3.5,
    "below_seed": 3.0,
    "smallest_keep": 0.00006,
}


@cache
def _calibrated(size: int) -> dict[str, float]:
    found = [
        summary(ledger_of(Pretraining(SIZES[size]), SETTING, seed, proposals=PROPOSALS)[1]) for seed in range(LEDGERS)
    ]
    return {key: float(np.mean([one[key] for one in found])) for key in found[0]}


@cache
def _played() -> list[dict[str, Any]]:
    return [play(SIZES[1], seed) for seed in range(RUNS)]


def _total(rule: str, key: str) -> float:
    return float(sum(one["rules"][rule][key] for one in _played()))


# --- the world ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2])
def test_the_sessions_rule_writes_a_ledger_like_the_published_one(size: int) -> None:
    found = _calibrated(size)
    assert set(TOLERANCE) == set(PUBLISHED)
    for key, published in PUBLISHED.items():
        assert abs(found[key] - published) <= TOLERANCE[key], f"{key}: {found[key]}, published {published}"


def test_more_noise_than_that_does_not_fit_the_ledger() -> None:
    found = _calibrated(3)
    assert abs(found["keeps"] - PUBLISHED["keeps"]) <= TOLERANCE["keeps"]
    assert found["near_discards"] < PUBLISHED["near_discards"] - 2 * TOLERANCE["near_discards"]


def test_trainings_of_a_recipe_vary_as_the_size_says() -> None:
    for size in SIZES:
        world = Pretraining(size)
        first = world.start(SETTING, 3)
        bench = Bench(world)
        scores = [float(bench.train(first).mean()) for _ in range(300)]
        assert np.std(scores) == pytest.approx(size.seed_sd, rel=0.12)


def test_the_large_gains_come_first_and_gains_add_up() -> None:
    world = Pretraining()
    first = world.start(SETTING, 5)
    gains = [world.truth(world.propose(first, number)) - world.truth(first) for number in range(PROPOSALS)]
    large = sorted(range(PROPOSALS), key=lambda number: -gains[number])[:3]
    assert all(number < BIG_WITHIN - 1 for number in large)
    assert sum(gains[number] for number in large) == pytest.approx(0.69 * GAIN)
    second = world.propose(first, large[0])
    again = world.truth(world.propose(second, large[1])) - world.truth(second)
    assert again == pytest.approx(gains[large[1]])


# --- the rules ------------------------------------------------------------------------------------------------------


def test_the_ledger_is_written_by_the_autoresearch_rule() -> None:
    setting = SETTING.model_copy(update={"experiments": PROPOSALS + 1})
    ours, _ = ledger_of(Pretraining(), SETTING, 7, proposals=PROPOSALS)
    theirs = Fixed(0.0).play(Pretraining(), setting, 7)
    assert ours.keeps == theirs.keeps
    assert ours.proposals == theirs.proposals
    assert ours.claimed_gain == pytest.approx(theirs.claimed_gain)
    assert ours.trainings == theirs.trainings


def test_false_keeps_are_rarer_than_under_the_sessions_rule() -> None:
    public = _total(PUBLIC_RULE, "false_keeps") / _total(PUBLIC_RULE, "keeps")
    assert 0.3 < public < 0.7
    for rule in _played()[0]["rules"]:
        if rule.startswith("postgrad"):
            assert _total(rule, "false_keeps") <= 0.1 * _total(rule, "keeps"), rule
    assert RUNS < _total("postgrad, retests", "keeps") <= 3 * RUNS


def test_more_seeds_alone_do_not_mend_strictly_better() -> None:
    rule = "autoresearch, 3 seeds, all"
    assert _total(rule, "false_keeps") / _total(rule, "keeps") > 0.3
    assert _total(rule, "optimism") < _total(PUBLIC_RULE, "optimism")


def test_one_training_shows_the_large_gains_and_three_show_more() -> None:
    once, thrice = ([one["shown"][seeds] for one in _played()] for seeds in ("1", "3"))
    assert RUNS <= sum(count for count, _ in once) <= 5 * RUNS
    assert sum(false for _, false in once) <= 1
    assert 3 * RUNS <= sum(count for count, _ in thrice) <= 12 * RUNS
    assert sum(false for _, false in thrice) <= 0.1 * sum(count for count, _ in thrice)


def test_a_ledger_of_seeds_alone_has_nothing_to_show() -> None:
    world = Pretraining()
    first = world.start(SETTING, 11)
    lines = [Line(first, first, 0.0005, better=False) for _ in range(20)]
    assert shown(world, lines, 3) == (0, 0)
    assert shown(world, [], 3) == (0, 0)


def test_a_budget_is_kept_to() -> None:
    world = Pretraining()
    out = Seeded(3, PROPOSALS, 40).play(world, SETTING, 2)
    assert out.trainings <= 40
    assert 5 <= len(out.proposals) <= 12
    whole = Seeded(1, 20, 1000).play(Pretraining(), SETTING, 2)
    assert len(whole.proposals) == 20


# --- the arithmetic -------------------------------------------------------------------------------------------------


def test_the_smallest_gap_that_shows() -> None:
    assert smallest_shown(0.0005, 1) == pytest.approx(1.6449 * 0.0005 * 2**0.5, rel=1e-4)
    assert smallest_shown(0.0005, 3) == pytest.approx(smallest_shown(0.0005, 1) / 3**0.5)
    assert smallest_shown(0.0005, 1, level_of_many()) > 1.7 * smallest_shown(0.0005, 1)
    assert trainings_needed(0.003, 0.0005) == 1
    needed = trainings_needed(0.000031, 0.0005)
    assert smallest_shown(0.0005, needed) <= 0.000031 < smallest_shown(0.0005, needed - 1)


@pytest.mark.parametrize(
    ("gap", "keeps"),
    [(0.00001, (22, 22)), (0.0003, (13, 22)), (0.0005, (8, 13)), (0.001, (1, 8)), (0.02, (0, 8))],
)
def test_the_summary_bounds_how_many_keeps_are_that_large(gap: float, keeps: tuple[int, int]) -> None:
    assert keeps_at_least(gap) == keeps


def test_luck_alone_keeps_four_of_the_changes() -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((4000, PROPOSALS + 1))
    records = (scores[:, 1:] > np.maximum.accumulate(scores, axis=1)[:, :-1]).sum(axis=1)
    assert keeps_by_luck(PROPOSALS) == pytest.approx(records.mean(), abs=0.15)


def test_the_rulers_leave_the_noise_open() -> None:
    middle, low, high = noise_from_rulers()
    assert low < 0.00026 < middle < 0.0005 < high
    rng = np.random.default_rng(0)
    squares = (rng.normal(0, low * 2**0.5, (4000, 2)) ** 2).sum(axis=1)
    assert float(np.mean(squares >= 4 * middle**2)) == pytest.approx(0.025, abs=0.01)


# --- the benchmark and its page -------------------------------------------------------------------------------------


def test_the_benchmark_writes_every_table(tmp_path: Path) -> None:
    options = {key: default for key, (default, _) in Ledger.options.items()} | {"runs": "1", "processes": "1"}
    spec = BenchSpec(quick=False, folder=tmp_path, command="postgrad bench ledger", options=options)
    said: list[str] = []
    result = Ledger().run(spec, said.append)
    json.dumps(result)
    assert len(said) == len(SIZES) == len(result["calibration"])
    assert {row["rule"] for row in result["table"]} >= {PUBLIC_RULE, "postgrad, 3 seeds, all"}
    assert result["markdown"].count("## ") == 5


def test_the_page_shows_what_was_measured() -> None:
    page = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
    measured = (ROOT / "bench" / "results" / "ledger.md").read_text(encoding="utf-8").splitlines()
    quoted = [line for line in page.splitlines() if line.startswith("| 0.0")]
    assert len(quoted) == 30
    tables = [line for line in page.splitlines() if line.startswith("| --- |")]
    assert len(tables) == 5
    assert [line for line in quoted if line not in measured] == []
