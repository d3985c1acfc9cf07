"""The order of things: the reference is a list such as "A, C, B, D", the answer the same things in some order.

Both are a JSON list, or have commas, semicolons, lines or arrows between the things.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort

from postgrad.metrics.base import Answered
from postgrad.metrics.reading import answered_list, expected_list, folded
from postgrad.metrics.texts import MeanMetric

_BETWEEN = re.compile(r"->|=>|[→>;,\n]")


def _steps(text: str) -> list[str]:
    return [part.strip() for part in _BETWEEN.split(text) if part.strip()]


def _orders(item: Answered) -> tuple[list[str], list[str]] | None:
    """The expected and the answered order; None where the reference is empty or names something twice."""
    listed = expected_list(item.reference, _steps)
    expected = [folded(one) for one in listed or ()]
    if not expected or len(set(expected)) < len(expected):
        return None
    return expected, answered_list(item.answer, set(expected), folded, _steps)


class OrderExact(MeanMetric):
    """Share of answers with everything in the right order, and nothing else."""

    name = "order_exact"

    def score(self, item: Answered) -> float | None:
        orders = _orders(item)
        return None if orders is None else float(orders[0] == orders[1])


class OrderTau(MeanMetric):
    """Mean share of pairs in the right order, which is Kendall's tau (Kendall 1938) moved from [-1, 1] to [0, 1].

    A pair of which the answer leaves something out is wrong; what is named twice counts where it comes first, and
    strangers do not count. Unscored where the reference has fewer than two things.
    """

    name = "order_tau"

    def score(self, item: Answered) -> float | None:
        orders = _orders(item)
        if orders is None or len(orders[0]) < 2:
            return None
        expected, answered = orders
        rank = {one: place for place, one in enumerate(expected)}
        before: list[int] = []
        right = 0
        for one in dict.fromkeys(answered):
            if one in rank:
                right += bisect_left(before, rank[one])
                insort(before, rank[one])
        return right / (len(expected) * (len(expected) - 1) / 2)
