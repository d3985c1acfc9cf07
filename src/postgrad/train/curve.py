"""Learning curves: a training whose loss has only risen after a third of its steps is not worth the rest of them."""

from __future__ import annotations

from math import inf
from statistics import fmean, stdev
from typing import Sequence

# Losses that are averaged at least, and that a third of a training has at least: a short one may learn late, and costs
# little.
FEWEST, SHORTEST = 4, 24
# Standard deviations between batches that the loss has to lie above its first value.
CLEARLY = 2.0


def hopeless(losses: Sequence[float], steps: int, chance: float = inf) -> str | None:
    """Why a training is given up, in words; None where it goes on. Asked after every step, it answers after a third.

    It is given up in two cases. The second half of that third came to no less than the first loss, nor to less than
    answering everything alike. Or no average of the loss came down to its first value, the latest one lies clearly
    above it, and less than half of the rise was made good: a rate that is too high at first recovers as it falls.

    Args:
        losses: of every step so far, in order.
        steps: how many there are to be.
        chance: the loss of answering everything alike, where it is known.
    """
    due = steps // 3
    if len(losses) != due or due < SHORTEST:
        return None
    # A contrastive batch that happens to hold no pair has a loss of 0, which says nothing of where the training began.
    first, width = next((loss for loss in losses if loss != 0), 0.0), max(FEWEST, due // 6)
    averages = [fmean(losses[end - width : end]) for end in range(due, width, -width)]
    recent, between = averages[0], stdev(losses[due - width :])
    stuck = min(recent, fmean(losses[due // 2 :])) >= max(first, chance)
    risen = min(averages) > first and recent > max(first + CLEARLY * between, (first + max(averages)) / 2)
    if not stuck and not risen:
        return None
    return f"the loss was {first:.4g} at first and is {recent:.4g} after {due} of {steps}: it has not fallen"
