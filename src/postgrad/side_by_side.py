"""Jobs that share the workers, from start to end. Nothing is recorded here."""

from __future__ import annotations

import time
from typing import Callable, Sequence

from postgrad.execute.executor import RunningJob
from postgrad.packing import fits
from postgrad.records import JobResult
from postgrad.session import Job, Session
from postgrad.spending import unbounded

POLL_S = 0.02


def unseen(handles: Sequence[RunningJob]) -> None:
    """Nobody looks at these jobs."""


def apart(
    session: Session, jobs: Sequence[Job], tick: Callable[[Sequence[RunningJob]], None] = unseen
) -> dict[str, JobResult]:
    """Run jobs that are not part of the run: only their output files are kept. Job -> what it gave back."""
    results: dict[str, JobResult] = {}

    def start(job: Job) -> RunningJob:
        return session.executor.start(unbounded(session.job_spec(job), session), session.inputs(job))

    def finish(job: Job, result: JobResult) -> None:
        results[job.id] = result

    side_by_side(session, jobs, start, finish, tick)
    return results


def side_by_side(
    session: Session,
    jobs: Sequence[Job],
    start: Callable[[Job], RunningJob],
    finish: Callable[[Job, JobResult], None],
    tick: Callable[[Sequence[RunningJob]], None],
) -> None:
    """Run jobs to their end, as many at a time as there are workers; `finish` is called as each of them ends."""
    waiting = list(jobs)
    running: list[tuple[Job, RunningJob]] = []
    while waiting or running:
        while waiting and fits(session, waiting[0], [job for job, _ in running]):
            job = waiting.pop(0)
            running.append((job, start(job)))
        for job, handle in list(running):
            result = handle.poll(0.0)
            if result is not None:
                running.remove((job, handle))
                finish(job, result)
        tick([handle for _, handle in running])
        time.sleep(POLL_S)
