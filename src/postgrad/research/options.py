"""What could be tried next, as recipes: the changes that the playbook knows, its starting points, and numbers.

A policy that weighs recipes gets this as `postgrad.search.base.Options`. Nothing here ranks or trains.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import Callable, Iterator, Mapping

from postgrad.memory.effects import DRAFTS_AGAINST
from postgrad.records import Analysis, Failure, MendKind, Move, Prior, Recipe, RootCause, TaskSpec
from postgrad.research import edit
from postgrad.research.base import nothing
from postgrad.research.drafts import starts_of
from postgrad.research.features import features, kind_of, numbers_of
from postgrad.research.moves import plays_of
from postgrad.research.promises import promises
from postgrad.research.recombine import mixtures
from postgrad.research.references import reference_recipes
from postgrad.research.repairs import repaired
from postgrad.search.base import Features, Option, Taught

# Recipes whose changes are kept, some 100 kB each.
KEPT = 256


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
            for number in (numbers_of(recipe) if edit.valid(recipe) else {}).values()
            if not number.dimension.choices
        }

    def placed(self, recipe: Recipe, places: Mapping[str, float]) -> Option:
        """The recipe with these of its numbers at these places among features."""
        there = {path: number for path, number in numbers_of(recipe).items() if number.name in places}
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

    def mended(self, recipe: Recipe, failure: Failure, root: RootCause | None = None) -> Recipe | None:
        if self.barred("repair"):
            return None
        mend = root.repair.kind if root is not None and root.repair is not None else None
        return _mended(_Failed(recipe.hash, failure.boundary, failure.kind, mend, recipe, failure, root))

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
    for path, number in numbers_of(recipe).items():
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
    mend: MendKind | None
    recipe: Recipe = field(compare=False)
    failure: Failure = field(compare=False)
    root: RootCause | None = field(compare=False)


@lru_cache(maxsize=KEPT)
def _mended(case: _Failed) -> Recipe | None:
    found = repaired(case.recipe, case.failure, case.root) if edit.valid(case.recipe) else None
    return found[1] if found else None


def _same(recipe: Recipe) -> Recipe:
    return recipe


def _smaller(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """(what is left out, the recipe without it)."""
    for step in recipe.data:
        yield step.op, edit.without_step(recipe, step.op)
    found = edit.stages(recipe)
    for i, stage in enumerate(found if len(found) > 1 else ()):
        yield kind_of(stage), edit.without_member(recipe, i)
