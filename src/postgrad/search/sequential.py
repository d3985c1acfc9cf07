"""Sequential: extend the last experiment, whatever it scored. The simplest baseline.

Does not compare scores: a bad step is built upon like a good one.
"""

from __future__ import annotations

from random import Random

from pydantic import Field

from postgrad.budget import Remaining
from postgrad.records import Choice, Move, Record
from postgrad.search import legal
from postgrad.tree import State, Tree


class SequentialParams(Record):
    """Settings of the sequential policy.

    Attributes:
        tune_share: how often the last experiment is tuned, not improved.
        max_repairs: repairs in a row before the last scored experiment is extended in place of a failed one.
    """

    tune_share: float = Field(default=0.3, ge=0, le=1)
    max_repairs: int = Field(default=2, ge=0)


class Sequential:
    """Extends the last ended experiment."""

    Params: type[Record] = SequentialParams

    def choose(self, tree: Tree, remaining: Remaining, rng: Random, params: SequentialParams) -> Choice:
        """Draft once after the references; then repair the last experiment if it failed, else improve or tune it."""
        if (early := legal.first_choice(tree, remaining)) is not None:
            return early
        if not legal.drafts(tree):
            return legal.draft("the first draft")
        last = next(node for node in reversed(tree.all()) if node.state is not State.PENDING)
        if last.state is State.FAILED and last in legal.repairable(tree, params.max_repairs):
            return legal.repair(last)
        scored = sorted(tree.scored(), key=lambda node: node.index)
        drafted = [node for node in scored if not legal.is_reference(node)]
        if not drafted:
            return legal.draft("no draft has a score yet")
        return legal.extend(tree, drafted[-1], {Move.TUNE: params.tune_share}, rng, f"{drafted[-1].id} is the last")
