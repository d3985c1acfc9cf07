"""The keep rule of karpathy/autoresearch (its program.md of March 2026) as a policy: one line of work, and whatever
scored strictly higher in its one run becomes what is extended next.

There the rule is a prompt: commit, run, keep the commit when the score is strictly better, else reset to where it was;
mend a crash a few times, then move on. It looks at no interval, tries nothing twice, and never branches or combines.
"""

from __future__ import annotations

from random import Random

from pydantic import Field

from postgrad.budget import Remaining
from postgrad.records import Choice, Move, Record
from postgrad.search import legal
from postgrad.tree import Experiment, State, Tree


class AutoresearchParams(Record):
    """Settings of the autoresearch policy.

    Attributes:
        tune_share: how often the incumbent's numbers are changed; the rest is improve.
        max_repairs: repairs in a row of a failure ("a few attempts") before the line goes back to the incumbent.
    """

    tune_share: float = Field(default=0.3, ge=0, le=1)
    max_repairs: int = Field(default=2, ge=0)


class Autoresearch:
    """Extends the incumbent."""

    Params: type[Record] = AutoresearchParams

    def choose(self, tree: Tree, remaining: Remaining, rng: Random, params: AutoresearchParams) -> Choice:
        """Mend the last experiment if it failed, else extend the incumbent; draft while there is none."""
        if remaining.empty:
            return legal.stop()
        last = _last_ended(tree)
        if last is not None and any(node.id == last.id for node in legal.repairable(tree, params.max_repairs)):
            return legal.repair(last)
        kept = incumbent(tree)
        if kept is None:
            return legal.draft("no experiment has a score yet")
        return legal.extend(tree, kept, {Move.TUNE: params.tune_share}, rng, f"{kept.id} is what was kept last")


def incumbent(tree: Tree) -> Experiment | None:
    """The last experiment, in index order, whose score was strictly above that of the incumbent before it.

    The first incumbent is the best reference, or the first experiment with a score where no reference has one.
    """
    references = [node for node in tree.roots() if legal.is_reference(node) and node.score is not None]
    kept = max(references, key=lambda node: (node.score, -node.index), default=None)
    for node in tree.all():
        if node.score is not None and (kept is None or kept.score is None or node.score > kept.score):
            kept = node
    return kept


def _last_ended(tree: Tree) -> Experiment | None:
    return next((node for node in reversed(tree.all()) if node.state is not State.PENDING), None)
