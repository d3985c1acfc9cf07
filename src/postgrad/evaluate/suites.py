"""Suites: tasks of lm-eval that a saved language model is asked beside its own task, one model or two side by side.

The model is asked by `suite_program.py` in a process of its own, under the run's sandbox and limits, without network.
Two models are asked the same examples and compared by the project's paired statistics.
"""

from __future__ import annotations

import json
import math
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Sequence

from postgrad.evaluate.guards.base import Unmeasured
from postgrad.evaluate.guards.saved_model import ran
from postgrad.evaluate.statistics import difference, estimate
from postgrad.evaluate.suite_program import COMMAND, FOUND, ORDER, TASKS
from postgrad.metrics.base import Answered, Graded
from postgrad.metrics.items import Items
from postgrad.metrics.texts import MeanMetric
from postgrad.records import Difference, EngineSpec, Estimate, Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WEIGHTS = "language_model"
WALL_S = 3600.0
MODEL = "model"


class ItemMean(MeanMetric):
    """The mean of values that lm-eval gave to single examples."""

    name = "suite"
    low, high = -math.inf, math.inf

    def score(self, item: Answered) -> float:
        return float(item.answer)


class TaskScores(Record):
    """What one model scored on one task.

    Attributes:
        metric: the task's first one with a number for each example.
        ids: numbers of the examples in the task's rows.
        groups: hashes of their content; equal examples are one piece of evidence.
        values: one an example.
    """

    task: str
    metric: str
    higher_is_better: bool
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)

    @property
    def stderr(self) -> float:
        """Of the mean, from the standard deviation with n - 1, as lm-eval writes it; 0 for one example."""
        n = len(self.values)
        return math.sqrt(math.fsum((v - self.mean) ** 2 for v in self.values) / (n - 1) / n) if n > 1 else 0.0

    def items(self) -> Items:
        """The examples as the project's statistics read them."""
        import numpy as np

        answered = tuple(Answered("", "", repr(value)) for value in self.values)
        parts: NDArray[np.float64] = ItemMean().grade(answered)
        keys = np.array([f"{self.task}/{number}" for number in self.ids])
        return Items(keys, np.array(self.groups), Graded(answered, {ItemMean.name: parts}))

    def estimate(self) -> Estimate:
        """The mean with its 95 % bootstrap interval."""
        return estimate(ItemMean(), self.items())


class SuiteLine(Record):
    """Champion and untouched base model on one task; the difference is champion minus base."""

    task: str
    metric: str
    higher_is_better: bool
    n: int
    champion: float
    champion_stderr: float
    base: float
    base_stderr: float
    difference: Difference


def installed() -> bool:
    """True where lm-eval is here."""
    return find_spec("lm_eval") is not None


def suite_of(
    model: Path,
    tasks: Sequence[str],
    engine: EngineSpec,
    scratch: Path,
    *,
    limit: int | None = None,
    include: Path | None = None,
) -> tuple[TaskScores, ...]:
    """Ask a model tasks of lm-eval.

    Args:
        model: a folder in the Hub's format.
        scratch: a folder that does not exist yet; it is gone afterwards.
        limit: ask the first examples of each task only, as many as this.
        include: a folder with tasks as YAML, and what they read.

    Raises:
        Unmeasured: lm-eval is not installed, a task cannot be asked, or the process ended badly.
    """
    if not installed():
        raise Unmeasured("lm-eval is not installed. Install it with: pip install 'postgrad[eval]'")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        shutil.copytree(model, scratch / MODEL)
        if include is not None:
            shutil.copytree(include, scratch / TASKS)
        order = {"model": str((scratch / MODEL).resolve()), "tasks": list(tasks), "limit": limit}
        (scratch / ORDER).write_text(json.dumps(order), encoding="utf-8")
        ran(scratch, engine, COMMAND, engine.job_wall_s or WALL_S)
        return _read(scratch / FOUND)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _read(path: Path) -> tuple[TaskScores, ...]:
    """What the program left, which is a sandboxed one: nothing in it is trusted to be as it should."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if "problem" in found:
            raise Unmeasured(str(found["problem"]))
        scores = tuple(TaskScores.model_validate({"task": name, **each}) for name, each in found["tasks"].items())
    except (OSError, ValueError, TypeError, KeyError) as wrong:
        raise Unmeasured(f"the process that asks the model left no scores: {wrong}") from wrong
    for each in scores:
        if not each.values or not len(each.ids) == len(each.groups) == len(each.values):
            raise Unmeasured(f"{each.task} has no examples, or not one value for each")
        if not all(map(math.isfinite, each.values)):
            raise Unmeasured(f"{each.task} has values of {each.metric} that are no numbers")
    return scores


def side_by_side(champion: Sequence[TaskScores], base: Sequence[TaskScores]) -> tuple[SuiteLine, ...]:
    """Pair two models task by task.

    Raises:
        Unmeasured: they were not asked the same.
    """
    lines = []
    for mine, theirs in zip(champion, base, strict=True):
        if (mine.task, mine.metric, mine.ids, mine.groups) != (theirs.task, theirs.metric, theirs.ids, theirs.groups):
            raise Unmeasured(f"the two models were not asked the same examples of {mine.task}")
        lines.append(
            SuiteLine(
                task=mine.task,
                metric=mine.metric,
                higher_is_better=mine.higher_is_better,
                n=len(mine.values),
                champion=mine.mean,
                champion_stderr=mine.stderr,
                base=theirs.mean,
                base_stderr=theirs.stderr,
                difference=difference(ItemMean(), mine.items(), theirs.items()),
            )
        )
    return tuple(lines)


def language_model_in(folder: Path) -> Path:
    """The language model inside a saved model.

    Raises:
        Unmeasured: there is none.
    """
    found = folder / WEIGHTS
    if not (found / "config.json").is_file():
        raise Unmeasured(
            "the model holds no language model: tasks of lm-eval ask for texts and their likelihoods, which a model of "
            "labels alone does not have"
        )
    return found
