"""Races: after the first folds, or epochs, of a dear experiment, is there a chance left that all of it beats the champion?

A rung is the first part of an experiment. Each experiment is decided alone, as soon as it reaches a rung, from
experiments that have ended: nothing waits for siblings (asynchronous halving: L. Li et al., "A system for massively
parallel hyperparameter tuning", MLSys (2020)). How much a rung says is measured within the run. Over the experiments
that have ended, the score at the rung is ranked against the whole score; and the whole gap to the champion is regressed
on the gap at the rung, shrunk towards what folds of the same kind would show (Bayesian linear regression: Gelman et al.,
"Bayesian Data Analysis" (2013), section 14.8). A rung whose order misleads, or is not known yet, stops nothing.

Functions of scores alone: a run and the simulator call the same ones. They start and stop no job.
"""

from __future__ import annotations

from math import atanh, sqrt, tanh
from typing import TYPE_CHECKING, NamedTuple, Sequence

from postgrad.records import Estimate, Move, Race
from postgrad.tree import Experiment, State, Tree

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Nominal seconds of an experiment that is not worth a race: starting its jobs costs as much as is saved.
CHEAP_S = 20.0
# An experiment is stopped when it leads in the end with a probability under this, times how far the rung is trusted.
LIMIT = 0.05
# Ended experiments that a rung needs before it stops anything, and that are looked at.
FEWEST, LATEST = 6, 100
# The least rank correlation, at the low end of its interval, that a rung has to show; standard errors to that end.
LEAST_TRUST, ERRORS = 0.25, 1.0
# Prior of the regression: the slope is 1 with this standard deviation, and the spread is worth so many experiments.
SLOPE_SD, PRIOR_WEIGHT = 0.3, 4.0
# Rounds in which line and spread of the regression are settled; the least variance there is.
ROUNDS, TINY = 4, 1e-10
Z95 = 1.959964


class Scores(NamedTuple):
    """One ended experiment: its score at a rung, and its whole score."""

    part: float
    whole: float


class Outlook(NamedTuple):
    """What a whole gap is expected to be: Student's t with this centre, scale and degrees of freedom."""

    mean: float
    scale: float
    degrees: float

    def above(self, bar: float) -> float:
        """The probability of more than this."""
        from scipy.stats import t

        return float(t.sf((bar - self.mean) / self.scale, self.degrees))


def rungs(units: int) -> tuple[int, ...]:
    """Numbers of units after which an experiment of so many may be stopped: 1, 2, 4 and so on, less than all."""
    found = []
    while (count := 2 ** len(found)) < units:
        found.append(count)
    return tuple(found)


def races(node: Experiment) -> bool:
    """True for an experiment that may be stopped: a dear one that is to beat a champion. Another training of what is
    known, and a champion less one change, are wanted whole."""
    proposed = node.proposed
    wanted = proposed.choice.move is Move.REPLICATE or proposed.proposal.proposer == "referee"
    return proposed.incumbent is not None and proposed.nominal_s > CHEAP_S and not wanted


def informative(tree: Tree) -> tuple[Experiment, ...]:
    """The ended experiments that rungs are judged by: the latest with a whole score, the constant answer left out."""
    found = [
        node
        for node in tree.scored()
        if node.state is State.DONE and node.proposed.proposal.recipe.stage.backend != "constant"
    ]
    return tuple(sorted(found, key=lambda node: node.index)[-LATEST:])


def rank_correlation(ended: Sequence[Scores]) -> float | None:
    """Spearman's rank correlation of part and whole; None where one of them does not vary."""
    import numpy as np
    from scipy.stats import rankdata

    if len(ended) < 3:
        return None
    part, whole = (rankdata([each[side] for each in ended]) for side in (0, 1))
    if part.std() == 0 or whole.std() == 0:
        return None
    return float(np.corrcoef(part, whole)[0, 1])


def trust(correlation: float | None, count: int) -> float:
    """How far a rung is trusted, from 0 to 1: the low end of the interval of its rank correlation over so many
    experiments (Fisher's z with the standard error of D. Bonett and T. Wright, Psychometrika 65 (2000) 23-28); 0 where
    that is low or too few are known."""
    if correlation is None or count < FEWEST:
        return 0.0
    bounded = min(0.999, max(-0.999, correlation))
    error = sqrt((1 + bounded**2 / 2) / (count - 3))
    low = tanh(atanh(bounded) - ERRORS * error)
    return low if low >= LEAST_TRUST else 0.0


def outlook(gap: float, noise: float, ended: Sequence[Scores], rival: Scores) -> Outlook:
    """The whole gap to a rival, given the gap at a rung.

    Args:
        noise: variance of the whole gap around the gap at the rung, as far as items make it: what is believed of the
            spread before any experiment has ended.
        ended: other experiments, whose gaps to the same rival say how gaps change from the rung to the end.
    """
    import numpy as np

    noise = max(noise, TINY)
    part = np.array([each.part - rival.part for each in ended])
    whole = np.array([each.whole - rival.whole for each in ended])
    rows = np.stack([np.ones(len(part)), part], axis=1)
    # The luck that the rival had at the rung is in every gap: the line may start elsewhere than at zero.
    prior, start = np.diag([1 / noise, 1 / SLOPE_SD**2]), np.array([0.0, 1.0])
    spread = noise
    for _ in range(ROUNDS):
        covariance = np.linalg.inv(prior + rows.T @ rows / spread)
        line = covariance @ (prior @ start + rows.T @ whole / spread)
        left = whole - rows @ line
        spread = (PRIOR_WEIGHT * noise + float(left @ left)) / (PRIOR_WEIGHT + len(part))
    asked = np.array([1.0, gap])
    scale = sqrt(spread + float(asked @ covariance @ asked))
    return Outlook(float(asked @ line), scale, PRIOR_WEIGHT + len(part))


def verdict(
    mine: NDArray[np.float64],
    rival: NDArray[np.float64],
    whole: float,
    ended: Sequence[Scores],
    *,
    share: float,
    worth: float = 0.0,
) -> Race | None:
    """The race of an experiment at a rung: what it would come to, where it is to be stopped; None where it goes on.

    Args:
        mine, rival: (N,) item values at the rung of the experiment and of the champion it was proposed against.
        whole: the champion's whole score.
        ended: other experiments that have ended.
        share: what part of an experiment the rung is.
        worth: the gap to the champion that would be worth having.
    """
    correlation = rank_correlation(ended)
    believed = trust(correlation, len(ended))
    if not believed or correlation is None:
        return None
    pairs = mine - rival
    noise = float(pairs.var()) / len(pairs) * (1 - share)
    found = outlook(float(pairs.mean()), noise, ended, Scores(float(rival.mean()), whole))
    chance = found.above(worth)
    if chance >= LIMIT * believed:
        return None
    from scipy.stats import t

    score, half = whole + found.mean, float(t.ppf(0.975, found.degrees)) * found.scale
    expected = Estimate(value=score, low=score - half, high=score + half, n=len(pairs))
    return Race(share=share, chance=chance, expected=expected, correlation=correlation, ended=len(ended))
