"""What the policies share that choose whole recipes: what is known of the space, and how a new recipe is found in it.

A model of the space is rebuilt from the tree at every call. What is kept between calls saves time and changes nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from math import isfinite
from random import Random
from typing import ClassVar, Generic, Iterable, Iterator, Sequence, TypeVar

from pydantic import Field

from postgrad.budget import Remaining
from postgrad.errors import PostgradError
from postgrad.records import Choice, Move, Recipe, Record
from postgrad.search import legal
from postgrad.search.base import Point, Policy, Space
from postgrad.tree import Experiment, State, Tree

SAMPLES = 50
P = TypeVar("P", bound="WholeParams")


@dataclass(frozen=True)
class Seen:
    """An experiment as a point. `score` is None for one that is pending, raced, failed or unscored."""

    node: Experiment
    point: Point
    score: float | None

    @property
    def pending(self) -> bool:
        return self.node.state is State.PENDING


def seen(tree: Tree, space: Space) -> list[Seen]:
    """Every experiment whose recipe is in the space, in index order, whoever proposed it."""
    found = []
    for node in tree.all():
        point = space.encode(node.proposed.proposal.recipe)
        if point is not None:
            score = node.score
            found.append(Seen(node, point, score if score is not None and isfinite(score) else None))
    return found


def fresh(tree: Tree, space: Space, recipes: Iterable[Recipe], rng: Random) -> Recipe | None:
    """The first of these recipes that is in no experiment yet; else one by chance, else None."""
    by_chance = (space.decode(space.sample(rng)) for _ in range(SAMPLES))
    return next((recipe for recipe in chain(recipes, by_chance) if not tree.has_tried(recipe)), None)


class WholeParams(Record):
    """Settings that these policies share.

    Attributes:
        n_drafts: drafts of the researcher, besides the references, that the search starts from.
    """

    n_drafts: int = Field(default=4, ge=0)


class WholePolicy(ABC, Generic[P]):
    """A policy that names whole recipes, as drafts: first some of the researcher's, then its own.

    Attributes:
        name: as the registry knows it.
        libraries: what it imports when it is first asked.
    """

    name: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]]
    Params: type[Record]

    def __init__(self, space: Space | None = None) -> None:
        _require(self.libraries)
        self.space = space

    def over(self, space: Space) -> Policy:
        """The policy for one task."""
        return type(self)(space)

    def choose(self, tree: Tree, remaining: Remaining, rng: Random, params: P) -> Choice:
        """Drafts, then what the policy suggests; a recipe by chance where all of that was tried.

        Raises:
            PostgradError: whoever runs the policy did not give it a space.
        """
        if self.space is None:
            raise PostgradError(
                f"The policy '{self.name}' needs a recipe space. Call its `over` first, and use what that gives."
            )
        if remaining.empty:
            return legal.stop()
        made = len(legal.drafts(tree))
        if made < max(params.n_drafts, not len(tree)):
            return legal.draft(f"draft {made + 1} of {params.n_drafts}")
        reason, recipes = self.suggested(seen(tree, self.space), self.space, rng, params)
        recipe = fresh(tree, self.space, recipes, rng)
        if recipe is None:
            return legal.draft("the space has no new recipe left")
        return Choice(parent=None, move=Move.DRAFT, reason=reason, recipe=recipe)

    @abstractmethod
    def suggested(self, known: list[Seen], space: Space, rng: Random, params: P) -> tuple[str, Iterator[Recipe]]:
        """Why, and the recipes to try, best first. They are asked for one by one until one is new."""


def _require(libraries: Sequence[str]) -> None:
    """Look for libraries without importing them.

    Raises:
        ModuleNotFoundError: one is not installed. The registry says what to install.
    """
    for name in libraries:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
