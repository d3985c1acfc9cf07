"""Whether a recipe was tried before: a repeat is answered from the tree and not trained.

A repeat does the same as a recipe that was tried, however it is written; or it differs from one in nothing but numbers,
and in those by less than what training the same recipe again changes. How far apart numbers are is taken from the
features that the search's surrogate believes in: places in the tuner's ranges. Replicates are asked for by the referee
and do not come through here.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from json import dumps
from math import inf, sqrt
from typing import Any, Iterable, NamedTuple

from postgrad.groups import among
from postgrad.records import Recipe
from postgrad.research import edit
from postgrad.research.difference import RecipeChange, recipe_changes
from postgrad.research.features import numbers_of
from postgrad.shelf import Group
from postgrad.tree import Experiment, Tree

# Recipes nearer than this are one: see docs/decisions.md.
NEAR = 0.005
# The experiments of a structure that are looked at, the latest ones; and what is remembered of their recipes.
LATEST, KEPT = 16_000, 20_000
SHOWN = 4


class Spot(NamedTuple):
    """A number of a recipe. `place`: where it stands in the tuner's range; None where it has none or is far outside."""

    value: float
    place: float | None


class Standing(NamedTuple):
    """A recipe among others: a structure, which others share that differ in numbers only, and those numbers."""

    structure: str
    spots: tuple[Spot, ...]


@dataclass(frozen=True)
class Repeat:
    """An experiment that tried a recipe. `distance` is 0 where it tried the same; `changes` are what differs."""

    node: Experiment
    distance: float
    changes: tuple[RecipeChange, ...]

    @property
    def told(self) -> str:
        """What it was and what came of it, in words."""
        if not self.changes:
            return f"it was tried as {self.node.id}: {outcome(self.node)}"
        return (
            f"it was tried as {self.node.id} but for {_listed(self.changes)}, which is less than training the same "
            f"again changes: {outcome(self.node)}"
        )


class Tried:
    """The recipes of a tree, to be asked for repeats. Trees that grew from each other share what is known of them."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def repeat(self, recipe: Recipe, near: float = NEAR) -> Repeat | None:
        """The experiment that tried a recipe: the same, else the nearest that is no further than `near`; the first of
        several. None where there is none."""
        if (node := self.tree.first_with(recipe)) is not None:
            return Repeat(node, 0.0, ())
        if (at := _standing(recipe)) is None:
            return None
        nearest, distance = None, inf
        for node in among(self.tree, Group("standing", _stands, at.structure))[-LATEST:]:
            other = _known(node.proposed.proposal.recipe)
            gap = apart(at.spots, other.spots, near) if other is not None else inf
            if gap < distance:
                nearest, distance = node, gap
        if nearest is None:
            return None
        tried = nearest.proposed.proposal.recipe
        changes = recipe_changes(edit.filled(tried), edit.filled(recipe)) if distance else ()
        return Repeat(nearest, distance, tuple(changes))


def near(one: Recipe, two: Recipe) -> bool:
    """True where the two do the same, as far as a score can tell."""
    first, second = _standing(one), _standing(two)
    if first is None or second is None or first.structure != second.structure:
        return False
    return apart(first.spots, second.spots, NEAR) < inf


def apart(one: Iterable[Spot], two: Iterable[Spot], most: float) -> float:
    """How far recipes of one structure are from each other: the length of the way from one to the other, in widths of
    the tuner's ranges, or infinity where it is longer than `most`. A number without a range counts with its relative
    difference."""
    squares = 0.0
    for a, b in zip(one, two, strict=True):
        if a != b:
            squares += _gap(a, b) ** 2
            if squares > most * most:
                return inf
    return sqrt(squares)


def _gap(one: Spot, two: Spot) -> float:
    if one.place is not None and two.place is not None:
        return abs(one.place - two.place)
    return abs(one.value - two.value) / max(abs(one.value), abs(two.value)) if one.value != two.value else 0.0


def _standing(recipe: Recipe) -> Standing | None:
    """A recipe among others; None for one that is not valid."""
    if not edit.valid(recipe):
        return None
    plain: dict[str, Any] = edit.filled(recipe).model_dump(mode="json")
    spots: list[Spot] = []
    for path, number in sorted(numbers_of(recipe).items()):
        if not number.dimension.choices and isinstance(number.value, int | float):
            above, _, last = path.rpartition(".")
            edit.get_path(plain["stage"]["params"], above).pop(last)
            spots.append(Spot(float(number.value), number.place if number.in_sight else None))
    plain = _without_numbers(plain, spots)
    return Standing(blake2b(dumps(plain, sort_keys=True).encode(), digest_size=16).hexdigest(), tuple(spots))


_known = edit.remembered(_standing, KEPT)


def _stands(node: Experiment) -> str | None:
    at = _known(node.proposed.proposal.recipe)
    return at.structure if at is not None else None


def _without_numbers(value: Any, spots: list[Spot]) -> Any:
    """Plain data without its broken numbers, which are put down; a whole one may be a name, as a seed is."""
    if isinstance(value, dict):
        return {key: _without_numbers(value[key], spots) for key in sorted(value)}
    if isinstance(value, list):
        return [_without_numbers(one, spots) for one in value]
    if isinstance(value, float):
        spots.append(Spot(value, None))
        return "number"
    return value


def outcome(node: Experiment) -> str:
    """What the store knows of an experiment."""
    return f"it scored {node.score:.4f}" if node.score is not None else f"it is {node.state.value}"


def _listed(changes: tuple[RecipeChange, ...]) -> str:
    more = f" and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    return f"{', '.join(change.told for change in changes[:SHOWN])}{more}"
