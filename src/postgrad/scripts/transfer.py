"""The larger setting: champion and baseline trained again there, once the champion is named, before the sealed read.

Whether what a search found at a small size holds at a larger one is not known from the search: the one published gain
of autoresearch on a larger model was found by carrying the kept changes over by hand. It decides nothing; it is told
beside the sealed result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Mapping, Sequence

from postgrad.records import Transfer
from postgrad.scripts.session import TRAININGS, ScriptSession
from postgrad.scripts.statistics import difference_of, estimate_of
from postgrad.session import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FURTHER_SEEDS = 1_000
Sides = tuple[list[dict[str, float]], list[dict[str, float]]]


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
    sides = _values(session, jobs[0]), _values(session, jobs[1])
    told = told.model_copy(update={"trainings": (len(sides[0]), len(sides[1])), "said": _failures(session, jobs)})
    if not all(sides):
        return told
    names = sorted(set.intersection(*(set(items) for side in sides for items in side)))
    if not names:
        return told.model_copy(update={"said": "the referee named other items each time, so nothing can be compared"})
    first_grid, second_grid = (_grid(side, names) for side in sides)
    both = (first_grid, second_grid)
    estimates = tuple(estimate_of(grid, confidence, both) for grid in both)
    gap = difference_of(first_grid, second_grid, confidence)
    return told.model_copy(update={"estimates": estimates, "difference": gap})


def _trainings(session: ScriptSession, job: Job) -> list[Job]:
    seeds = [job.seed + FURTHER_SEEDS * number for number in range(TRAININGS)]
    return [Job(job.experiment, job.purpose, (session.larger_unit,), job.recipe, seed) for seed in seeds]


def _too_dear(session: ScriptSession, jobs: Sequence[Job]) -> str | None:
    """Why the trainings that are not done yet cannot be paid, or None."""
    wall = session.remaining().wall_s
    owed = [job for job in jobs if job.id not in session.finished]
    if wall is None or not owed:
        return None
    needs = sum(session.forecast_s(job.recipe, job.units) for job in owed) / session.executor.engine.slots
    if needs <= wall:
        return None
    return f"{len(owed)} trainings there need about {needs:.0f} s, and {max(0.0, wall):.0f} s of the budget were left"


def _values(session: ScriptSession, jobs: Sequence[Job]) -> list[dict[str, float]]:
    """Item -> number of each training that ended well."""
    found = []
    for job in jobs:
        result = session.finished[job.id].result
        if result.failure is None:
            outputs = session.texts(result.units[0].outputs)
            found.append(dict(zip(outputs.ids, map(float, outputs.texts), strict=True)))
    return found


def _failures(session: ScriptSession, jobs: Sequence[Sequence[Job]]) -> str:
    """What went wrong, in words; "" where nothing did."""
    said = []
    for role, each in zip(("champion", "baseline"), jobs, strict=True):
        wrong = [result.failure for job in each if (result := session.finished[job.id].result).failure is not None]
        if wrong and wrong[0] is not None:
            said.append(f"{len(wrong)} of {len(each)} trainings of the {role} failed ({wrong[0].kind})")
    return "; ".join(said)


def _grid(side: Sequence[Mapping[str, float]], names: Sequence[str]) -> NDArray[np.float64]:
    import numpy as np

    return np.array([[items[name] for name in names] for items in side], dtype=np.float64)
