"""When two recipes are one, when they differ in numbers only, and how far apart they are."""

from __future__ import annotations

import json
from typing import Any

from postgrad.bench.landscapes_features import features
from postgrad.records import Recipe
from postgrad.research import edit


@edit.remembered
def exactly(recipe: Recipe) -> str:
    """A name for what a valid recipe does, with its numbers: equal for recipes that differ in the order of their data
    steps or members, or in whether a default is written out."""
    return _name(recipe, numbers=True)


@edit.remembered
def shape(recipe: Recipe) -> str:
    """The same without the tunable numbers."""
    return _name(recipe, numbers=False)


def apart(one: Recipe, two: Recipe) -> float:
    """How far two valid recipes are from each other: parts that only one of them has, and numbers in widths of their
    space."""
    first, second = features(one), features(two)
    parts, others = dict(first.parts), dict(second.parts)
    gap = sum(abs(parts.get(name, 0.0) - others.get(name, 0.0)) for name in parts.keys() | others.keys())
    places = {name: place for name, place, _ in second.numbers}
    return gap + sum(weight * abs(place - places[name]) for name, place, weight in first.numbers if name in places)


def _name(recipe: Recipe, *, numbers: bool) -> str:
    params: Any = json.loads(json.dumps(edit.full_params(recipe)))
    for path in () if numbers else edit.space_of(recipe):
        above, _, last = path.rpartition(".")
        edit.get_path(params, above).pop(last, None)
    if recipe.stage.backend == "ensemble":
        params["members"].sort(key=lambda member: json.dumps(member, sort_keys=True))
    steps = sorted(json.dumps(step.model_dump(mode="json"), sort_keys=True) for step in recipe.data)
    return json.dumps([recipe.stage.backend, params, steps, recipe.base_model, recipe.inference], sort_keys=True)
