"""What the playbook's moves share: the question they answer, and the idea they answer it with."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from postgrad.records import Choice, Move, Recipe, TaskSpec
from postgrad.research import edit
from postgrad.research.base import Context
from postgrad.research.novelty import Tried
from postgrad.research.play import Play
from postgrad.tree import Experiment, Tree


@dataclass(frozen=True)
class Idea:
    """A recipe with the words for it. `parent` and `other` are the experiments it was made from."""

    kind: str
    change: str
    hypothesis: str
    recipe: Recipe
    gain: float = 0.0
    refuted_by: str = ""
    parent: str | None = None
    other: str | None = None


@dataclass(frozen=True)
class Ask:
    """One choice to be answered."""

    task: TaskSpec
    choice: Choice
    context: Context

    @property
    def tree(self) -> Tree:
        return self.context.tree

    @cached_property
    def tried(self) -> Tried:
        """Every recipe in the tree, to be asked for repeats."""
        return Tried(self.tree)

    @cached_property
    def parent(self) -> Experiment | None:
        """The scored experiment to extend: the choice's, or the nearest above it that has a score."""
        if self.choice.parent is None:
            return None
        path = reversed(self.tree.path(self.choice.parent))
        return next((node for node in path if node.score is not None), None)

    def fresh(self, recipe: Recipe, near: bool = False) -> Recipe | None:
        """The recipe, as it will be run, where it is valid, not in the tree, and one more experiment can pay for it.

        Args:
            near: the nearest recipe that can be run will do as well.
        """
        if not edit.valid(recipe) or (self.tree.has_tried(recipe) and not near):
            return None
        found = self.context.nearest(recipe) if near else self.context.admit(recipe)
        return found if found is not None and not self.tree.has_tried(found) and self.affordable(found) else None

    def affordable(self, recipe: Recipe) -> bool:
        """True when one more experiment can pay for it."""
        limit = self.context.affordable_s
        return limit is None or self.context.nominal_s(recipe) <= limit

    def about(self, parent: Experiment, move: Move) -> Ask:
        """The same question about another experiment or move."""
        choice = Choice(parent=parent.id, move=move, reason=self.choice.reason)
        return Ask(self.task, choice, self.context)


def recipe_of(node: Experiment) -> Recipe:
    """The recipe of an experiment."""
    return node.proposed.proposal.recipe


@dataclass(frozen=True)
class _Case:
    """A play on a recipe, as a key: for one task object, which is held so that its id stays its own."""

    play: Play
    hash: str
    about: int
    recipe: Recipe = field(compare=False)
    task: TaskSpec = field(compare=False)


@lru_cache(maxsize=edit.REMEMBERED)
def _changed(case: _Case) -> Recipe | None:
    applies = case.play.applies(case.recipe, case.task)
    return case.play.apply(case.recipe, case.task) if applies else None


def changed(play: Play, recipe: Recipe, task: TaskSpec) -> Recipe | None:
    """The recipe after a play, None where it does not apply. Remembered: a recipe that leads is asked about again and
    again."""
    return _changed(_Case(play, recipe.hash, id(task), recipe, task))
