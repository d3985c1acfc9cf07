"""The guards of a run as a report shows them: each against the champion, and what every gain cost. Measures nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Mapping, Sequence

from postgrad.evaluate.guards import holds, kind_of, limit, named, unsure, values_of
from postgrad.events import Event, FinalModel
from postgrad.records import Estimate, Guard, SealedRead, SealedScore, TaskSpec
from postgrad.report import wording
from postgrad.tree import Experiment

if TYPE_CHECKING:
    from postgrad.report.view import RunView

Place = str


@dataclass(frozen=True)
class GuardCheck:
    """A guard of the task against the champion.

    Attributes:
        limit: its bounds in words.
        unit: of the values; empty for shares and metrics.
        search, final: the values that decide: over the search answers, and of the final model.
        sealed: for the record only.
        holds: None where nothing is measured yet.
        unsure: a bound lies inside the interval of the value that decides.
    """

    name: str
    limit: str
    unit: str
    search: Estimate | None
    final: Estimate | None
    sealed: float | None
    holds: bool | None
    unsure: bool

    @property
    def words(self) -> str:
        """What was asked for and what was found, in a sentence."""
        found = [
            f"{valued(value, self.unit)} {where}"
            for value, where in ((self.search, "on search"), (self.final, "for the final model"))
            if value is not None
        ]
        if self.sealed is not None:
            found.append(f"{wording.number(self.sealed)} on sealed")
        text = f"asked for {self.limit}; {', '.join(found) or 'not measured yet'}."
        if self.unsure:
            text += " The bound lies inside the interval: the point value decided, and more rows could turn it over."
        return text


@dataclass(frozen=True)
class Price:
    """One line of what a gain cost: a value of champion and baseline, both measured at the same place."""

    what: str
    where: Place
    champion: str
    baseline: str
    change: str


def valued(found: Estimate, unit: str = "") -> str:
    """ "0.912 [0.880, 0.941]", "12.3 ms [11.8, 14.0]", "91.2 MB"."""
    digits = 1 if unit else 3
    shown = wording.number(found.value, digits) + (f" {unit}" if unit else "")
    return shown if found.low == found.high else f"{shown} {wording.interval(found, digits)}"


def final_models(events: Sequence[Event]) -> dict[str, FinalModel]:
    """Experiment -> what was found of its final model."""
    return {event.body.experiment: event.body for event in events if isinstance(event.body, FinalModel)}


def guard_checks(
    task: TaskSpec, champion: Experiment | None, finals: Mapping[str, FinalModel], read: SealedRead | None
) -> tuple[GuardCheck, ...]:
    """Every guard of the task against the champion."""
    search = _searched(task, champion)
    final = finals[champion.id].guards if champion and champion.id in finals else {}
    score = _score(read, "champion")
    checks = []
    for name, guard in named(task.guards).items():
        deciding = [value for value in (search.get(name), final.get(name)) if value is not None]
        checks.append(
            GuardCheck(
                name=_shown(name),
                limit=limit(guard),
                unit=kind_of(guard).unit,
                search=search.get(name),
                final=final.get(name),
                sealed=_sealed(score, name, guard),
                holds=all(holds(guard, value.value) for value in deciding) if deciding else None,
                unsure=bool(deciding) and unsure(guard, deciding[-1]),
            )
        )
    return tuple(checks)


def _searched(task: TaskSpec, node: Experiment | None) -> Mapping[str, Estimate]:
    return values_of(task.guards, node.evaluation) if node and node.evaluation else {}


def _score(read: SealedRead | None, role: str) -> SealedScore | None:
    return next((score for score in read.scores if score.role == role), None) if read else None


def _sealed(score: SealedScore | None, name: str, guard: Guard) -> float | None:
    if score is None:
        return None
    if name in score.guards:
        return score.guards[name].value
    plain = guard.metric is not None and guard.data is None and guard.slice is None
    return score.metrics.get(str(guard.metric)) if plain else None


def prices(view: RunView) -> tuple[Price, ...]:
    """What the champion gained on the baseline in the metric, and beside it the change of every guard's value.

    Nothing where the task has no guards, or where there are no two models to compare. The two values of a line are
    measured at the same place: the final models, the sealed split, or the search answers.
    """
    champion, baseline = view.champion, view.baseline
    if not view.task.guards or champion is None or baseline is None or champion.id == baseline.id:
        return ()
    lines = []
    ours, theirs = _score(view.sealed, "champion"), _score(view.sealed, "baseline")
    metric = wording.metric_name(view.metric)
    if ours is not None and theirs is not None:
        lines.append(_line(metric, "sealed", "", ours.estimate.value, theirs.estimate.value))
    elif champion.evaluation is not None and baseline.evaluation is not None:
        values = champion.evaluation.estimate.value, baseline.evaluation.estimate.value
        lines.append(_line(metric, "search", "", *values))
    final = [view.finals[node.id].guards if node.id in view.finals else {} for node in (champion, baseline)]
    search = [_searched(view.task, node) for node in (champion, baseline)]
    for name, guard in named(view.task.guards).items():
        sealed = [_sealed(score, name, guard) for score in (ours, theirs)]
        places: tuple[tuple[Place, list[float | None]], ...] = (
            ("final model", [_value(values, name) for values in final]),
            ("sealed", sealed),
            ("search", [_value(values, name) for values in search]),
        )
        for where, (mine, other) in places:
            if mine is not None and other is not None:
                lines.append(_line(_shown(name), where, kind_of(guard).unit, mine, other))
                break
    return tuple(lines)


def _shown(name: str) -> str:
    """The field's name of a plain metric; any other name as it is."""
    return wording.METRIC_NAMES.get(name, name)


def _value(values: Mapping[str, Estimate], name: str) -> float | None:
    return values[name].value if name in values else None


def _line(what: str, where: Place, unit: str, champion: float, baseline: float) -> Price:
    digits = 1 if unit else 3
    behind = f" {unit}" if unit else ""
    return Price(
        what,
        where,
        f"{wording.number(champion, digits)}{behind}",
        f"{wording.number(baseline, digits)}{behind}",
        f"{wording.signed(champion - baseline, digits)}{behind}",
    )
