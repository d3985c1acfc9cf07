"""Rebuilding a champion from its record, without any researcher: recipe, data, seed in; the same answers out."""

from __future__ import annotations

from postgrad.errors import PostgradError, UserError
from postgrad.evaluate.sealed import agreement
from postgrad.records import Record
from postgrad.seal import sealed_job
from postgrad.session import Session
from postgrad.side_by_side import apart

TOLERANCE = 1e-4


class Replay(Record):
    """What a rebuild showed. Equal answers at the frozen threshold mean an equal sealed score."""

    run: str
    experiment: str
    metric: str
    sealed: float
    items: int
    same_answer: float
    max_score_difference: float
    reproduced: bool
    wall_s: float


def replay_champion(session: Session) -> Replay:
    """Train the champion once more and compare its answers to the sealed inputs with the recorded ones.

    Raises:
        UserError: the run has no sealed champion yet.
        PostgradError: the training failed.
    """
    certified, sealed = session.certified, session.sealed
    if certified is None or sealed is None:
        raise UserError(f"{session.run} has no certified champion yet. Finish it with: postgrad resume {session.run}")
    champion = sealed.read.scores[0]
    job = sealed_job(session, champion.experiment, save_model=False)
    result = apart(session, [job])[job.id]
    if result.failure is not None:
        raise PostgradError(f"The champion could not be trained again: {result.failure.message}")
    before, now = session.outputs(champion.outputs), session.outputs(result.units[0].outputs)
    found = agreement(before, now, champion.threshold)
    return Replay(
        run=session.run,
        experiment=champion.experiment,
        metric=sealed.read.metric,
        sealed=champion.estimate.value,
        items=len(before.ids),
        same_answer=found["same_answer"],
        max_score_difference=found["max_score_difference"],
        reproduced=found["same_answer"] == 1.0 and found["max_score_difference"] <= TOLERANCE,
        wall_s=result.usage.wall_s,
    )
