"""Simulated runs with known truth: what `postgrad bench noise` draws proposals, trainings and items from.

`World` is a public protocol. A world of your own is named on the command line (`--world package.module:Name`) and gets
the same rules, budgets and table as the ones here. A world knows every recipe's true score; a rule never sees it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt
from typing import TYPE_CHECKING, Any, Literal, Protocol

from postgrad.metrics import METRICS
from postgrad.metrics.base import Answers, Metric
from postgrad.records import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Part = Literal["search", "select", "sealed"]
PARTS: tuple[Part, ...] = ("search", "select", "sealed")
# Training-seed noise of a whole score, in points of the metric.
SEED_SD = {"low": 0.003, "high": 0.015}


class Setting(Record):
    """One cell of the table.

    Attributes:
        items: questions in each of the search, select and sealed parts.
        seed_noise: "low" or "high"; a world says what it makes of them.
        experiments: how many trainings the search may use.
        better: share of proposals that are truly better than what they change.
    """

    items: int
    seed_noise: Literal["low", "high"]
    experiments: int
    better: float


class World(Protocol):
    """One simulated run. Recipes and models are the world's own values; nobody else looks inside.

    Every draw is decided by the run's seed and the numbers given, so that all rules meet the same proposals and items.
    """

    metric: Metric

    def start(self, setting: Setting, seed: int) -> Any:
        """Begin run number `seed`; return its first recipe."""
        ...

    def propose(self, recipe: Any, number: int) -> Any:
        """Change number `number` of the run, applied to `recipe`."""
        ...

    def truth(self, recipe: Any) -> float:
        """The expected score over items and training seeds."""
        ...

    def train(self, recipe: Any, number: int) -> Any:
        """Training number `number` of the run: a model."""
        ...

    def model_truth(self, model: Any) -> float:
        """The expected score of this very training over items."""
        ...

    def answers(self, model: Any, part: Part) -> Answers:
        """What the model answers to the items of a part: the same items for every model of the run."""
        ...


@dataclass(frozen=True)
class Skill:
    """A recipe or a model of the worlds here.

    Attributes:
        score: its true score.
        state: the number on the latent scale that gives the score.
        number: of the change that made the recipe, or of the training that made the model.
        parent: what was changed; None for the first recipe.
        bent: part -> (N,) what it is by nature good or bad at, filled when a part is asked for.
    """

    score: float
    state: float
    number: int = 0
    parent: Skill | None = None
    bent: dict[str, NDArray[np.float32]] = field(default_factory=dict)


class Accuracy:
    """Right or wrong answers. An item is answered rightly when skill, its own difficulty, the recipe's bent for it and
    the luck of one training add up to more than zero (a probit model), so two recipes disagree on about 14 % of the
    items and two trainings of one recipe on about 10 %.

    A proposal is better with the setting's share, by an exponential amount (mean 2 points, less as the score nears its
    ceiling of 0.9); the rest does nothing or harms (mean 2 points), half and half. Every one of them changes the bent.
    """

    start_score, ceiling, effect = 0.6, 0.9, 0.02
    difficulty, taste, luck, kept_taste = 0.70, 0.25, 0.05, 0.8

    def __init__(self) -> None:
        self.metric = METRICS.get("accuracy")

    def start(self, setting: Setting, seed: int) -> Skill:
        self.setting, self.seed = setting, seed
        self.shift = SEED_SD[setting.seed_noise] / _density(self.start_score)
        self.hard = {part: self._normal(self._rng(1, PARTS.index(part)), self.difficulty) for part in PARTS}
        return Skill(self.start_score, self._state(self.start_score), number=-1)

    def propose(self, recipe: Skill, number: int) -> Skill:
        rng = self._rng(3, number)
        draw, size, kind = rng.random(), rng.exponential(self.effect), rng.random()
        room = max(0.0, (self.ceiling - recipe.score) / (self.ceiling - self.start_score))
        change = size * room if draw < self.setting.better else -size if kind < 0.5 else 0.0
        score = min(0.98, max(0.02, recipe.score + change))
        return Skill(score, self._state(score), number=number, parent=recipe)

    def bent(self, skill: Skill, part: Part) -> NDArray[np.float32]:
        """(N,) item effects of a recipe: those of what it changed, somewhat renewed."""
        chain = []
        at: Skill | None = skill
        while at is not None and part not in at.bent:
            chain.append(at)
            at = at.parent
        for recipe in reversed(chain):
            fresh = self._normal(self._rng(2, recipe.number + 1, PARTS.index(part)), self.taste)
            old = recipe.parent.bent[part] if recipe.parent is not None else None
            renewed = fresh if old is None else self.kept_taste * old + sqrt(1 - self.kept_taste**2) * fresh
            recipe.bent[part] = renewed.astype("float32")
        return skill.bent[part]

    def truth(self, recipe: Skill) -> float:
        return recipe.score

    def train(self, recipe: Skill, number: int) -> Skill:
        from scipy.special import ndtr

        state = recipe.state + self.shift * float(self._rng(4, number).standard_normal())
        return Skill(float(ndtr(state)), state, number=number, parent=recipe)

    def model_truth(self, model: Skill) -> float:
        return model.score

    def answers(self, model: Skill, part: Part) -> Answers:
        import numpy as np

        right = (self.margin(model, part) > 0).astype(np.int64)
        return Answers(np.ones_like(right), right, right, np.ones(len(right)), 2)

    def margin(self, model: Skill, part: Part) -> NDArray[np.float32]:
        """(N,) by how much each item is answered rightly."""
        assert model.parent is not None
        luck = self._normal(self._rng(5, model.number, PARTS.index(part)), self.luck)
        return model.state + self.bent(model.parent, part) - self.hard[part] + luck

    def _state(self, score: float) -> float:
        """The latent number whose trainings have this expected score."""
        from scipy.special import ndtri

        return float(ndtri(score)) * sqrt(1 + self.shift**2)

    def _rng(self, purpose: int, *numbers: int) -> np.random.Generator:
        import numpy as np

        return np.random.default_rng([self.seed, purpose, *numbers])

    def _normal(self, rng: np.random.Generator, variance: float) -> NDArray[np.float32]:
        import numpy as np

        return rng.standard_normal(self.setting.items, dtype=np.float32) * np.float32(sqrt(variance))


def _density(score: float) -> float:
    """Points of accuracy for one unit of the latent scale, at this accuracy."""
    from math import exp, pi

    from scipy.special import ndtri

    return exp(-0.5 * float(ndtri(score)) ** 2) / sqrt(2 * pi)


class _Mean:
    """The mean of real scores, which the graded world carries in `Answers.score`."""

    low, high, needs_out_of_scope, reads_score = float("-inf"), float("inf"), False, False

    def values(self, answers: Answers, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        total: NDArray[np.float64] = weights @ answers.score / weights.sum(axis=1)
        return total


class Graded(Accuracy):
    """Real scores without bounds and with heavy tails (Student's t with 4 degrees of freedom), as a judge model or a
    log-likelihood gives them. An item's score has a standard deviation of about 1; effects and seed noise are twice
    those of `accuracy`, so that they stand in the same relation to it."""

    def __init__(self) -> None:
        self.metric = _Mean()

    def start(self, setting: Setting, seed: int) -> Skill:
        self.setting, self.seed, self.shift = setting, seed, 2 * SEED_SD[setting.seed_noise]
        self.hard = {part: self._normal(self._rng(1, PARTS.index(part)), self.difficulty) for part in PARTS}
        return Skill(self.start_score, self._state(self.start_score), number=-1)

    def truth(self, recipe: Skill) -> float:
        return 2 * recipe.score

    def train(self, recipe: Skill, number: int) -> Skill:
        state = recipe.state + self.shift * float(self._rng(4, number).standard_normal())
        return Skill(state, state, number=number, parent=recipe)

    def answers(self, model: Skill, part: Part) -> Answers:
        import numpy as np

        scores = self.margin(model, part).astype(np.float64)
        # Every item is a kind of its own, which `argmax` says to whoever groups equal items.
        each = np.arange(len(scores))
        return Answers(np.zeros_like(each), each, each, scores, len(scores))

    def _state(self, score: float) -> float:
        return 2 * score

    def _normal(self, rng: np.random.Generator, variance: float) -> NDArray[np.float32]:
        import numpy as np

        # A t variable with 4 degrees of freedom has variance 2.
        return rng.standard_t(4, self.setting.items).astype(np.float32) * np.float32(sqrt(variance / 2))


class Mcc(Accuracy):
    """A set metric: Matthews correlation over six labels of unequal size; a wrong answer is a neighbouring label."""

    sizes = (0.35, 0.25, 0.15, 0.12, 0.08, 0.05)

    def __init__(self) -> None:
        self.metric = METRICS.get("mcc")

    def start(self, setting: Setting, seed: int) -> Skill:
        first = super().start(setting, seed)
        rng = self._rng(9, 0)
        self.labels = {part: rng.choice(len(self.sizes), setting.items, p=self.sizes) for part in self.hard}
        return first

    def truth(self, recipe: Skill) -> float:
        import numpy as np
        from scipy.special import ndtr

        at, weight = np.polynomial.hermite_e.hermegauss(9)
        scores = ndtr(recipe.state + self.shift * at)
        return float(sum(w * self._mcc(float(s)) for w, s in zip(weight / weight.sum(), scores, strict=True)))

    def model_truth(self, model: Skill) -> float:
        return self._mcc(model.score)

    def answers(self, model: Skill, part: Part) -> Answers:
        import numpy as np

        truth = self.labels[part].astype(np.int64)
        given = np.where(self.margin(model, part) > 0, truth, (truth + 1) % len(self.sizes))
        return Answers(truth, given, given, np.ones(len(truth)), len(self.sizes))

    def _mcc(self, right: float) -> float:
        """The metric of infinitely many items, a share `right` of which is answered rightly."""
        import numpy as np

        true = np.array(self.sizes)
        given = right * true + (1 - right) * np.roll(true, 1)
        above = right - float(true @ given)
        return above / sqrt((1 - float(true @ true)) * (1 - float(given @ given)))


WORLDS = {"accuracy": Accuracy, "graded": Graded, "mcc": Mcc}


def world(name: str) -> World:
    """A world by its name, or by `package.module:Name`.

    Raises:
        UserError: there is no such world.
    """
    from importlib import import_module

    from postgrad.errors import UserError

    if name in WORLDS:
        made: World = WORLDS[name]()
        return made
    module, _, attribute = name.partition(":")
    try:
        outside: World = getattr(import_module(module), attribute)()
    except (ImportError, AttributeError, ValueError) as problem:
        raise UserError(
            f"There is no world '{name}' ({problem}). Known: {', '.join(WORLDS)}; or package.module:Name of your own."
        ) from problem
    return outside
