"""Bad cases: which answers are confused with which, and which answers in words are worst. Search items only."""

from __future__ import annotations

from collections import defaultdict
from sys import intern
from typing import TYPE_CHECKING, Mapping, Sequence

from postgrad.metrics.base import Graded
from postgrad.metrics.items import Items
from postgrad.records import Confusion, Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHOWN, LETTERS = 12, 600
# Values of items are worked out by finite differences.
TOLERANCE = 1e-3
EXAMPLES = 3
UNKNOWN = "(a label without train rows)"


def confusions(items: Items, labels: Sequence[str], out_of_scope: str | None) -> tuple[Confusion, ...]:
    """The most frequent (truth, answer) pairs that are wrong, with the ids of some items."""
    names = {i: label for i, label in enumerate(labels)} | {-1: out_of_scope or "(rejected)"}
    pairs: dict[tuple[int, int], list[str]] = defaultdict(list)
    answers = items.labelled
    for key, truth, predicted in zip(items.keys, answers.truth, answers.predicted, strict=True):
        if truth != predicted:
            pairs[int(truth), int(predicted)].append(intern(str(key).split("/", 1)[1]))
    ranked = sorted(pairs.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return tuple(
        Confusion(
            truth=names.get(truth, UNKNOWN),
            predicted=names[predicted],
            count=len(ids),
            ids=tuple(dict.fromkeys(sorted(ids)))[:EXAMPLES],
        )
        for (truth, predicted), ids in ranked[:SHOWN]
    )


def worst(items: Items, values: NDArray[np.float64], wanted: Mapping[str, Row], high: float) -> tuple[Confusion, ...]:
    """The answers in words that score lowest, one a text, with what was to be answered; none that is as good as can be.

    Args:
        values: (N,) what the metric makes of each item.
        wanted: row id -> row; its label is what was to be answered.
        high: the best value there is.
    """
    assert isinstance(items.answers, Graded), "labels are confused, see `confusions`"
    found: dict[str, Confusion] = {}
    for at in sorted(range(len(items)), key=lambda at: (values[at], str(items.keys[at]))):
        name = str(items.keys[at]).split("/", 1)[1]
        if len(found) == SHOWN or not values[at] < high - TOLERANCE:
            break
        said = items.answers.texts[at]
        if said == wanted[name].label:
            continue
        found.setdefault(
            str(items.groups[at]),
            Confusion(truth=wanted[name].label[:LETTERS], predicted=said[:LETTERS], count=1, ids=(name,)),
        )
    return tuple(found.values())
