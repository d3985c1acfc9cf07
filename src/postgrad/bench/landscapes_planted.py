"""A planted landscape: a recipe's true value is a function of its features, drawn from the landscape's seed.

Every part of a recipe has an effect and every number an optimum; their sum, squashed, is the true accuracy. Answers
are right or wrong: an item is answered rightly when the recipe's skill, the item's difficulty, the recipe's bent for it
and the luck of one training add up to more than zero (a probit model), so that comparisons are paired. Recipes that
share parts share bents. The families in `landscapes_families.py` change one thing each.
"""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b
from math import exp, sqrt
from typing import TYPE_CHECKING

from postgrad.bench.landscapes import TASK, Landscape, Trained
from postgrad.bench.landscapes_features import Features, features
from postgrad.records import Failure, Recipe
from postgrad.train import BACKENDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNITS, ROWS, TEXTS = 4, 300, 150
# True accuracies lie between these; one answer to everything has the third.
LOWEST, HIGHEST, CONSTANT = 0.5, 0.92, 0.15
# Where recipes stand on the latent scale before their parts are added.
START = -0.5
# Variances of an item's margin: its difficulty, a recipe's bent for it, the luck of one training. They add up to 1.
DIFFICULTY, TASTE, LUCK = 0.70, 0.25, 0.05
# Share of a recipe's bent that is its own, and not that of its parts.
OWN_TASTE = 0.2
# Points of accuracy for one unit of the latent scale of answers, at an accuracy of 0.75.
SLOPE = 0.318
#: What a part is about -> standard deviation of its effect; the rest has `OTHER`.
EFFECT_SD = {"backend": 0.25, "tune": 0.30, "head": 0.15, "score": 0.15, "step": 0.15, "base": 0.20, "inference": 0.12}
OTHER = 0.08
# Most parts hurt or help a little, these members mostly help, and this share of parts does nothing at all.
MEMBER_MEAN, MEMBER_SD, IDLE = 0.12, 0.12, 0.25
# Latent units lost one width of the space away from a number's optimum, its spread, and the spread of optima.
CURVATURE, CURVATURE_SPREAD, OPTIMUM_SD = 0.5, 0.6, 0.22


def topic(part: str) -> str:
    """What a part is about: "score" of "embedder.score=knn", "step" of "step.typos"."""
    group, _, name = part.partition(".")
    return name.split("=")[0] if "=" in name and group not in ("base", "inference") else group


