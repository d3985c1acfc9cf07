"""What the saved language model can do beside its task: a task of lm-eval, asked of the final model."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

from postgrad.evaluate.guards.base import ModelKind, SavedModel, Unmeasured
from postgrad.records import Estimate, Guard

PREFIX = "lm_eval"
# Enough for a standard error of three and a half points at worst; a guard is measured for every would-be champion.
LIMIT = 200


def task_of(guard: Guard) -> str:
    """The task that `lm_eval:TASK` names."""
    return (guard.measure or "").partition(":")[2].strip()


class SuiteTask(ModelKind):
    """The first metric of a task of lm-eval over its first 200 examples. `data` is the folder of the task's YAML."""

    low = float("-inf")
    takes_data = True
    takes_folder = True

    def problems(self, guard: Guard, rejects: bool) -> Iterator[str]:
        if not task_of(guard):
            yield f"measure is {guard.measure!r}, and a task was expected behind it, as {PREFIX}:TASK."
        if guard.input is not None:
            yield "input is a column, and a task of lm-eval says itself what it reads. Remove it."

    def measured(self, guard: Guard, model: SavedModel) -> Estimate:
        from postgrad.evaluate.suites import language_model_in, suite_of

        include = Path(guard.data) if guard.data is not None else None
        scores = suite_of(
            language_model_in(model.folder),
            (task_of(guard),),
            model.engine,
            model.scratch,
            limit=LIMIT,
            include=include,
        )
        if len(scores) != 1:
            raise Unmeasured(f"{task_of(guard)} is a group of {len(scores)} tasks. Name one of them in each guard")
        return scores[0].estimate()
