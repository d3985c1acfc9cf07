"""Random search over (parent, move): a legal move, uniformly, then a parent it applies to, uniformly."""

from __future__ import annotations

from random import Random

from pydantic import Field

from postgrad.budget import Remaining
from postgrad.records import Choice, Move, Record
from postgrad.search import legal
from postgrad.tree import Tree


class RandomParams(Record):
    """Settings of random search.

    Attributes:
        max_repairs: repairs in a row that are tried on one failure.
    """

    max_repairs: int = Field(default=2, ge=0)


class RandomSearch:
    """Looks at which moves are legal, never at a score."""

    Params: type[Record] = RandomParams

    def choose(self, tree: Tree, remaining: Remaining, rng: Random, params: RandomParams) -> Choice:
        """A uniform legal move on a uniform parent."""
        if (early := legal.first_choice(tree, remaining)) is not None:
            return early
        scored = sorted(tree.scored(), key=lambda node: node.index)
        broken = legal.repairable(tree, params.max_repairs)
        moves = [Move.DRAFT]
        if scored:
            moves += [Move.IMPROVE, Move.TUNE, Move.COMBINE, Move.ABLATE, Move.REPLICATE]
        if broken:
            moves.append(Move.REPAIR)
        move = rng.choice(moves)
        if move is Move.DRAFT:
            return legal.draft("drawn at random")
        if move is Move.REPAIR:
            return legal.repair(rng.choice(broken))
        node = rng.choice(scored)
        reason = f"{node.id} drawn at random"
        if move is Move.COMBINE:
            others = tuple(legal.partners(tree, node))
            if others:
                return Choice(parent=node.id, move=move, other=rng.choice(others).id, reason=reason)
            return Choice(parent=node.id, move=Move.IMPROVE, reason=reason)
        if move is Move.ABLATE:
            return legal.ablate_or_improve(node, reason)
        return Choice(parent=node.id, move=move, reason=reason)
