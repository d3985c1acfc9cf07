"""What a job may use and is expected to use: wall, cores, devices, money, for its experiment and for the run.

It says what is left; that a job is ended there, the engine sees to, and the failure says which budget it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from postgrad.budget import HOUR
from postgrad.engines.base import Placed
from postgrad.engines.prices import rate
from postgrad.events import JobStopped
from postgrad.records import Allowed, Budget, Hardware, JobSpec, Usage
from postgrad.records.job import sum_of

if TYPE_CHECKING:
    from postgrad.execute.executor import RunningJob
    from postgrad.records.job import Amount
    from postgrad.session import Job, Session

LEAST_JOB_S = 30.0  # The search's own end stops a job that has less left.


def hardware_of(session: Session) -> Hardware:
    """What the next job runs on: as the engine says, else as the last job had it, else as the task asks for it."""
    engine, told = session.executor.engine, session.task.engine
    if isinstance(engine, Placed):
        return engine.usual
    last = session.finished.last.hardware if session.finished.last is not None else ()
    return last[-1] if last else Hardware(threads=engine.threads, held=told.gpus, nodes=told.nodes)


def cost_of(session: Session, wall_s: float) -> Usage:
    """What a job of so many seconds uses: its devices all the time, and the dollars of all that it has to itself."""
    where = hardware_of(session)
    usd = wall_s * rate(where, session.task.engine.prices)
    return Usage(wall_s=wall_s, gpu_s=wall_s * where.held * where.nodes, usd=usd)


def expected(session: Session, job: Job) -> Usage | None:
    """What is set aside for a job; None where it holds no device and costs no money."""
    if not costs(session):
        return None
    return cost_of(session, session.forecast_s(job.recipe, job.units))


def costs(session: Session) -> bool:
    """True where jobs hold devices or cost money."""
    one = cost_of(session, 1.0)
    return bool(one.gpu_s or one.usd)


def most_s(session: Session, job: Job) -> float:
    """Seconds that a job may take. An experiment that leaves no room for its own final training cannot win, and a
    reference's answers are not worth more than the whole budget."""
    most, left, granted = session.task.engine.job_wall_s, session.remaining().wall_s, session.ledger.granted.wall_s
    if job.purpose == "search" and left is not None:
        most = min(most, max(LEAST_JOB_S, left / (1 + session.final_share)))
    if job.purpose == "sealed" and not job.save_model and granted is not None and session.sealed is None:
        most = min(most, max(LEAST_JOB_S, granted))
    return most


def allowed(session: Session, job: Job) -> Allowed | None:
    """What budgets leave a job of the search; None where they say nothing.

    All jobs of an experiment share its budget. Of the run's devices and money a job may use what leaves room for its
    own final training, as it is with the clock.
    """
    told, whole = session.task.experiment, session.ledger.granted
    if job.purpose != "search" or (told == Budget() and not (whole.gpu_hours or whole.usd)):
        return None
    left = session.remaining()
    own = Allowed(
        wall_s=told.wall_s, cpu_s=_seconds(told.cpu_hours), gpu_s=_seconds(told.gpu_hours), usd=told.usd
    ).less(used_by(session, job.experiment))
    least, share = cost_of(session, LEAST_JOB_S), 1 + session.final_share
    of_run: list[Amount] = []
    limits: dict[str, float] = {}
    for name, granted, most, floor in (
        ("gpu_s", whole.gpu_hours, _seconds(left.gpu_hours), least.gpu_s),
        ("usd", whole.usd, left.usd, least.usd),
    ):
        if not granted or most is None or not floor:
            continue
        room, mine = max(floor, most / share), getattr(own, name)
        if mine is None or room < mine:
            limits[name] = room
            of_run.append("gpu_s" if name == "gpu_s" else "usd")
    found = own.model_copy(update={**limits, "of_run": tuple(of_run)})
    return None if found == Allowed() else found


def unbounded(spec: JobSpec, session: Session) -> JobSpec:
    """A job that is repeated for what it left, not for the search: by no budget, which it has passed once."""
    wall_s = spec.limits.wall_s if session.task.script is not None else session.task.engine.job_wall_s
    return spec.model_copy(update={"limits": spec.limits.model_copy(update={"wall_s": wall_s, "allowed": None})})


def used_by(session: Session, experiment: str) -> Usage:
    """What the search has used for an experiment so far."""
    node = session.tree.experiments.get(experiment)
    return sum_of(result.usage for result in node.results) if node is not None else Usage()


def _seconds(hours: float | None) -> float | None:
    return None if hours is None else hours * HOUR


def stop(session: Session, job: Job, running: RunningJob) -> None:
    """End a job that the run has no more use for, and put what it used on the account."""
    running.stop()
    used = running.used()
    session.append(JobStopped(job=job.id, experiment=job.experiment, purpose=job.purpose, usage=used))
