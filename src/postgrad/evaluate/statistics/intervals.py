"""Intervals and paired comparisons over items.

Resampling is by group (the row an item was made from), because a row that is asked in two ways is one piece of
evidence, not two. Bootstrap percentile intervals: Efron and Tibshirani 1993, chapter 13; McNemar's exact test:
McNemar 1947 with the binomial distribution.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from postgrad.metrics.base import Answers, Graded, Metric, TextMetric
from postgrad.metrics.items import Items, differing, values_of
from postgrad.records import Difference, Estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES = 1000
_CHUNK = 2_000_000


def _resampled(
    answers: list[Answers | Graded], metric: Metric | TextMetric, groups: NDArray[np.str_], seed: int
) -> NDArray[np.float64]:
    """Return (len(answers), RESAMPLES) values under shared group weights."""
    import numpy as np

    _, index = np.unique(groups, return_inverse=True)
    rows = max(1, _CHUNK // max(1, len(index)))
    if rows >= RESAMPLES:  # The same items are compared all run long.
        weights = _all_weights(index.astype(np.int64).tobytes(), seed)
        return np.stack([values_of(metric, each, weights) for each in answers])
    rng = np.random.default_rng(seed)
    parts: list[NDArray[np.float64]] = []
    for start in range(0, RESAMPLES, rows):
        weights = _weights(index, rng, min(rows, RESAMPLES - start))
        parts.append(np.stack([values_of(metric, each, weights) for each in answers]))
    return np.concatenate(parts, axis=1)


def _weights(index: NDArray[np.int64], rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """(size, N) how often each item is drawn; `index` is the group of each."""
    import numpy as np

    count = int(index.max()) + 1 if len(index) else 0
    return rng.multinomial(count, np.full(count, 1.0 / count), size=size)[:, index].astype(np.float64)


@lru_cache(maxsize=4)
def _all_weights(index: bytes, seed: int) -> NDArray[np.float64]:
    """(RESAMPLES, N) weights of one item set, not to be written to."""
    import numpy as np

    found = _weights(np.frombuffer(index, dtype=np.int64), np.random.default_rng(seed), RESAMPLES)
    found.flags.writeable = False
    return found


def paired_draws(
    metric: Metric | TextMetric, first: Items, second: Items, *, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(B,) bootstrap values of a metric on each of two models' answers to the same items, under the same weights."""
    pairs = _resampled([first.answers, second.answers], metric, first.groups, seed)
    return pairs[0], pairs[1]


def point(metric: Metric | TextMetric, answers: Answers | Graded) -> float:
    """The plain metric; NaN where it is not defined."""
    import numpy as np

    return float(values_of(metric, answers, np.ones((1, len(answers))))[0])


def estimate(metric: Metric | TextMetric, items: Items, *, seed: int = 0, confidence: float = 0.95) -> Estimate:
    """The metric with its bootstrap interval over groups of items."""
    import numpy as np

    value = point(metric, items.answers)
    draws = _resampled([items.answers], metric, items.groups, seed)[0]
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return Estimate(value=value, low=float("nan"), high=float("nan"), n=len(items))
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value=value, low=float(low), high=float(high), n=len(items))


def difference(
    metric: Metric | TextMetric, first: Items, second: Items, *, seed: int = 0, confidence: float = 0.95
) -> Difference:
    """First minus second on the same items in the same order, paired by group.

    The interval is stretched where few items differ, see `_stretch`. `p` is the two-sided bootstrap p value: twice the
    smaller share of resamples on one side of zero, with the add-one rule (Davison and Hinkley 1997, section 4.2), so it
    is never zero.

    Raises:
        ValueError: the items are not the same.
    """
    import numpy as np

    if len(first) != len(second) or not bool(np.all(first.keys == second.keys)):
        raise ValueError("a paired difference needs the same items in the same order")
    value = point(metric, first.answers) - point(metric, second.answers)
    differ = differing(metric, first, second)
    if not differ.any() and metric_ignores_score(metric):
        return Difference(value=0.0, low=0.0, high=0.0, p=1.0, n=len(first))
    pairs = _resampled([first.answers, second.answers], metric, first.groups, seed)
    draws = pairs[0] - pairs[1]
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return Difference(value=value, low=float("nan"), high=float("nan"), p=1.0, n=len(first))
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    stretch = _stretch(len(np.unique(first.groups[differ])), confidence)  # Only these say anything about it.
    low, high = value + stretch * (low - value), value + stretch * (high - value)
    side = min(int(np.sum(draws <= 0)), int(np.sum(draws >= 0)))
    p = min(1.0, 2.0 * (side + 1) / (len(draws) + 1))
    return Difference(value=value, low=float(low), high=float(high), p=p, n=len(first))


def _stretch(differing: int, confidence: float) -> float:
    """By how much a percentile interval is too narrow when few items differ: it lacks the factor sqrt(n / (n - 1)) and
    Student's t (T. C. Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69 (2015)
    371-386, on expanded percentile intervals)."""
    from math import sqrt

    from scipy.special import ndtri, stdtrit

    count = max(2, differing)
    wider = stdtrit(count - 1, (1 + confidence) / 2) / ndtri((1 + confidence) / 2)
    return float(wider) * sqrt(count / (count - 1))


def widened(found: Difference, variance: float, degrees: float) -> Difference:
    """A difference of two trained models as one of their recipes: its interval with the noise of training seeds.

    Args:
        variance: of the difference through seeds, estimated with `degrees` degrees of freedom. The variance through
            items is read off the interval, which is taken to be a normal one of 95 %.
    """
    from math import sqrt

    from scipy.special import stdtr, stdtrit

    items = ((found.high - found.low) / (2 * 1.959964)) ** 2
    total = items + variance
    if total <= 0:
        return found
    freedom = total**2 / (items**2 / max(1, found.n - 1) + variance**2 / degrees)
    half = float(stdtrit(freedom, 0.975)) * sqrt(total)
    p = float(2 * stdtr(freedom, -abs(found.value) / sqrt(total)))
    return Difference(value=found.value, low=found.value - half, high=found.value + half, p=p, n=found.n)


def interval(mean: float, variance: float) -> tuple[float, float]:
    """The 95 % interval of a normal value."""
    from math import sqrt

    half = 1.959964 * sqrt(max(0.0, variance))
    return mean - half, mean + half


def metric_ignores_score(metric: Metric | TextMetric) -> bool:
    """True for metrics of the answers alone; a ranking metric such as AUROC also reads the scores."""
    return not getattr(metric, "reads_score", False)


def mcnemar(first: Items, second: Items) -> float:
    """Exact two-sided McNemar p value on right against wrong answers, out of scope counted as a class."""
    right_a = first.labelled.predicted == first.labelled.truth
    right_b = second.labelled.predicted == second.labelled.truth
    return sign_test(right_a.astype(float) - right_b.astype(float))


def sign_test(gaps: NDArray[np.float64]) -> float:
    """Exact two-sided p value of the sign test on (N,) paired differences; ties say nothing (W. J. Conover, "Practical
    Nonparametric Statistics", 3rd edition (1999), section 3.4). On right and wrong answers it is McNemar's."""
    import numpy as np
    from scipy.stats import binomtest

    ahead, behind = int(np.sum(gaps > 0)), int(np.sum(gaps < 0))
    return 1.0 if ahead + behind == 0 else float(binomtest(ahead, ahead + behind, 0.5).pvalue)
