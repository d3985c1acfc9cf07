"""The referee: thresholds that the score did not choose for itself, intervals, paired tests, the sealed read."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from postgrad.evaluate.evaluator import UnitOutputs, apply_threshold, cross_fitted, unit_items
from postgrad.evaluate.sealed import Entrant, Questions, agreement, read_sealed
from postgrad.evaluate.statistics import difference, estimate, mcnemar, point
from postgrad.evaluate.threshold import choose_threshold
from postgrad.metrics import METRICS
from postgrad.metrics.items import Items, dump_items, join, load_items, shared_items
from postgrad.records import Row

LABELS = ("a", "b", "c")


def outputs(n: int, skill: float, seed: int, *, outside: float = 0.4) -> tuple[UnitOutputs, dict[str, str]]:
    """A made-up model: right with probability `skill` in scope, with a score that is higher in scope."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(n) < outside, -1, rng.integers(0, 3, n))
    answer = np.where(rng.random(n) < skill, np.maximum(truth, 0), rng.integers(0, 3, n))
    probs = np.full((n, 3), 0.1, dtype=np.float32)
    probs[np.arange(n), answer] = 0.8
    score = (rng.normal(0, 1, n) + 2.0 * (truth >= 0)).astype(np.float32)
    ids = tuple(f"{seed}-{i}" for i in range(n))
    names = {-1: "oos", 0: "a", 1: "b", 2: "c"}
    return UnitOutputs(ids, probs, score), {name: names[int(t)] for name, t in zip(ids, truth, strict=True)}


def items(n: int, skill: float, seed: int) -> Items:
    out, truth = outputs(n, skill, seed)
    return unit_items("u", out, truth, LABELS, "oos")


def test_held_out_and_unknown_labels() -> None:
    out, truth = outputs(60, 0.9, 1)
    held = unit_items("u", out, truth, LABELS, "oos", held_out=("b",))
    assert all(held.labelled.truth[i] == -1 for i, name in enumerate(out.ids) if truth[name] == "b")
    new = {name: ("only_in_test" if label == "b" else label) for name, label in truth.items()}
    unknown = unit_items("u", out, new, LABELS, "oos")
    assert {int(t) for t, name in zip(unknown.labelled.truth, out.ids, strict=True) if new[name] == "only_in_test"} == {
        3
    }
    assert unknown.labelled.labels == 4


def test_cross_fitted_threshold_of_a_unit_ignores_that_unit() -> None:
    parts = [items(80, 0.9, seed) for seed in range(3)]
    before = cross_fitted(parts, {}, rejects=True)
    spoiled = parts[0]
    a = spoiled.labelled
    changed = type(a)(-1 - 0 * a.truth, a.predicted, a.argmax, a.score, a.labels)
    after = cross_fitted([Items(spoiled.keys, spoiled.groups, changed), *parts[1:]], {}, rejects=True)
    first = slice(0, 80)
    assert np.array_equal(before.labelled.predicted[first], after.labelled.predicted[first])
    assert not np.array_equal(before.labelled.predicted, after.labelled.predicted)


def test_threshold_of_percentile_rejects_that_share() -> None:
    found = items(2000, 0.9, 5)
    t = choose_threshold(found.labelled, {"threshold": "percentile", "q": 0.2})
    inside = found.labelled.truth >= 0
    assert np.mean(found.labelled.score[inside] < t) == pytest.approx(0.2, abs=0.01)


def test_weighted_mcc_threshold_moves_with_the_assumed_share() -> None:
    found = items(2000, 0.9, 5)
    few = choose_threshold(found.labelled, {"prior": 0.1})
    many = choose_threshold(found.labelled, {"prior": 0.9})
    assert few < many


def test_estimate_covers_the_true_value_about_as_often_as_it_says() -> None:
    metric = METRICS.get("accuracy")
    truth = point(metric, items(200_000, 0.7, 999).answers)
    hits = 0
    for seed in range(100):
        found = estimate(metric, items(150, 0.7, seed), seed=seed)
        hits += found.low <= truth <= found.high
    assert 88 <= hits <= 99


