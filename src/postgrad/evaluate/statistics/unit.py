"""The unit that the priors of effects and of seed noise are stated in, so that they are free of a metric's own."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SMALLEST = 1e-6
# The unit is settled anew when so many pairs were seen: it moves early, then stays.
MOMENTS = (1, 2, 4, 8, 16)


class Unit:
    """Geometric mean of two spreads: of the score between items, and of the difference of two recipes between items.

    For right or wrong answers they are about equal. For real scores, such as the loss on single documents, items differ
    far more than recipes do, and effects and seed noise lie between the two spreads: the one between items would make
    priors too wide, the paired one too narrow. Before a pair was seen it is the spread between items.

    Args:
        values: (N,) per-item values of the first recipe.
    """

    def __init__(self, values: NDArray[np.float64]) -> None:
        self.value = self._items = max(float(values.std()), SMALLEST)
        self._pairs: list[float] = []

    def seen(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
        """Take in two recipes' (N,) values on the same items; True when the unit moved. The median counts, so that a
        proposal that changes nothing, or one that breaks everything, does not set it. Pairs without any difference say
        nothing of what differences are like."""
        from statistics import median

        spread = float((first - second).std())
        if self._items <= SMALLEST:  # The first recipe scored all items alike: only how far apart two are is known.
            spread = self._items = max(sqrt(float(((first - second) ** 2).mean())), SMALLEST)
        if spread <= SMALLEST * self._items or len(self._pairs) >= MOMENTS[-1]:
            return False
        self._pairs.append(min(spread, self._items))
        if len(self._pairs) not in MOMENTS:
            return False
        self.value = max(sqrt(self._items * median(self._pairs)), SMALLEST)
        return True
