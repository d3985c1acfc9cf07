"""The end of a run: the final trainings, then one read of the sealed labels for champion and references together.

Does what is owed and can be entered again after a kill.
"""

from __future__ import annotations

from postgrad.certify import RunJobs, references
from postgrad.errors import PostgradError
from postgrad.evaluate.evaluator import read_outputs
from postgrad.evaluate.sealed import Entrant, Questions, read_sealed
from postgrad.events import SealedDone
from postgrad.records import Recipe
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
    jobs = {name: sealed_job(session, name, save_model=name == certified.champion) for name in roles.values()}
    run_jobs(list(jobs.values()), "training the final models")
    failed = {name for name, job in jobs.items() if session.finished[job.id].result.failure is not None}
    if certified.champion in failed or certified.baseline in failed:
        name = certified.champion if certified.champion in failed else certified.baseline
        failure = session.finished[jobs[name].id].result.failure
        raise PostgradError(
            f"The final training of {name} failed ({failure.kind if failure else 'unknown'}): "
            f"{failure.message if failure else ''} The sealed split was not read. "
            f"Look at `postgrad show {session.run} {name}`; `postgrad resume {session.run}` tries it once more."
        )
    entrants = []
    for role, name in roles.items():
        if name in failed:
            continue
        outputs = session.finished[jobs[name].id].result.units[0].outputs
        limit = certified.threshold if name == certified.champion else certified.baseline_thresholds.get(name)
        entrant = Entrant(role=role, experiment=name, threshold=limit, outputs=outputs)
        entrants.append((entrant, read_outputs(session.store.artifacts.read(outputs))))
    questions = Questions(
        rows=tuple(session.rows("sealed").values()), labels=session.plan.labels, out_of_scope=session.plan.out_of_scope
    )
    read = read_sealed(session.task.metric, entrants, questions, seed=session.task.seed)
    session.append(SealedDone(read=read))
