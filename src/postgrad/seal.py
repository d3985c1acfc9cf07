"""The end of a run: the final trainings, then one read of the sealed labels for champion and references together.

Does what is owed and can be entered again after a kill. Reads once for each end of the run: a second read takes a
`Reopened` event, with the user's reason, between the two.
"""

from __future__ import annotations

from dataclasses import replace

from postgrad.certify import RunJobs, references
from postgrad.errors import PostgradError
from postgrad.evaluate.sealed import Entrant, Questions, read_sealed
from postgrad.events import SealedDone, current, sealed_reads
from postgrad.records import Recipe
from postgrad.scripts.seal import seal_script
from postgrad.scripts.session import ScriptSession
from postgrad.session import Job, Session

SEALED_SEED = 2000


def sealed_job(session: Session, experiment: str, *, save_model: bool, seed: int = SEALED_SEED) -> Job:
    """Train on all train rows, answer the sealed inputs."""
    proposal = session.tree[experiment].proposed.proposal
    recipe: Recipe = proposal.recipe
    return Job(experiment, "sealed", (session.sealed_unit,), recipe, proposal.seed + seed, save_model)


def seal(session: Session, run_jobs: RunJobs) -> None:
    """Train champion and references on all of train, then read the sealed labels once for all of them."""
    certified = session.certified
    assert certified is not None
    roles = {"champion": certified.champion, "baseline": certified.baseline}
    roles |= {role: node.id for role, node in references(session).items() if role != "baseline"}
    _refuse_second_read(session)
    jobs = {name: owed_job(session, name, name == certified.champion) for name in roles.values()}
    needed = (certified.champion, certified.baseline)
    # Another reference that failed is left out of the read: it would take as long again.
    owed = [job for name, job in jobs.items() if name in needed or not session.failures[job.id]]
    run_jobs(owed, "training the final models")
    failed = {name for name, job in jobs.items() if session.finished[job.id].result.failure is not None}
    if certified.champion in failed or certified.baseline in failed:
        name = certified.champion if certified.champion in failed else certified.baseline
        failure = session.finished[jobs[name].id].result.failure
        raise PostgradError(
            f"The final training of {name} failed ({failure.kind if failure else 'unknown'}): "
            f"{failure.message if failure else ''} The sealed split was not read. "
            f"Look at `postgrad show {session.run} {name}`; `postgrad resume {session.run}` tries it once more."
        )
    if isinstance(session, ScriptSession):
        seal_script(session, run_jobs, {role: jobs[name] for role, name in roles.items()})
        return
    entrants = []
    for role, name in roles.items():
        if name in failed:
            continue
        outputs = session.finished[jobs[name].id].result.units[0].outputs
        limit = certified.threshold if name == certified.champion else certified.baseline_thresholds.get(name)
        entrant = Entrant(role=role, experiment=name, threshold=limit, outputs=outputs)
        entrants.append((entrant, session.outputs(outputs)))
    plan = session.plan
    questions = Questions(
        rows=tuple(session.rows("sealed").values()),
        labels=plan.labels,
        out_of_scope=plan.out_of_scope,
        graded=plan.graded,
    )
    _refuse_second_read(session)
    number = session.reads + 1
    read = read_sealed(
        session.task.metric,
        entrants,
        questions,
        seed=session.task.seed,
        number=number,
        guards=lambda answered: session.guards.of_items(answered, "sealed"),
        judge=session.judge,
    )
    reason = session.reopened.reason if session.reopened else None
    session.append(SealedDone(read=read, number=number, reason=reason))


def _refuse_second_read(session: Session) -> None:
    """The log itself is asked, not what the session made of it: two reads of one end must be impossible.

    Raises:
        PostgradError: the sealed labels were read since the run was started or reopened.
    """
    events = tuple(session.store.in_order(("sealed_done", "reopened")))
    if "sealed_done" in current(events) or len(sealed_reads(events)) != session.reads:
        raise PostgradError(
            f"The sealed split of {session.run} has been read already, and this would be a second look: refused. "
            f'To search on and read it again for the record: postgrad resume {session.run} --again "why"'
        )


def owed_job(session: Session, experiment: str, save_model: bool) -> Job:
    """The final training of an experiment. One that an earlier end of the run has on record is used again: recipe, seed
    and rows are the same. But where its weights are wanted now and are not there, never kept or lost since, it is a job
    of its own."""
    job = sealed_job(session, experiment, save_model=save_model)
    number = 0
    while True:
        made = replace(job, copy="" if not number else "kept" if number == 1 else f"kept-{number}")
        known = session.finished.get(made.id)
        if not save_model or known is None or known.result.failure is not None:
            return made
        if known.result.model is not None and session.store.artifacts.verify(known.result.model):
            return made
        number += 1
