"""A read-only view over the experiments of a run, derived from its events.

The tree is never stored. Experiments are numbered in the order they were proposed; index order is the only order that
anything here depends on, so the same events in another interleaving give the same tree.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Iterable

from postgrad.records import (
    Analysed,
    Analysis,
    Evaluated,
    Evaluation,
    Event,
    Failure,
    JobFinished,
    JobResult,
    JobStarted,
    Proposed,
)


class State(StrEnum):
    """Where an experiment is."""

    PENDING = "pending"
    DONE = "done"
    RACED = "raced"
    FAILED = "failed"
    UNSCORED = "unscored"


@dataclass(frozen=True)
class Experiment:
    """One node. `results` holds the search jobs in the order they ended."""

    id: str
    index: int
    proposed: Proposed
    started: tuple[JobStarted, ...] = ()
    results: tuple[JobResult, ...] = ()
    evaluation: Evaluation | None = None
    select: tuple[Evaluation, ...] = ()
    analysis: Analysis | None = None

    @property
    def parent(self) -> str | None:
        return self.proposed.choice.parent

    @property
    def state(self) -> State:
        if self.analysis is None:
            return State.PENDING
        return {"failed": State.FAILED, "raced": State.RACED, "unscored": State.UNSCORED}.get(
            self.analysis.verdict, State.DONE
        )

    @property
    def score(self) -> float | None:
        """The search score, or None: pending, failed, unscored and raced experiments have none."""
        if self.state is not State.DONE or self.evaluation is None:
            return None
        return self.evaluation.estimate.value

    @property
    def failure(self) -> Failure | None:
        return next((result.failure for result in self.results if result.failure), None)

    @property
    def cost_s(self) -> float:
        """Measured wall seconds of its search jobs."""
        return sum(result.usage.wall_s for result in self.results)


@dataclass(frozen=True)
class Tree:
    """The experiments by id, in index order."""

    experiments: dict[str, Experiment] = field(default_factory=dict)
    champion: str | None = None

    @classmethod
    def from_events(cls, events: Iterable[Event]) -> Tree:
        """Fold events into a tree."""
        tree = cls()
        for event in events:
            tree = tree.with_event(event)
        return tree

    def with_event(self, event: Event) -> Tree:
        """Return the tree after one more event."""
        body = event.body
        if isinstance(body, Proposed):
            node = Experiment(id=body.experiment, index=len(self.experiments), proposed=body)
            return replace(self, experiments={**self.experiments, node.id: node})
        if isinstance(body, JobStarted) and body.purpose == "search":
            node = self.experiments[body.experiment]
            return self._with(replace(node, started=(*node.started, body)))
        if isinstance(body, JobFinished) and body.purpose == "search":
            node = self.experiments[body.experiment]
            return self._with(replace(node, results=(*node.results, body.result)))
        if isinstance(body, Evaluated):
            return self._evaluated(body.evaluation)
        if isinstance(body, Analysed):
            node = replace(self.experiments[body.experiment], analysis=body.analysis)
            return replace(self._with(node), champion=body.champion)
        return self

    def _with(self, node: Experiment) -> Tree:
        return replace(self, experiments={**self.experiments, node.id: node})

    def _evaluated(self, evaluation: Evaluation) -> Tree:
        node = self.experiments[evaluation.experiment]
        if evaluation.split == "search":
            return self._with(replace(node, evaluation=evaluation))
        if evaluation.split == "select":
            return self._with(replace(node, select=(*node.select, evaluation)))
        return self

    def __len__(self) -> int:
        return len(self.experiments)

    def __getitem__(self, experiment: str) -> Experiment:
        return self.experiments[experiment]

    def all(self) -> tuple[Experiment, ...]:
        return tuple(self.experiments.values())

    def view(self, closed: int) -> Tree:
        """The tree as it looked when exactly the first `closed` experiments had ended: later ones are pending.

        This is what policies see, so that a choice does not depend on which of two workers was faster.
        """
        shown: dict[str, Experiment] = {}
        for node in self.all():
            shown[node.id] = node if node.index < closed else Experiment(node.id, node.index, node.proposed)
        return replace(self, experiments=shown)

    def closed(self) -> int:
        """How many experiments, counted from the first, have ended without a gap."""
        count = 0
        for node in self.all():
            if node.analysis is None:
                break
            count += 1
        return count

    def children(self, experiment: str) -> tuple[Experiment, ...]:
        return tuple(node for node in self.all() if node.parent == experiment)

    def roots(self) -> tuple[Experiment, ...]:
        return tuple(node for node in self.all() if node.parent is None)

    def path(self, experiment: str) -> tuple[Experiment, ...]:
        """From the root to this experiment, both included."""
        steps = [self[experiment]]
        while (parent := steps[-1].parent) is not None:
            steps.append(self[parent])
        return tuple(reversed(steps))

    def scored(self) -> tuple[Experiment, ...]:
        """Experiments with a complete search score, best first; ties go to the earlier one."""
        done = [node for node in self.all() if node.score is not None]
        return tuple(sorted(done, key=lambda node: (-(node.score or 0.0), node.index)))

    def best(self) -> Experiment | None:
        ranked = self.scored()
        return ranked[0] if ranked else None

    def leaves(self) -> tuple[Experiment, ...]:
        parents = {node.parent for node in self.all()}
        return tuple(node for node in self.all() if node.id not in parents)

    def pending(self) -> tuple[Experiment, ...]:
        return tuple(node for node in self.all() if node.state is State.PENDING)

    def failed(self) -> tuple[Experiment, ...]:
        return tuple(node for node in self.all() if node.state is State.FAILED)
