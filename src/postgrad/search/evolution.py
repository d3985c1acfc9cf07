"""Evolution on islands: parents win tournaments inside their island, and now and then one comes from the next island.

Islands as in FunSearch (Romera-Paredes et al., Nature 2024), laid out as a ring with regular migration (Tanese 1989);
tournaments as in regularised evolution (Real et al. 2019), which makes one child at a time from a population that never
waits. Here the worst of a full island dies, not the oldest. The recipe parts of two parents are crossed by combine, one
parent is mutated in its numbers by tune and in its structure by improve.

Everything is read off the tree: experiment number i lives on island i modulo the number of islands, wherever its
parents live. Scores are raw ones, and a failure, a raced or an unscored experiment has no children.
"""

from __future__ import annotations

from itertools import islice
from random import Random
from typing import Sequence

from pydantic import Field

from postgrad.budget import Remaining
from postgrad.records import Choice, Move, Record
from postgrad.search import legal
from postgrad.tree import Experiment, Tree


class EvolutionParams(Record):
    """Settings of evolution.

    Attributes:
        islands: how many populations live side by side.
        n_drafts: drafts, besides the references, that the populations start from.
        population: the best so many of an island may have children.
        tournament: how many of them are drawn for a tournament; the best of the draw wins.
        migration_every: a parent comes from the next island once in so many children of an island; 0 is never.
        combine_share, tune_share: how often a child is a crossover, or a mutation of numbers; the rest is improve.
    """

    islands: int = Field(default=3, ge=1)
    n_drafts: int = Field(default=6, ge=1)
    population: int = Field(default=8, ge=1)
    tournament: int = Field(default=3, ge=1)
    migration_every: int = Field(default=5, ge=0)
    combine_share: float = Field(default=0.3, ge=0, le=1)
    tune_share: float = Field(default=0.3, ge=0, le=1)


class Evolution:
    """One child for the island whose turn it is."""

    Params: type[Record] = EvolutionParams

    def choose(self, tree: Tree, remaining: Remaining, rng: Random, params: EvolutionParams) -> Choice:
        """Drafts first; then a child of a tournament's winner."""
        if remaining.empty:
            return legal.stop()
        made = len(legal.drafts(tree))
        if made < params.n_drafts:
            return legal.draft(f"draft {made + 1} of {params.n_drafts}")
        island, generation = len(tree) % params.islands, len(tree) // params.islands
        home = population(tree, island, params)
        migrates = params.migration_every and generation % params.migration_every == 0
        parents = population(tree, (island + 1) % params.islands, params) if migrates else home
        where = "the next island" if migrates else "its island"
        parents = parents or home or list(tree.scored()[: params.population])
        if not parents:
            return legal.draft("nothing has survived")
        parent = _winner(parents, rng, params.tournament)
        reason = f"{parent.id} won a tournament of {where}, for island {island + 1} of {params.islands}"
        move = legal.weighted({Move.COMBINE: params.combine_share, Move.TUNE: params.tune_share}, rng)
        if move is not Move.COMBINE:
            return Choice(parent=parent.id, move=move, reason=reason)
        mates = [node for node in home if not legal.related(tree, parent, node)]
        if not mates:
            return Choice(parent=parent.id, move=Move.IMPROVE, reason=f"{reason}; there is no mate")
        mate = _winner(mates, rng, params.tournament)
        return Choice(parent=parent.id, move=move, other=mate.id, reason=f"{reason}; with {mate.id}")


def population(tree: Tree, island: int, params: EvolutionParams) -> list[Experiment]:
    """The experiments of an island that may have children, best first. References count like any other."""
    living = (node for node in tree.scored() if node.index % params.islands == island)
    return list(islice(living, params.population))


def _winner(nodes: Sequence[Experiment], rng: Random, size: int) -> Experiment:
    """The best of a draw without return; `nodes` are best first."""
    return nodes[min(rng.sample(range(len(nodes)), min(size, len(nodes))))]
