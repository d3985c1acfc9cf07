"""What answers cost: errors that are not all equally bad, and length."""

from __future__ import annotations

import math
from typing import Sequence

from postgrad.metrics.base import Answered
from postgrad.metrics.reading import folded, read_json, words_of
from postgrad.metrics.texts import Floats, MeanMetric, SumsMetric, ratio

_LARGEST_COST = 1e12
_DOUBLINGS = 20


class CostError(SumsMetric):
    """1 - (cost of the wrong answers / cost of all items).

    The reference is {"label": ..., "cost": ...} with the cost of getting this item wrong; the answer is the label, with
    case, white space, quotes and a full stop aside. Unscored where the reference is something else, or the cost is
    negative or above 1e12. NaN where all costs are 0.
    """

    name = "cost_error"
    size = 2  # cost if right, cost

    def row(self, item: Answered) -> Sequence[float] | None:
        read = read_json(item.reference)
        if not isinstance(read, dict) or not isinstance(read.get("label"), str | int | float):
            return None
        cost = read.get("cost")
        if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost <= _LARGEST_COST:
            return None
        label = folded(words_of(read["label"]))
        answer = folded(item.answer)
        right = label in (answer, answer.rstrip(".").strip("\"'`*"), answer.strip("\"'`*").rstrip("."))
        return (cost * right, cost)

    def of_sums(self, sums: Floats, total: Floats) -> Floats:
        return ratio(sums[:, 0], sums[:, 1])


class Brevity(MeanMetric):
    """Mean of 1 - log2(1 + tokens) / 20, not below 0: every halving of the answers' lengths adds 0.05.

    It has two ends, which bounds and intervals need and a negative number of tokens has not, and one endless answer
    does not outweigh a thousand short ones. The empty answer is the best, so it is a guard beside a metric of what is
    said, not an objective. Unscored where an answer that is not empty came without a count of tokens.
    """

    name = "brevity"

    def score(self, item: Answered) -> float | None:
        if item.tokens < 0 or (item.answer and not item.tokens):
            return None
        return max(0.0, 1.0 - math.log2(1 + item.tokens) / _DOUBLINGS)
