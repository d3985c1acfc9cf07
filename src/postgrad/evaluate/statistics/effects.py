"""What proposals of a run are worth: a mixture prior over true effects, learnt from the run, and posteriors under it.

Adaptive shrinkage: a fixed grid of normal components of either sign, whose weights are fitted by EM with a Dirichlet
penalty (M. Stephens, "False discovery rates: a new deal", Biostatistics 18 (2017) 275-294, sections 2 and 3.1). The
penalty starts a run sceptical: most proposals do nothing or harm. It judges nothing; `judge` decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# In the run's unit (`unit`): for right or wrong answers, 0.01 is about half a point of accuracy.
SMALLEST, COMPONENTS, NOTHING_SD = 0.005, 9, 0.001
COUNT_NOTHING, COUNT_BETTER, COUNT_WORSE = 2.0, 0.9, 3.0
EM_STEPS = 2
# What is found late in a run is smaller than what is found early, so an effect is judged again among its neighbours: so
# many on either side, in blocks, and all others as a prior that counts for so many.
NEIGHBOURS, LOCAL_PRIOR = 50, 50.0
BLOCK, LOCAL_STEPS = 10, 20
# That prior is looked at again whenever the effects have grown by this part: so what is believed goes by what was seen
# alone, and not by when it was asked for.
GROWN = 0.02
# Of more effects than this the weights are fitted part by part, of so many each.
WHOLE, PART = 2000, 200


@dataclass(frozen=True)
class Belief:
    """Posterior of one effect: mean, variance, and the probability that it is above zero."""

    mean: float
    variance: float
    better: float


class Effects:
    """The effects seen so far in a run, as noisy observations with known noise variances.

    Args:
        unit: what the grid is stated in.
    """

    def __init__(self, unit: float) -> None:
        import numpy as np

        self._grid(unit)
        # Small effects are likelier than large ones, by the same factor on either side.
        share = 0.7 ** np.arange(COMPONENTS)
        share /= share.sum()
        self._counts = np.concatenate([[COUNT_NOTHING], COUNT_BETTER * share, COUNT_WORSE * share])
        self._weights = self._counts / self._counts.sum()
        self._seen: list[tuple[float, float]] = []
        self._density = np.empty((64, len(self._mean)))
        self._local: dict[tuple[int, int], NDArray[np.float64]] = {}
        self._prior, self._prior_at = self._weights, 0
        self._shares = np.empty((0, len(self._mean)))
        self._turn = 0

    def __len__(self) -> int:
        return len(self._seen)

    def _grid(self, unit: float) -> None:
        import numpy as np

        steps = SMALLEST * 2.0 ** np.arange(COMPONENTS) * unit
        self._mean = np.concatenate([[0.0], steps, -steps])
        self._sd = np.concatenate([[NOTHING_SD * unit], steps / 2, steps / 2])

    def restate(self, unit: float) -> None:
        """State the grid in another unit; what was seen stays."""
        self._grid(unit)
        self._local.clear()
        self._shares = self._shares[:0]
        for number, (observed, noise) in enumerate(self._seen):
            self._density[number] = self._likelihood(observed, noise)

    def add(self, observed: float, noise: float) -> int:
        """One more observed effect with its noise variance; returns its number."""
        import numpy as np

        if len(self._seen) == len(self._density):
            self._density = np.concatenate([self._density, np.empty_like(self._density)])
        self._seen.append((observed, noise))
        self._density[len(self._seen) - 1] = self._likelihood(observed, noise)
        return len(self._seen) - 1

    def revise(self, number: int, observed: float, noise: float) -> None:
        """An effect that was measured again, with less noise."""
        for low, high in [(low, high) for low, high in self._local if low <= number < high]:
            del self._local[low, high]
        self._seen[number] = observed, noise
        self._density[number] = self._likelihood(observed, noise)

    def _likelihood(self, observed: float, noise: float) -> NDArray[np.float64]:
        """(components,) likelihoods, the largest of them 1."""
        import numpy as np

        spread = noise + self._sd**2
        log = -0.5 * (observed - self._mean) ** 2 / spread - 0.5 * np.log(spread)
        likelihood: NDArray[np.float64] = np.exp(log - log.max())
        return likelihood

    def learn(self) -> None:
        """Move the weights towards what was seen, by EM steps from where they are."""
        if len(self._seen) <= WHOLE:
            self._weights = self._fitted(self._weights, self._density[: len(self._seen)], self._counts, EM_STEPS)
        else:
            for _ in range(EM_STEPS):
                self._weights = self._fitted_in_part()
        self._look_again()

    def _look_again(self) -> None:
        """Take today's weights as the prior of all neighbourhoods, when enough has come since the last time."""
        count = len(self._seen)
        if count * GROWN < 1 or count >= (1 + GROWN) * self._prior_at:
            self._prior, self._prior_at = self._weights, count
            self._local.clear()

    def _fitted_in_part(self) -> NDArray[np.float64]:
        """One step of incremental EM: only the newest effects and, in turn, one part of the older ones are shared out
        anew, the others count as they did last time (R. Neal and G. Hinton, "A view of the EM algorithm that justifies
        incremental, sparse, and other variants" (1998), section 4). So it takes as long for 100,000 as for 2,000."""
        import numpy as np

        parts = -(-len(self._seen) // PART)
        known = len(self._shares)
        if known < parts:
            self._shares = np.concatenate([self._shares, np.zeros((parts - known, len(self._mean)))])
        self._turn = (self._turn + 1) % parts
        for part in {*range(max(0, known - 1), parts), parts - 1, self._turn}:
            density = self._density[part * PART : min((part + 1) * PART, len(self._seen))] * self._weights
            self._shares[part] = (density / density.sum(axis=1, keepdims=True)).sum(axis=0)
        counts = self._counts + self._shares.sum(axis=0)
        weights: NDArray[np.float64] = counts / counts.sum()
        return weights

    @staticmethod
    def _fitted(
        weights: NDArray[np.float64], density: NDArray[np.float64], prior: NDArray[np.float64], steps: int
    ) -> NDArray[np.float64]:
        for _ in range(steps if len(density) else 0):
            parts = density * weights
            counts = prior + (parts / parts.sum(axis=1, keepdims=True)).sum(axis=0)
            weights = counts / counts.sum()
        return weights

    def _around(self, number: int) -> NDArray[np.float64]:
        """The weights among the neighbours of an effect."""
        count, middle = len(self._seen), number // BLOCK * BLOCK + BLOCK // 2
        low = max(0, min(middle - NEIGHBOURS, count - 2 * NEIGHBOURS))
        high = min(count, max(middle + NEIGHBOURS, 2 * NEIGHBOURS))
        if (low, high) not in self._local:
            counts = self._counts + LOCAL_PRIOR * self._prior
            self._local[low, high] = self._fitted(self._prior, self._density[low:high], counts, LOCAL_STEPS)
        return self._local[low, high]

    def belief(self, observed: float, noise: float, near: int | None = None) -> Belief:
        """The posterior of an effect that was observed with this noise variance.

        Args:
            near: number of the effect among whose neighbours it is judged; None for a new one, judged by all.
        """
        import numpy as np
        from scipy.special import ndtr

        spread = noise + self._sd**2
        share = self._likelihood(observed, noise) * (self._weights if near is None else self._around(near))
        share /= share.sum()
        means = (self._mean * noise + observed * self._sd**2) / spread
        variances = self._sd**2 * noise / spread
        mean = float(share @ means)
        variance = float(share @ (variances + means**2)) - mean * mean
        # The component at nothing counts as not better, whatever side of zero its narrow posterior leans to.
        above = ndtr(means / np.sqrt(variances))
        above[0] = 0.0
        return Belief(mean, max(variance, 1e-14), float(share @ above))


def expected_gain(mean: float, sd: float) -> float:
    """E[max(0, X)] for X normal with this mean and standard deviation."""
    from math import erf, exp, pi

    if sd <= 0:
        return max(0.0, mean)
    z = mean / sd
    return mean * 0.5 * (1 + erf(z / sqrt(2))) + sd * exp(-0.5 * z * z) / sqrt(2 * pi)
