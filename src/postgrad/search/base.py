"""The contract of a search policy: a pure function of the tree, what is left, and a generator."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Callable, Mapping, Protocol, Sequence, runtime_checkable

from postgrad.budget import Remaining
from postgrad.records import Choice, Recipe, Record
from postgrad.tree import Tree

#: Coordinate name -> the number of an option, or a number in [0, 1].
Point = dict[str, float]


class Policy(Protocol):
    """Chooses which experiment to extend, and with which move. Does not run, parse, prompt or save."""

    Params: type[Record]

    def choose(self, tree: Tree, remaining: Remaining, rng: Random, params: Any) -> Choice:
        """Return the next choice. `tree` holds pending experiments too. `params` is a validated `Params`.

        The parent of improve, tune, ablate, repair and replicate is in the tree; a draft has no parent. A choice with a
        `recipe` asks for exactly that recipe: it is a draft, and its recipe is in no experiment of the tree.
        """
        ...


@dataclass(frozen=True)
class Coordinate:
    """One part of a recipe that may be chosen: one of `options`, or where that is 0 a number in [0, 1]."""

    name: str
    options: int = 0


class Space(Protocol):
    """All recipes of a task, as points. Deterministic."""

    @property
    def coordinates(self) -> Sequence[Coordinate]:
        """Every coordinate, in a fixed order. A point holds those that matter for its recipe."""
        ...

    def walk(self, pick: Callable[[Coordinate], float]) -> tuple[Point, Recipe]:
        """Ask for one coordinate after the other, only those that matter after the answers so far."""
        ...

    def sample(self, rng: Random) -> Point:
        """A point by chance."""
        ...

    def decode(self, point: Mapping[str, float]) -> Recipe:
        """The recipe of a point; coordinates that do not matter for it are not read."""
        ...

    def encode(self, recipe: Recipe) -> Point | None:
        """The point of a recipe, or None where it has none."""
        ...


@runtime_checkable
class SpacePolicy(Policy, Protocol):
    """A policy that chooses recipes itself. Whoever runs it gives it the space first."""

    def over(self, space: Space) -> Policy:
        """The same policy over this space; only that one is asked to choose."""
        ...
