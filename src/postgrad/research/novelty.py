"""Whether a recipe was tried before, whatever way it is written: a repeat is answered from the tree and not trained."""

from __future__ import annotations

import json
from typing import Any, Iterable

from postgrad.data import OPERATORS
from postgrad.records import Recipe
from postgrad.research import edit
from postgrad.research.ideas import recipe_of
from postgrad.tree import Experiment, Tree


def repeat_of(recipe: Recipe, tree: Tree, near: Iterable[Experiment] = ()) -> Experiment | None:
    """The first experiment that did the same: with this recipe, with the same one and every default written out, or
    among `near`, with one that differs in nothing but defaults."""
    for form in (recipe, edit.with_numbers(recipe, {})):
        if (found := tree.first_with(form)) is not None:
            return found
    name = does(recipe)
    return next((node for node in near if edit.valid(recipe_of(node)) and does(recipe_of(node)) == name), None)


@edit.remembered
def does(recipe: Recipe) -> str:
    """A name for what a valid recipe does: equal for recipes that differ only in which defaults they write out."""
    plain: dict[str, Any] = recipe.model_dump(mode="json")
    plain["stage"]["params"] = edit.full_params(recipe)
    for step in plain["data"]:
        step["params"] = OPERATORS.get(step["op"]).Params.model_validate(step["params"]).model_dump(mode="json")
    return json.dumps(plain, sort_keys=True)
