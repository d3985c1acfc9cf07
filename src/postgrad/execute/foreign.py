"""Which recipes run code of other packages. Their jobs hold one fold each: folds hold each other's labels."""

from __future__ import annotations

from typing import Iterator

from postgrad.data import OPERATORS
from postgrad.records import Recipe, Value
from postgrad.train import BACKENDS


def runs_foreign_code(recipe: Recipe) -> bool:
    """True when a data step, the backend, or the backend of a member comes from an entry point of another package."""
    backends = {recipe.stage.backend, *_backends(recipe.stage.params)}
    return not (all(map(BACKENDS.is_own, backends)) and all(OPERATORS.is_own(step.op) for step in recipe.data))


def _backends(params: Value) -> Iterator[str]:
    """Names of backends inside the parameters of a stage."""
    if isinstance(params, dict):
        for key, value in params.items():
            if key == "backend" and isinstance(value, str):
                yield value
            yield from _backends(value)
    elif isinstance(params, tuple):
        for value in params:
            yield from _backends(value)
