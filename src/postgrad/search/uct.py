"""UCT over rounds, as TREX searches (Ma et al. 2026, arXiv 2604.14116): a node is a round of three to five variants,
its reward is that of its best variant, and the round to expand is found by upper confidence bounds with back-up (Kocsis
and Szepesvari 2006).

Rounds are read off the tree. The references are the root round; drafts, in index order, are its first child rounds, in
groups of `batch`; so are the children of an experiment, whose rounds lie under its own. A new round varies the best
variant of the round it expands. A repair or a further training belongs to the round of what it repeats.

The paper, as far as it is public, fixes neither the constant nor the treatment of failures. Here rewards are scaled
between a quantile of the scores and the best, and a failed, raced or unscored variant has reward 0; so has a pending
one (virtual loss), so that parallel workers spread out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import log, sqrt
from random import Random

from pydantic import Field

from postgrad.budget import Remaining
from postgrad.records import Choice, Move, Record
from postgrad.search import legal
from postgrad.tree import Experiment, Tree

SAME_ROUND = (Move.REPAIR, Move.REPLICATE)


class UCTParams(Record):
    """Settings of UCT.

    Attributes:
        batch: variants of a round.
        exploration: weight of the confidence term; rewards are in [0, 1].
        n_drafts: roots, besides the references, before the descent starts.
        width: child rounds a round gets before the descent goes through it.
        low_quantile: the score quantile that is reward 0; the best score is reward 1. 0 is plain min-max, which a
            single very low score (the constant answer) would squeeze.
        tune_share, combine_share, ablate_share: how often a variant is made so; the rest is improve.
        max_repairs: repairs in a row that are tried on one failed variant.
    """

    batch: int = Field(default=4, ge=1)
    exploration: float = Field(default=0.5, ge=0)
    n_drafts: int = Field(default=4, ge=1)
    width: int = Field(default=2, ge=1)
    low_quantile: float = Field(default=0.25, ge=0, lt=1)
    tune_share: float = Field(default=0.4, ge=0, le=1)
    combine_share: float = Field(default=0.05, ge=0, le=1)
    ablate_share: float = Field(default=0.03, ge=0, le=1)
    max_repairs: int = Field(default=1, ge=0)


@dataclass
class Round:
    """A node of the search: the variants of one expansion, with what is backed up from the rounds below.

    Attributes:
        expands: the experiment that the variants extend; None for references and drafts.
        members: experiments in index order, repairs and further trainings included.
        variants: how many of them count towards `batch`.
        visits, reward: rounds of the subtree, and the sum of their rewards, this one included.
    """

    number: int
    expands: str | None
    above: int | None
    members: list[Experiment] = field(default_factory=list)
    variants: int = 0
    below: list[int] = field(default_factory=list)
    visits: int = 1
    reward: float = 0.0

    @property
    def mean(self) -> float:
        return self.reward / self.visits

    @cached_property
    def best(self) -> Experiment | None:
        """The member with the highest score; the earlier of equals. For a round with all its members."""
        scored = [(-node.score, node.index, node) for node in self.members if node.score is not None]
        return min(scored, key=lambda entry: entry[:2])[2] if scored else None


class UCT:
    """Fills the open round, else descends and opens one."""

    Params: type[Record] = UCTParams

    def choose(self, tree: Tree, remaining: Remaining, rng: Random, params: UCTParams) -> Choice:
        """Return the next choice. Ties go to the earlier round."""
        if remaining.empty:
            return legal.stop()
        made = len(legal.drafts(tree))
        if made < params.n_drafts:
            return legal.draft(f"draft {made + 1} of {params.n_drafts}")
        rounds = rounds_of(tree, params)
        last = _latest(rounds, tree)
        members = {node.id for node in last.members}
        for node in legal.repairable(tree, params.max_repairs):
            if node.id in members:
                return legal.repair(node)
        if last.expands is not None and tree[last.expands].score is not None and last.variants < params.batch:
            parent = tree[last.expands]
            return self._variant(tree, parent, rng, params, f"variant {last.variants + 1} of round {last.number}")
        expanded = _most_promising(rounds, params)
        if expanded is None or expanded.best is None:
            return legal.draft("no round can be expanded")
        words = f"a new round under round {expanded.number}: reward {expanded.mean:.2f} in {expanded.visits} visits"
        return self._variant(tree, expanded.best, rng, params, words)

    def _variant(self, tree: Tree, parent: Experiment, rng: Random, params: UCTParams, reason: str) -> Choice:
        shares = {
            Move.TUNE: params.tune_share,
            Move.COMBINE: params.combine_share,
            Move.ABLATE: params.ablate_share,
        }
        return legal.extend(tree, parent, shares, rng, reason)


def rounds_of(tree: Tree, params: UCTParams) -> list[Round]:
    """Every round, the root round first and each after the one above it, with visits and rewards backed up."""
    rounds = [Round(0, None, None)]
    home: dict[str, int] = {}
    filling: dict[str | None, int] = {}
    for node in tree.all():
        if legal.is_reference(node):
            number = 0
        elif node.parent is not None and node.proposed.choice.move in SAME_ROUND:
            number = home[node.parent]
        else:
            number = filling.get(node.parent, -1)
            if number < 0 or rounds[number].variants == params.batch:
                above = home[node.parent] if node.parent is not None else 0
                number = filling[node.parent] = len(rounds)
                rounds.append(Round(number, node.parent, above))
                rounds[above].below.append(number)
            rounds[number].variants += 1
        home[node.id] = number
        rounds[number].members.append(node)
    _back_up(rounds, tree, params.low_quantile)
    return rounds


def _latest(rounds: list[Round], tree: Tree) -> Round:
    """The round that was worked on last: that of the newest experiment. Further trainings are the referee's doing."""
    made = (node.index for node in reversed(tree.all()) if node.proposed.choice.move is not Move.REPLICATE)
    newest = next(made, 0)
    late = (found for found in rounds if found.members and found.members[-1].index >= newest)
    return next((found for found in late if any(node.index == newest for node in found.members)), rounds[0])


def _back_up(rounds: list[Round], tree: Tree, low_quantile: float) -> None:
    """Best-of-batch rewards, summed up the rounds. A round has a higher number than the one above it."""
    ranked = [score for node in reversed(tree.scored()) if (score := node.score) is not None]
    low = ranked[int(low_quantile * (len(ranked) - 1))] if ranked else 0.0
    high = ranked[-1] if ranked else 0.0
    for found in reversed(rounds):
        if found.best is not None and found.best.score is not None:
            scaled = (found.best.score - low) / (high - low) if high > low else 0.5
            found.reward += min(1.0, max(0.0, scaled))
        if found.above is not None:
            rounds[found.above].visits += found.visits
            rounds[found.above].reward += found.reward


def _most_promising(rounds: list[Round], params: UCTParams) -> Round | None:
    """Descend by UCB1 to a round that has room for a child round; None where no round has a scored variant."""
    usable: set[int] = set()
    for found in reversed(rounds):
        if found.best is not None or usable & set(found.below):
            usable.add(found.number)
    if 0 not in usable:
        return None
    at = rounds[0]
    while True:
        below = [rounds[number] for number in at.below if number in usable]
        if not below or (at.best is not None and len(at.below) < params.width):
            return at
        visits = at.visits

        def bound(found: Round, visits: int = visits) -> float:
            return found.mean + params.exploration * sqrt(log(max(visits, 1)) / found.visits)

        at = max(below, key=lambda found: (bound(found), -found.number))
