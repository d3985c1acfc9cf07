"""What a sentinel is, and what it says: observations that hold or do not. Trains nothing."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Callable, Iterable, Iterator, TypeGuard

from postgrad.events import Analysed, Body, Event, Tested
from postgrad.records import Estimate, Record

if TYPE_CHECKING:
    from postgrad.selftest.place import Place

CLAIMS = ("keep", "better")
CONFIDENCE = 0.99


class Observation(Record):
    """One thing that was looked at: whether it is as it must be, and what was seen."""

    ok: bool
    words: str


class Finding(Record):
    """What one sentinel found. It is green when everything it looked at was as it must be."""

    sentinel: str
    checks: str
    green: bool
    seen: tuple[Observation, ...]
    wall_s: float


@dataclass(frozen=True)
class Sentinel:
    """One attack on the system's honesty, or one claim that has nothing behind it, and what must become of it.

    Attributes:
        checks: what has to hold, in one line.
        nominal_s: wall seconds on two idle cores; only the forecast of the time left rests on it.
        play: looks, with parts that are all real.
    """

    name: str
    checks: str
    nominal_s: float
    play: Callable[[Place], Iterator[Observation]]


def claimed(events: Iterable[Event]) -> tuple[str, ...]:
    """The experiments that a run says are better than what was kept before: by a test, or by a verdict of their own.

    A recipe that was trained again with another seed shares the verdict of the first of its kind; that is no claim.
    """
    bodies = [event.body for event in events]
    tested = [body.experiment for body in bodies if isinstance(body, Tested) and body.kept]
    return tuple(dict.fromkeys([*tested, *(body.experiment for body in bodies if _claims(body))]))


def _claims(body: Body) -> TypeGuard[Analysed]:
    """True for an analysis that says its own experiment is better."""
    if not isinstance(body, Analysed):
        return False
    return body.analysis.verdict in CLAIMS and body.analysis.subject in (None, body.experiment)


def above(estimate: Estimate, chance: float, looks: int = 1) -> bool:
    """True when an estimate is shown to be above chance: its 95 % interval, widened to 99 % and for so many looks
    (Bonferroni), lies above. What leaks shows by far more than that."""
    return estimate.value - _wider(looks) * (estimate.value - estimate.low) > chance


def at_chance(estimate: Estimate, chance: float, looks: int = 1) -> bool:
    """True when that interval holds chance."""
    below = estimate.value + _wider(looks) * (estimate.high - estimate.value) < chance
    return not below and not above(estimate, chance, looks)


def _wider(looks: int) -> float:
    normal = NormalDist()
    return normal.inv_cdf(1 - (1 - CONFIDENCE) / 2 / looks) / normal.inv_cdf(0.975)


def shown(estimate: Estimate) -> str:
    """A score with its interval, for a person."""
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
