"""The contract of a search policy: a pure function of the tree, what is left, and a generator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any, Callable, Mapping, NamedTuple, Protocol, Sequence, runtime_checkable

from postgrad.budget import Remaining
from postgrad.records import Analysis, Choice, Failure, Move, Recipe, Record, RootCause
from postgrad.tree import Tree

#: Coordinate name -> the number of an option, or a number in [0, 1].
Point = dict[str, float]


class Policy(Protocol):
    """Chooses which experiment to extend, and with which move. Does not run, parse, prompt or save."""

    Params: type[Record]

    def choose(self, tree: Tree, remaining: Remaining, rng: Random, params: Any) -> Choice:
        """Return the next choice. `tree` holds pending experiments too. `params` is a validated `Params`.

        The parent of improve, tune, ablate, repair and replicate is in the tree; a draft has no parent. A choice with a
        `recipe` asks for exactly that recipe, which is in no experiment of the tree; it is no repair and no replicate.
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


class Features(NamedTuple):
    """A recipe as numbers.

    Attributes:
        parts: name -> how much of it is there, mostly 1.
        numbers: name -> its place in its range, from 0 to 1.
    """

    parts: Mapping[str, float]
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class Option:
    """A recipe that could be tried next, and the move that makes it. The recipe is made when it is asked for.

    Attributes:
        stands_in: kind of the starting point that this one is a cheaper form of: it is of use where that one cannot be
            paid, and only there.
    """

    move: Move
    kind: str
    features: Features
    make: Callable[[], Recipe]
    stands_in: str | None = None

    @cached_property
    def recipe(self) -> Recipe:
        return self.make()


class Taught(NamedTuple):
    """What is known of one change beside scores: it brings about `gain`, give or take `sd`, on the metric's scale."""

    before: Features
    after: Features
    gain: float
    sd: float


class Options(Protocol):
    """What could be tried next, for any recipe of a task. Deterministic."""

    def starts(self) -> Sequence[Option]:
        """The starting points."""
        ...

    def changes(self, recipe: Recipe) -> Sequence[Option]:
        """Every single change of its structure, and every part of it left out."""
        ...

    def ranges(self, recipe: Recipe) -> Mapping[str, tuple[float, float]]:
        """Its numbers -> the places they may have."""
        ...

    def placed(self, recipe: Recipe, places: Mapping[str, float]) -> Option:
        """The recipe with these of its numbers at these places."""
        ...

    def both(self, first: Recipe, second: Recipe) -> Sequence[Option]:
        """What takes from both."""
        ...

    def features(self, recipe: Recipe) -> Features:
        """The recipe as numbers."""
        ...

    def taught(self, recipe: Recipe) -> Sequence[Taught]:
        """What finished runs say of single changes, each once: of this recipe where the change is one of it."""
        ...

    def promised(self, recipe: Recipe, analysis: Analysis | None, solved: float) -> Sequence[Taught]:
        """What the causes of an experiment's bad cases promise of changes of its recipe that address them.

        Args:
            solved: share of the items a cause is about that such a change is expected to solve.
        """
        ...

    def mended(self, recipe: Recipe, failure: Failure, root: RootCause | None = None) -> Recipe | None:
        """The recipe with the change that its failure or its root cause asks for, None where nothing is known to
        help."""
        ...

    def nominal_s(self, recipe: Recipe) -> float:
        """Nominal seconds of one experiment with this recipe."""
        ...

    def seeded(self, recipe: Recipe) -> bool:
        """False where training the recipe with another seed gives the same model."""
        ...


@runtime_checkable
class OptionPolicy(Policy, Protocol):
    """A policy that weighs what could be tried, recipe by recipe. Whoever runs it gives it the options first."""

    def weighing(self, options: Options) -> Policy:
        """The same policy over these options; only that one is asked to choose."""
        ...
