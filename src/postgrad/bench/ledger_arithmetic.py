"""What gap a number of trainings can show, and what that says of the published autoresearch ledger. No simulation.

With seed noise of standard deviation s, and k trainings of each of two recipes, the difference of their mean scores has
the standard error s * sqrt(2 / k). Items add to it; the shard has 21 M tokens, and they are left out here.
"""

from __future__ import annotations

from math import ceil, sqrt
from typing import Any

from postgrad.bench.ledger_world import (
    BIG_SHARE,
    CRASHES,
    EXPERIMENTS,
    FIRST_BIG,
    GAIN,
    KEEPS,
    KEEPS_BELOW_NO_OP,
    KEEPS_BELOW_SEED,
    NO_OP_GAP,
    SEED_GAP,
    SMALLEST_KEEP,
)
from postgrad.evaluate.statistics.control import ALPHA, PLANNED

# The published gaps, the near miss, and the mean of the three large gains.
GAPS = (SMALLEST_KEEP, NO_OP_GAP, SEED_GAP, 0.001, 0.003, BIG_SHARE * GAIN / FIRST_BIG)
TRAININGS = (1, 3)


def quantile(level: float) -> float:
    """Upper quantile of the normal distribution."""
    from scipy.special import ndtri

    return -float(ndtri(level))


def smallest_shown(seed_sd: float, trainings: int, level: float = ALPHA) -> float:
    """Smallest recorded gap whose one-sided p value reaches `level`, seed noise taken as known."""
    return quantile(level) * seed_sd * sqrt(2 / trainings)


def trainings_needed(gap: float, seed_sd: float, level: float = ALPHA) -> int:
    """Trainings of each side until a recorded gap of this size reaches `level`."""
    return max(1, ceil(2 * (quantile(level) * seed_sd / gap) ** 2))


def level_of_many(looks: int = KEEPS) -> float:
    """Level of the first of so many planned looks under the project's error control."""
    return ALPHA * PLANNED / looks


def keeps_at_least(gap: float) -> tuple[int, int]:
    """(fewest, most) of the 22 keeps that can have a recorded gap of at least `gap`. The ledger's summary counts them
    at three places only."""
    largest = GAPS[-1]
    known = (
        (SMALLEST_KEEP, KEEPS),
        (NO_OP_GAP, KEEPS - KEEPS_BELOW_NO_OP),
        (SEED_GAP, KEEPS - KEEPS_BELOW_SEED),
        # Of three gains with this mean, one at least is as large.
        (largest, 1),
    )
    fewest = max((count for at, count in known if at >= gap), default=0)
    most = min((count for at, count in known[:-1] if at <= gap), default=KEEPS)
    return fewest, most


def noise_from_rulers() -> tuple[float, float, float]:
    """(estimate, low, high) of the seed noise from the two published rulers, each taken as one difference of two
    trainings of one recipe: 95 % interval, chi-square with 2 degrees of freedom."""
    from scipy.special import chdtri

    squares = (NO_OP_GAP**2 + SEED_GAP**2) / 2
    return sqrt(squares / 2), sqrt(squares / float(chdtri(2, 0.025))), sqrt(squares / float(chdtri(2, 0.975)))


def keeps_by_luck(changes: int) -> float:
    """Keeps of "strictly better" that are expected of so many changes that change nothing: after a baseline, the
    expected number of records of independent draws, 1/2 + 1/3 + ... (A. Rényi, 1962)."""
    return sum(1 / (place + 1) for place in range(1, changes + 1))


def arithmetic(sizes: tuple[float, ...]) -> dict[str, Any]:
    """All of it, for these standard deviations of seed noise."""
    limits = []
    for seed_sd in sizes:
        for looks in (1, KEEPS):
            level = ALPHA if looks == 1 else level_of_many(looks)
            row: dict[str, Any] = {"seed_sd": seed_sd, "looks": looks}
            for trainings in TRAININGS:
                gap = smallest_shown(seed_sd, trainings, level)
                row |= {f"shows_{trainings}": round(gap, 6), f"keeps_{trainings}": list(keeps_at_least(gap))}
            limits.append(row)
    needed = [
        {"gap": round(gap, 6), **{str(seed_sd): trainings_needed(gap, seed_sd) for seed_sd in sizes}} for gap in GAPS
    ]
    rulers, luck = noise_from_rulers(), keeps_by_luck(EXPERIMENTS - CRASHES)
    return {"noise_from_rulers": rulers, "keeps_by_luck": luck, "limits": limits, "trainings_needed": needed}