class Planted(Landscape):
    """The base of the families: additive effects, small and equal noise, trainings that never fail."""

    task = TASK
    seedless = frozenset(name for name in BACKENDS.names() if not getattr(BACKENDS.get(name), "seeded", True))
    rungs = (0.25, 0.5)
    items = 400
    #: Standard deviation of a whole score over training seeds, in accuracy.
    noise = 0.006

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._normals: dict[str, float] = {}
        self._truths: dict[str, float] = {}
        self._vectors: dict[str, NDArray[np.float64]] = {}

    # --- what is drawn --------------------------------------------------------------------------------------------

    def uniform(self, *about: object) -> float:
        """In (0, 1), decided by the landscape's seed and what it is about."""
        text = "/".join(map(str, (type(self).__name__, self.seed, *about)))
        return (int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") + 0.5) / 2**64

    def normal(self, *about: object) -> float:
        """A standard normal draw, decided by the landscape's seed and what it is about."""
        from scipy.special import ndtri

        name = "/".join(map(str, about))
        if name not in self._normals:
            self._normals[name] = float(ndtri(self.uniform(name)))
        return self._normals[name]

    def effect(self, part: str) -> float:
        """Latent units that a part adds."""
        if part.startswith("member."):
            return MEMBER_MEAN + MEMBER_SD * self.normal("effect", part)
        if self.uniform("idle", part) < IDLE:
            return 0.0
        return EFFECT_SD.get(topic(part), OTHER) * self.normal("effect", part)

    def optimum(self, number: str, found: Features) -> float:
        """Where in its space a number is best."""
        return min(0.95, max(0.05, 0.5 + OPTIMUM_SD * self.normal("optimum", number)))

    def curvature(self, number: str) -> float:
        """Latent units lost at one width of its space from the optimum."""
        return CURVATURE * exp(CURVATURE_SPREAD * self.normal("curvature", number))

    def extra(self, recipe: Recipe, found: Features) -> float:
        """Latent units that are no sum over parts and numbers; none here."""
        return 0.0

    def latent(self, recipe: Recipe) -> float:
        """The sum of what a recipe's features are worth."""
        found = features(recipe)
        total = START + sum(weight * self.effect(part) for part, weight in found.parts)
        for name, place, weight in found.numbers:
            total -= weight * self.curvature(name) * (place - self.optimum(name, found)) ** 2
        return total + self.extra(recipe, found)

    # --- the landscape --------------------------------------------------------------------------------------------

    def truth(self, recipe: Recipe) -> float:
        """The expected accuracy over items and training seeds."""
        from scipy.special import ndtr

        if recipe.hash not in self._truths:
            constant = recipe.stage.backend == "constant"
            value = CONSTANT if constant else LOWEST + (HIGHEST - LOWEST) * float(ndtr(self.latent(recipe)))
            self._truths[recipe.hash] = value
        return self._truths[recipe.hash]

    def cost_s(self, recipe: Recipe) -> float:
        """The backends' nominal seconds on a small data set, times a factor of the method that is not known before."""
        nominal = BACKENDS.get(recipe.stage.backend).nominal_cost(recipe.stage.params, ROWS, TEXTS)
        return UNITS * nominal * exp(0.2 * self.normal("cost", features(recipe).method))

    def seed_sd(self, recipe: Recipe) -> float:
        """Standard deviation of a whole score over training seeds, in accuracy."""
        return 0.0 if self.is_seedless(recipe) else self.noise

    def luck(self, recipe: Recipe) -> float:
        """Variance of an item's margin over training seeds."""
        return LUCK

    def is_seedless(self, recipe: Recipe) -> bool:
        """True where all trainings are one: the backend has no seed, and no data step draws from one."""
        return recipe.stage.backend in self.seedless and not recipe.data

    def crash(self, recipe: Recipe, seed: int) -> Failure | None:
        """How this training fails; it does not here."""
        return None

    def lag(self, recipe: Recipe) -> float:
        """Latent units that a training still lacks at its very beginning."""
        return max(0.0, 0.6 + 0.25 * self.normal("lag", features(recipe).structure))

    def train(self, recipe: Recipe, seed: int) -> Trained | Failure:
        """One training: paired right or wrong answers, or a failure."""
        return self.crash(recipe, seed) or self._answers(recipe, seed, 0.0)

    def train_part(self, recipe: Recipe, seed: int, rung: float) -> Trained | Failure:
        """The same training when it still lacks a part of what it learns."""
        return self.crash(recipe, seed) or self._answers(recipe, seed, self.lag(recipe) * (1 - rung))

    # --- items ----------------------------------------------------------------------------------------------------

    def _answers(self, recipe: Recipe, seed: int, behind: float) -> Trained:
        from scipy.special import ndtri

        luck, shift = self.luck(recipe), self.seed_sd(recipe) / SLOPE
        spread = DIFFICULTY + TASTE + luck
        skill = float(ndtri(self.truth(recipe))) * sqrt(spread + shift**2) - behind
        number = 0 if self.is_seedless(recipe) else seed
        skill += shift * self.normal("shift", recipe.hash, number)
        margin = skill + self._bent(recipe) - self._hard
        margin += sqrt(luck) * self._vector("luck", recipe.hash, number)
        right = (margin > 0).astype("float64")
        return Trained(right[: self.items], right[self.items :])

    def _vector(self, *about: object) -> NDArray[np.float64]:
        """(2 * items,) standard normal draws, decided by what they are about."""
        import numpy as np

        key = blake2b("/".join(map(str, (type(self).__name__, self.seed, *about))).encode(), digest_size=8).digest()
        generator = np.random.Generator(np.random.SFC64(int.from_bytes(key, "big")))
        return generator.standard_normal(2 * self.items)

    @cached_property
    def _hard(self) -> NDArray[np.float64]:
        return sqrt(DIFFICULTY) * self._vector("hard")

    def _part_vector(self, part: str) -> NDArray[np.float64]:
        if part not in self._vectors:
            self._vectors[part] = self._vector("taste", part)
        return self._vectors[part]

    def _bent(self, recipe: Recipe) -> NDArray[np.float64]:
        """(2 * items,) what a recipe is by nature good or bad at: the mean of its parts' bents and one of its own."""
        import numpy as np

        parts = features(recipe).parts
        weights = np.array([weight for _, weight in parts])
        shared = weights @ np.stack([self._part_vector(part) for part, _ in parts]) / sqrt(float(weights @ weights))
        own = self._vector("own", recipe.hash)
        bent: NDArray[np.float64] = sqrt(TASTE * (1 - OWN_TASTE)) * shared + sqrt(TASTE * OWN_TASTE) * own
        return bent
