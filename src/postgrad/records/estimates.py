"""Numbers with their uncertainty: a score, a difference of two, and what an unfinished experiment would come to."""

from __future__ import annotations

from postgrad.records.base import Record


class Estimate(Record):
    """A number with its 95 % interval. `n` counts items."""

    value: float
    low: float
    high: float
    n: int


class Difference(Record):
    """A paired difference (first minus second) with its 95 % interval and two-sided p value."""

    value: float
    low: float
    high: float
    p: float
    n: int


class Race(Record):
    """What an experiment that was stopped early would have come to.

    Attributes:
        share: the part of it that was run.
        chance: the probability that it would have beaten, or come near, the champion it was proposed against.
        expected: the whole score that was to be expected, with a 95 % interval; `n` counts the items it was asked.
        correlation: rank correlation of the score after that part with the whole one, over `ended` experiments.
    """

    share: float
    chance: float
    expected: Estimate
    correlation: float
    ended: int
