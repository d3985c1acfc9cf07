"""What recipes of a run cost and why some are not tried, worked out once for each: a step asks a hundred times."""

from __future__ import annotations

from typing import Callable, Sequence

from postgrad.admission import refusal
from postgrad.evaluate.splits import UnitPlan
from postgrad.records import Failure, Recipe, TaskSpec
from postgrad.research import edit
from postgrad.train import BACKENDS


class Costs:
    """Remembers by hash.

    Args:
        task: that of the run, as it is now.
    """

    def __init__(self, task: Callable[[], TaskSpec]) -> None:
        self._task = task
        self._refused = edit.remembered(self._refusal)
        self._nominal: dict[tuple[str, ...], Callable[[Recipe], float]] = {}

    def refusal(self, recipe: Recipe) -> Failure | None:
        """Why a recipe is not tried, or None."""
        return self._refused(recipe) if _written(recipe) else self._refusal(recipe)

    def nominal_s(self, recipe: Recipe, units: Sequence[UnitPlan], side: int) -> float:
        """Reference seconds of these units on one core, each asked so many further rows; 0.0 for a recipe that is not
        tried."""

        def reckoned(recipe: Recipe) -> float:
            if self.refusal(recipe) is not None:
                return 0.0
            backend, params = BACKENDS.get(recipe.stage.backend), recipe.stage.params
            return sum(backend.nominal_cost(params, len(unit.train), len(unit.items) + side) for unit in units)

        names = tuple(unit.name for unit in units)
        if names not in self._nominal:
            self._nominal[names] = edit.remembered(reckoned)
        return self._nominal[names](recipe) if _written(recipe) else reckoned(recipe)

    def _refusal(self, recipe: Recipe) -> Failure | None:
        return refusal(recipe, self._task())


def _written(recipe: Recipe) -> bool:
    """False for a recipe that cannot even be written down."""
    try:
        return bool(recipe.hash)
    except (ValueError, RecursionError):
        return False
