"""From what the search believes to what is delivered: fresh measurements of finalists, and the posterior mean of both.

A search score is steered by its own items. Finalists are trained again with fresh seeds and asked other items; the
posterior of the search is the prior of that measurement (normal, known variances).
"""

from __future__ import annotations

from math import sqrt

from postgrad.evaluate.statistics.effects import expected_gain


def combined(mean: float, variance: float, measured: float, noise: float) -> tuple[float, float]:
    """Posterior (mean, variance) of a gain believed to be `mean` with `variance`, and measured with `noise`."""
    if variance <= 0:
        return mean, 0.0
    weight = variance / (variance + noise)
    return mean + weight * (measured - mean), variance * (1 - weight)


def worth_confirming(mean: float, variance: float, noise: float, price: float) -> bool:
    """True when one fresh measurement is expected to improve the choice between a recipe and the first one by more than
    `price`, in points of the metric (expected value of sample information: H. Raiffa and R. Schlaifer, "Applied
    Statistical Decision Theory" (1961), chapter 4)."""
    moved = variance / sqrt(variance + noise) if variance > 0 else 0.0
    return expected_gain(mean, moved) - max(0.0, mean) > price
