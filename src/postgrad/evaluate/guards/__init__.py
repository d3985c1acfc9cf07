"""Guards: what a champion may not break. One line a kind in `KINDS`; one file here for each family of kinds.

A kind says what it needs, by its class: answers (`AnswersKind`), on search items or on rows that the user brings, or
the saved model (`ModelKind`). Measures and compares with bounds; what follows from a broken guard is for the spine.
"""

from __future__ import annotations

from collections import Counter
from typing import Mapping, Sequence

from postgrad.evaluate.guards.base import AnswersKind, GuardKind, ModelKind
from postgrad.evaluate.guards.metric import MetricGuard
from postgrad.evaluate.guards.patterns import PatternGuard
from postgrad.evaluate.guards.saved_model import Latency, ModelSize
from postgrad.evaluate.guards.suite import PREFIX, SuiteTask
from postgrad.records import Estimate, Evaluation, Guard

__all__ = [
    "KINDS",
    "PREFIX",
    "AnswersKind",
    "ModelKind",
    "broken",
    "holds",
    "kind_name",
    "kind_of",
    "limit",
    "named",
    "unsure",
    "values_of",
]

# A kind is told by its key in the task file, or by what `measure` says.
KINDS: dict[str, GuardKind] = {
    "metric": MetricGuard(),
    "forbidden": PatternGuard("forbidden"),
    "required": PatternGuard("required"),
    "latency_p95_ms": Latency(),
    "model_mb": ModelSize(),
    PREFIX: SuiteTask(),
}


def kind_name(guard: Guard) -> str:
    """The name in `KINDS`; a `measure` that is not there stays as it is."""
    if guard.measure is not None:
        return PREFIX if guard.measure.startswith(f"{PREFIX}:") else guard.measure
    return "metric" if guard.metric is not None else "forbidden" if guard.forbidden else "required"


def kind_of(guard: Guard) -> GuardKind:
    """The kind of a guard of a checked task."""
    return KINDS[kind_name(guard)]


def named(guards: Sequence[Guard]) -> dict[str, Guard]:
    """Name -> guard, in the task's order: the guard's own name or what it measures, numbered where two are the same."""
    found: dict[str, Guard] = {}
    seen: Counter[str] = Counter()
    for guard in guards:
        title = guard.name or kind_of(guard).title(guard)
        seen[title] += 1
        found[title if seen[title] == 1 else f"{title} ({seen[title]})"] = guard
    return found


def values_of(guards: Sequence[Guard], evaluation: Evaluation) -> Mapping[str, Estimate]:
    """The guards of an evaluation. One of an older run has no intervals, and guards on its metrics only."""
    if evaluation.guards:
        return evaluation.guards
    plain = {name: evaluation.metrics.get(guard.metric or "") for name, guard in named(guards).items()}
    n = evaluation.estimate.n
    return {name: Estimate(value=v, low=v, high=v, n=n) for name, v in plain.items() if v is not None}


def holds(guard: Guard, value: float | None) -> bool:
    """True within the bounds. A value that is missing or not a number breaks every guard."""
    if value is None or value != value:
        return False
    return (guard.min is None or value >= guard.min) and (guard.max is None or value <= guard.max)


def unsure(guard: Guard, found: Estimate) -> bool:
    """True where a bound lies inside the 95 % interval: the point value decides, and more rows could turn it over."""
    return any(bound is not None and found.low < bound < found.high for bound in (guard.min, guard.max))


def limit(guard: Guard) -> str:
    """The bounds in words, such as "at most 20 ms"."""
    unit = f" {kind_of(guard).unit}" if kind_of(guard).unit else ""
    bounds = [f"at least {guard.min:g}{unit}"] if guard.min is not None else []
    bounds += [f"at most {guard.max:g}{unit}"] if guard.max is not None else []
    return " and ".join(bounds)


def broken(guards: Sequence[Guard], values: Mapping[str, Estimate], names: Sequence[str] | None = None) -> list[str]:
    """What is broken, in words. `names` limits it to some guards; one of them without a value is broken too."""
    wrong = []
    for name, guard in named(guards).items():
        if names is not None and name not in names:
            continue
        found = values.get(name)
        if not holds(guard, found.value if found else None):
            unit = f" {kind_of(guard).unit}" if kind_of(guard).unit else ""
            shown = f"{found.value:.4g}{unit}" if found and found.value == found.value else "not defined"
            wrong.append(f"{name} is {shown}, and {limit(guard)} was asked for")
    return wrong
