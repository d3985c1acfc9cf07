"""Between certifying and the sealed read: the champion's final model is trained, and must keep every guard.

Latency and size can only be measured on the final model, and the answers to side rows only then are those of the model
that is handed over. Where the final model breaks a guard, or cannot be trained, the next finalist takes over. Reads no
sealed label. Does what is owed and can be entered again after a kill.
"""

from __future__ import annotations

import shutil

from postgrad.certify import RunJobs, certify, references
from postgrad.data.text import stable_unit
from postgrad.describe import describe
from postgrad.evaluate.evaluator import read_outputs
from postgrad.evaluate.guards import AnswersKind, ModelKind, broken, kind_of
from postgrad.evaluate.guards.base import SavedModel, Unmeasured
from postgrad.events import Certified, FinalModel
from postgrad.records import Estimate, Guard
from postgrad.referee import Referee
from postgrad.seal import owed_job
from postgrad.session import Job, Session

ATTEMPTS = 2
TIMED_TEXTS = 200


def confirm(session: Session, referee: Referee, run_jobs: RunJobs) -> None:
    """Certify champions until the final model of one stands. First, while nothing of select or sealed was looked at, a
    language model of the task words what the search got wrong.

    Raises:
        PostgradError: no finalist is left.
    """
    describe(session)
    while True:
        if session.certified is None:
            certify(session, referee, run_jobs)
        certified = session.certified
        assert certified is not None
        if certified.champion in session.final_models:
            return
        _try(session, run_jobs, certified)


def _try(session: Session, run_jobs: RunJobs, certified: Certified) -> None:
    """Train what the sealed read needs, measure champion and baseline, and record what was found."""
    names = dict.fromkeys([certified.champion, certified.baseline, *(n.id for n in references(session).values())])
    weighed = any(isinstance(kind_of(guard), ModelKind) for guard in session.task.guards)
    # A baseline that was measured beside a champion that was refused may have lost its weights: nothing needs them.
    saved = {certified.champion} | ({certified.baseline} - session.final_models.keys() if weighed else set())
    jobs = {name: owed_job(session, name, name in saved) for name in names}
    run_jobs([job for job in jobs.values() if session.failures[job.id] < ATTEMPTS], "training the final models")
    champion = jobs[certified.champion]
    if _failed(session, champion) and session.failures[champion.id] < ATTEMPTS:
        run_jobs([champion], "training the final model again")
    thresholds = {**certified.baseline_thresholds, certified.champion: certified.threshold}
    for name in dict.fromkeys([certified.baseline, certified.champion]):
        if name not in session.final_models and (name == certified.champion or not _failed(session, jobs[name])):
            session.append(_final_model(session, jobs[name], thresholds.get(name)))


def _failed(session: Session, job: Job) -> bool:
    return session.finished[job.id].result.failure is not None


def _final_model(session: Session, job: Job, threshold: float | None) -> FinalModel:
    """The guards of one final model, and whether it may be the champion's."""
    failure = session.finished[job.id].result.failure
    if failure is not None:
        why = f"its final training failed {session.failures[job.id]} times, the last time with {failure.boundary}/"
        return FinalModel(experiment=job.experiment, refused=f"{why}{failure.kind}: {failure.message}")
    outputs = read_outputs(session.store.artifacts.read(session.finished[job.id].result.units[0].outputs))
    values = dict(session.guards.of_side([(session.sealed_unit, outputs)], threshold))
    unmeasured = _measure(session, job, values)
    decided = [name for name, guard in session.guards.guards.items() if guard.data or _weighs(guard)]
    known = [name for name in decided if name not in unmeasured]
    wrong = [*unmeasured.values(), *broken(session.task.guards, values, known)]
    refused = f"its final model breaks a guard: {' and '.join(wrong)}" if wrong else None
    return FinalModel(experiment=job.experiment, guards=values, refused=refused)


def _weighs(guard: Guard) -> bool:
    return not isinstance(kind_of(guard), AnswersKind)


def _measure(session: Session, job: Job, values: dict[str, Estimate]) -> dict[str, str]:
    """Add the guards on the saved model to `values`; return those that could not be measured, with the reason."""
    wanted = {name: guard for name, guard in session.guards.guards.items() if _weighs(guard)}
    artefact = session.finished[job.id].result.model
    if not wanted or artefact is None:
        return {}
    scratch = session.executor.scratch / "guards"
    shutil.rmtree(scratch, ignore_errors=True)
    session.store.artifacts.restore_folder(artefact, scratch / "model")
    unmeasured = {}
    engine = session.task.engine.model_copy(update={"threads": session.executor.engine.threads})
    model = SavedModel(scratch / "model", _texts(session), engine, scratch / "timing")
    for name, guard in wanted.items():
        kind = kind_of(guard)
        if isinstance(kind, ModelKind):
            try:
                values[name] = kind.measured(guard, model)
            except Unmeasured as wrong:
                unmeasured[name] = f"{name} could not be measured: {wrong}"
    shutil.rmtree(scratch, ignore_errors=True)
    return unmeasured


def _texts(session: Session) -> tuple[str, ...]:
    """Search inputs to time a model with: the same for every experiment, in no order that says anything."""
    rows = sorted(session.rows("search").values(), key=lambda row: stable_unit(row.id, "timing"))
    return tuple(row.text for row in rows[:TIMED_TEXTS])
