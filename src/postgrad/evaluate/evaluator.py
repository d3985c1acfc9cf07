"""Outputs -> Evaluation. Runs in the controller, on files that the workers left; it never runs a model."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Mapping, Protocol, Sequence

from postgrad.evaluate.graded import Judge, UnitTexts, graded_items, read_texts
from postgrad.evaluate.probes import is_disturbed
from postgrad.evaluate.splits import SplitPlan, UnitPlan, group_of
from postgrad.evaluate.statistics import estimate, point
from postgrad.evaluate.threshold import choose_threshold, rejected
from postgrad.metrics import METRICS, metric_of
from postgrad.metrics.base import Answers, Graded
from postgrad.metrics.items import Items, join
from postgrad.records import Estimate, Record, Row, Value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ZIPPED = b"PK"


@dataclass(frozen=True)
class UnitOutputs:
    """What a worker answered in one unit: (N,) ids, (N, K) probabilities, (N,) in-scope scores."""

    ids: tuple[str, ...]
    probs: NDArray[np.float32]
    score: NDArray[np.float32]


class AnswerForm(Protocol):
    """What counts as an answer in a task: labels, the one of them that rejects, and for answers in words the metrics
    that grade them."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def out_of_scope(self) -> str | None: ...

    @property
    def graded(self) -> tuple[str, ...]: ...


class Measured(Record):
    """An estimate with its company, before it becomes an `Evaluation` record."""

    estimate: Estimate
    metrics: dict[str, float]
    threshold: float | None


def read_outputs(data: bytes) -> UnitOutputs | UnitTexts:
    """Read a stored output file: arrays, or lines of JSON. Pickled content is refused by numpy."""
    import numpy as np

    if not data.startswith(ZIPPED):
        return read_texts(data)

    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        ids = tuple(str(name) for name in file["ids"])
        return UnitOutputs(ids, file["probs"].astype(np.float32), file["score"].astype(np.float32))


def items_of(
    unit: str,
    outputs: UnitOutputs | UnitTexts,
    rows: Mapping[str, Row],
    plan: AnswerForm,
    held_out: Sequence[str] = (),
    judge: Judge | None = None,
) -> Items:
    """Join a unit's outputs with what was to be answered, in whatever form the task has: nothing is rejected yet.

    Args:
        judge: that of the task, where it has one.
    """
    if isinstance(outputs, UnitTexts):
        return graded_items(unit, outputs, rows, plan.graded, judge)
    truth = {name: rows[name].label for name in outputs.ids}
    return unit_items(unit, outputs, truth, plan.labels, plan.out_of_scope, held_out)


def unit_items(
    unit: str,
    outputs: UnitOutputs,
    truth: Mapping[str, str],
    labels: Sequence[str],
    out_of_scope: str | None,
    held_out: Sequence[str] = (),
) -> Items:
    """Join a unit's outputs with the truth: nothing is rejected yet.

    Args:
        truth: row id -> label. `out_of_scope` and `held_out` labels become -1; a label that no train row has becomes
            a class of its own, which no model can answer.
    """
    import numpy as np

    asked = {truth[name] for name in outputs.ids}
    known = [*labels, *sorted(asked - set(labels) - {out_of_scope})]
    outside = {*held_out, out_of_scope}
    index = {label: i for i, label in enumerate(known) if label not in outside}
    true = np.array([index.get(truth[name], -1) for name in outputs.ids], dtype=np.int64)
    argmax = outputs.probs.argmax(axis=1).astype(np.int64)
    answers = Answers(true, argmax, argmax, outputs.score.astype(np.float64), len(known))
    keys = np.array([f"{unit}/{name}" for name in outputs.ids])
    groups = np.array([group_of(name) for name in outputs.ids])
    return Items(keys, groups, answers)


def apply_threshold(items: Items, threshold: float | None) -> Items:
    """Reject what scores under the threshold; None rejects nothing."""
    return items if threshold is None else Items(items.keys, items.groups, rejected(items.labelled, threshold))


def cross_fitted(parts: Sequence[Items], inference: Mapping[str, Value], rejects: bool) -> Items:
    """Join units, each answered with the threshold that the other units chose.

    A single unit is cut in two by alternate groups and cross-fitted between the halves.
    """
    if not rejects:
        return join(parts)
    if len(parts) == 1:
        parts = _halves(parts[0])
    answered = []
    for i, part in enumerate(parts):
        others = join([other for j, other in enumerate(parts) if j != i])
        answered.append(apply_threshold(part, frozen_threshold(others, inference)))
    return join(answered)


def frozen_threshold(items: Items, inference: Mapping[str, Value]) -> float:
    """The recipe's threshold from these items.

    Where in-scope questions have disturbed copies, the copies alone speak for the in-scope side: tidy train rows score
    higher than what customers write, and a threshold set with them rejects too much.
    """
    import numpy as np

    inside = items.labelled.truth >= 0
    copies = np.array([is_disturbed(str(key)) for key in items.keys], dtype=bool)
    chosen = ~inside | copies if (inside & copies).any() else np.ones(len(items), dtype=bool)
    return choose_threshold(items.take(np.flatnonzero(chosen)).labelled, inference)


def _halves(items: Items) -> list[Items]:
    import numpy as np

    _, index = np.unique(items.groups, return_inverse=True)
    return [items.take(np.flatnonzero(index % 2 == half)) for half in (0, 1)]


def held_out_of(plan: Sequence[UnitPlan]) -> dict[str, tuple[str, ...]]:
    """Unit name -> labels it left out."""
    return {unit.name: unit.held_out for unit in plan}


def all_metrics(items: Items) -> dict[str, float]:
    """Every metric that is defined on these items, by name."""
    import math

    graded = items.answers.parts if isinstance(items.answers, Graded) else None
    names = METRICS.names() if graded is None else graded
    values = {name: point(metric_of(name), items.answers) for name in names}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def measure(
    parts: Sequence[Items], metric: str, inference: Mapping[str, Value], plan: SplitPlan, *, seed: int
) -> tuple[Measured, Items]:
    """Score the units of an experiment; return the figures and the answered items.

    The threshold in the result is the one all units together choose: it is what a final model would use.
    """
    rejects = plan.out_of_scope is not None
    items = cross_fitted(parts, inference, rejects)
    threshold = frozen_threshold(join(parts), inference) if rejects else None
    scored = estimate(metric_of(metric), items, seed=seed)
    return Measured(estimate=scored, metrics=all_metrics(items), threshold=threshold), items
