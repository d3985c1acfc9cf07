"""A read-only view over the experiments of a run, derived from its events.

The tree is never stored. Experiments are numbered in the order they were proposed; index order is the only order that
anything here depends on, so the same events in another interleaving give the same tree.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Iterable

from postgrad.events import Analysed, Body, Evaluated, Event, JobFinished, JobStarted, Proposed, Tested
from postgrad.records import Analysis, Evaluation, Failure, JobResult


class State(StrEnum):
    """Where an experiment is."""

    PENDING = "pending"
    DONE = "done"
    RACED = "raced"
    FAILED = "failed"
    UNSCORED = "unscored"


@dataclass(frozen=True)
class Experiment:
    """One node. `results` holds the search jobs in the order they ended; a job that was started again after an
    interruption is in `started` once. `champion` is the run's champion after this experiment was analysed; `tested` is
    what the last test of it on the select items said."""

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
    def verdict(self) -> str | None:
        """What the referee says of it now: `keep` once a test showed it to be better; None while it is under way."""
        if self.tested is not None and self.tested.kept:
            return "keep"
        return self.analysis.verdict if self.analysis else None

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
    """The experiments by id, in index order. A tree never changes: an event makes a new one.

    What is looked up often (children, ranking) is worked out once a tree, when it is first asked for.
    """

    experiments: dict[str, Experiment] = field(default_factory=dict)
    champion: str | None = None

    @classmethod
    def from_events(cls, events: Iterable[Event]) -> Tree:
        """Fold events into a tree, in time linear in their number."""
        nodes: dict[str, Experiment] = {}
        champion: str | None = None
        for event in events:
            champion = _apply(nodes, champion, event.body)
        return cls(nodes, champion)

    def with_event(self, event: Event) -> Tree:
        """Return the tree after one more event. Shares the experiments with this one."""
        if not isinstance(event.body, _OF_THE_TREE):
            return self
        nodes = self.experiments.copy()
        return Tree(nodes, _apply(nodes, self.champion, event.body))

    def __len__(self) -> int:
        return len(self.experiments)

    def __getitem__(self, experiment: str) -> Experiment:
        return self.experiments[experiment]

    @cached_property
    def _all(self) -> tuple[Experiment, ...]:
        return tuple(self.experiments.values())

    @cached_property
    def _children(self) -> dict[str | None, tuple[Experiment, ...]]:
        """Parent -> children; the roots are the children of None."""
        index: dict[str | None, list[Experiment]] = {}
        for node in self._all:
            index.setdefault(node.parent, []).append(node)
        return {parent: tuple(nodes) for parent, nodes in index.items()}

    @cached_property
    def _scored(self) -> tuple[Experiment, ...]:
        ranked = [(-score, node.index, node) for node in self._all if (score := node.score) is not None]
        return tuple(node for _, _, node in sorted(ranked, key=lambda entry: entry[:2]))

    def all(self) -> tuple[Experiment, ...]:
        """Every experiment, in index order."""
        return self._all

    def view(self, closed: int) -> Tree:
        """The tree as it looked when exactly the first `closed` experiments had ended: later ones are pending.

        This is what policies see, so that a choice does not depend on which of two workers was faster. Its champion is
        that of the last one shown: a test that followed shows with the next experiment that ends.
        """
        shown: dict[str, Experiment] = {}
        champion: str | None = None
        for node in self._all:
            if node.index < closed:
                shown[node.id] = node
                champion = node.champion if node.analysis else champion
            else:
                shown[node.id] = Experiment(node.id, node.index, node.proposed)
        return Tree(shown, champion)

    def closed(self) -> int:
        """How many experiments, counted from the first, have ended without a gap."""
        return next((node.index for node in self._all if node.analysis is None), len(self._all))

    def children(self, experiment: str) -> tuple[Experiment, ...]:
        """The experiments that extend this one, in index order."""
        return self._children.get(experiment, ())

    def siblings(self, experiment: str) -> tuple[Experiment, ...]:
        """The other experiments with the same parent, in index order; the other roots, for a root."""
        nodes = self._children.get(self[experiment].parent, ())
        return tuple(node for node in nodes if node.id != experiment)

    def roots(self) -> tuple[Experiment, ...]:
        """The experiments without a parent, in index order."""
        return self._children.get(None, ())

    def path(self, experiment: str) -> tuple[Experiment, ...]:
        """From the root to this experiment, both included."""
        steps = [self[experiment]]
        while (parent := steps[-1].parent) is not None:
            steps.append(self[parent])
        return tuple(reversed(steps))

    def depth(self, experiment: str) -> int:
        """How many changes lead from the root to this experiment; 0 for a root."""
        return len(self.path(experiment)) - 1

    def scored(self) -> tuple[Experiment, ...]:
        """Experiments with a complete search score, best first; ties go to the earlier one."""
        return self._scored

    def best(self) -> Experiment | None:
        """The first of `scored`."""
        return self._scored[0] if self._scored else None

    def leader(self) -> Experiment | None:
        """What to build on: the champion, whose lead the referee holds for more than luck and which keeps every guard;
        before there is one, the best score."""
        return self.experiments[self.champion] if self.champion is not None else self.best()

    def leaves(self) -> tuple[Experiment, ...]:
        """The experiments that nothing extends, in index order."""
        return tuple(node for node in self._all if node.id not in self._children)

    def pending(self) -> tuple[Experiment, ...]:
        """The experiments that have not ended, in index order."""
        return tuple(node for node in self._all if node.state is State.PENDING)

    def failed(self) -> tuple[Experiment, ...]:
        """The experiments that ended in a failure, in index order."""
        return tuple(node for node in self._all if node.state is State.FAILED)


_OF_THE_TREE = (Proposed, JobStarted, JobFinished, Evaluated, Analysed, Tested)


def _apply(nodes: dict[str, Experiment], champion: str | None, body: Body) -> str | None:
    """Change `nodes` by one event; return the champion after it."""
    if isinstance(body, Proposed):
        nodes[body.experiment] = Experiment(id=body.experiment, index=len(nodes), proposed=body)
    elif isinstance(body, JobStarted) and body.purpose == "search":
        node = nodes[body.experiment]
        others = tuple(start for start in node.started if start.job != body.job)
        nodes[node.id] = replace(node, started=(*others, body))
    elif isinstance(body, JobFinished) and body.purpose == "search":
        node = nodes[body.experiment]
        nodes[node.id] = replace(node, results=(*node.results, body.result))
    elif isinstance(body, Evaluated):
        _apply_evaluation(nodes, body.evaluation)
    elif isinstance(body, Analysed):
        node = nodes[body.experiment]
        nodes[node.id] = replace(node, analysis=body.analysis, champion=body.champion)
        return body.champion
    elif isinstance(body, Tested):
        nodes[body.experiment] = replace(nodes[body.experiment], tested=body)
        return body.champion
    return champion


def _apply_evaluation(nodes: dict[str, Experiment], evaluation: Evaluation) -> None:
    node = nodes[evaluation.experiment]
    if evaluation.split == "search":
        nodes[node.id] = replace(node, evaluation=evaluation)
    elif evaluation.split == "select":
        nodes[node.id] = replace(node, select=(*node.select, evaluation))
