"""Any metric as per-item values whose mean is the score, so that one rule serves accuracy, real scores and set metrics.

The value of an item is the score plus the item's influence on it: the derivative of the metric with respect to the
item's weight, times the number of items (infinitesimal jackknife: B. Efron and R. Tibshirani, "An Introduction to the
Bootstrap" (1993), section 22.3). For a plain mean these are the items' own scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from postgrad.evaluate.statistics.intervals import metric_ignores_score
from postgrad.metrics.base import Graded
from postgrad.metrics.items import as_text_metric, values_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from postgrad.metrics.base import Answers, Metric, TextMetric
    from postgrad.metrics.items import Items

STEP = 1e-4
_CHUNK = 4_000_000
_DENSE = 50_000


def contributions(metric: Metric | TextMetric, answers: Answers | Graded) -> NDArray[np.float64]:
    """(N,) values with the metric as their mean, up to rounding. All NaN where the metric is not defined."""
    import numpy as np

    count = len(answers)
    first, index = _kinds(metric, answers)
    score = values_of(metric, answers, np.ones((1, count)))[0]
    moved = np.empty(len(first))
    rows = max(1, _CHUNK // max(1, count))
    for start in range(0, len(first), rows):
        chosen = first[start : start + rows]
        weights = np.ones((len(chosen), count))
        weights[np.arange(len(chosen)), chosen] += STEP
        moved[start : start + rows] = values_of(metric, answers, weights)
    influence = (moved - score) / STEP * count
    values: NDArray[np.float64] = (score + influence)[index]
    # The step is finite: what rounding leaves of the mean is taken out.
    values += score - values.mean()
    return values


def _kinds(metric: Metric | TextMetric, answers: Answers | Graded) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(first item of each kind, kind of each item). Items of a kind have the same influence."""
    import numpy as np

    count = len(answers)
    if isinstance(answers, Graded):
        parts = answers.parts[as_text_metric(metric).name]
        _, first, index = np.unique(parts, axis=0, return_index=True, return_inverse=True, equal_nan=True)
        return first, index
    if not metric_ignores_score(metric):
        return np.arange(count), np.arange(count)
    width = answers.labels + 2
    code = ((answers.truth + 1) * width + answers.predicted + 1) * width + answers.argmax + 1
    if width**3 > _DENSE:
        _, first, index = np.unique(code, return_index=True, return_inverse=True)
        return first, index
    # Sorting is most of the work where codes are few: count them instead.
    place = np.zeros(width**3, dtype=np.int64)
    place[code[::-1]] = np.arange(count)[::-1]
    present = np.flatnonzero(np.bincount(code, minlength=width**3))
    first, order = place[present], np.empty(width**3, dtype=np.int64)
    order[present] = np.arange(len(present))
    return first, order[code]


def group_values(metric: Metric | TextMetric, items: Items) -> NDArray[np.float64]:
    """(G,) values, one for each group of items in the order of the groups' names; their mean is the metric.

    A row that is asked in two ways is one piece of evidence: its items are added up.
    """
    import numpy as np

    values = contributions(metric, items.answers)
    _, index = np.unique(items.groups, return_inverse=True)
    groups = int(index.max()) + 1 if len(index) else 0
    total = np.zeros(groups)
    np.add.at(total, index, values)
    total *= groups / max(1, len(values))
    return total
