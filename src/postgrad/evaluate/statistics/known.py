"""What the decision rule holds of each recipe, and what it says of one. Values only; `judge` decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from postgrad.evaluate.statistics.effects import Belief

# In squared units of the run.
LEAST_NOISE = 1e-8
# Numbers that a byte tells apart.
MOST_PLACES = 256

Decision = Literal["keep", "discard", "retest", "tie"]


@dataclass(frozen=True)
class Judgement:
    """What the rule says of one experiment.

    Attributes:
        rival: what it is compared with; None for the first of a run.
        gap: difference of the mean scores over all trainings of both.
        error: standard error of `gap`, from items and seeds.
        p: one-sided p value of "not better than the rival".
        level: what `p` had to reach to be kept; 0 where nothing could be kept.
        belief: posterior of the true difference.
        leads: the search builds on it from now on.
        seeds: trainings of this recipe so far.
        seed_sd: standard deviation of a whole score over training seeds, as known now.
    """

    name: str
    rival: str | None
    verdict: Decision
    gap: float
    error: float
    p: float
    level: float
    belief: Belief
    leads: bool
    seeds: int
    seed_sd: float


@dataclass(frozen=True, slots=True)
class Held:
    """(N,) numbers in little room: where few of them differ, those, and a byte for each place.

    Attributes:
        places: (N,) which of the numbers stands where; None where the numbers are all there are.
    """

    numbers: NDArray[np.float64]
    places: NDArray[np.uint8] | None

    @property
    def values(self) -> NDArray[np.float64]:
        """The same numbers, each at its place."""
        return self.numbers.copy() if self.places is None else self.numbers[self.places]


def held(values: NDArray[np.float64]) -> Held:
    """Numbers as they are kept: answers are mostly right or wrong, and take a byte each."""
    import numpy as np

    numbers, places = np.unique(values, return_inverse=True)
    return Held(numbers, places.astype(np.uint8)) if len(numbers) <= MOST_PLACES else Held(values.copy(), None)


@dataclass(slots=True)
class Known:
    """One recipe: the mean of its per-item values over trainings, and what is known of its score.

    Attributes:
        mean: (N,) that mean, as `held` keeps it. latest: (N,) the values of the last training, None where it is the
            only one.
        steps: from rival to rival, back to the first recipe of the run.
    """

    mean: Held
    family: str
    scores: list[float]
    q: float
    q_variance: float
    latest: Held | None = None
    rival: str | None = None
    steps: int = 0
    eligible: bool = True
    price: float = 0.0
    observed: float = 0.0
    noise: float = 0.0
    number: int | None = None
    foreseen: float = 0.0
    bonus: float = 0.0
    open: bool = True
    tested: bool = False
    fresh: list[NDArray[np.float64]] = field(default_factory=list)

    @property
    def values(self) -> NDArray[np.float64]:
        """(N,) per-item values, the mean over trainings."""
        return self.mean.values

    @property
    def last(self) -> NDArray[np.float64]:
        """(N,) per-item values of the last training."""
        return (self.mean if self.latest is None else self.latest).values

    @property
    def score(self) -> float:
        return sum(self.scores) / len(self.scores)


def mean_of(trainings: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(N,) per-item mean over trainings."""
    total = trainings[0].copy()
    for values in trainings[1:]:
        total += values
    return total / len(trainings)


def item_variance(pairs: NDArray[np.float64], unit: float) -> float:
    """Variance of the mean of (N,) paired differences. However alike they are, they are a finite amount of evidence: as
    if one more item showed no difference."""
    count = len(pairs)
    return max(float(pairs.var()) / count, (float(pairs.mean()) / count) ** 2, LEAST_NOISE * unit**2)
