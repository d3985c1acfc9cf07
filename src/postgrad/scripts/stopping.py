"""Ends a training of a script on its way, where what it prints leaves hardly a chance that it beats the champion.

The races of experiments (`racing`), with the loss that is printed for the score of a part. It is on another scale than
the score, so it is brought to the spread that scores have first; how far it can be trusted follows from trainings that
have ended, as at a rung of folds. A script that prints good numbers is not stopped, and wins nothing by it.
"""

from __future__ import annotations

from math import isfinite, sqrt
from typing import Callable, NamedTuple, Sequence

from postgrad import racing
from postgrad.execute.executor import RunningJob
from postgrad.records import Estimate, JobResult, Race
from postgrad.scripts.curve import key_at
from postgrad.scripts.executor import RunningScript
from postgrad.session import Job, Session
from postgrad.tree import Experiment, Tree

# Nominal seconds that a stop has to save: it costs nothing, because no job is started again.
SAVES_S = 5.0
# What is so far behind all others is stopped even where their order says nothing, because they are all alike.
CERTAIN = 0.001


class Said(NamedTuple):
    """What a training printed at some moment, less being better, and what its score was in the end."""

    loss: float
    score: float


class Stopper:
    """Looks at the jobs under way of one run.

    Args:
        view: index of an experiment -> the tree that it was chosen from.
    """

    def __init__(self, session: Session, view: Callable[[int], Tree]) -> None:
        self.session, self.view = session, view
        self._judged: set[tuple[str, float]] = set()

    def cut(self, job: Job, running: RunningJob) -> JobResult | None:
        """End a job that has hardly a chance; what is to be recorded of it, or None where it goes on."""
        if not isinstance(running, RunningScript) or job.purpose != "search":
            return None
        for share, loss in running.curve.points.items():
            if (job.id, share) not in self._judged:
                self._judged.add((job.id, share))
                race = self._race(self.session.tree[job.experiment], share, loss)
                if race is not None:
                    return running.cut(race)
        return None

    def _race(self, node: Experiment, share: float, loss: float) -> Race | None:
        if not racing.races(node) or (1 - share) * node.proposed.nominal_s < SAVES_S:
            return None
        rival = self.session.tree[node.proposed.incumbent or ""]
        against = _said(rival, share)
        if against is None or rival.evaluation is None or rival.analysis is None:
            return None
        ended = [_said(other, share) for other in self.view(node.index).scored() if other.id != rival.id]
        luck = rival.analysis.seed_sd or 0.0
        found = verdict(loss, against, [each for each in ended if each is not None], luck=luck, share=share)
        if found is None:
            return None
        count = rival.evaluation.estimate.n
        return found.model_copy(update={"expected": found.expected.model_copy(update={"n": count})})


def _said(node: Experiment, share: float) -> Said | None:
    units = [unit for result in node.results for unit in result.units]
    loss = units[0].measured.get(key_at(share)) if units else None
    score = node.score
    return Said(loss, score) if loss is not None and score is not None and isfinite(score) else None


def verdict(loss: float, rival: Said, ended: Sequence[Said], *, luck: float, share: float) -> Race | None:
    """The race of a training that printed `loss`: what it would come to, where it is to be stopped, else None.

    Args:
        rival: the champion's.
        ended: of other trainings, whole ones.
        luck: standard deviation of a score over seeds. The champion was picked for its score, so it had luck.
        share: of the time, that is over.
    """
    import numpy as np

    losses = np.array([each.loss for each in (*ended, rival)])
    scores = np.array([each.score for each in (*ended, rival)])
    if len(ended) < racing.FEWEST or losses.std() == 0:
        return None
    scale = float(scores.std() / losses.std())
    known = [racing.Scores(-scale * each.loss, each.score) for each in ended]
    correlation = racing.rank_correlation(known)
    if correlation is None:
        return None
    spread = float(np.var(scores + scale * losses))
    against = racing.Scores(-scale * rival.loss, rival.score)
    found = racing.outlook(-scale * (loss - rival.loss), (), known, against, max(spread, luck**2))
    chance = found.above(-racing.SLACK * luck)
    if chance >= max(CERTAIN, racing.LIMIT * racing.trust(correlation, len(known))):
        return None
    score, half = rival.score + found.mean, racing.Z95 * sqrt(found.sd**2 + luck**2)
    expected = Estimate(value=score, low=score - half, high=score + half, n=0)
    return Race(share=share, chance=chance, expected=expected, correlation=correlation, ended=len(known))
