"""How many of the kept are false: the error control of a run's sequence of keeps.

LOND (A. Javanmard and A. Montanari, "Online rules for control of false discovery rate and false discovery exceedance",
Annals of Statistics 46 (2018) 526-554, section 2): test t has the level alpha * gamma_t * (keeps so far + 1), where the
gammas sum to 1. The expected share of false keeps among the keeps is at most alpha when the p values of true nulls are
valid and independent or positively dependent (T. Zrnic, A. Ramdas and M. I. Jordan, "Asynchronous online testing of
multiple hypotheses", JMLR 22 (2021), on LOND under positive dependence). Comparisons that share an incumbent are
positively dependent. While nothing has been kept this is a Bonferroni bound, which holds under any dependence.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt

ALPHA = 0.05
# Part of the level for tests within the planned number; the rest is for what comes after.
PLANNED = 0.9


@dataclass
class Control:
    """The levels of one run.

    Args:
        horizon: how many tests are planned.
    """

    horizon: int
    alpha: float = ALPHA
    tests: int = 0
    keeps: int = 0

    @property
    def level(self) -> float:
        """What the p value of the next test has to reach."""
        over = self.tests + 1 - self.horizon
        gamma = PLANNED / self.horizon if over <= 0 else (1 - PLANNED) * 6 / (pi * over) ** 2
        return self.alpha * gamma * (self.keeps + 1)

    @property
    def left(self) -> bool:
        """True while not all planned tests are spent."""
        return self.tests < self.horizon

    def affords(self, weighed: int, of: int) -> bool:
        """True when a run that has weighed so many of its planned proposals can spend a test."""
        return self.left and self.tests <= self.horizon * weighed / of

    def tested(self, p: float) -> bool:
        """Spend the next test on this p value; True when it is a keep."""
        keep = p <= self.level
        self.tests += 1
        self.keeps += keep
        return keep


def one_sided_p(gap: float, item_variance: float, items: int, shift: float, degrees: float) -> float:
    """P value of "not better": Student's t with Welch-Satterthwaite degrees of freedom (F. E. Satterthwaite,
    Biometrics Bulletin 2 (1946) 110-114).

    Args:
        gap: difference of the mean scores.
        item_variance: its variance from items, estimated from `items` of them.
        shift: its variance from training seeds, estimated with `degrees` degrees of freedom.
    """
    from scipy.special import stdtr

    variance = item_variance + shift
    if variance <= 0:
        return 1.0
    return float(stdtr(freedom(item_variance, items, shift, degrees), -gap / sqrt(variance)))


def freedom(item_variance: float, items: int, shift: float, degrees: float) -> float:
    """Welch-Satterthwaite degrees of freedom of the sum of two estimated variances."""
    return (item_variance + shift) ** 2 / (item_variance**2 / max(1, items - 1) + shift**2 / degrees)
