"""The larger setting: champion and baseline trained again there, once the champion is named, before the sealed read.

Whether what a search found at a small size holds at a larger one is not known from the search: the one published gain
of autoresearch on a larger model was found by carrying the kept changes over by hand. It decides nothing; it is told
beside the sealed result, and held to the same: trainings that failed, and items that one side lacks.
"""

from __future__ import annotations

from math import ceil
from typing import Callable, Mapping, Sequence

from postgrad.budget import HOUR, format_duration
from postgrad.records import Transfer
from postgrad.scripts.evidence import End, compared, weighed
from postgrad.scripts.session import TRAININGS, ScriptSession
from postgrad.scripts.statistics import difference_of, estimate_of
from postgrad.session import Job

FURTHER_SEEDS = 1_000


def transferred(
    session: ScriptSession,
    run_jobs: Callable[[Sequence[Job], str], None],
    first: Mapping[str, Job],
    confidence: float,
) -> Transfer | None:
    """Train and measure in the larger setting; None where the task names none.

    Args:
        first: role -> final training; that of the champion and that of the baseline count.
    """
    import numpy as np

    script = session.script
    if not script.confirm:
        return None
    told = Transfer(command=script.confirm, time_s=script.confirm_time_s)
    champion, baseline = first["champion"], first["baseline"]
    if champion.recipe == baseline.recipe:
        return told.model_copy(update={"said": "the champion is the source as it was given"})
    jobs = [_trainings(session, job) for job in (champion, baseline)]
    if (why := _too_dear(session, [*jobs[0], *jobs[1]])) is not None:
        return told.model_copy(update={"said": why})
    run_jobs([*jobs[0], *jobs[1]], "training in the larger setting")
    names = champion.experiment, baseline.experiment
    found = {name: _values(session, each) for name, each in zip(names, jobs, strict=True)}
    ended = {name: [_end(session, job) for job in each] for name, each in zip(names, jobs, strict=True)}
    told = told.model_copy(update={"trainings": (len(found[names[0]]), len(found[names[1]]))})
    why, remarks = weighed(ended, found)
    if why is not None:
        return told.model_copy(update={"said": "; ".join([why, *remarks])})
    items = compared(found)
    both = tuple(np.array([[each[item] for item in items] for each in found[name]]) for name in names)
    estimates = tuple(estimate_of(grid, confidence, both) for grid in both)
    gap = difference_of(both[0], both[1], confidence)
    return told.model_copy(update={"estimates": estimates, "difference": gap, "said": "; ".join(remarks)})


def _trainings(session: ScriptSession, job: Job) -> list[Job]:
    seeds = [job.seed + FURTHER_SEEDS * number for number in range(TRAININGS)]
    return [Job(job.experiment, job.purpose, (session.larger_unit,), job.recipe, seed) for seed in seeds]


def _too_dear(session: ScriptSession, jobs: Sequence[Job]) -> str | None:
    """Why the trainings that are not done yet cannot be paid, or None."""
    left, slots = session.remaining(), session.executor.engine.slots
    # What failed in a run that was ended there is tried again.
    owed = [
        job for job in jobs if job.id not in session.finished or session.finished[job.id].result.failure is not None
    ]
    if not owed:
        return None
    each = max(session.forecast_s(job.recipe, job.units) for job in owed)
    needs, cores = each * ceil(len(owed) / slots), each * len(owed) * session.executor.engine.threads
    said = f"{len(owed)} trainings there need about"
    if left.wall_s is not None and needs > left.wall_s:
        return f"{said} {format_duration(needs)}, and {format_duration(left.wall_s)} of the budget were left"
    if left.cpu_hours is not None and cores > HOUR * left.cpu_hours:
        return f"{said} {cores / HOUR:.2g} CPU hours, and {left.cpu_hours:.2g} of the budget were left"
    return None


def _values(session: ScriptSession, jobs: Sequence[Job]) -> list[dict[str, float]]:
    """Item -> number of each training that ended well."""
    found = []
    for job in jobs:
        result = session.finished[job.id].result
        if result.failure is None:
            outputs = session.texts(result.units[0].outputs)
            found.append(dict(zip(outputs.ids, map(float, outputs.texts), strict=True)))
    return found


def _end(session: ScriptSession, job: Job) -> End:
    failure = session.finished[job.id].result.failure
    return End(failure, again=failure is None and session.failures[job.id] > 0)
