"""What the causes of an experiment's bad cases promise of moves: a cause names moves that address it.

How much a move helps there was never measured before it is tried, so a promise is as unsure as it is large, and counts
as one observation of that size: a few experiments outweigh it.
"""

from __future__ import annotations

from typing import NamedTuple

from postgrad.records import Analysis

# Share of the items that a cause is about that a move which addresses it is expected to solve.
SOLVED = 0.25
# Standard deviation of a promise as a share of it; it is never surer than one experiment.
DOUBT, LEAST_SD = 0.5, 0.01


class Promise(NamedTuple):
    """What a move may bring, on the scale of the metric, and why in words."""

    gain: float
    sd: float
    words: str


def promises(analysis: Analysis | None, solved: float = SOLVED) -> dict[str, Promise]:
    """Kind of move -> what it promises by the largest cause that it addresses."""
    found: dict[str, Promise] = {}
    for blame in analysis.blamed if analysis is not None and solved > 0 else ():
        gain = solved * blame.share
        for kind in blame.moves:
            if kind not in found or gain > found[kind].gain:
                words = f"It addresses what {blame.share:.1%} of the search items fail by ({blame.cause})."
                found[kind] = Promise(gain, max(DOUBT * gain, LEAST_SD), words)
    return found
