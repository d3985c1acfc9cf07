"""How much memory a job needs, by what jobs like it took, and whether one more fits beside those that run.

A job that does not fit waits: starting it would end one of them, or all. Nothing of a run's tree depends on it, only
when things happen.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Sequence

from postgrad.records import JobResult, Recipe
from postgrad.tree import Experiment

if TYPE_CHECKING:
    from postgrad.session import Job, Session

# Of a kind of job that nobody has seen yet.
UNSEEN_MB = 3000.0
# Trainings of one kind differ by their rows and numbers.
MORE = 1.15


class Packing:
    """What the jobs of a run took."""

    def __init__(self) -> None:
        self._most: dict[tuple[str, str, str], float] = defaultdict(float)

    def finished(self, node: Experiment | None, result: JobResult) -> None:
        """A job of an experiment has ended. One that failed took no less than was seen of it."""
        if node is None:
            return
        key = _kind(node.proposed.proposal.recipe)
        self._most[key] = max(self._most[key], result.usage.max_rss_mb)

    def needs_mb(self, recipe: Recipe, limit_mb: float) -> float:
        """What a job of this recipe is expected to take at most.

        Args:
            limit_mb: what it may take.
        """
        seen = self._most.get(_kind(recipe), 0.0)
        return min(limit_mb, MORE * seen if seen else UNSEEN_MB)

    def fits(self, recipe: Recipe, beside: Sequence[Recipe], room_mb: float | None, limit_mb: float) -> bool:
        """True where a job may start beside others. One always may: it has the machine to itself."""
        if room_mb is None or not beside:
            return True
        return sum(self.needs_mb(each, limit_mb) for each in (recipe, *beside)) <= room_mb


def fits(session: Session, job: Job, beside: Sequence[Job]) -> bool:
    """True where a worker is free, and the memory of the machine holds one more job beside those that run."""
    recipes, engine, limit_mb = [each.recipe for each in beside], session.executor.engine, session.task.engine.memory_mb
    return len(beside) < engine.slots and session.packing.fits(job.recipe, recipes, engine.memory_mb, limit_mb)


def _kind(recipe: Recipe) -> tuple[str, str, str]:
    return recipe.stage.backend, recipe.base_model or "", str(recipe.stage.params.get("tune", ""))
