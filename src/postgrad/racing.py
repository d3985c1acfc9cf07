"""Races: after the first part of a dear experiment, is there a chance left that the whole of it beats the champion?

A rung is such a part: the first folds. Each experiment is decided alone, as soon as it reaches a rung, from experiments
that have ended: nothing waits for siblings (asynchronous halving: L. Li et al., "A system for massively parallel
hyperparameter tuning", MLSys (2020)). How much a rung says is measured within the run. Over the experiments that have
ended, the score at the rung is ranked against the whole score, and a rung whose order misleads, or is not known yet,
stops nothing. What is made up from the rung to the end is regressed on the gap at the rung and on the kind of recipe,
shrunk towards what items of the same kind would show (C. Rasmussen and C. Williams, "Gaussian Processes for Machine
Learning" (2006), sections 2.2 and 2.7).

Functions of scores alone: a run and the simulator call the same ones. They start and stop no job.
"""

from __future__ import annotations

from itertools import islice, product
from math import atanh, isfinite, log, sqrt, tanh
from typing import TYPE_CHECKING, Callable, Iterable, NamedTuple, Sequence

from postgrad.records import Estimate, Move, Race, Recipe, Stage, Value
from postgrad.research import edit
from postgrad.train import BACKENDS
from postgrad.tree import Experiment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Nominal seconds that a rung has to save where it stops something: three starts of a job, as about one in three is.
SAVES_S = 15.0
# An experiment is stopped when, with a probability under this times how far the rung is trusted, it comes out ahead of
# the champion or within so many standard errors of it.
LIMIT, SLACK = 0.05, 1.0
# Ended experiments that a rung needs before it stops anything, and that are looked at.
FEWEST, LATEST = 6, 100
# The least rank correlation, at the low end of its interval, that a rung has to show; standard errors to that end.
LEAST_TRUST, ERRORS = 0.5, 1.0
# Prior of the regression: the slope is 1 with this standard deviation, and the spread is worth so many experiments.
SLOPE_SD, PRIOR_WEIGHT = 0.3, 4.0
# How much the kinds of recipes may differ, as variances beside the spread; the least variance there is.
RATIOS, TINY = (0.0, 0.5, 2.0, 8.0), 1e-10
Z95 = 1.959964


class Scores(NamedTuple):
    """One ended experiment: its score at a rung, its whole score, and what else learns as it does, see `kin`."""

    part: float
    whole: float
    kin: tuple[str, ...] = ()


class Outlook(NamedTuple):
    """What a whole gap is expected to be: a mixture of Student's t with these weights, centres and scales."""

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    scales: NDArray[np.float64]
    degrees: float

    @property
    def mean(self) -> float:
        return float(self.weights @ self.means)

    @property
    def sd(self) -> float:
        """Its standard deviation; there are more than two degrees of freedom."""
        inside = self.scales**2 * self.degrees / (self.degrees - 2)
        return sqrt(float(self.weights @ (inside + (self.means - self.mean) ** 2)))

    def above(self, bar: float) -> float:
        """The probability of more than this."""
        from scipy.stats import t

        return float(self.weights @ t.sf((bar - self.means) / self.scales, self.degrees))


def rungs(units: int) -> tuple[int, ...]:
    """Numbers of units after which an experiment of so many may be stopped: 1, 2, 4 and so on, less than all."""
    found: list[int] = []
    while (count := 2 ** len(found)) < units:
        found.append(count)
    return tuple(found)


def races(node: Experiment) -> bool:
    """True for an experiment that may be stopped: one that is to beat a champion. Another training of what is known,
    and a champion less one change, are wanted whole."""
    proposed = node.proposed
    wanted = proposed.choice.move is Move.REPLICATE or proposed.proposal.proposer == "referee"
    return proposed.incumbent is not None and not wanted


def saves(node: Experiment, share: float) -> bool:
    """True where an experiment that ends at a rung saves more than what the races cost: it is dear enough."""
    return (1 - share) * node.proposed.nominal_s > SAVES_S


def ended(nodes: Iterable[Experiment], part: Callable[[Experiment], float | None]) -> list[Scores]:
    """The experiments that a rung is judged by: the latest with a whole score, the constant answer left out.

    Args:
        nodes: the latest first.
        part: the score of an ended experiment at the rung; None where there is none.
    """
    told = (node for node in nodes if node.score is not None)
    found = (node for node in told if node.proposed.proposal.recipe.stage.backend != "constant")
    known = []
    for node in reversed(list(islice(found, LATEST))):
        at_rung, whole = part(node), node.score
        if at_rung is not None and whole is not None and isfinite(whole):
            known.append(Scores(at_rung, whole, kin(node.proposed.proposal.recipe)))
    return known


