"""The smallest effect that an evaluation set can show, before anything is spent. Plans; it judges no experiment."""

from __future__ import annotations

from math import ceil, sqrt

DISCORDANT = 0.2
LEVEL = 0.05
POWER = 0.8


def smallest_effect(n_items: int) -> float:
    """The smallest paired difference in accuracy that `n_items` items show with 80 % power at the 5 % level, two-sided.

    Two models are asked the same items, and on a fifth of them exactly one is right (the discordant items); a larger
    difference than that needs as many discordant items as it is large. Normal approximation of the sample size for
    McNemar's test: R. J. Connor, "Sample size for testing differences in proportions for the paired-sample design",
    Biometrics 43 (1987) 207-211, equation for n solved for the difference.

    Returns a share in (0, 1]; 1.0 where the items cannot show any difference.
    """
    from scipy.optimize import brentq

    if _root_items(1.0) >= sqrt(n_items):
        return 1.0
    return float(brentq(lambda effect: sqrt(n_items) * effect - _root_items(effect) * effect, 1e-9, 1.0))


def items_needed(effect: float) -> int:
    """How many items show a paired difference of `effect`, in (0, 1], under the same assumptions."""
    return ceil(_root_items(effect) ** 2)


def _root_items(effect: float) -> float:
    """The square root of the sample size."""
    from scipy.stats import norm

    level, power = float(norm.ppf(1 - LEVEL / 2)), float(norm.ppf(POWER))
    discordant = max(DISCORDANT, effect)
    return (level * sqrt(discordant) + power * sqrt(discordant - effect * effect)) / effect
