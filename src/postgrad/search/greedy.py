"""Greedy best-first search: some drafts, now and then a repair, else extend the leading experiment.

The scheme and the names `n_drafts` and `p_debug` are AIDE's (Jiang et al. 2025, arXiv 2502.13138, section 3). Added
here: extending is improve or tune by a seeded share, with some combines and ablations, and what is extended is the
referee's leader, not the best raw score: the best of many noisy scores is mostly the luckiest.
"""

from __future__ import annotations

from random import Random

from pydantic import Field

from postgrad.budget import Remaining
from postgrad.records import Choice, Move, Record
from postgrad.search import legal
from postgrad.tree import Tree


class GreedyParams(Record):
    """Settings of the greedy policy.

    Attributes:
        n_drafts: drafts, besides the references, before anything is improved.
        p_debug: how often a failed experiment is repaired when there is one.
        max_repairs: repairs in a row that are tried on one failure.
        tune_share, combine_share, ablate_share: how often the leader is extended so; the rest is improve.
    """

    n_drafts: int = Field(default=5, ge=1)
    p_debug: float = Field(default=0.5, ge=0, le=1)
    max_repairs: int = Field(default=3, ge=0)
    tune_share: float = Field(default=0.25, ge=0, le=1)
    combine_share: float = Field(default=0.08, ge=0, le=1)
    ablate_share: float = Field(default=0.04, ge=0, le=1)


class Greedy:
    """Draft, repair, else extend the leader."""

    Params: type[Record] = GreedyParams

    def choose(self, tree: Tree, remaining: Remaining, rng: Random, params: GreedyParams) -> Choice:
        """Return the next choice; pending drafts count as drafts."""
        if remaining.empty:
            return legal.stop()
        made = len(legal.drafts(tree))
        if made < params.n_drafts:
            return legal.draft(f"draft {made + 1} of {params.n_drafts}")
        broken = legal.repairable(tree, params.max_repairs)
        if broken and rng.random() < params.p_debug:
            return legal.repair(rng.choice(broken))
        leader = tree.leader()
        if leader is None:
            return legal.repair(rng.choice(broken)) if broken else legal.draft("nothing has a score yet")
        shares = {
            Move.TUNE: params.tune_share,
            Move.COMBINE: params.combine_share,
            Move.ABLATE: params.ablate_share,
        }
        return legal.extend(tree, leader, shares, rng, f"{leader.id} leads")
