"""What the experiments of a run say about recipes that were not tried: a Gaussian process over recipe features.

A recipe's value is taken as a sum over what it is made of, plus a part that only recipes alike share, plus noise: C.
Rasmussen and C. Williams, "Gaussian Processes for Machine Learning" (2006), section 2.2 (prediction), 2.7 (a sum over
features as part of the kernel) and 5.4.1 (the choice among kernels by marginal likelihood). How large effects are is
integrated out under an inverse gamma prior, so that the first experiments of a run do not make it sure of anything. It
proposes nothing and knows no cost.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Mapping, Sequence

from postgrad.search.base import Features, Taught

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Scales of a number's linear and quadratic term, of the quadratic term that all numbers share (how much it costs to be
# far from the middle of a range), and of a number's distance, where a part that is there or not counts 1.
LINEAR, SQUARE, SHARED, APART = 1.5, 2.0, 2.0, 2.0
# What a kernel may be made of: (share of the sum over features, length of likeness in parts).
KERNELS = ((0.9, 2.0), (0.6, 2.0), (0.6, 4.0), (0.25, 3.0))
# The same for a belief that is not shared: only recipes that differ in little say anything about each other.
ALONE = ((0.0, 0.5),)
# Noise as a share of the variance that one part makes.
NOISES = (0.05, 0.15, 0.4, 1.0, 2.5, 6.0)
# What the prior of the scale is worth, in experiments.
PRIOR_WEIGHT = 4.0
# What the errors of what is taught may have to be multiplied by, each as likely before a run; infinity where none of it
# is true here. Precisions below the least are none.
DOUBTS, LEAST_BELIEF = (1.0, 3.0, inf), 1e-6


@dataclass(frozen=True)
class Rows:
    """Recipes as matrices: (N, P) how much of each part is there, (N, Q) places of numbers from the middle of their
    ranges, 0 where a recipe has no such number. What the kernel makes of them is worked out once."""

    parts: NDArray[np.float64]
    places: NDArray[np.float64]

    def beside(self, *others: Rows) -> Rows:
        """These recipes and then the others, which are as wide."""
        import numpy as np

        every = (self, *others)
        return Rows(np.vstack([rows.parts for rows in every]), np.vstack([rows.places for rows in every]))

    @cached_property
    def terms(self) -> NDArray[np.float64]:
        """What a sum over features adds up."""
        import numpy as np

        squares = self.places**2
        shared = SHARED * squares.sum(axis=1, keepdims=True)
        return np.hstack([self.parts, LINEAR * self.places, SQUARE * squares, shared, np.ones((len(self.parts), 1))])

    @cached_property
    def spots(self) -> NDArray[np.float64]:
        """Where recipes stand as far as likeness goes."""
        import numpy as np

        return np.hstack([self.parts, APART * self.places])

    @cached_property
    def norms(self) -> NDArray[np.float64]:
        """(N,) squared distances from nothing."""
        squares: NDArray[np.float64] = (self.spots**2).sum(axis=1)
        return squares


class Columns:
    """Names -> columns. A name that was not seen yet gets the next one."""

    def __init__(self) -> None:
        self._parts: dict[str, int] = {}
        self._numbers: dict[str, int] = {}

    def rows(self, recipes: Sequence[Features]) -> Rows:
        """The recipes as matrices, as wide as what was seen so far."""
        import numpy as np

        parts, at, weights = _flat(self._parts, [found.parts for found in recipes])
        numbers, where, places = _flat(self._numbers, [found.numbers for found in recipes])
        made = Rows(np.zeros((len(recipes), len(self._parts))), np.zeros((len(recipes), len(self._numbers))))
        made.parts[at, parts] = weights
        made.places[where, numbers] = np.asarray(places) - 0.5
        return made

    def numbers(self, names: Sequence[str]) -> list[int]:
        """The columns of numbers that were seen."""
        return [self._numbers[name] for name in names]

    def widened(self, rows: Rows) -> Rows:
        """The same recipes beside newer names, of which they have none."""
        import numpy as np

        parts, places = rows.parts, rows.places
        more, others = len(self._parts) - parts.shape[1], len(self._numbers) - places.shape[1]
        return (
            Rows(np.pad(parts, ((0, 0), (0, more))), np.pad(places, ((0, 0), (0, others)))) if more or others else rows
        )


def _flat(columns: dict[str, int], found: list[Mapping[str, float]]) -> tuple[list[int], list[int], list[float]]:
    """(columns, rows, values) of every entry; names that are new get columns."""
    at: list[int] = []
    values: list[float] = []
    for entries in found:
        for name in entries:
            if name not in columns:
                columns[name] = len(columns)
        at += [columns[name] for name in entries]
        values += entries.values()
    return at, [row for row, entries in enumerate(found) for _ in entries], values


class Surrogate:
    """The belief about every recipe, given what some scored.

    Args:
        recipes: those that have a score.
        values: (N,) their scores.
        scale: standard deviation of what one part brings, before any was tried; on the scale of the scores.
        kernels: what the kernel is chosen from.
        taught: what is known of changes beside. Each is one more observation, of a difference of two values, with its
            own variance; so it counts for less the more the scores say about the same parts. Where the scores are
            likelier without it, it is doubted.
    """

    def __init__(
        self,
        recipes: Sequence[Features],
        values: Sequence[float],
        scale: float,
        kernels: Sequence[tuple[float, float]] = KERNELS,
        taught: Sequence[Taught] = (),
    ) -> None:
        import numpy as np

        self.columns = Columns()
        self.known = self.columns.rows(recipes)
        self.taught = taught
        self._belief: float | None = None
        target = np.asarray(values)
        self.centre = float(np.median(target))
        self._fit(target - self.centre, scale, kernels)

    def expecting(self, recipes: Sequence[Features]) -> Surrogate:
        """The belief once these recipes have scored what is believed of them: as before, and surer."""
        import numpy as np

        then = copy(self)
        rows = self.columns.rows(recipes)
        known = self.columns.widened(self.known)
        then.known = known.beside(rows)
        roots, vectors = np.linalg.eigh(_covariance(then.known, then.known, *self.kernel))
        means, _ = self._predict(then.known)
        spread = np.maximum(roots, 0.0) + self.noise
        target = np.concatenate([self._target, means[len(self._target) :] - self.centre])
        then._solve(target, target @ vectors, vectors, spread)
        return then

    def _fit(self, target: NDArray[np.float64], scale: float, kernels: Sequence[tuple[float, float]]) -> None:
        import numpy as np

        count = len(target)
        best = -np.inf
        for kernel in kernels:
            roots, vectors = np.linalg.eigh(_covariance(self.known, self.known, *kernel))
            along = target @ vectors
            for noise in NOISES:
                spread = np.maximum(roots, 0.0) + noise
                squares = float((along**2 / spread).sum()) + PRIOR_WEIGHT * scale**2
                evidence = -0.5 * float(np.log(spread).sum()) - 0.5 * (count + PRIOR_WEIGHT) * np.log(squares)
                if evidence > best:
                    best, self.kernel, self.noise = evidence, kernel, noise
                    self.scale2 = squares / (count + PRIOR_WEIGHT)
                    solved = (target, along, vectors, spread)
        self._solve(*solved)

    def _solve(
        self,
        target: NDArray[np.float64],
        along: NDArray[np.float64],
        vectors: NDArray[np.float64],
        spread: NDArray[np.float64],
    ) -> None:
        """Keep what predictions need. along: the target in the directions of `vectors`, with variances `spread`."""
        import numpy as np

        self._target, self._points = target, self.known
        self._weights = vectors @ (along / spread)
        self._half = vectors / np.sqrt(spread)
        if self.taught:
            self._learn()

    def _learn(self) -> None:
        """Condition on what is taught too: the rule for known values holds for known differences of values."""
        import numpy as np

        before = self.columns.rows([found.before for found in self.taught])
        after = self.columns.rows([found.after for found in self.taught])
        before, known = self.columns.widened(before), self.columns.widened(self.known)

        def across(rows: Rows) -> NDArray[np.float64]:
            """(M, K) covariances of values with what the changes bring."""
            return _covariance(rows, after, *self.kernel) - _covariance(rows, before, *self.kernel)

        seen = self._half.T @ across(known)
        told, gains = across(after) - across(before), np.array([found.gain for found in self.taught])
        errors = np.diag([found.sd**2 / self.scale2 for found in self.taught])
        if self._belief is None:
            likely = np.array([self._evidence(across(known), told, gains, doubt, errors) for doubt in DOUBTS])
            shares = np.exp(likely - likely.max())
            self._belief = float((shares / shares.sum()) @ np.array([1 / doubt**2 for doubt in DOUBTS]))
        if self._belief < LEAST_BELIEF:
            return
        errors /= self._belief
        root = np.linalg.inv(np.linalg.cholesky(told - seen.T @ seen + errors)).T
        gaps = gains - across(known).T @ self._weights
        lifts = root @ (root.T @ gaps)
        self._points = known.beside(after, before)
        self._weights = np.concatenate([self._weights - self._half @ (seen @ lifts), lifts, -lifts])
        empty = np.zeros((2 * len(lifts), self._half.shape[1]))
        added = np.vstack([-self._half @ (seen @ root), root, -root])
        self._half = np.hstack([np.vstack([self._half, empty]), added])

    def _evidence(
        self,
        across: NDArray[np.float64],
        told: NDArray[np.float64],
        gains: NDArray[np.float64],
        doubt: float,
        errors: NDArray[np.float64],
    ) -> float:
        """The log likelihood of the scores, given what is taught with errors so many times as large."""
        import numpy as np

        covariance = _covariance(self.known, self.known, *self.kernel) + self.noise * np.eye(len(self._target))
        left = self._target
        if doubt < inf:
            taken = np.linalg.solve(told + doubt**2 * errors, np.column_stack([across.T, gains]))
            covariance, left = covariance - across @ taken[:, :-1], left - across @ taken[:, -1]
        root = np.linalg.cholesky(covariance)
        squares = float((np.linalg.solve(root, left) ** 2).sum()) / self.scale2
        return -float(np.log(np.diag(root)).sum()) - 0.5 * squares

    @property
    def noise_variance(self) -> float:
        """Variance of one score around its recipe's value."""
        return self.noise * self.scale2

    def predict(self, recipes: Sequence[Features]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """((M,) means, (M,) standard deviations) of the values of recipes."""
        return self._predict(self.columns.rows(recipes))

    def varied(
        self, recipe: Features, asked: Sequence[tuple[str, float]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The same for as many recipes, each this one with one of its numbers at another place."""
        import numpy as np

        base = self.columns.rows([recipe])
        rows = Rows(np.repeat(base.parts, len(asked), axis=0), np.repeat(base.places, len(asked), axis=0))
        columns = self.columns.numbers([name for name, _ in asked])
        rows.places[np.arange(len(asked)), columns] = np.array([place for _, place in asked]) - 0.5
        return self._predict(rows)

    def _predict(self, asked: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        import numpy as np

        self._points = self.columns.widened(self._points)
        across = _covariance(asked, self._points, *self.kernel)
        means = self.centre + across @ self._weights
        explained = ((across @ self._half) ** 2).sum(axis=1)
        return means, np.sqrt(self.scale2 * np.maximum(_own(asked, *self.kernel) - explained, 1e-9))


def _covariance(first: Rows, second: Rows, share: float, length: float) -> NDArray[np.float64]:
    """(N, M) covariances in units of what one part brings; likeness counts as much as `length` parts."""
    import numpy as np

    apart = first.norms[:, None] + second.norms[None, :] - 2 * first.spots @ second.spots.T
    alike = np.exp(-0.5 * np.maximum(apart, 0.0) / length**2)
    total: NDArray[np.float64] = share * (first.terms @ second.terms.T) + (1 - share) * length * alike
    return total


def _own(rows: Rows, share: float, length: float) -> NDArray[np.float64]:
    """(N,) variances in the same units."""
    own: NDArray[np.float64] = share * (rows.terms**2).sum(axis=1) + (1 - share) * length
    return own
