"""What a planted landscape sees of a recipe: which parts it has, and where its tunable numbers stand.

Read off the recipe and the backends' own parameters and spaces, so that a new backend, head, data step or play has
features as soon as it exists. It knows no effects: `landscapes_planted.py` draws those.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any, Iterator

from postgrad.records import Dimension, Recipe, Stage
from postgrad.research import edit
from postgrad.train import BACKENDS

# What a member beside the main one counts for, in its parts and numbers.
BESIDE = 0.3
# What is left to gain by averaging the weights of one more training: two count for 0.4 of a member that answers along.
LEFT = 0.6
# Numbers far outside their space count as this far outside, in widths of the space.
OUTSIDE = 0.5
# Settings that say how a run is carried out, and not what is learnt.
SILENT = frozenset({"max_length", "knn_k"})


@dataclass(frozen=True)
class Features:
    """What counts of a recipe.

    Attributes:
        method: the main member, as "backend" or "backend.tune".
        parts: (name, weight): a setting, member, data step, base model or inference rule that is there.
        numbers: (name, position in its space from 0 to 1, weight).
        structure: a name for all of it but the numbers.
    """

    method: str
    parts: tuple[tuple[str, float], ...]
    numbers: tuple[tuple[str, float, float], ...]
    structure: str


@edit.remembered
def features(recipe: Recipe) -> Features:
    """The features of a valid recipe, remembered by its hash."""
    stages, main = edit.stages(recipe), edit.main_index(recipe)
    methods = [method_of(stage) for stage in stages]
    parts: list[tuple[str, float]] = []
    numbers: list[tuple[str, float, float]] = []
    for number, stage in enumerate(stages):
        weight = 1.0 if number == main else BESIDE
        _stage(edit.single(stage), methods[number], weight, parts, numbers)
        parts += _soup(stage, weight)
        if number != main:
            again = methods[number] == methods[main] or methods[number] in methods[:number]
            parts.append((f"member.{'again' if again else methods[number]}", 1.0))
    if len(stages) > 1:
        numbers += _weights(recipe, methods, main)
    parts += [(f"step.{step.op}", 1.0) for step in recipe.data]
    parts += [(f"inference.{key}={value}", 1.0) for key, value in recipe.inference.items() if isinstance(value, str)]
    if recipe.base_model is not None and any(edit.family(stage) == "embedder" for stage in stages):
        parts.append((f"base.{recipe.base_model}", 1.0))
    return Features(methods[main], tuple(parts), tuple(numbers), edit.structure_of(recipe))


def method_of(stage: Stage) -> str:
    """A stage as "backend" or "backend.tune"; a soup as what its members are."""
    stage = edit.single(stage)
    plain = BACKENDS.get(stage.backend).Params.model_validate(stage.params)
    tune = getattr(plain, "tune", None)
    return f"{stage.backend}.{tune}" if tune else stage.backend


def position(dimension: Dimension, value: float) -> float:
    """Where a number stands in its space: 0 at the low end, 1 at the high end, a little beyond outside of it."""
    low, high = dimension.low, dimension.high
    if dimension.log:
        low, high, value = log(low), log(high), log(max(value, 1e-12))
    return min(1 + OUTSIDE, max(-OUTSIDE, (value - low) / (high - low)))


def _stage(
    stage: Stage,
    method: str,
    weight: float,
    parts: list[tuple[str, float]],
    numbers: list[tuple[str, float, float]],
) -> None:
    backend = BACKENDS.get(stage.backend)
    space = backend.space(stage.params)
    parts.append((f"backend.{stage.backend}", weight))
    for key, value, default in _settings(backend.Params, stage):
        if key in space and not space[key].choices:
            numbers.append((f"{method}.{key}", position(space[key], float(value)), weight))
        elif (key in space or isinstance(value, str) or value != default) and key not in SILENT:
            parts.append((f"{stage.backend}.{key}={value}", weight))


def _soup(stage: Stage, weight: float) -> Iterator[tuple[str, float]]:
    """What averaging weights counts for: less than members that answer along, and less with every further training.
    Members that differ in more than their seed are another part."""
    members = edit.ingredients(stage)
    if members:
        name = "soup" if all(member == members[0] for member in members) else "soup_mixed"
        yield f"member.{name}", weight * (1 - LEFT ** (len(members) - 1))


def _settings(kind: Any, stage: Stage) -> Iterator[tuple[str, Any, Any]]:
    """(name, value, default) of every parameter of a stage."""
    given = kind.model_validate(stage.params)
    for key, known in kind.model_fields.items():
        yield key, getattr(given, key), known.default


def _weights(recipe: Recipe, methods: list[str], main: int) -> Iterator[tuple[str, float, float]]:
    """The weights of members, relative to the main one's, as numbers."""
    dimension = Dimension(low=0.125, high=8.0, log=True)
    members = edit.members(recipe)
    for key in ("weight", "score_weight"):
        top = max(float(members[main][key]), 1e-3)
        for number, member in enumerate(members):
            if number != main:
                yield f"{key}.{methods[number]}", position(dimension, float(member[key]) / top), BESIDE
