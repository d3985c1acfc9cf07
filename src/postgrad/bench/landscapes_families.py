"""The families of planted landscapes: each changes one thing of `Planted`."""

from __future__ import annotations

from functools import cached_property
from itertools import combinations
from math import cos, exp, log2, pi, sqrt

from postgrad.bench.landscapes_features import Features, features
from postgrad.bench.landscapes_planted import EFFECT_SD, MEMBER_MEAN, START, Planted, topic
from postgrad.records import Failure, Recipe
from postgrad.research.drafts import drafts
from postgrad.research.references import reference_recipes

PAIRED = frozenset({*EFFECT_SD, "member", "negatives", "word_max", "contrastive_epochs"}) - {"backend"}


class Additive(Planted):
    """Every part and every number counts for itself."""


class Kindred(Planted):
    """Moves have effects that persist: most of what a part is worth is the same for every seed of a clan, and every
    fourth seed is of one clan. What finished runs taught can help later ones here, and nowhere else."""

    clans, shared = 4, 0.8

    @cached_property
    def _kin(self) -> Planted:
        return Planted(-1 - self.seed % self.clans)

    def effect(self, part: str) -> float:
        common, own = self._kin.effect(part), super().effect(part)
        middle = MEMBER_MEAN if part.startswith("member.") else 0.0
        return middle + sqrt(self.shared) * (common - middle) + sqrt(1 - self.shared) * (own - middle)


class Interacting(Planted):
    """What a part is worth depends on the other parts: own effects are halved, two parts in five pairs change each
    other's, and half of a number's optimum belongs to the method."""

    def effect(self, part: str) -> float:
        return 0.5 * super().effect(part)

    def optimum(self, number: str, found: Features) -> float:
        own = self.normal("optimum", number, found.structure)
        return min(0.95, max(0.05, 0.5 * super().optimum(number, found) + 0.5 * (0.5 + 0.25 * own)))

    def extra(self, recipe: Recipe, found: Features) -> float:
        names = sorted({part for part, weight in found.parts if weight == 1.0 and topic(part) in PAIRED})
        pairs = [f"{one}&{other}" for one, other in combinations(names, 2)]
        return sum(0.12 * self.normal("pair", pair) for pair in pairs if self.uniform("pairs", pair) < 0.4)


class Rugged(Planted):
    """Every structure has luck of its own, and numbers have ripples: neighbours say less about each other."""

    def extra(self, recipe: Recipe, found: Features) -> float:
        ripples = sum(
            0.05 * weight * cos(2 * pi * (2.5 * place + self.uniform("ripple", name)))
            for name, place, weight in found.numbers
        )
        return ripples + 0.18 * self.normal("structure", found.structure)


class Deceptive(Planted):
    """What looks good early has little left to gain: a method that starts high has small further effects, and the other
    way round. Early rungs mislead as well: the better a recipe is in the end, the more it lacks at the start."""

    def extra(self, recipe: Recipe, found: Features) -> float:
        tilt = self._tilt(found.method)
        gained = sum(weight * self.effect(part) for part, weight in found.parts if topic(part) in PAIRED - {"tune"})
        return 0.35 * tilt - 0.55 * tilt * max(0.0, gained)

    def _tilt(self, method: str) -> float:
        """From -1, a low start with much to gain, to 1."""
        return max(-1.0, min(1.0, self.normal("tilt", method)))

    def lag(self, recipe: Recipe) -> float:
        own = 0.15 * self.normal("lag", features(recipe).structure)
        return max(0.0, 0.6 + own + 1.2 * (self.latent(recipe) - START))


class MostlyNoise(Planted):
    """Almost nothing is better than where a search starts: of the parts that no starting point has, one in thirty
    helps, half do nothing, and the rest harms; every number is best where it stands. Seeds are noisy."""

    noise = 0.015
    items = 250

    @cached_property
    def _home(self) -> tuple[frozenset[str], dict[str, float]]:
        """Parts, and places of numbers, of the starting points."""
        parts: set[str] = set()
        places: dict[str, float] = {}
        recipes = [draft.recipe for base in self.task.base_models for draft in drafts(base)]
        for recipe in [*recipes, *(proposal.recipe for proposal in reference_recipes(self.task))]:
            parts |= {part for part, _ in features(recipe).parts}
            places |= {name: place for name, place, _ in features(recipe).numbers}
        return frozenset(parts), places

    def effect(self, part: str) -> float:
        home, draw = part in self._home[0], self.uniform("kind", part)
        if home or 1 / 30 <= draw < 0.53:
            return 0.05 * self.normal("effect", part) if home and topic(part) in ("tune", "base") else 0.0
        size = abs(self.normal("effect", part))
        return 0.3 * size if draw < 1 / 30 else -0.15 * size

    def optimum(self, number: str, found: Features) -> float:
        return self._home[1].get(number, 0.5)


class Expensive(Planted):
    """Dearer is better: most of the value is the logarithm of the cost, and structure has a third of its effect."""

    def effect(self, part: str) -> float:
        return 0.35 * super().effect(part)

    def extra(self, recipe: Recipe, found: Features) -> float:
        return 0.22 * log2(max(self.cost_s(recipe), 0.1) / 10.0)


class Failing(Planted):
    """Trainings crash, and cost all the same. Some parts are dangerous, high learning rates diverge, and the repair
    that a kind of failure asks for mostly helps."""

    kinds = ("nan", "oom", "timeout", "crash")

    def crash(self, recipe: Recipe, seed: int) -> Failure | None:
        for kind in self.kinds:
            if self.uniform("crash", kind, recipe.hash, seed) < self.danger(recipe, kind):
                boundary = "train" if kind in ("nan", "crash") else "resource"
                return Failure.model_validate({"boundary": boundary, "kind": kind, "message": f"Simulated {kind}."})
        return None

    def danger(self, recipe: Recipe, kind: str) -> float:
        """The probability that a training of this recipe ends so."""
        found = features(recipe)
        if recipe.stage.backend in ("constant", "classic"):
            return 0.0
        safe = 1.0
        for part, weight in found.parts:
            if topic(part) in PAIRED and self.uniform("dangerous", kind, part) < 0.03:
                safe *= 1 - weight * (0.3 + 0.6 * self.uniform("danger", kind, part))
        if kind == "nan":
            highest = max((place for name, place, _ in found.numbers if name.endswith(".lr")), default=0.0)
            safe *= 1 - max(0.0, min(0.9, 2 * (highest - 0.75)))
        parts = {part for part, _ in found.parts}
        mended = {
            "nan": "embedder.precision=fp32" in parts,
            "oom": any(part.startswith("embedder.batch_size=") for part in parts),
        }
        return (1 - safe) * (0.1 if mended.get(kind) else 1.0)


class Heteroscedastic(Planted):
    """Noise depends on the recipe: the seeds of one method move the score by a tenth of a point, those of another by
    five points, and its answers flip more."""

    def seed_sd(self, recipe: Recipe) -> float:
        if self.is_seedless(recipe):
            return 0.0
        found = features(recipe)
        steps = sum(abs(self.normal("loud", part)) for part, _ in found.parts if topic(part) == "step")
        return float(min(0.05, 0.008 * exp(1.1 * self.normal("loud", found.method) + 0.3 * steps)))

    def luck(self, recipe: Recipe) -> float:
        return min(0.4, 3.0 * self.seed_sd(recipe) ** 0.75) if not self.is_seedless(recipe) else 0.02
