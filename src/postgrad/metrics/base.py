"""The contract of a metric. Metrics belong to the referee and run outside the worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Answers:
    """N scored items.

    Attributes:
        truth: (N,) int64, index of the true label; -1 is out of scope.
        predicted: (N,) int64, index of the answered label; -1 is a rejection.
        argmax: (N,) int64, the answer had nothing been rejected.
        score: (N,) float64, how surely in scope.
        labels: number of in-scope labels, K.
    """

    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    argmax: NDArray[np.int64]
    score: NDArray[np.float64]
    labels: int


class Metric(Protocol):
    """One number over items, higher is better, defined for weighted items so that it can be bootstrapped."""

    low: float
    high: float
    needs_out_of_scope: bool

    def values(self, answers: Answers, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (B,) values for (B, N) non-negative item weights. All-ones weights give the plain metric.

        NaN where it is not defined (no in-scope item, one class only): unscored, which is not zero.
        """
        ...
