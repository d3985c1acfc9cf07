"""What paring asks of a run: which changes its champion is made of, what each is believed to bring, and what counts as
nothing."""

from __future__ import annotations

from typing import Callable, Protocol, Sequence

from postgrad.records import Recipe, TaskSpec
from postgrad.research import edit
from postgrad.research.ablations import Ablation, ablations, same
from postgrad.research.options import PlaybookOptions
from postgrad.search.prospects import Prospects
from postgrad.tree import Experiment, Tree

# A change has to bring more than this share of the smallest effect that matters: by prediction, to be left alone, and
# by the judge's belief, to stay.
PRICE_OF_CHANGE = 0.25
# Standard deviation of what one part of a recipe brings, before any was tried.
PART_SD = 0.02


class Changes(Protocol):
    """The changes of the recipes of one run."""

    @property
    def price(self) -> float:
        """What a change has to bring, on the scale of the metric."""
        ...

    def limit(self, champion: str, other: str) -> float:
        """A recipe that measured so much below the champion, or more, is never taken for as good."""
        ...

    def same(self, recipe: Recipe) -> str | None:
        """A name that recipes share which are one; None of a recipe that is not compared."""
        ...

    def ablations(self, path: Sequence[Experiment]) -> tuple[Ablation, ...]:
        """Every ablation of the last experiment of a path, in the order in which the changes came."""
        ...

    def brings(self, tree: Tree, found: Sequence[Ablation]) -> list[float]:
        """What each change is believed to bring to the champion; those of at most `price` are doubted."""
        ...

    @property
    def beyond(self) -> object:
        """What answers depend on beside the tree: while it is equal, they are."""
        ...


class RecipeChanges:
    """The changes of recipes of ours: parts, settings and data steps, with the surrogate's belief."""

    def __init__(self, task: TaskSpec, nominal_s: Callable[[Recipe], float]) -> None:
        self._task, self._nominal_s = task, nominal_s

    @property
    def price(self) -> float:
        return PRICE_OF_CHANGE * self._task.min_effect

    def limit(self, champion: str, other: str) -> float:
        return self._task.min_effect

    def same(self, recipe: Recipe) -> str | None:
        return same(recipe) if edit.valid(recipe) else None

    def ablations(self, path: Sequence[Experiment]) -> tuple[Ablation, ...]:
        return ablations(path)

    def brings(self, tree: Tree, found: Sequence[Ablation]) -> list[float]:
        assert tree.champion is not None, "changes are those of a champion"
        options = PlaybookOptions(self._task, self._nominal_s)
        prospects = Prospects(tree, options, PART_SD)

        def believed(recipe: Recipe) -> float:
            return prospects.believed(options.features(recipe))

        own = believed(tree[tree.champion].proposed.proposal.recipe)
        return [own - believed(each.recipe) for each in found]

    @property
    def beyond(self) -> None:
        """Nothing."""
