"""Best of N: independent drafts only, and the best is kept. The baseline that every tree search has to beat."""

from __future__ import annotations

from random import Random

from postgrad.budget import Remaining
from postgrad.records import Choice, Record
from postgrad.search import legal
from postgrad.tree import Tree


class BestOfNParams(Record):
    """Nothing to set: N is what the budget holds."""


class BestOfN:
    """Drafts until the budget is used up."""

    Params: type[Record] = BestOfNParams

    def choose(self, tree: Tree, remaining: Remaining, rng: Random, params: BestOfNParams) -> Choice:
        """Always a draft."""
        return legal.stop() if remaining.empty else legal.draft(f"draft {len(legal.drafts(tree)) + 1}")
