"""What could be tried next, as recipes: the changes that the playbook knows, its starting points, and numbers.

A policy that weighs recipes gets this as `postgrad.search.base.Options`. Nothing here ranks or trains.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from math import exp, log, log2
from typing import Any, Callable, Iterator, Mapping, NamedTuple

from postgrad.memory.effects import DRAFTS_AGAINST
from postgrad.records import Analysis, Dimension, Failure, Move, Prior, Recipe, Stage, TaskSpec, Value
from postgrad.research import edit
from postgrad.research.base import nothing
from postgrad.research.drafts import starts_of
from postgrad.research.moves import plays_of
from postgrad.research.promises import promises
from postgrad.research.recombine import mixtures
from postgrad.research.references import reference_recipes
from postgrad.research.repairs import repaired
from postgrad.search.base import Features, Option, Taught
from postgrad.train import BACKENDS

# What a member beside the main one counts for.
BESIDE = 0.4
# Rows that costs are compared for.
ROWS = 200
# Recipes whose changes are kept.
KEPT = 2000


@dataclass(frozen=True)
class PlaybookOptions:
    """The options of one task. Two of one task and memory are equal.

    Attributes:
        seconds: nominal seconds of one experiment with a recipe.
        priors: kind of change -> what finished runs taught about it.
        varies: whether training a recipe with another seed gives another model.
        barred: whether people do not want a kind of change.
    """

    task: TaskSpec
    seconds: Callable[[Recipe], float] = field(compare=False)
    priors: Mapping[str, Prior] = field(default_factory=dict, hash=False)
    varies: Callable[[Recipe], bool] = field(default=edit.seeded, compare=False)
    barred: Callable[[str], bool] = field(default=nothing, compare=False)

    @cached_property
    def _starts(self) -> tuple[Option, ...]:
        found = [draft for base in self.task.base_models or (None,) for draft in starts_of(self.task, base)]
        return tuple(
            Option(Move.DRAFT, each.kind, features(each.recipe), partial(_same, each.recipe), each.stands_in)
            for each in found
        )

    def starts(self) -> tuple[Option, ...]:
        """The fixed starting points of every base model."""
        return self._allowed(self._starts)

    def _allowed(self, options: tuple[Option, ...]) -> tuple[Option, ...]:
        return tuple(option for option in options if not self.barred(option.kind))

    def changes(self, recipe: Recipe) -> tuple[Option, ...]:
        """The plays that apply, every data step and member left out, and other choices of settings to tune."""
        if not edit.valid(recipe):
            return ()
        return self._allowed(_changes(_Case(self._about, recipe.hash, recipe, self.task)))

    @cached_property
    def _about(self) -> str:
        return self.task.model_dump_json()

    def ranges(self, recipe: Recipe) -> dict[str, tuple[float, float]]:
        """Number -> the places it may have among features: that of a member beside the main one moves less."""
        if self.barred("tune"):
            return {}
        return {
            number.name: (0.5 - 0.5 * number.weight, 0.5 + 0.5 * number.weight)
            for number in (_numbers(recipe) if edit.valid(recipe) else {}).values()
            if not number.dimension.choices
        }

    def placed(self, recipe: Recipe, places: Mapping[str, float]) -> Option:
        """The recipe with these of its numbers at these places among features."""
        there = {path: number for path, number in _numbers(recipe).items() if number.name in places}
        values = {path: number.at(places[number.name]) for path, number in there.items()}
        base = features(recipe)
        parts, numbers = dict(base.parts), dict(base.numbers)
        for path, number in there.items():
            number.put(values[path], parts, numbers)  # Whole numbers stand where rounding puts them.
        return Option(Move.TUNE, "tune", Features(parts, numbers), partial(edit.with_numbers, recipe, values))

    def both(self, first: Recipe, second: Recipe) -> tuple[Option, ...]:
        """The method of one with the rest of the other, and both answering together."""
        if not (edit.valid(first) and edit.valid(second)):
            return ()
        return self._allowed(_both(_Pair(first.hash, second.hash, self.task.kind == "classification", first, second)))

    def features(self, recipe: Recipe) -> Features:
        """Settings, members, data steps, base model, inference rule and cost as parts; places of tunable numbers. A
        recipe that is not valid, and so never trained, is a part of its own."""
        return features(recipe) if edit.valid(recipe) else Features({"invalid": 1.0}, {})

    def taught(self, recipe: Recipe) -> tuple[Taught, ...]:
        """What finished runs say of plays and starting points, which are measured over the classic reference. A play
        that does not apply to the recipe is one of the first starting point that it applies to."""
        if not self.priors:
            return ()
        return tuple({**self._taught_of_starts, **self._taught(recipe)}.values())

    @cached_property
    def _taught_of_starts(self) -> dict[str, Taught]:
        found: dict[str, Taught] = {}
        for start in self._starts:
            found = {**self._taught(start.recipe), **found}
        classic = next((each.recipe for each in reference_recipes(self.task) if each.kind == DRAFTS_AGAINST), None)
        if classic is None:
            return found
        against = features(classic)
        return found | {
            start.kind: Taught(against, start.features, *known)
            for start in reversed(self._starts)
            if (known := self._known(start.kind)) is not None and start.features != against
        }

    def _taught(self, recipe: Recipe) -> dict[str, Taught]:
        """Kind -> what finished runs say of it, for the plays that apply."""
        before = features(recipe)
        return {
            option.kind: Taught(before, option.features, *known)
            for option in self.changes(recipe)
            if option.move is Move.IMPROVE and (known := self._known(option.kind)) is not None
        }

    def promised(self, recipe: Recipe, analysis: Analysis | None, solved: float) -> tuple[Taught, ...]:
        """See `promises.py`."""
        found = promises(analysis, solved)
        if not found or not edit.valid(recipe):
            return ()
        before = features(recipe)
        return tuple(
            Taught(before, option.features, found[option.kind].gain, found[option.kind].sd)
            for option in self.changes(recipe)
            if option.move is Move.IMPROVE and option.kind in found
        )

    def _known(self, kind: str) -> tuple[float, float] | None:
        """(effect, error) of a kind of change by finished runs alone: what else is believed of recipes, the policy
        knows."""
        prior = self.priors.get(kind)
        return (prior.effect, prior.error) if prior and prior.effect is not None and prior.error else None

    def mended(self, recipe: Recipe, failure: Failure) -> Recipe | None:
        if self.barred("repair"):
            return None
        return _mended(_Failed(recipe.hash, failure.boundary, failure.kind, recipe, failure))

    def nominal_s(self, recipe: Recipe) -> float:
        return self.seconds(recipe)

    def seeded(self, recipe: Recipe) -> bool:
        return edit.valid(recipe) and self.varies(recipe) and not self.barred("replicate")


@dataclass(frozen=True)
class _Case:
    """A recipe of a task, as a key."""

    about: str
    hash: str
    recipe: Recipe = field(compare=False)
    task: TaskSpec = field(compare=False)


@lru_cache(maxsize=KEPT)
def _changes(case: _Case) -> tuple[Option, ...]:
    """What can be changed about a recipe. Remembered: what leads is asked about again and again."""
    recipe, task = case.recipe, case.task
    found = [
        (Move.IMPROVE, play.kind, play.apply(recipe, task)) for play in plays_of(task) if play.applies(recipe, task)
    ]
    found += [(Move.ABLATE, f"ablate.{name}", smaller) for name, smaller in _smaller(recipe)]
    for path, number in _numbers(recipe).items():
        others = [value for value in number.dimension.choices if value != number.value]
        found += [(Move.TUNE, "tune", edit.with_numbers(recipe, {path: value})) for value in others]
    return tuple(
        Option(move, kind, features(after), partial(_same, after))
        for move, kind, after in found
        if after.hash != recipe.hash and edit.valid(after)
    )


@dataclass(frozen=True)
class _Pair:
    """Two valid recipes, as a key."""

    first_hash: str
    second_hash: str
    together: bool
    first: Recipe = field(compare=False)
    second: Recipe = field(compare=False)


@lru_cache(maxsize=KEPT)
def _both(pair: _Pair) -> tuple[Option, ...]:
    return tuple(
        Option(Move.COMBINE, "combine", features(mixed), partial(_same, mixed))
        for mixed in mixtures(pair.first, pair.second, together=pair.together)
        if edit.valid(mixed)
    )


@dataclass(frozen=True)
class _Failed:
    """A recipe and how it failed, as a key."""

    hash: str
    boundary: str
    kind: str
    recipe: Recipe = field(compare=False)
    failure: Failure = field(compare=False)


@lru_cache(maxsize=KEPT)
def _mended(case: _Failed) -> Recipe | None:
    found = repaired(case.recipe, case.failure) if edit.valid(case.recipe) else None
    return found[1] if found else None


def _same(recipe: Recipe) -> Recipe:
    return recipe


def _smaller(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """(what is left out, the recipe without it)."""
    for step in recipe.data:
        yield step.op, edit.without_step(recipe, step.op)
    found = edit.stages(recipe)
    for i, stage in enumerate(found if len(found) > 1 else ()):
        yield _kind(stage), edit.without_member(recipe, i)


# --- numbers ----------------------------------------------------------------------------------------------------------


class Number(NamedTuple):
    """A tunable number of a recipe: its value, its range, its name among features and what it counts for."""

    name: str
    value: Any
    dimension: Dimension
    weight: float

    def at(self, place: float) -> Value:
        """The value at a place among features."""
        return _valued(self.dimension, 0.5 + (place - 0.5) / self.weight)

    def put(self, value: Value, parts: dict[str, float], numbers: dict[str, float]) -> None:
        """Write a value into features, in place of the recipe's own."""
        if self.dimension.choices:
            parts[f"{self.name}={self.value}"] = parts.get(f"{self.name}={self.value}", 0.0) - self.weight
            parts[f"{self.name}={value}"] = parts.get(f"{self.name}={value}", 0.0) + self.weight
        else:
            numbers[self.name] = 0.5 + self.weight * (_place(self.dimension, value) - 0.5)


