"""The contract of a metric, as tests. Give it your metric and it says whether the referee can use it.

In a test file of your own package::

    class TestMyMetric(MetricContract):
        metric = MyMetric()
        cases = (Case(truth=(0, 1), predicted=(0, 0), labels=2, value=0.5),)

It needs pytest as the runner only. It does not judge whether the metric measures something worth knowing: that is what
the hand-computed `cases` are for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator

import numpy as np
from numpy.typing import NDArray

from postgrad.metrics.base import Answers, Metric

SEEDS = range(12)
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Case:
    """Answers with the value that a person computed by hand; NaN is unscored.

    `argmax` and `score` may be left out where the metric does not read them.
    """

    truth: tuple[int, ...]
    predicted: tuple[int, ...]
    labels: int
    value: float
    argmax: tuple[int, ...] | None = None
    score: tuple[float, ...] | None = None

    def answers(self) -> Answers:
        size = len(self.truth)
        argmax = self.argmax if self.argmax is not None else tuple(max(0, index) for index in self.predicted)
        return Answers(
            truth=np.array(self.truth, dtype=np.int64),
            predicted=np.array(self.predicted, dtype=np.int64),
            argmax=np.array(argmax, dtype=np.int64),
            score=np.array(self.score if self.score is not None else (0.5,) * size, dtype=np.float64),
            labels=self.labels,
        )


def random_answers(seed: int, *, size: int = 60, labels: int = 5, out_of_scope: float = 0.3) -> Answers:
    """Return answers that are right about half of the time, with ties among the scores. Every label occurs."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(size) < out_of_scope, -1, rng.integers(0, labels, size))
    truth[:labels] = np.arange(labels)
    if out_of_scope:
        truth[labels] = -1
    argmax = np.where((rng.random(size) < 0.6) & (truth >= 0), truth, rng.integers(0, labels, size))
    score = np.round(rng.random(size) * 0.7 + np.where(truth >= 0, 0.3, 0.0), 1).astype(np.float64)
    predicted = np.where(score < 0.4, -1, argmax)
    return Answers(truth, predicted, argmax, score, labels)


def take(answers: Answers, index: NDArray[np.int64]) -> Answers:
    """Return the items at `index`, in that order."""
    return Answers(
        answers.truth[index], answers.predicted[index], answers.argmax[index], answers.score[index], answers.labels
    )


def plain(metric: Metric, answers: Answers) -> float:
    """The metric with all weights one."""
    values = metric.values(answers, np.ones((1, len(answers.truth))))
    assert values.shape == (1,), f"expected (1,) values for (1, N) weights, got {values.shape}"
    return float(values[0])


def same(first: float, second: float) -> bool:
    """Equal up to rounding; two NaN are equal."""
    return bool(np.isclose(first, second, rtol=0.0, atol=TOLERANCE, equal_nan=True))


class MetricContract:
    """Inherit, set `metric` and `cases`, run pytest."""

    metric: Metric
    cases: tuple[Case, ...] = ()

    def answers(self) -> Iterator[Answers]:
        """The random answers that the laws below are checked on."""
        for seed in SEEDS:
            yield random_answers(seed)
            if not self.metric.needs_out_of_scope:
                yield random_answers(seed, out_of_scope=0.0)

    def test_hand_computed_cases(self) -> None:
        assert self.cases, "give at least one case that was computed by hand"
        for case in self.cases:
            got = plain(self.metric, case.answers())
            assert same(got, case.value), f"{case}: got {got}"

    def test_perfect_answers_score_high(self) -> None:
        for answers in self.answers():
            inside = answers.truth >= 0
            argmax = np.where(inside, answers.truth, 0)
            perfect = Answers(answers.truth, answers.truth, argmax, inside.astype(np.float64), answers.labels)
            assert same(plain(self.metric, perfect), self.metric.high)

    def test_values_stay_in_range(self) -> None:
        assert self.metric.low < self.metric.high
        for seed, answers in enumerate(self.answers()):
            weights = np.random.default_rng(seed).exponential(size=(20, len(answers.truth)))
            values = self.metric.values(answers, weights)
            assert values.shape == (20,)
            defined = values[~np.isnan(values)]
            assert ((defined >= self.metric.low) & (defined <= self.metric.high)).all()

    def test_a_weight_counts_repeats(self) -> None:
        for seed, answers in enumerate(self.answers()):
            repeats = np.random.default_rng(seed).integers(0, 4, len(answers.truth))
            weighted = self.metric.values(answers, repeats[None, :].astype(np.float64))[0]
            repeated = take(answers, np.repeat(np.arange(len(repeats)), repeats))
            assert same(float(weighted), plain(self.metric, repeated))

    def test_the_scale_of_weights_does_not_matter(self) -> None:
        for answers in self.answers():
            tenth = self.metric.values(answers, np.full((1, len(answers.truth)), 0.1))[0]
            assert same(float(tenth), plain(self.metric, answers))

    def test_rows_of_weights_do_not_touch_each_other(self) -> None:
        for seed, answers in enumerate(self.answers()):
            weights = np.random.default_rng(seed).exponential(size=(5, len(answers.truth)))
            together = self.metric.values(answers, weights)
            alone = [self.metric.values(answers, weights[i : i + 1])[0] for i in range(5)]
            assert np.allclose(together, alone, rtol=0.0, atol=TOLERANCE, equal_nan=True)

    def test_the_order_of_items_does_not_matter(self) -> None:
        for seed, answers in enumerate(self.answers()):
            order = np.random.default_rng(seed).permutation(len(answers.truth))
            assert same(plain(self.metric, take(answers, order)), plain(self.metric, answers))

    def test_input_is_untouched(self) -> None:
        answers = random_answers(0)
        weights = np.ones((2, len(answers.truth)))
        before = [array.copy() for array in (answers.truth, answers.predicted, answers.argmax, answers.score, weights)]
        self.metric.values(answers, weights)
        after = (answers.truth, answers.predicted, answers.argmax, answers.score, weights)
        assert all(np.array_equal(one, two) for one, two in zip(before, after, strict=True))

    def test_nothing_to_score_is_unscored(self) -> None:
        answers = random_answers(0)
        assert np.isnan(self.metric.values(answers, np.zeros((1, len(answers.truth))))[0])
        assert np.isnan(plain(self.metric, take(answers, np.array([], dtype=np.int64))))

    def test_without_out_of_scope_items(self) -> None:
        value = plain(self.metric, random_answers(1, out_of_scope=0.0))
        assert np.isnan(value) == self.metric.needs_out_of_scope
