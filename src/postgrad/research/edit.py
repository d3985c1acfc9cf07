"""Editing recipes: a recipe is a value, so every edit is a new one. Trains and scores nothing.

A recipe has one stage, or an ensemble of them; the main member is the one that costs most, and what a change of method,
head or score is about. What is read off a recipe again and again is remembered by its hash.
"""

from __future__ import annotations

import json
from functools import wraps
from hashlib import blake2b
from threading import Lock
from typing import Any, Callable, Mapping, TypeVar

from pydantic import ValidationError

from postgrad.data import OPERATORS
from postgrad.errors import UserError
from postgrad.records import Dimension, Recipe, Stage, Step, Value
from postgrad.train import BACKENDS
from postgrad.train.soup import Ingredient, SoupParams, shared_stage

MAX_MEMBERS = 4
REMEMBERED = 2048
T = TypeVar("T")


def remembered(read: Callable[[Recipe], T], most: int = REMEMBERED) -> Callable[[Recipe], T]:
    """Remember what was read off a recipe, by its hash. What is returned is shared, so it may not be changed.

    A search step reads thousands of times, so this is a dict and not `lru_cache`, which would hash a key object for
    each: the oldest entry goes first.
    """
    known: dict[str, T] = {}
    adding = Lock()

    @wraps(read)
    def by_hash(recipe: Recipe) -> T:
        name = recipe.hash
        try:
            return known[name]
        except KeyError:
            pass
        found = read(recipe)
        with adding:  # A question to somebody else is worked on in a thread beside the loop.
            while len(known) >= most:
                del known[next(iter(known))]
            known[name] = found
        return found

    return by_hash


@remembered
def valid(recipe: Recipe) -> bool:
    """True when every backend and operator is known and takes its parameters, members of an ensemble included."""
    try:
        BACKENDS.get(recipe.stage.backend).Params.model_validate(recipe.stage.params)
        for member in members(recipe):
            stage = Stage.model_validate(member["stage"])
            BACKENDS.get(stage.backend).Params.model_validate(stage.params)
        for step in recipe.data:
            OPERATORS.get(step.op).Params.model_validate(step.params)
    except (ValidationError, UserError):
        return False
    return True


def checked(recipe: Recipe) -> Recipe:
    """Through JSON and back, so that equal recipes have equal hashes."""
    return Recipe.model_validate_json(recipe.model_dump_json())


# --- members ----------------------------------------------------------------------------------------------------------


def members(recipe: Recipe) -> list[dict[str, Any]]:
    """The stages of a recipe as plain data: one, or one for each member of an ensemble."""
    plain = recipe.stage.model_dump(mode="json")
    if recipe.stage.backend != "ensemble":
        return [{"stage": plain, "weight": 1.0, "score_weight": 1.0}]
    found: list[dict[str, Any]] = plain["params"]["members"]
    return found