@edit.remembered
def _numbers(recipe: Recipe) -> Mapping[str, Number]:
    """Path -> tunable number."""
    stages, main, params = edit.stages(recipe), edit.main_index(recipe), edit.full_params(recipe)
    found = {}
    for path, dimension in edit.space_of(recipe).items():
        parts = path.split(".")
        owner = int(parts[1]) if parts[0] == "members" else 0
        name = f"{_kind(stages[owner])}.{parts[-1]}"
        found[path] = Number(name, edit.get_path(params, path), dimension, 1.0 if owner == main else BESIDE)
    return found


def _place(dimension: Dimension, value: Any) -> float:
    """Where a number stands in its range: 0 at the low end, 1 at the high end, a little beyond outside of it. What has
    no place, as in a range of one value, stands in the middle."""
    low, high = dimension.low, dimension.high
    if not isinstance(value, int | float) or high <= low or (dimension.log and low <= 0):
        return 0.5
    if dimension.log:
        low, high, value = log(low), log(high), log(max(value, 1e-12))
    return float(min(1.3, max(-0.3, (value - low) / (high - low))))


def _valued(dimension: Dimension, place: float) -> Value:
    """The number at a place in its range, to three digits: more than a score can tell apart."""
    low, high, place = dimension.low, dimension.high, min(1.0, max(0.0, place))
    value = exp(log(low) + place * (log(high) - log(low))) if dimension.log else low + place * (high - low)
    return round(value) if dimension.integer else float(min(high, max(low, float(f"{value:.3g}"))))


