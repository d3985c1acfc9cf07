"""What the policies share that choose whole recipes: what is known of the space, and how a new recipe is found in it.

They are rebuilt from the tree at every call, so a call depends on nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from math import isfinite
from random import Random
from typing import Iterable, Sequence

from postgrad.errors import PostgradError
from postgrad.records import Choice, Move, Recipe
from postgrad.search.base import Point, Space
from postgrad.tree import Experiment, State, Tree

SAMPLES = 50


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


def fresh(tree: Tree, space: Space, points: Iterable[Point], rng: Random) -> Recipe | None:
    """The first recipe among these points that is in no experiment yet; else one by chance, else None."""
    known = {node.proposed.proposal.recipe.hash for node in tree.all()}
    for point in points:
        recipe = space.decode(point)
        if recipe.hash not in known:
            return recipe
    for _ in range(SAMPLES):
        recipe = space.decode(space.sample(rng))
        if recipe.hash not in known:
            return recipe
    return None


def chosen(recipe: Recipe, reason: str) -> Choice:
    """Exactly this recipe, as a draft."""
    return Choice(parent=None, move=Move.DRAFT, reason=reason, recipe=recipe)


def given(space: Space | None, policy: str) -> Space:
    """The space.

    Raises:
        PostgradError: whoever runs the policy did not give it one.
    """
    if space is None:
        raise PostgradError(
            f"The policy '{policy}' needs a recipe space. Call its `over` first, and use what that gives."
        )
    return space


def require(libraries: Sequence[str]) -> None:
    """Look for libraries without importing them.

    Raises:
        ModuleNotFoundError: one is not installed. The registry says what to install.
    """
    for name in libraries:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
