"""A metric as a guard: on the search items, on a slice of them, or on labelled rows that the user brings."""

from __future__ import annotations

from typing import Iterator

from postgrad.errors import near_miss
from postgrad.evaluate.guards.base import Answered, AnswersKind, about
from postgrad.evaluate.statistics import estimate
from postgrad.metrics import METRICS, TEXT_METRICS, metric_of
from postgrad.records import Estimate, Guard

ALPHA = 0.05


class MetricGuard(AnswersKind):
    """The value of a metric."""

    def title(self, guard: Guard) -> str:
        return f"{guard.metric}{about(guard)}"

    def problems(self, guard: Guard, rejects: bool) -> Iterator[str]:
        name, names = str(guard.metric), (*METRICS.names(), *TEXT_METRICS.names())
        if name not in names:
            yield f"unknown metric '{name}'.{near_miss(name, names)} Known: {', '.join(names)}."
        elif name in METRICS.names() and METRICS.get(name).needs_out_of_scope and not rejects:
            yield f"'{name}' needs an out-of-scope label. Set data.out_of_scope, or take macro_f1."

    def range(self, guard: Guard) -> tuple[float, float]:
        name = str(guard.metric)
        if name not in (*METRICS.names(), *TEXT_METRICS.names()):
            return float("-inf"), float("inf")
        return metric_of(name).low, metric_of(name).high

    def measured(self, guard: Guard, answered: Answered, seed: int) -> Estimate:
        import numpy as np

        if not len(answered.items):
            return Estimate(value=float("nan"), low=float("nan"), high=float("nan"), n=0)
        metric = metric_of(str(guard.metric))
        found = estimate(metric, answered.items, seed=seed)
        texts = len(np.unique(answered.items.groups))
        return never_certain(found.model_copy(update={"n": texts}), metric.low, metric.high)


def never_certain(found: Estimate, low: float, high: float) -> Estimate:
    """Widen an interval without width at the end of the scale.

    Resampling answers that are all right never draws a wrong one, which says nothing about the next customer. The bound
    is Clopper and Pearson's for n of n (Biometrika 26, 1934): a share of 1 - 0.025^(1/n) may be wrong.
    """
    if found.low != found.high or not found.n:
        return found
    room = (high - low) * (1 - (ALPHA / 2) ** (1 / found.n))
    if found.value >= high:
        return found.model_copy(update={"low": high - room})
    return found.model_copy(update={"high": low + room}) if found.value <= low else found