# --- features ---------------------------------------------------------------------------------------------------------


@edit.remembered
def features(recipe: Recipe) -> Features:
    """A valid recipe as parts and numbers, remembered by its hash."""
    stages, main = edit.stages(recipe), edit.main_index(recipe)
    tunable, parts = _numbers(recipe), {f"base.{recipe.base_model}": 1.0}
    for i, stage in enumerate(stages):
        weight = 1.0 if i == main else BESIDE
        for name in _settings(edit.single(stage)):
            parts[name] = parts.get(name, 0.0) + weight
        if members := edit.ingredients(stage):
            name = "member.soup" if len(set(members)) == 1 else "member.soup_mixed"
            parts[name] = parts.get(name, 0.0) + weight * (len(members) - 1)
        if i != main:
            name = f"member.{'again' if _kind(stage) == _kind(stages[main]) else _kind(stage)}"
            parts[name] = parts.get(name, 0.0) + 1.0
    parts |= {f"step.{step.op}": 1.0 for step in recipe.data}
    parts |= {"steps": float(len(recipe.data)), "members": len(stages) - 1.0, "doublings": _doublings(recipe)}
    parts |= {f"inference.{key}={value}": 1.0 for key, value in recipe.inference.items()}
    numbers: dict[str, float] = {}
    for number in tunable.values():
        if not number.dimension.choices:
            number.put(number.value, parts, numbers)
    return Features(parts, numbers)


def _doublings(recipe: Recipe) -> float:
    """How often the cost doubles from the cheapest recipes to this one, in quarters: dearer is often better."""
    nominal = BACKENDS.get(recipe.stage.backend).nominal_cost(recipe.stage.params, ROWS, ROWS)
    return 0.25 * log2(max(nominal, 0.1) / 0.1)


def _settings(stage: Stage) -> list[str]:
    """The settings of a stage that are no numbers to tune: names always, the rest where it is not the default."""
    backend = BACKENDS.get(stage.backend)
    space, plain = backend.space(stage.params), backend.Params.model_validate(stage.params)
    found = [f"backend.{stage.backend}"]
    for key, known in type(plain).model_fields.items():
        value = getattr(plain, key)
        if key in space:
            found += [f"{_kind(stage)}.{key}={value}"] if space[key].choices else []
        elif isinstance(value, str) or value != known.default:
            found.append(f"{stage.backend}.{key}={value}")
    return found


def _kind(stage: Stage) -> str:
    tune, backend = stage.params.get("tune"), edit.family(stage)
    return f"{backend}.{tune}" if tune else backend
