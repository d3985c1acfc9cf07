"""A number that somebody else measured: the referee command of a script, or the script itself.

An answer is the number of one item, as text. More is better: where less of the original is, it comes with a minus.
"""

from __future__ import annotations

import math
from typing import Sequence

from postgrad.metrics.base import Answered
from postgrad.metrics.texts import MeanMetric


class Given(MeanMetric):
    """The mean of the items' numbers."""

    low, high = -math.inf, math.inf

    def __init__(self, name: str) -> None:
        self.name = name

    def score(self, item: Answered) -> float | None:
        try:
            found = float(item.answer)
        except ValueError:
            return None
        return found if math.isfinite(found) else None


def shown(values: Sequence[float]) -> tuple[str, ...]:
    """Numbers as answers that give the very same numbers back."""
    return tuple(repr(float(value)) for value in values)
