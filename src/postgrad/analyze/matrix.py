"""What every experiment of a run answered to every item, in one matrix: which items nobody solves, and how surely.

The caller gives items of the search split only; nothing here opens a file.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Literal, Mapping

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from postgrad.metrics.items import Items

Solved = Literal["never", "sometimes", "always", "open"]
Values = Callable[["Items"], "NDArray[np.float64]"]
# How probable it has to be that an item is solved by less than half of such recipes before it is "never" solved.
SURE = 0.95
# Values of answers in words are worked out by finite differences.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class ItemMatrix:
    """E experiments by N items.

    Attributes:
        experiments: (E,) names, in the order they were given.
        recipes: (E,) hash of the recipe of each; trainings of one recipe with several seeds share it.
        keys: (N,) `UNIT/ITEM_ID`, sorted: the same key is the same question in every experiment.
        groups: (N,) the row that an item was made from.
        values: (E, N) 1 for right and 0 for wrong; for answers in words what the metric makes of the item. NaN where an
            experiment was not asked, or the metric has nothing to say.
        best: the value of an item that is solved.
    """

    experiments: tuple[str, ...]
    recipes: tuple[str, ...]
    keys: NDArray[np.str_]
    groups: NDArray[np.str_]
    values: NDArray[np.float64]
    best: float = 1.0

    @property
    def right(self) -> NDArray[np.float64]:
        """(E, N) 1 solved, 0 not, NaN not asked."""
        import numpy as np

        solved = (self.values >= self.best - TOLERANCE).astype(np.float64)
        return np.where(np.isnan(self.values), np.nan, solved)

    def row(self, experiment: str) -> NDArray[np.float64]:
        """(N,) what one experiment solved."""
        found: NDArray[np.float64] = self.right[self.experiments.index(experiment)]
        return found


@dataclass(frozen=True)
class Solving:
    """How often an item is solved. `asked` counts recipes: the seeds of one are one vote, the mean of them.

    `sure` is the probability of what `state` says: of never (always), that less (more) than half of such recipes solve
    it, under a uniform prior. Recipes of a run descend from each other, so it is an upper bound of what is known.
    """

    key: str
    state: Solved
    solved: float
    asked: int
    sure: float


def right_or_wrong(items: Items) -> NDArray[np.float64]:
    """(N,) 1 where the answered label is the true one, else 0."""
    import numpy as np

    answers = items.labelled
    right: NDArray[np.float64] = (answers.truth == answers.predicted).astype(np.float64)
    return right


def item_matrix(
    answered: Mapping[str, Items],
    recipes: Mapping[str, str] | None = None,
    values: Values = right_or_wrong,
    best: float = 1.0,
) -> ItemMatrix:
    """Put stored items side by side.

    Args:
        answered: experiment -> its items. They need not have been asked the same.
        recipes: experiment -> hash of its recipe; without it, every experiment is a recipe of its own.
        values: what to make of the items of one experiment: (N,) numbers.
        best: the best of these values.
    """
    import numpy as np

    names = tuple(answered)
    known = [items.keys for items in answered.values()]
    keys = np.unique(np.concatenate(known)) if known else np.zeros(0, dtype=np.str_)
    groups = np.zeros(len(keys), dtype=object)
    table = np.full((len(names), len(keys)), np.nan)
    for row, items in enumerate(answered.values()):
        at = np.searchsorted(keys, items.keys)
        table[row, at] = values(items)
        groups[at] = items.groups
    hashes = tuple((recipes or {}).get(name, name) for name in names)
    return ItemMatrix(names, hashes, keys, groups.astype(np.str_), table, best)


def solving(matrix: ItemMatrix) -> tuple[Solving, ...]:
    """How often each item is solved, in the order of the matrix.

    An item that was asked too few times to be sure is "open", however it was answered: with a uniform prior, four
    recipes in a row that all fail (or all solve it) make it sure.
    """
    import numpy as np

    right = matrix.right
    votes = []
    for recipe in dict.fromkeys(matrix.recipes):
        rows = right[[i for i, name in enumerate(matrix.recipes) if name == recipe]]
        count = (~np.isnan(rows)).sum(axis=0)
        votes.append(np.where(count > 0, np.nansum(rows, axis=0) / np.maximum(count, 1), np.nan))
    table = np.array(votes).reshape(len(votes), len(matrix.keys))
    asked = (~np.isnan(table)).sum(axis=0)
    total = np.nansum(table, axis=0)
    return tuple(_solving(str(key), float(s), int(n)) for key, s, n in zip(matrix.keys, total, asked, strict=True))


def _solving(key: str, solved: float, asked: int) -> Solving:
    if 0 < solved < asked:
        return Solving(key, "sometimes", solved, asked, 1.0)
    # The posterior of a rate after n failures under a uniform prior is Beta(1, n + 1): P(rate < 1/2) = 1 - 2^-(n + 1).
    sure = 1.0 - 0.5 ** (asked + 1)
    if sure < SURE:
        return Solving(key, "open", solved, asked, sure)
    return Solving(key, "never" if solved == 0 else "always", solved, asked, sure)


def counts(found: tuple[Solving, ...]) -> dict[Solved, int]:
    """How many items are in each state."""
    seen = Counter(each.state for each in found)
    states: tuple[Solved, ...] = ("never", "sometimes", "always", "open")
    return {state: seen[state] for state in states}
