"""The sealed read of a script: champion and baseline, each trained with several fresh seeds, on the hidden sealed file.

A gain on one seed is mostly luck where seeds differ more than recipes do: intervals hold the noise of items and of
seeds. Reads once for each end of the run.
"""

from __future__ import annotations

from typing import Callable, Sequence

from postgrad.errors import PostgradError
from postgrad.evaluate.sealed import confidence_of
from postgrad.events import SealedDone
from postgrad.records import SealedRead, SealedScore
from postgrad.scripts.evidence import End, compared, weighed
from postgrad.scripts.session import TRAININGS, ScriptSession
from postgrad.scripts.statistics import difference_of, estimate_of
from postgrad.scripts.transfer import transferred
from postgrad.session import Job

FURTHER_SEEDS = 1_000
PRINTED = "the number is what the script printed, which nobody checked: it is the script's own word"


def seal_script(session: ScriptSession, run_jobs: Callable[[Sequence[Job], str], None], first: dict[str, Job]) -> None:
    """Train what is owed, and read.

    Args:
        first: role -> the final training whose files are kept; the first is the champion's.

    Raises:
        PostgradError: no training of one side gave a number.
    """
    jobs = {role: [job, *_further(job)] for role, job in first.items()}
    # Where nothing was better than the source, both roles are one experiment.
    run_jobs(tuple({job.id: job for each in jobs.values() for job in each}.values()), "training with fresh seeds")
    found = {role: _values(session, each) for role, each in jobs.items()}
    named = {each[0].experiment: found[role] for role, each in jobs.items()}
    ended = {each[0].experiment: [_end(session, job) for job in each] for each in jobs.values()}
    names = compared(named)
    if not names:
        raise PostgradError(
            "The referee named other items in each of the final trainings, so they cannot be compared. Let it give an "
            "item the same name every time."
        )
    import numpy as np

    grids = {
        role: np.array([[items[name] for name in names] for items in each], dtype=np.float64)
        for role, each in found.items()
    }
    number = session.reads + 1
    confidence = confidence_of(number)
    transfer = transferred(session, run_jobs, first, confidence)
    champion, baseline = grids.values()
    gap = difference_of(champion, baseline, confidence)
    why, remarks = weighed(ended, named)
    outputs = {role: session.finished[job.id].result.units[0].outputs for role, job in first.items()}
    scores = [
        SealedScore.model_validate(
            {
                "role": role,
                "experiment": job.experiment,
                "estimate": estimate_of(grids[role], confidence, grids.values()),
                "metrics": {session.task.metric: float(grids[role].mean())},
                "threshold": None,
                "outputs": outputs[role],
                "gap": None if role == "champion" else gap,
            }
        )
        for role, job in first.items()
    ]
    read = SealedRead(
        metric=session.task.metric,
        scores=tuple(scores),
        difference=gap,
        mcnemar_p=gap.p,
        n=len(names),
        confidence=confidence,
        refused=why if session.script.trusted else PRINTED,
        transfer=transfer,
        remarks=remarks,
    )
    session.append(SealedDone(read=read, number=number, reason=session.reopened.reason if session.reopened else None))


def _further(job: Job) -> list[Job]:
    seeds = [job.seed + FURTHER_SEEDS * more for more in range(1, TRAININGS)]
    return [Job(job.experiment, job.purpose, job.units, job.recipe, seed) for seed in seeds]


def _end(session: ScriptSession, job: Job) -> End:
    failure = session.finished[job.id].result.failure
    return End(failure, again=failure is None and session.failures[job.id] > 0)


def _values(session: ScriptSession, jobs: Sequence[Job]) -> list[dict[str, float]]:
    """Item -> number of each training that ended well."""
    results = [session.finished[job.id].result for job in jobs]
    found = []
    for result in results:
        if result.failure is None:
            outputs = session.texts(result.units[0].outputs)
            found.append(dict(zip(outputs.ids, map(float, outputs.texts), strict=True)))
    if results[0].failure is not None or not found:
        failure = results[0].failure
        raise PostgradError(
            f"The final training of {jobs[0].experiment} gave no number ({failure.kind if failure else 'unknown'}): "
            f"{failure.message if failure else ''} `postgrad resume {session.run}` tries it once more."
        )
    return found
