"""Noise of training seeds, pooled over a run.

Two trainings of one recipe differ in two ways: they answer single items differently (flips, which average out over
items and are seen item by item), and the whole score shifts (which no number of items averages out). One experiment has
few seeds, so the shift is pooled over all recipes of a family that were trained more than once, and starts from a prior
worth two replicates: a scaled inverse chi-square prior on the variance (G. K. Smyth, "Linear models and empirical Bayes
methods for assessing differential expression", SAGMB 3 (2004), section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Sequence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Share of the disagreement of two different recipes that is taken for flips before any recipe was trained twice.
FLIPS_BEFORE = 0.25


@dataclass(frozen=True)
class SeedPrior:
    """What is taken for granted of seeds before any recipe was trained twice.

    Attributes:
        shift: standard deviation of a whole score, in the run's unit (`unit`).
        worth: how many replicates that counts for.
        first: so many second and further trainings of what leads are asked for before others, to learn it.
    """

    shift: float
    worth: float
    first: int

    @property
    def claimed(self) -> float:
        """How many replicates it counts for where something is claimed: one at most."""
        return min(1.0, self.worth)


#: For right or wrong answers of a model that is fine-tuned, a shift of about one point.
MODELS = SeedPrior(shift=0.02, worth=2.0, first=1)
#: A script's every training begins anew and may be cut off by the clock: in the example nanolm the numbers of three
#: seeds differ by 0.02 with equal steps and by 0.13 with equal seconds, where the unit is about 0.1. Nobody knows it
#: better than within a factor of ten, so it counts for little, and the source is trained again first.
SCRIPTS = SeedPrior(shift=0.5, worth=0.5, first=2)


@dataclass
class SeedNoise:
    """The pool of one family of recipes.

    Attributes:
        prior: variance of the shift before any replicate.
        before: where it comes from.
        replicates: degrees of freedom: second and further trainings seen.
    """

    prior: float
    before: SeedPrior = MODELS
    replicates: int = 0
    _squares: float = 0.0
    _flips: float = 0.0

    @classmethod
    def before_any(cls, unit: float, before: SeedPrior = MODELS) -> SeedNoise:
        """The pool before any replicate."""
        return cls(prior=(before.shift * unit) ** 2, before=before)

    def restate(self, unit: float) -> None:
        """State the prior in another unit; what was seen stays."""
        self.prior = (self.before.shift * unit) ** 2 if self.prior else 0.0

    @classmethod
    def none(cls) -> SeedNoise:
        """The pool of a family without seed noise, which is as good as a replicate that agreed."""
        return cls(prior=0.0, replicates=1)

    def add(self, earlier: Sequence[float], last: NDArray[np.float64], again: NDArray[np.float64]) -> None:
        """One more training of a recipe.

        Args:
            earlier: scores of its trainings so far.
            last, again: (N,) per-item values of the training before this one, and of this one.
        """
        count = len(earlier)
        score = float(again.mean())
        self._squares += (score - sum(earlier) / count) ** 2 * count / (count + 1)
        self._flips += float((again - last).var()) / len(again) / 2
        self.replicates += 1

    def flips(self, disagreement: float) -> float:
        """Variance of a score through flips alone, one training. `disagreement` is the variance of the difference of
        two recipes' scores over items, which stands in before the first replicate."""
        return self._flips / self.replicates if self.replicates else FLIPS_BEFORE * disagreement

    def shift(self, worth: float | None = None) -> float:
        """Variance of the shift of a whole score, one training, beyond flips.

        Args:
            worth: how many replicates the prior counts for here, in place of the pool's own.
        """
        worth = self.before.worth if worth is None else worth
        seen = max(0.0, self._squares - self._flips)
        return (worth * self.prior + seen) / (worth + self.replicates)
