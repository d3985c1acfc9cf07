"""Lessons of earlier runs in words, for a proposer and for a person.

A run's own experiments weigh more than what others saw: a lesson that they contradict comes last, and says so.
"""

from __future__ import annotations

from typing import Iterator, Sequence

from postgrad.records import EarlierLesson, Estimate, Evidence
from postgrad.research.tally import NAMED, Tally

TITLE = "Lessons of earlier runs"
NOTE = (
    "- From finished runs on other data, a guide and no more: where this run's own experiments differ, they are right."
)


def told(lessons: Sequence[EarlierLesson], seen: Tally | None = None) -> list[str]:
    """One line for each lesson: those that nothing contradicts first, then those that earlier runs dispute, last those
    that the experiments of this run contradict.

    Args:
        seen: what this run's experiments say; None where no run is told.
    """
    lines = []
    for lesson in lessons:
        against, agreeing = _here(lesson, seen) if seen else ((), ())
        line = f"- {lesson.kind}: {'; '.join(_parts(lesson))}"
        line += f"; borne out here by {', '.join(agreeing)}" if agreeing else ""
        line += f"; CONTRADICTED HERE by {', '.join(against)}: do not rely on it" if against else ""
        lines.append((bool(against), lesson.disputed, line))
    return [line for _, _, line in sorted(lines, key=lambda one: one[:2])]


def _way(lesson: EarlierLesson) -> int:
    """1 where most runs that can tell say that it helped, -1 where that it did harm, 0 where it was never measured."""
    if lesson.helpful != lesson.harmful:
        return 1 if lesson.helpful > lesson.harmful else -1
    return 0 if lesson.expected is None else (lesson.expected.value > 0) - (lesson.expected.value < 0)


def _parts(lesson: EarlierLesson) -> Iterator[str]:
    way, runs = _way(lesson), f"{lesson.runs} run{'s' if lesson.runs != 1 else ''}"
    most, least = (lesson.helped, lesson.harmed) if way > 0 else (lesson.harmed, lesson.helped)
    count = max(lesson.helpful, lesson.harmful)
    verb = {1: "helped", -1: "did harm", 0: "made no difference"}[way]
    if lesson.expected is None:
        yield f"failed {lesson.failures:,} times in {runs}, and was never measured"
        return
    yield f"{verb} in {count} of {runs}" if count else f"{verb} in {runs} taken together, in none alone"
    yield f"a new run may expect {_effect(lesson.expected)}"
    if most:
        yield f"evidence {_named(most, count)}"
    if lesson.failures:
        yield f"{lesson.failures:,} failed"
    if lesson.disputed:
        yield f"CONTRADICTED by {_named(least, min(lesson.helpful, lesson.harmful))}: do not rely on it"


def _named(found: Sequence[Evidence], count: int) -> str:
    """The first run with what it saw, the others by name: a line has to leave room for others."""
    more = f" and {count - len(found):,} more" if count > len(found) else ""
    return f"{', '.join([_evidence(found[0]), *(one.run for one in found[1:])])}{more}"


def _evidence(found: Evidence) -> str:
    """A run, its experiments, what it saw, and how its task differs: "run 997b0225 (e0012; +0.03 [...]; as here)"."""
    experiments = f"{' '.join(found.experiments)}; " if found.experiments else ""
    scope = ", ".join(found.differs) or "a task like this"
    return f"run {found.run} ({experiments}{_effect(found.effect)}; {found.month}; {scope})"


def _effect(found: Estimate) -> str:
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def _here(lesson: EarlierLesson, seen: Tally) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The last experiments of this run that contradict a lesson, and that bear it out, by its own lessons; where it has
    none on this kind, by the mean of all that tried it, if that is clear of zero."""
    way = _way(lesson)
    own = [(name, one.effect.value) for name, kind, one in seen.lessons if kind == lesson.kind]
    here = seen.kinds.get(lesson.kind)
    if not own and here is not None and here.mean is not None and not here.mean[1] <= 0 <= here.mean[2]:
        own = [(name, here.mean[0]) for name in here.last]
    against = [name for name, effect in own if effect * way < 0]
    agreeing = [name for name, effect in own if effect * way > 0]
    return tuple(against[-NAMED:]), tuple(agreeing[-NAMED:])
