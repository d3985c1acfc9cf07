"""Editing recipes: a recipe is a value, so every edit is a new one."""

from __future__ import annotations

import json
from typing import Any, Mapping

from postgrad.data import OPERATORS
from postgrad.records import Dimension, Recipe, Stage, Step, Value
from postgrad.train import BACKENDS


def valid(recipe: Recipe) -> bool:
    """True when every parameter is one that its backend or operator takes."""
    from pydantic import ValidationError

    try:
        BACKENDS.get(recipe.stage.backend).Params.model_validate(recipe.stage.params)
        for step in recipe.data:
            OPERATORS.get(step.op).Params.model_validate(step.params)
    except ValidationError:
        return False
    return True


def members(recipe: Recipe) -> list[dict[str, Any]]:
    """The stages of a recipe as plain data: one, or one for each member of an ensemble."""
    plain = recipe.stage.model_dump(mode="json")
    if recipe.stage.backend != "ensemble":
        return [{"stage": plain, "weight": 1.0, "score_weight": 1.0}]
    found: list[dict[str, Any]] = plain["params"]["members"]
    return found


def with_members(recipe: Recipe, stages: list[dict[str, Any]]) -> Recipe:
    """A recipe of these members; one member alone is no ensemble."""
    if len(stages) == 1:
        stage = Stage.model_validate(stages[0]["stage"])
    else:
        stage = Stage(backend="ensemble", params={"members": tuple(stages)})
    return _checked(recipe.model_copy(update={"stage": stage}))


def _checked(recipe: Recipe) -> Recipe:
    """Through JSON and back, so that equal recipes have equal hashes."""
    return Recipe.model_validate(json.loads(recipe.model_dump_json()))


def main_index(recipe: Recipe) -> int:
    """The member that costs most: the one a change of method is about."""
    found = members(recipe)
    costs = [BACKENDS.get(m["stage"]["backend"]).nominal_cost(m["stage"].get("params", {}), 100, 100) for m in found]
    return costs.index(max(costs))


def main_stage(recipe: Recipe) -> Stage:
    """The stage of the main member."""
    return Stage.model_validate(members(recipe)[main_index(recipe)]["stage"])


def with_main(recipe: Recipe, **changes: Value) -> Recipe:
    """The main member with some parameters set."""
    found = [dict(member) for member in members(recipe)]
    i = main_index(recipe)
    stage = dict(found[i]["stage"])
    stage["params"] = {**stage.get("params", {}), **changes}
    found[i] = {**found[i], "stage": stage}
    return with_members(recipe, found)


def setting(stage: Stage, key: str) -> Value:
    """A parameter of a stage, its default where the recipe does not say."""
    params = BACKENDS.get(stage.backend).Params
    return stage.params[key] if key in stage.params else params.model_fields[key].default


def with_negatives(recipe: Recipe) -> Recipe:
    """The main member made to train on out-of-scope rows as a class of their own."""
    return with_main(recipe, negatives="class")


def with_member(recipe: Recipe, stage: Stage, weight: float = 1.0, score_weight: float = 1.0) -> Recipe:
    """One more member; the first of two keeps twice the weight, because it is the one that was there."""
    found = members(recipe)
    if len(found) == 1:
        found = [{**found[0], "weight": 2.0, "score_weight": 2.0}]
    added = {"stage": stage.model_dump(mode="json"), "weight": weight, "score_weight": score_weight}
    return with_members(recipe, [*found, added])


def with_step(recipe: Recipe, op: str, **params: Value) -> Recipe:
    """A data step at the end, in place of one with the same operator."""
    kept = tuple(step for step in recipe.data if step.op != op)
    return _checked(recipe.model_copy(update={"data": (*kept, Step(op=op, params=params))}))


def without_step(recipe: Recipe, op: str) -> Recipe:
    return _checked(recipe.model_copy(update={"data": tuple(step for step in recipe.data if step.op != op)}))


def has_step(recipe: Recipe, op: str) -> bool:
    return any(step.op == op for step in recipe.data)


def with_inference(recipe: Recipe, **params: Value) -> Recipe:
    return _checked(recipe.model_copy(update={"inference": {**recipe.inference, **params}}))


# --- numbers ----------------------------------------------------------------------------------------------------------


def space_of(recipe: Recipe) -> dict[str, Dimension]:
    """The tunable numbers of a recipe's structure, by dotted path into the stage's parameters."""
    return BACKENDS.get(recipe.stage.backend).space(recipe.stage.params)


def full_params(recipe: Recipe) -> dict[str, Any]:
    """The stage's parameters with every default filled in, members of an ensemble included."""
    backend = BACKENDS.get(recipe.stage.backend)
    plain: dict[str, Any] = backend.Params.model_validate(recipe.stage.params).model_dump(mode="json")
    if recipe.stage.backend == "ensemble":
        for member in plain["members"]:
            own = BACKENDS.get(member["stage"]["backend"]).Params.model_validate(member["stage"]["params"])
            member["stage"]["params"] = own.model_dump(mode="json")
    return plain


def get_path(params: Any, path: str) -> Any:
    """The value at a dotted path; numbers in the path index lists."""
    for part in path.split("."):
        params = params[int(part)] if isinstance(params, list) else params[part]
    return params


def with_numbers(recipe: Recipe, numbers: Mapping[str, Value]) -> Recipe:
    """The recipe with the numbers at these paths set."""
    params = full_params(recipe)
    for path, value in numbers.items():
        *parents, last = path.split(".")
        target = get_path(params, ".".join(parents)) if parents else params
        target[last] = value
    return _checked(recipe.model_copy(update={"stage": Stage(backend=recipe.stage.backend, params=params)}))


def structure_of(recipe: Recipe) -> str:
    """A name for the recipe without its tunable numbers: equal for recipes that differ in numbers only."""
    params = full_params(recipe)
    for path in space_of(recipe):
        *parents, last = path.split(".")
        target = get_path(params, ".".join(parents)) if parents else params
        target.pop(last, None)
    plain = recipe.model_dump(mode="json")
    plain["stage"]["params"] = params
    return json.dumps(plain, sort_keys=True)
