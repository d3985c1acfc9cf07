"""The relative gain: how much of the way from a base model's score to a reference score a tuned model has gone.

(S - S_base) / (S_ref - S_base), as FT-Bench reports it (TREX, Ma et al. 2026, arXiv 2604.14116). A quotient with a
denominator near zero says nothing: it is then undefined here, and not a large number.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt

from postgrad.evaluate.statistics.intervals import paired_draws, point
from postgrad.metrics.base import Metric, TextMetric
from postgrad.metrics.items import Items

NORMAL_95 = 1.959964


@dataclass(frozen=True)
class RelativeGain:
    """A relative gain with its 95 % interval, 1.0 for all of the way; all None where it is undefined.

    Attributes:
        warning: why it is undefined, or what weakens it; empty where nothing does.
    """

    value: float | None
    low: float | None
    high: float | None
    warning: str = ""


def fieller(gain: float, room: float, gain_variance: float, room_variance: float, covariance: float) -> RelativeGain:
    """gain / room with its 95 % interval by Fieller's theorem (E. C. Fieller, "Some problems in interval estimation",
    Journal of the Royal Statistical Society B 16 (1954) 175-185).

    The interval holds the ratios r for which gain - r * room is not shown to differ from zero. It is bounded only where
    `room` is shown to differ from zero itself; elsewhere the relative gain is undefined.

    Args:
        gain: S - S_base.
        room: S_ref - S_base.
        covariance: of the two.
    """
    numbers = (gain, room, gain_variance, room_variance, covariance)
    if not all(map(isfinite, numbers)):
        return RelativeGain(None, None, None, "A score is not defined.")
    square = NORMAL_95**2
    lead = room**2 - square * room_variance
    if lead <= 0:
        half = NORMAL_95 * sqrt(max(0.0, room_variance))
        return RelativeGain(
            None,
            None,
            None,
            f"The reference is {room:+.3f} from the base score, within noise (± {half:.3f}): no ratio.",
        )
    middle = gain * room - square * covariance
    inside = middle**2 - lead * (gain**2 - square * gain_variance)
    half = sqrt(max(0.0, inside))
    below = "The reference scores below the base: a positive ratio is a loss." if room < 0 else ""
    return RelativeGain(gain / room, (middle - half) / lead, (middle + half) / lead, below)


def relative_gain(
    metric: Metric | TextMetric, tuned: Items, base: Items, reference: float, *, error: float = 0.0, seed: int = 0
) -> RelativeGain:
    """The relative gain of a tuned model over its base on the same items.

    Variances and covariance are those of paired bootstrap draws over items.

    Args:
        reference: the score of the reference model, on other items or on these.
        error: its standard error, where it is known; a published figure without one counts as exact.
    """
    import numpy as np

    of_tuned, of_base = paired_draws(metric, tuned, base, seed=seed)
    kept = np.isfinite(of_tuned) & np.isfinite(of_base)
    if kept.sum() < 2:
        return RelativeGain(None, None, None, "A score is not defined.")
    gains, rooms = (of_tuned - of_base)[kept], (reference - of_base)[kept]
    spread = np.cov(gains, rooms)
    start = point(metric, base.answers)
    return fieller(
        point(metric, tuned.answers) - start,
        reference - start,
        float(spread[0, 0]),
        float(spread[1, 1]) + error**2,
        float(spread[0, 1]),
    )
