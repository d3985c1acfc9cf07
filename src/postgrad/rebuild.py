"""What a run had stored and has lost is made again, before anything of it is read: splits from the task's files,
answers and models by training once more, items from the answers. A final model is taken from its published copy first.

An artefact is named by its contents, so what is made again is the same, or is not there. What comes out otherwise is
recorded as lost for good: no second training is spent on it, and whoever needs it says that it is missing.
"""

from __future__ import annotations

from typing import Callable, Sequence

from postgrad.errors import PostgradError
from postgrad.evaluate.evaluator import measure
from postgrad.evaluate.guards.rows import GuardPlan
from postgrad.evaluate.splits import SplitPlan, UnitPlan
from postgrad.events import JobFinished, JobStarted, Rebuilt
from postgrad.keeping import Known
from postgrad.metrics.items import dump_items
from postgrad.prepare import load_parts, store_plan
from postgrad.records import Evaluation, JobResult, Usage
from postgrad.scripts.session import ScriptSession
from postgrad.session import Job, Session
from postgrad.tree import Experiment

RunApart = Callable[[Sequence[Job], str], dict[str, JobResult]]


def rebuild(session: Session, run_apart: RunApart) -> None:
    """Make again what is missing. What that takes is on the account; nothing else of it counts.

    Raises:
        PostgradError: a training failed, which says nothing of what it would give: `resume` tries again.
        UserError: the task's files are needed, and are not there.
    """
    if session.prepared is None or isinstance(session, ScriptSession):
        return
    given_up = {
        name
        for event in session.store.in_order(("rebuilt",))
        if isinstance(event.body, Rebuilt)
        for name in event.body.lost
    }
    try:
        _made_again(session, given_up, run_apart)
    finally:
        session.store.artifacts.forget_checks()


def _made_again(session: Session, given_up: set[str], run_apart: RunApart) -> None:
    _splits(session, given_up)
    if any(not session.store.artifacts.verify(name) for name in _of_splits(session)):
        return  # Whoever reads them says so.
    _copies(session)
    _jobs(session, given_up, run_apart)
    _items(session, given_up)


def _missing(session: Session, names: Sequence[str | None], given_up: set[str]) -> tuple[str, ...]:
    there = session.store.artifacts.whole
    return tuple(dict.fromkeys(name for name in names if name and name not in given_up and not there(name)))


def _record(session: Session, wanted: Sequence[str], job: str = "", usage: Usage | None = None) -> None:
    there = session.store.artifacts.verify
    made, lost = tuple(filter(there, wanted)), tuple(name for name in wanted if not there(name))
    session.append(Rebuilt(job=job, artefacts=made, lost=lost, usage=usage or Usage()))


# --- splits -----------------------------------------------------------------------------------------------------------


def _of_splits(session: Session) -> list[str]:
    """The artefacts that say what was split, as far as they can be read."""
    prepared, store = session.prepared, session.store.artifacts
    assert prepared is not None
    names = [prepared.plan, prepared.guards or "", prepared.tags or ""]
    if store.verify(prepared.plan):
        names += SplitPlan.model_validate_json(store.read(prepared.plan)).rows.values()
    if prepared.guards and store.verify(prepared.guards):
        names.append(GuardPlan.model_validate_json(store.read(prepared.guards)).rows or "")
    return [name for name in names if name]


def _splits(session: Session, given_up: set[str]) -> None:
    if missing := _missing(session, _of_splits(session), given_up):
        store_plan(session, load_parts(session.task))
        _record(session, missing)


# --- jobs -------------------------------------------------------------------------------------------------------------


def _needed(session: Session) -> set[str]:
    """The final models that a step may still ask for. Others may have been removed, or may go."""
    known = Known.of_events(session.store.in_order())
    return {model for model, experiment in known.models.items() if known.why_model(experiment)}


def _copies(session: Session) -> None:
    """Put final models back from the copy that was published."""
    if missing := _missing(session, sorted(_needed(session)), set()):
        published = session.store.folder / "model"
        if healed := [name for name in missing if session.store.artifacts.heal(name, published)]:
            _record(session, healed)


def _jobs(session: Session, given_up: set[str], run_apart: RunApart) -> None:
    """Train again whatever lacks its answers or its model."""
    needed = _needed(session)
    lost = {
        name: missing
        for name, body in session.finished.items()
        if (missing := _missing(session, _of_job(body.result, needed), given_up))
    }
    if not lost:
        return
    started = {
        event.body.job: event.body
        for event in session.store.in_order(("job_started",))
        if isinstance(event.body, JobStarted)
    }
    jobs = [_job(session, session.finished[name], started[name]) for name in lost]
    failed: list[str] = []
    for name, result in run_apart(jobs, "making lost artefacts again").items():
        before = session.finished[name].result.failure
        if result.failure is not None and (before is None or before.kind != result.failure.kind):
            failed.append(
                f"What {name} had stored is lost, and the training that would make it again failed "
                f"({result.failure.kind}): {result.failure.message} `postgrad resume {session.run}` tries once more."
            )
        else:
            _record(session, lost[name], name, result.usage)
    if failed:  # What was made again stays so.
        raise PostgradError(failed[0])


def _of_job(result: JobResult, needed: set[str]) -> list[str | None]:
    model = result.model if result.model in needed else None
    return [*(unit.outputs for unit in result.units), model, result.trained]


def _job(session: Session, ended: JobFinished, started: JobStarted) -> Job:
    """The job as it was started: its name says the seed, and which copy of several it was."""
    recipe = session.tree[ended.experiment].proposed.proposal.recipe
    units: tuple[UnitPlan, ...] = (session.sealed_unit,)
    if ended.purpose != "sealed":
        by_name = {unit.name: unit for unit in session.plan.units(ended.purpose)}
        units = tuple(by_name[name] for name in started.units)
    told = ended.job.removeprefix(f"{ended.experiment}-{ended.purpose}-{units[0].name}-")
    seed, _, copy = told.partition("-")
    saves = ended.result.model is not None
    return Job(ended.experiment, ended.purpose, units, recipe, int(seed), saves, copy)


# --- items ------------------------------------------------------------------------------------------------------------


def _items(session: Session, given_up: set[str]) -> None:
    """Measure again what has lost its items: the answers are there."""
    for node in session.tree.all():
        for evaluation in (node.evaluation, *node.select):
            if evaluation is not None and _missing(session, [evaluation.items], given_up):
                _measured_again(session, node, evaluation)


def _measured_again(session: Session, node: Experiment, evaluation: Evaluation) -> None:
    assert evaluation.split != "sealed"
    parts = session.raw_items(node.id, evaluation.split)
    if len(parts) != evaluation.units:
        return  # More was answered since: it is measured as a whole next.
    inference = node.proposed.proposal.recipe.inference
    _, items = measure(parts, session.task.metric, inference, session.plan, seed=session.task.seed)
    session.store.artifacts.put_bytes(dump_items(items))
    _record(session, [evaluation.items])