def test_difference_is_paired_and_symmetric() -> None:
    metric = METRICS.get("mcc")
    weak, strong = items(400, 0.6, 3), items(400, 0.9, 3)
    gap = difference(metric, strong, weak)
    back = difference(metric, weak, strong)
    assert gap.value > 0 and gap.low > 0 and gap.p < 0.01
    assert back.value == pytest.approx(-gap.value)
    same = difference(metric, weak, weak)
    assert (same.value, same.p) == (0.0, 1.0)


def test_difference_of_equal_models_is_rarely_significant() -> None:
    metric = METRICS.get("accuracy")
    false = 0
    for seed in range(100):
        first = items(150, 0.7, seed)
        other = items(150, 0.7, seed + 1000)
        paired = Items(first.keys, first.groups, other.answers)
        false += difference(metric, first, paired, seed=seed).p < 0.05
    assert false <= 12


def test_difference_refuses_other_items() -> None:
    with pytest.raises(ValueError, match="same items"):
        difference(METRICS.get("accuracy"), items(10, 0.5, 1), items(10, 0.5, 2))


def test_duplicated_rows_do_not_narrow_the_interval() -> None:
    metric = METRICS.get("accuracy")
    once = items(100, 0.7, 8)
    copies = [Items(np.char.add(once.keys, f"~{i}"), once.groups, once.answers) for i in range(9)]
    many = join(copies)
    wide, narrow = estimate(metric, once), estimate(metric, many)
    assert (narrow.high - narrow.low) == pytest.approx(wide.high - wide.low, rel=0.25)


def test_mcnemar_is_the_binomial_test_on_discordant_items() -> None:
    first, second = items(300, 0.9, 4), items(300, 0.6, 4)
    right = [m.labelled.predicted == m.labelled.truth for m in (first, second)]
    b, c = int(np.sum(right[0] & ~right[1])), int(np.sum(~right[0] & right[1]))
    assert mcnemar(first, second) == pytest.approx(binomtest(b, b + c).pvalue)
    assert mcnemar(first, first) == 1.0


def test_items_round_trip_and_pairing() -> None:
    found = items(50, 0.8, 2)
    data = dump_items(found)
    assert data == dump_items(load_items(data))
    part = found.take(np.arange(10, 30))
    left, right = shared_items(found, part)
    assert list(left.keys) == list(right.keys) and len(left) == 20


def test_sealed_read_scores_everyone_at_their_own_frozen_threshold() -> None:
    strong, truth = outputs(500, 0.95, 7)
    weak, _ = outputs(500, 0.5, 7)
    rows = tuple(Row(name, "text", label) for name, label in truth.items())
    questions = Questions(rows=rows, labels=LABELS, out_of_scope="oos")
    entrants = [
        (Entrant(role="champion", experiment="e2", threshold=1.0, outputs="x"), strong),
        (Entrant(role="baseline", experiment="e1", threshold=0.5, outputs="y"), weak),
    ]
    read = read_sealed("mcc", entrants, questions, seed=0)
    by_hand = point(METRICS.get("mcc"), apply_threshold(unit_items("s", strong, truth, LABELS, "oos"), 1.0).answers)
    assert read.scores[0].estimate.value == pytest.approx(by_hand)
    gap = read.scores[0].estimate.value - read.scores[1].estimate.value
    assert read.difference.value == pytest.approx(gap)
    assert read.n == 500 and 0 < read.mcnemar_p < 0.05
    third = Entrant(role="constant", experiment="e2", threshold=-9.0, outputs="z")
    more = read_sealed("mcc", [*entrants, (third, weak)], questions, seed=0)
    assert more.difference == read.difference == more.scores[1].gap and more.scores[0].gap is None
    least = more.scores[2].gap
    assert least is not None and least.value == pytest.approx(by_hand - more.scores[2].estimate.value)
    assert least.low < least.value < least.high and least.value != pytest.approx(gap)


def test_agreement_needs_no_label() -> None:
    first, _ = outputs(40, 0.9, 1)
    other = UnitOutputs(first.ids, first.probs, first.score + np.float32(0.5))
    assert agreement(first, first)["same_answer"] == 1.0
    assert agreement(first, other)["max_score_difference"] == pytest.approx(0.5)
