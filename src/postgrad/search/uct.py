"""UCT: a descent from the top of the tree by upper confidence bounds, then one more experiment where it ends.

Kocsis and Szepesvari 2006, as tree search over experiments is described for TREX (Ma et al. 2026, arXiv 2604.14116).
That paper fixes neither the constant nor the treatment of failures; here a failure, a raced and an unscored experiment
count as a visit with reward 0, and so does a pending one (virtual loss), so that parallel workers spread out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt
from random import Random

from pydantic import Field

from postgrad.budget import Remaining
from postgrad.records import Choice, Move, Record
from postgrad.search import legal
from postgrad.tree import Experiment, State, Tree


class UCTParams(Record):
    """Settings of UCT.

    Attributes:
        exploration: weight of the confidence term; rewards are in [0, 1].
        n_drafts: roots, besides the references, before the descent starts.
        width: children an experiment gets before the descent goes through it.
        low_quantile: the score quantile that is reward 0; the best score is reward 1. 0 is plain min-max, which a
            single very low score (the constant answer) would squeeze.
        tune_share, combine_share, ablate_share: how often an experiment is extended so; the rest is improve.
        max_repairs: repairs in a row that are tried on one failure.
    """

    exploration: float = Field(default=0.5, ge=0)
    n_drafts: int = Field(default=4, ge=1)
    width: int = Field(default=3, ge=1)
    low_quantile: float = Field(default=0.25, ge=0, lt=1)
    tune_share: float = Field(default=0.25, ge=0, le=1)
    combine_share: float = Field(default=0.05, ge=0, le=1)
    ablate_share: float = Field(default=0.03, ge=0, le=1)
    max_repairs: int = Field(default=2, ge=0)


@dataclass(frozen=True)
class Value:
    """Backed-up statistics of a subtree, its top included."""

    visits: int
    reward: float

    @property
    def mean(self) -> float:
        return self.reward / self.visits


class UCT:
    """Descends, then extends."""

    Params: type[Record] = UCTParams

    def choose(self, tree: Tree, remaining: Remaining, rng: Random, params: UCTParams) -> Choice:
        """Return the next choice. Ties go to the earlier experiment."""
        if remaining.empty:
            return legal.stop()
        made = len(legal.drafts(tree))
        if made < params.n_drafts:
            return legal.draft(f"draft {made + 1} of {params.n_drafts}")
        values = backed_up(tree, params.low_quantile)
        open_nodes = _open(tree, params)
        level = [node for node in tree.roots() if node.id in open_nodes]
        if not level:
            return legal.draft("no experiment can be extended")
        visits = sum(values[node.id].visits for node in tree.roots())
        node = _most_promising(level, values, visits, params.exploration)
        while below := self._way_down(tree, node, open_nodes, params):
            node = _most_promising(below, values, values[node.id].visits, params.exploration)
        if node.state is State.FAILED:
            return legal.repair(node)
        shares = {
            Move.TUNE: params.tune_share,
            Move.COMBINE: params.combine_share,
            Move.ABLATE: params.ablate_share,
        }
        value = values[node.id]
        return legal.extend(tree, node, shares, rng, f"{node.id}: reward {value.mean:.2f} in {value.visits} visits")

    def _way_down(
        self, tree: Tree, node: Experiment, open_nodes: frozenset[str], params: UCTParams
    ) -> list[Experiment]:
        """The children to descend to; none when `node` itself is to be extended."""
        children = tree.children(node.id)
        below = [child for child in children if child.id in open_nodes]
        return below if node.score is None or len(children) >= params.width else []


def backed_up(tree: Tree, low_quantile: float) -> dict[str, Value]:
    """Visits and summed reward of every subtree."""
    ranked = sorted(node.score for node in tree.all() if node.score is not None)
    low = ranked[int(low_quantile * (len(ranked) - 1))] if ranked else 0.0
    high = ranked[-1] if ranked else 0.0
    totals: dict[str, Value] = {}
    for node in reversed(tree.all()):
        reward = 0.0
        if node.score is not None:
            reward = min(1.0, max(0.0, (node.score - low) / (high - low))) if high > low else 0.5
        below = [totals[child.id] for child in tree.children(node.id)]
        totals[node.id] = Value(1 + sum(v.visits for v in below), reward + sum(v.reward for v in below))
    return totals


def _open(tree: Tree, params: UCTParams) -> frozenset[str]:
    """Experiments that can be extended, or that have such an experiment below them."""
    broken = {node.id for node in legal.repairable(tree, params.max_repairs)}
    found: set[str] = set()
    for node in reversed(tree.all()):
        if node.score is not None or node.id in broken or any(c.id in found for c in tree.children(node.id)):
            found.add(node.id)
    return frozenset(found)


def _most_promising(nodes: list[Experiment], values: dict[str, Value], visits: int, exploration: float) -> Experiment:
    """The highest upper confidence bound, UCB1 with a scaled confidence term."""

    def bound(node: Experiment) -> float:
        value = values[node.id]
        return value.mean + exploration * sqrt(log(max(visits, 1)) / value.visits)

    return max(nodes, key=lambda node: (bound(node), -node.index))
