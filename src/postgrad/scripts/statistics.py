"""Intervals of scripts: they hold the noise of items and of training seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterable, Sequence

from postgrad.records import Difference, Estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def difference_of(first: NDArray[np.float64], second: NDArray[np.float64], confidence: float) -> Difference:
    """Mean of one recipe less that of another, with the noise of items and of seeds.

    Items are paired and shared by all trainings, so their variance does not shrink with seeds. Seeds are not paired:
    both sides have the same numbers, but another version draws otherwise from them. A side of which one training is
    left is taken to depend on seeds as the other does. Welch-Satterthwaite degrees of freedom (B. L. Welch, Biometrika
    34 (1947) 28-35).

    Args:
        first, second: (trainings, N) values of the same items.
    """
    from scipy.stats import t

    value = float(first.mean() - second.mean())
    seeds = [_seed_part(side, (first, second)) for side in (first, second)]
    total, freedom = _whole([_item_part(first.mean(axis=0) - second.mean(axis=0)), *seeds])
    if total <= 0:
        return Difference(value=value, low=value, high=value, p=float(value == 0), n=first.shape[1])
    error = total**0.5
    half = float(t.ppf((1 + confidence) / 2, freedom)) * error
    p = float(2 * t.sf(abs(value) / error, freedom))
    return Difference(value=value, low=value - half, high=value + half, p=p, n=first.shape[1])


def estimate_of(values: NDArray[np.float64], confidence: float, sides: Iterable[NDArray[np.float64]] = ()) -> Estimate:
    """(trainings, N) values -> their mean, with the noise of items and of seeds; of seeds from all `sides` where these
    are of one training."""
    from scipy.stats import t

    value = float(values.mean())
    total, freedom = _whole([_item_part(values.mean(axis=0)), _seed_part(values, sides)])
    half = float(t.ppf((1 + confidence) / 2, freedom)) * total**0.5 if total > 0 else 0.0
    return Estimate(value=value, low=value - half, high=value + half, n=values.shape[1])


def _item_part(values: NDArray[np.float64]) -> tuple[float, float]:
    """(variance of the mean, degrees of freedom) through items."""
    count = len(values)
    return (float(values.var(ddof=1)) / count, count - 1.0) if count > 1 else (0.0, 1.0)


def _seed_part(values: NDArray[np.float64], sides: Iterable[NDArray[np.float64]]) -> tuple[float, float]:
    """The same through seeds. One training says nothing of them: then what the sides say that have more."""
    known = [side.mean(axis=1) for side in ([values] if len(values) > 1 else sides) if len(side) > 1]
    if not known:
        return 0.0, 1.0
    scores = max(known, key=lambda each: float(each.var(ddof=1)))
    return float(scores.var(ddof=1)) / len(values), len(scores) - 1.0


def _whole(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    total = sum(variance for variance, _ in parts)
    below = sum(variance**2 / degrees for variance, degrees in parts)
    return total, total**2 / below if below > 0 else 1.0
