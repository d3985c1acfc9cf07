"""What an experiment's bad cases are blamed on, cheap enough for every experiment of a run. Search items only.

A part of `findings_of`, which a person asks for: no clusters, no slices, and labels are judged once a run.
"""

from __future__ import annotations

from typing import Iterable, Sequence

from postgrad.analyze.causes import CAUSES, CauseKind, curve_causes, inference_causes, path_causes
from postgrad.analyze.matrix import Values, item_matrix
from postgrad.metrics.items import Items
from postgrad.records import Blame

# What concerns fewer items than this is left to chance.
LEAST = 0.005
ME, BEFORE = "this", "before"


def blamed(
    items: Items,
    before: Items | None,
    histories: Sequence[Sequence[tuple[int, float]]],
    values: Values,
    best: float,
    max_new_tokens: int | None = None,
) -> tuple[Blame, ...]:
    """The causes that show in the answers, in the losses, and beside the experiment that it extends; the largest
    first.

    Args:
        before: the items of the experiment it extends; None for a first one.
        histories: (step, loss) points of each unit.
        values, best: what to make of items, and the value of a solved one.
        max_new_tokens: where answers in words are cut; None where they are not.
    """
    answered = {ME: items} if before is None else {BEFORE: before, ME: items}
    matrix = item_matrix(answered, values=values, best=best)
    mine = matrix.row(ME)
    asked = int((mine == mine).sum())
    if not asked:
        return ()
    wrong = int((mine == 0).sum())
    causes = [
        *inference_causes(items, max_new_tokens),
        *curve_causes(histories, wrong / asked),
        *(path_causes(matrix, ME, (BEFORE,)) if before is not None else ()),
    ]
    return ranked((cause.kind, (len(cause.keys) or wrong) / asked) for cause in causes)


def ranked(causes: Iterable[tuple[CauseKind, float]]) -> tuple[Blame, ...]:
    """(kind, share of the items) as records, the largest first, without those that are too small."""
    found = [Blame(cause=kind, share=round(share, 4), moves=CAUSES[kind].moves) for kind, share in causes]
    return tuple(sorted((each for each in found if each.share >= LEAST), key=lambda each: (-each.share, each.cause)))
