"""What finished runs taught about each kind of change, as lessons with their evidence.

The rule is that of a run (`lessons.py`): a run speaks for a lesson only where its interval is clear of zero, and it is
named. Where runs speak for both sides, the lesson is disputed and comes after those that are not. What a new run may
expect is worked out as the priors are (`prior.py`), without the playbook's own belief.
"""

from __future__ import annotations

from math import sqrt
from typing import Iterator, Mapping, NamedTuple, Sequence

from postgrad.memory.effects import Z95
from postgrad.memory.entries import LABELS, NAMED, ROWS, Base, KindEntry, RunEntry, TaskType
from postgrad.memory.prior import LEAST_VARIANCE, Normal, anew, likeness, observed
from postgrad.records import EarlierLesson, Estimate, Evidence
from postgrad.records.remembered import Differs

# Lessons that a run takes along, and how often a kind has to fail before that is one.
MOST, FAILED_OFTEN = 40, 2
NAME_DIGITS = 8
# What evidence from runs on another kind of base model counts for when evidence is put in order.
OTHER_BASE = 0.5


class _Seen(NamedTuple):
    """One run's entry of a kind; `alike` is what a run on its type of task counts for, `near` the same with its base
    models, for the order."""

    run: RunEntry
    kind: KindEntry
    alike: float
    near: float
    differs: tuple[Differs, ...]

    @property
    def effect(self) -> Estimate:
        reach = Z95 * sqrt(max(self.kind.variance, LEAST_VARIANCE))
        mean = self.kind.mean
        return Estimate(value=mean, low=round(mean - reach, 4), high=round(mean + reach, 4), n=self.kind.count)

    @property
    def side(self) -> int:
        """1 where the run says that the change helped, -1 where that it did harm, 0 where it cannot tell."""
        effect = self.effect
        return (effect.low > 0) - (effect.high < 0) if self.kind.count else 0

    @property
    def evidence(self) -> Evidence:
        return Evidence(
            run=self.run.run[:NAME_DIGITS],
            month=self.run.month,
            experiments=self.kind.experiments,
            effect=self.effect,
            differs=self.differs,
        )


def taught(
    entries: Sequence[RunEntry], about: TaskType, bases: Sequence[Base], table: Mapping[str, Normal]
) -> tuple[EarlierLesson, ...]:
    """Lessons for a run on this type of task with these kinds of base model, about kinds of the table; the best
    supported first, disputed ones last. Runs on other kinds of task teach nothing.

    A kind without a run that can tell is a lesson where all runs together can, or where it only ever failed.
    """
    found = []
    for kind, seen in _by_kind(entries, about, bases).items():
        if kind in table and (lesson := _lesson(kind, seen, table[kind])) is not None:
            best = max((one.near for one in seen if one.side), default=0.0)
            found.append((lesson.disputed, -best, -max(lesson.helpful, lesson.harmful), kind, lesson))
    return tuple(one[-1] for one in sorted(found, key=lambda one: one[:-1])[:MOST])


def _by_kind(entries: Sequence[RunEntry], about: TaskType, bases: Sequence[Base]) -> Mapping[str, list[_Seen]]:
    """Kind -> the runs that tried it, the newest of the most alike first."""
    found: dict[str, list[_Seen]] = {}
    for entry in reversed(entries):
        if (alike := likeness(entry.task, about)) <= 0:
            continue
        other_base = bool(entry.bases) and not set(entry.bases) & set(bases)
        differs = (*_differs(entry.task, about), *(("another kind of base model",) if other_base else ()))
        near = alike * (OTHER_BASE if other_base else 1.0)
        for kind in entry.kinds:
            if kind.count + kind.failures:
                found.setdefault(kind.kind, []).append(_Seen(entry, kind, alike, near, differs))
    return {kind: sorted(seen, key=lambda one: -one.near) for kind, seen in sorted(found.items())}


def _lesson(kind: str, seen: Sequence[_Seen], table: Normal) -> EarlierLesson | None:
    measured, failures = sum(one.kind.count for one in seen), sum(one.kind.failures for one in seen)
    expected = None
    if measured:
        belief = anew(table, [observed(one.kind, one.alike) for one in seen])
        value, reach = belief.mean, Z95 * belief.sd
        expected = Estimate(
            value=round(value, 4), low=round(value - reach, 4), high=round(value + reach, 4), n=measured
        )
    helped, harmed = ([one for one in seen if one.side == side] for side in (1, -1))
    clear = expected is not None and (expected.low > 0 or expected.high < 0)
    if not (helped or harmed or clear or (not measured and failures >= FAILED_OFTEN)):
        return None
    return EarlierLesson(
        kind=kind,
        runs=len(seen),
        helpful=len(helped),
        harmful=len(harmed),
        helped=tuple(one.evidence for one in helped[:NAMED]),
        harmed=tuple(one.evidence for one in harmed[:NAMED]),
        expected=expected,
        failures=failures,
    )


def _differs(one: TaskType, about: TaskType) -> Iterator[Differs]:
    if one.metric != about.metric:
        yield "another metric"
    if one.rejects != about.rejects:
        yield "questions to reject" if one.rejects else "nothing to reject"
    if one.rows != about.rows:
        yield "fewer rows" if ROWS.index(one.rows) < ROWS.index(about.rows) else "more rows"
    if one.labels != about.labels:
        yield "fewer labels" if LABELS.index(one.labels) < LABELS.index(about.labels) else "more labels"
