"""One node of the tree of a run: a change that was proposed, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from postgrad.events import Decided, JobStarted, Proposed, Tested
from postgrad.records import Analysis, Evaluation, Failure, JobResult, Reject


class State(StrEnum):
    """Where an experiment is."""

    PENDING = "pending"
    DONE = "done"
    RACED = "raced"
    FAILED = "failed"
    UNSCORED = "unscored"


# What a person rejected was not tried: it is no failure.
STATES = {"failed": State.FAILED, "raced": State.RACED, "unscored": State.UNSCORED, "rejected": State.UNSCORED}


@dataclass(frozen=True)
class Experiment:
    """One node. `results` holds the search jobs in the order they ended; a job that was started again after an
    interruption is in `started` once. `champion` is the run's champion after this experiment was analysed; `tested` is
    what the last test of it on the select items said; `decided` is what a person said of it last, while it waited, and
    `ended` how many had ended before it did."""

    id: str
    index: int
    proposed: Proposed
    started: tuple[JobStarted, ...] = ()
    results: tuple[JobResult, ...] = ()
    evaluation: Evaluation | None = None
    select: tuple[Evaluation, ...] = ()
    analysis: Analysis | None = None
    champion: str | None = None
    tested: Tested | None = None
    decided: Decided | None = None
    ended: int | None = None

    def bare(self) -> Experiment:
        """The same as it was proposed, with nothing of what came after."""
        return Experiment(self.id, self.index, self.proposed)

    @cached_property
    def parent(self) -> str | None:
        return self.proposed.choice.parent

    @cached_property
    def state(self) -> State:
        return State.PENDING if self.analysis is None else STATES.get(self.analysis.verdict, State.DONE)

    @cached_property
    def waits(self) -> bool:
        """True while it waits for a person's approval."""
        return bool(self.proposed.asks) and self.decided is None and self.analysis is None

    @cached_property
    def rejection(self) -> Decided | None:
        """The order that rejected it, or None."""
        return self.decided if self.decided and isinstance(self.decided.order.wish, Reject) else None

    @property
    def verdict(self) -> str | None:
        """What the referee says of it now: `keep` once a test showed it to be better; None while it is under way.

        Not for proposers: `keep` may come before or after a view is asked for, as fast as the test's trainings are."""
        if self.tested is not None and self.tested.kept:
            return "keep"
        return self.analysis.verdict if self.analysis else None

    @cached_property
    def score(self) -> float | None:
        """The search score, or None: pending, failed, unscored and raced experiments have none."""
        if self.state is not State.DONE or self.evaluation is None:
            return None
        return self.evaluation.estimate.value

    @property
    def foreseen(self) -> float | None:
        """The search score; of an experiment that was stopped early, the one that was to be expected."""
        race = self.analysis.race if self.analysis else None
        return race.expected.value if race else self.score

    @property
    def failure(self) -> Failure | None:
        return next((result.failure for result in self.results if result.failure), None)

    @property
    def cost_s(self) -> float:
        """Measured wall seconds of its search jobs."""
        return sum(result.usage.wall_s for result in self.results)
