"""Bad cases: which answers are confused with which. Search items only."""

from __future__ import annotations

from collections import defaultdict
from typing import Sequence

from postgrad.metrics.items import Items
from postgrad.records import Confusion

SHOWN = 12
EXAMPLES = 3
UNKNOWN = "(a label without train rows)"


def confusions(items: Items, labels: Sequence[str], out_of_scope: str | None) -> tuple[Confusion, ...]:
    """The most frequent (truth, answer) pairs that are wrong, with the ids of some items."""
    names = {i: label for i, label in enumerate(labels)} | {-1: out_of_scope or "(rejected)"}
    pairs: dict[tuple[int, int], list[str]] = defaultdict(list)
    answers = items.labelled
    for key, truth, predicted in zip(items.keys, answers.truth, answers.predicted, strict=True):
        if truth != predicted:
            pairs[int(truth), int(predicted)].append(str(key).split("/", 1)[1])
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