def rank_correlation(known: Sequence[Scores]) -> float | None:
    """Spearman's rank correlation of part and whole; None where one of them does not vary."""
    import numpy as np
    from scipy.stats import rankdata

    if len(known) < 3:
        return None
    part, whole = (rankdata([each[side] for each in known]) for side in (0, 1))
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


def trusted(known: Sequence[Scores]) -> float:
    """How far a rung is trusted that is judged by these experiments, from 0 to 1."""
    return trust(rank_correlation(known), len(known))


@edit.remembered
def kin(recipe: Recipe) -> tuple[str, ...]:
    """What a valid recipe shares with others that learn as fast or as slowly: the methods of its members, and all but
    its numbers."""
    methods = [f"{edit.single(stage).backend}.{_tuned(edit.single(stage))}" for stage in edit.stages(recipe)]
    return "+".join(sorted(methods)), edit.structure_of(recipe)


def _tuned(stage: Stage) -> Value:
    """Which part of a base model is trained, for backends that leave a choice."""
    return edit.setting(stage, "tune") if "tune" in BACKENDS.get(stage.backend).Params.model_fields else None


def outlook(gap: float, own: tuple[str, ...], known: Sequence[Scores], rival: Scores, noise: float) -> Outlook:
    """What an experiment comes to whose gap to a rival at a rung is this.

    The gap changes from the rung to the end by the rival's luck there, by a share of itself, by what recipes of a kind
    make up, and by chance. How much each kind of recipe matters beside chance is not known: every ratio of `RATIOS`
    counts by how well it foretells the ended experiments, so a kind of recipe that none of them had is as uncertain as
    kinds have turned out to differ.

    Args:
        own: the kin of the experiment.
        noise: variance of the whole gap around the gap at the rung, as far as items make it: what is believed of the
            spread before any experiment has ended.
    """
    import numpy as np

    noise, count = max(noise, TINY), len(known)
    part = np.array([*(each.part - rival.part for each in known), gap])
    made_up = np.array([each.whole - each.part - rival.whole + rival.part for each in known])
    base = np.eye(count + 1) + 1.0 + SLOPE_SD**2 / noise * np.outer(part, part)
    kinds = _alike([*(each.kin for each in known), own], rival.kin)
    found = []
    for ratios in product(RATIOS, repeat=len(kinds)):
        covariance = base + sum(ratio * alike for ratio, alike in zip(ratios, kinds, strict=True))
        root = np.linalg.cholesky(covariance)
        z = np.linalg.solve(root[:count, :count], made_up)
        squares, degrees = PRIOR_WEIGHT * noise + float(z @ z), PRIOR_WEIGHT + count
        fit = -float(np.log(np.diag(root)[:count]).sum()) - degrees / 2 * log(squares)
        found.append((fit, gap + float(root[count, :count] @ z), root[count, count] * sqrt(squares / degrees)))
    fits, means, scales = np.array(found).T
    weights = np.exp(fits - fits.max())
    return Outlook(weights / weights.sum(), means, scales, PRIOR_WEIGHT + count)


def _alike(kins: Sequence[tuple[str, ...]], rival: tuple[str, ...]) -> list[NDArray[np.float64]]:
    """For each level of kin, (N, N): how much of what two experiments make up on the rival is the same."""
    import numpy as np

    found = []
    for level, against in enumerate(rival):
        numbers = {against: 0}
        names = np.array([numbers.setdefault(kin[level], len(numbers)) for kin in kins])
        same = (names == 0).astype(np.float64)
        found.append((names[:, None] == names[None, :]) - same[:, None] - same[None, :] + 1.0)
    return found


def verdict(
    mine: NDArray[np.float64],
    theirs: NDArray[np.float64],
    rival: Scores,
    known: Sequence[Scores],
    *,
    kin: tuple[str, ...] = (),
    share: float,
) -> Race | None:
    """The race of an experiment at a rung: what it would come to, where it is to be stopped; None where it goes on.

    Args:
        mine, theirs: (N,) item values at the rung of the experiment and of the champion it was proposed against.
        rival: the champion's scores.
        known: other experiments that have ended.
        kin: of the experiment.
        share: what part of an experiment the rung is.
    """
    correlation = rank_correlation(known)
    believed = trust(correlation, len(known))
    if not believed or correlation is None:
        return None
    pairs = mine - theirs
    noise = float(pairs.var()) / len(pairs) * (1 - share)
    found = outlook(float(pairs.mean()), kin, known, rival, noise)
    # The champion was picked for its score, so it had luck: as much as an error of the whole gap is not yet behind it.
    chance = found.above(-SLACK * sqrt(float(pairs.var()) / len(pairs) * share))
    if chance >= LIMIT * believed:
        return None
    score, half = rival.whole + found.mean, Z95 * found.sd
    expected = Estimate(value=score, low=score - half, high=score + half, n=len(pairs))
    return Race(share=share, chance=chance, expected=expected, correlation=correlation, ended=len(known))
