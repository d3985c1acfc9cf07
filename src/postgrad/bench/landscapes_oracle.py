"""The best true value that a landscape holds, as far as a long search without noise finds it.

Sweeps from the best starting point of every method: every move of the playbook, and every member and data step left
out, each kept where it is better. The best two are taken on: each number along its whole space, then structure again,
until nothing is better. It is no proof of optimality: a table of regrets takes the best recipe that any search tried in
its place where that is better.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Iterator

from postgrad.bench.landscapes import Landscape
from postgrad.bench.landscapes_features import features
from postgrad.data import OPERATORS
from postgrad.records import Dimension, Recipe, TaskSpec, Value
from postgrad.research import edit
from postgrad.research.drafts import drafts
from postgrad.research.moves import PLAYS
from postgrad.research.play import Play
from postgrad.research.references import reference_recipes

CLIMBED, ROUNDS, SWEEPS, POINTS, ENOUGH = 2, 3, 5, 7, 1e-3


def oracle(landscape: Landscape) -> float:
    """The landscape's own `best`, or the best true value that the search finds."""
    known = landscape.best()
    if known is not None:
        return known
    task = landscape.task
    found = [draft.recipe for base in task.base_models or (None,) for draft in drafts(base)]
    found += [proposal.recipe for proposal in reference_recipes(task)]
    starts: dict[str, Recipe] = {}
    for recipe in sorted(found, key=lambda recipe: (-landscape.truth(recipe), recipe.hash)):
        starts.setdefault(features(recipe).method, recipe)
    swept = {recipe.hash: recipe for recipe in (_settled(landscape, start) for start in starts.values())}
    best = sorted(swept.values(), key=lambda recipe: (-landscape.truth(recipe), recipe.hash))[:CLIMBED]
    return max(landscape.truth(_climbed(landscape, recipe)) for recipe in best)


def _settled(landscape: Landscape, recipe: Recipe) -> Recipe:
    """Swept until no change of structure helps."""
    for _ in range(SWEEPS):
        better = _swept(landscape, recipe)
        if better == recipe:
            break
        recipe = better
    return recipe


def _climbed(landscape: Landscape, recipe: Recipe) -> Recipe:
    """Numbers and structure in turn until neither helps."""
    for _ in range(ROUNDS):
        before = landscape.truth(recipe)
        for path in edit.space_of(recipe):
            recipe = max(_along(recipe, path), key=landscape.truth)
        recipe = _settled(landscape, recipe)
        if landscape.truth(recipe) <= before + ENOUGH:
            break
    return recipe


def _swept(landscape: Landscape, recipe: Recipe) -> Recipe:
    """Every change of structure once, each kept where it is better."""
    for change in _changes(landscape.task):
        changed = change(recipe)
        if changed is not None and edit.valid(changed) and landscape.truth(changed) > landscape.truth(recipe):
            recipe = changed
    return recipe


def _changes(task: TaskSpec) -> Iterator[Callable[[Recipe], Recipe | None]]:
    """Every play, every data step left out, every member left out: each gives None where there is nothing to do."""
    for play in PLAYS:
        yield partial(_played, play, task)
    for op in OPERATORS.names():
        yield partial(_left_out, op)
    for number in range(edit.MAX_MEMBERS):
        yield partial(_without, number)


def _played(play: Play, task: TaskSpec, recipe: Recipe) -> Recipe | None:
    return play.apply(recipe, task) if play.applies(recipe, task) else None


def _left_out(op: str, recipe: Recipe) -> Recipe | None:
    return edit.without_step(recipe, op) if edit.has_step(recipe, op) else None


def _without(number: int, recipe: Recipe) -> Recipe | None:
    return edit.without_member(recipe, number) if number < len(edit.stages(recipe)) > 1 else None


def _along(recipe: Recipe, path: str) -> Iterator[Recipe]:
    """The recipe, and the same with other values of one number."""
    yield recipe
    for value in _values(edit.space_of(recipe)[path]):
        yield edit.with_numbers(recipe, {path: value})


def _values(dimension: Dimension) -> Iterator[Value]:
    if dimension.choices:
        yield from dimension.choices
        return
    for step in range(POINTS):
        share = step / (POINTS - 1)
        low, high = dimension.low, dimension.high
        value: Any = low * (high / low) ** share if dimension.log else low + share * (high - low)
        yield round(value) if dimension.integer else float(f"{value:.3g}")
