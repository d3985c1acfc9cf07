"""The contract of a researcher: it turns a policy's choice into a proposal. It does not run, score or save."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Callable, Protocol

from postgrad.records import Choice, Proposal, Recipe, TaskSpec
from postgrad.tree import Tree


@dataclass(frozen=True)
class Context:
    """What a researcher may know when it proposes.

    Attributes:
        tree: the view that the choice was made on; its later experiments are pending.
        rng: the only source of chance.
        index: number of the experiment that is proposed.
        affordable_s: nominal seconds one experiment may cost now; None without a wall-clock budget.
        nominal_s: nominal seconds of a recipe over the search units. Deterministic.
    """

    tree: Tree
    rng: Random
    index: int
    affordable_s: float | None
    nominal_s: Callable[[Recipe], float]


class Researcher(Protocol):
    """Proposes one experiment at a time."""

    def propose(self, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
        """Return a proposal whose recipe is valid, is not in the tree yet (replicate apart), and has one change.

        Deterministic: the same choice, tree and generator give the same proposal. Where the choice has nothing new to
        offer, the proposal answers another and says so in `carried_out`. `choice.move` is never stop.
        """
        ...
