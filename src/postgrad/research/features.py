"""Recipes as parts and numbers: what the search believes in, and how far recipes are from each other."""

from __future__ import annotations

from math import exp, log, log2
from typing import Any, Mapping, NamedTuple

from postgrad.records import Dimension, Recipe, Stage, Value
from postgrad.research import edit
from postgrad.search.base import Features
from postgrad.train import BACKENDS

# What a member beside the main one counts for.
BESIDE = 0.4
# How far outside of its range a number is seen, in widths of the range.
BEYOND = 0.3
# Rows that costs are compared for.
ROWS = 200


class Number(NamedTuple):
    """A tunable number of a recipe: its value, its range, its name among features and what it counts for."""

    name: str
    value: Any
    dimension: Dimension
    weight: float

    @property
    def place(self) -> float:
        """Where its value stands among features."""
        return self._among(self.value)

    @property
    def in_sight(self) -> bool:
        """False for a value so far outside of its range that it stands where others do."""
        place = 0.5 + (self.place - 0.5) / self.weight
        return -BEYOND < place < 1 + BEYOND

    def _among(self, value: Any) -> float:
        return 0.5 + self.weight * (_place(self.dimension, value) - 0.5)

    def at(self, place: float) -> Value:
        """The value at a place among features."""
        return valued(self.dimension, 0.5 + (place - 0.5) / self.weight)

    def put(self, value: Value, parts: dict[str, float], numbers: dict[str, float]) -> None:
        """Write a value into features, in place of the recipe's own."""
        if self.dimension.choices:
            parts[f"{self.name}={self.value}"] = parts.get(f"{self.name}={self.value}", 0.0) - self.weight
            parts[f"{self.name}={value}"] = parts.get(f"{self.name}={value}", 0.0) + self.weight
        else:
            numbers[self.name] = self._among(value)


@edit.remembered
def numbers_of(recipe: Recipe) -> Mapping[str, Number]:
    """Path -> tunable number."""
    stages, main, params = edit.stages(recipe), edit.main_index(recipe), edit.full_params(recipe)
    found = {}
    for path, dimension in edit.space_of(recipe).items():
        parts = path.split(".")
        owner = int(parts[1]) if parts[0] == "members" else 0
        name = f"{kind_of(stages[owner])}.{parts[-1]}"
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
    return float(min(1 + BEYOND, max(-BEYOND, (value - low) / (high - low))))


def valued(dimension: Dimension, place: float) -> Value:
    """The choice or number at a place in its range, to three digits: more than a score can tell apart."""
    if dimension.choices:
        return dimension.choices[min(len(dimension.choices) - 1, int(place * len(dimension.choices)))]
    low, high, place = dimension.low, dimension.high, min(1.0, max(0.0, place))
    value = exp(log(low) + place * (log(high) - log(low))) if dimension.log else low + place * (high - low)
    return round(value) if dimension.integer else float(min(high, max(low, float(f"{value:.3g}"))))


# --- features ---------------------------------------------------------------------------------------------------------


@edit.remembered
def features(recipe: Recipe) -> Features:
    """A valid recipe as parts and numbers, remembered by its hash."""
    stages, main = edit.stages(recipe), edit.main_index(recipe)
    tunable, parts = numbers_of(recipe), {f"base.{recipe.base_model}": 1.0}
    for i, stage in enumerate(stages):
        weight = 1.0 if i == main else BESIDE
        for name in _settings(edit.single(stage)):
            parts[name] = parts.get(name, 0.0) + weight
        if members := edit.ingredients(stage):
            name = "member.soup" if len(set(members)) == 1 else "member.soup_mixed"
            parts[name] = parts.get(name, 0.0) + weight * (len(members) - 1)
        if i != main:
            name = f"member.{'again' if kind_of(stage) == kind_of(stages[main]) else kind_of(stage)}"
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
            found += [f"{kind_of(stage)}.{key}={value}"] if space[key].choices else []
        elif isinstance(value, str) or value != known.default:
            found.append(f"{stage.backend}.{key}={value}")
    return found


def kind_of(stage: Stage) -> str:
    """What a stage is among others: its backend, and which of its weights are trained."""
    tune, backend = stage.params.get("tune"), edit.family(stage)
    return f"{backend}.{tune}" if tune else backend