@remembered
def stages(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages of a recipe, in the order of its members."""
    return tuple(Stage.model_validate(member["stage"]) for member in members(recipe))


@remembered
def teachers(recipe: Recipe) -> tuple[str, ...]:
    """The models that a recipe learns from beside its base model, in the order in which it names them."""
    later = [stage for own in stages(recipe) for stage in _dicts(own.params.get("then"))]
    return tuple(dict.fromkeys(str(stage["teacher"]) for stage in later if stage.get("teacher")))


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list | tuple) else []


def with_members(recipe: Recipe, found: list[dict[str, Any]]) -> Recipe:
    """A recipe of these members; one member alone is no ensemble."""
    if len(found) == 1:
        stage = Stage.model_validate(found[0]["stage"])
    else:
        stage = Stage(backend="ensemble", params={"members": tuple(found)})
    return checked(recipe.model_copy(update={"stage": stage}))


def with_member(recipe: Recipe, stage: Stage, weight: float = 1.0, score_weight: float = 1.0) -> Recipe:
    """One more member; the first of two gets twice the weight, because it is the one that was there."""
    found = members(recipe)
    if len(found) == 1:
        found = [{**found[0], "weight": 2.0, "score_weight": 2.0}]
    added = {"stage": stage.model_dump(mode="json"), "weight": weight, "score_weight": score_weight}
    return with_members(recipe, [*found, added])


def without_member(recipe: Recipe, index: int) -> Recipe:
    """The recipe without one of its members; it has at least two."""
    found = members(recipe)
    return with_members(recipe, [*found[:index], *found[index + 1 :]])


@remembered
def main_index(recipe: Recipe) -> int:
    """The member that costs most; the first of equals."""
    costs = [BACKENDS.get(stage.backend).nominal_cost(stage.params, 100, 100) for stage in stages(recipe)]
    return costs.index(max(costs))


def main_stage(recipe: Recipe) -> Stage:
    """The stage of the main member."""
    return stages(recipe)[main_index(recipe)]


def with_main_stage(recipe: Recipe, stage: Stage) -> Recipe:
    """The recipe with another main member of the same weight."""
    found = members(recipe)
    i = main_index(recipe)
    found[i] = {**found[i], "stage": stage.model_dump(mode="json")}
    return with_members(recipe, found)


def with_main(recipe: Recipe, **changes: Value) -> Recipe:
    """The main member with some parameters set."""
    stage = main_stage(recipe)
    return with_main_stage(recipe, Stage(backend=stage.backend, params={**stage.params, **changes}))


def setting(stage: Stage, key: str) -> Value:
    """A parameter of a stage, its default where the recipe does not say."""
    return stage.params[key] if key in stage.params else BACKENDS.get(stage.backend).Params.model_fields[key].default


def number(stage: Stage, key: str) -> float:
    """A parameter of a stage that is a number."""
    value = setting(stage, key)
    assert isinstance(value, int | float), f"{key} is a number"
    return float(value)


@remembered
def seeded(recipe: Recipe) -> bool:
    """False where training a valid recipe with another seed gives the same model: nothing in it draws by chance."""
    steps = (getattr(OPERATORS.get(step.op), "seeded", True) for step in recipe.data)
    return any(steps) or any(map(_stage_seeded, stages(recipe)))


def _stage_seeded(stage: Stage) -> bool:
    rule = getattr(BACKENDS.get(stage.backend), "seeded", True)
    return bool(rule(stage.params) if callable(rule) else rule)


# --- soups: several trainings of one stage with their weights averaged ------------------------------------------------


def is_soup(stage: Stage) -> bool:
    """True for a stage that averages the weights of several trainings."""
    return stage.backend == "soup"


def single(stage: Stage) -> Stage:
    """A soup as the stage that its members share; any other stage as it is."""
    return shared_stage(stage) if is_soup(stage) else stage


def family(stage: Stage) -> str:
    """The backend whose settings a stage has: a soup takes those of the embedder."""
    return single(stage).backend


def ingredients(stage: Stage) -> tuple[Ingredient, ...]:
    """The members of a soup; none of any other stage."""
    return SoupParams.model_validate(stage.params).members if is_soup(stage) else ()


def with_soup(recipe: Recipe, *factors: Mapping[str, Value]) -> Recipe:
    """The main member trained several times, its weights averaged; factors as in `Ingredient`, one mapping each."""
    found = tuple(Ingredient.model_validate(dict(each)).model_dump(mode="json") for each in factors)
    params = {**single(main_stage(recipe)).params, "members": found}
    return with_main_stage(recipe, Stage(backend="soup", params=params))


def without_soup(recipe: Recipe) -> Recipe:
    """The main member trained once."""
    return with_main_stage(recipe, single(main_stage(recipe)))


# --- data steps and inference -----------------------------------------------------------------------------------------


def with_step(recipe: Recipe, op: str, **params: Value) -> Recipe:
    """A data step at the end, in place of one with the same operator."""
    kept = tuple(step for step in recipe.data if step.op != op)
    return checked(recipe.model_copy(update={"data": (*kept, Step(op=op, params=params))}))


def without_step(recipe: Recipe, op: str) -> Recipe:
    """The recipe without the steps of an operator."""
    return checked(recipe.model_copy(update={"data": tuple(step for step in recipe.data if step.op != op)}))


def has_step(recipe: Recipe, op: str) -> bool:
    """True when a data step uses this operator."""
    return any(step.op == op for step in recipe.data)


def with_inference(recipe: Recipe, **params: Value) -> Recipe:
    """The recipe with some inference settings set."""
    return checked(recipe.model_copy(update={"inference": {**recipe.inference, **params}}))


# --- numbers ----------------------------------------------------------------------------------------------------------


@remembered
def space_of(recipe: Recipe) -> Mapping[str, Dimension]:
    """The tunable numbers of a recipe's structure, by dotted path into the stage's parameters."""
    return BACKENDS.get(recipe.stage.backend).space(recipe.stage.params)


@remembered
def full_params(recipe: Recipe) -> Mapping[str, Any]:
    """The stage's parameters with every default filled in, members of an ensemble included."""
    return _filled(recipe.stage.backend, recipe.stage.params)


def _filled(backend: str, params: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = BACKENDS.get(backend).Params.model_validate(params).model_dump(mode="json")
    if backend == "ensemble":
        for member in plain["members"]:
            member["stage"]["params"] = _filled(member["stage"]["backend"], member["stage"]["params"])
    return plain


def _copied(value: Any) -> Any:
    """Plain data once more, to be changed; several times faster than `copy.deepcopy`."""
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list) else value


def get_path(params: Any, path: str) -> Any:
    """The value at a dotted path; numbers in the path index lists. The empty path is everything."""
    for part in filter(None, path.split(".")):
        params = params[int(part)] if isinstance(params, list | tuple) else params[part]
    return params


def with_numbers(recipe: Recipe, numbers: Mapping[str, Value]) -> Recipe:
    """The recipe with the numbers at these paths set, and every default written out."""
    params = _copied(full_params(recipe))
    for path, value in numbers.items():
        above, _, last = path.rpartition(".")
        get_path(params, above)[last] = value
    return checked(recipe.model_copy(update={"stage": Stage(backend=recipe.stage.backend, params=params)}))


@remembered
def filled(recipe: Recipe) -> Recipe:
    """A valid recipe with every default written out, those of data steps too: equal for recipes that do the same."""
    steps = tuple(
        Step(op=step.op, params=OPERATORS.get(step.op).Params.model_validate(step.params).model_dump(mode="json"))
        for step in recipe.data
    )
    return with_numbers(recipe.model_copy(update={"data": steps}), {})


@remembered
def structure_of(recipe: Recipe) -> str:
    """A name for the recipe without its tunable numbers: equal for recipes that differ in numbers only."""
    params = _copied(full_params(recipe))
    for path in space_of(recipe):
        above, _, last = path.rpartition(".")
        get_path(params, above).pop(last, None)
    plain = recipe.model_dump(mode="json")
    plain["stage"]["params"] = params
    return blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16).hexdigest()
