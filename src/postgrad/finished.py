"""The jobs of a run that have ended. Those of the search are in its tree, and are not held twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from postgrad.events import JobFinished
from postgrad.records import JobResult, Split
from postgrad.tree import Tree


class Finished(Mapping[str, JobFinished]):
    """Job -> how it ended, in the order in which jobs first did; of one that ended twice, the last time."""

    def __init__(self, tree: Callable[[], Tree]) -> None:
        self._tree = tree
        self._jobs: dict[str, JobFinished | str] = {}
        self._apart: dict[tuple[str, Split], list[str]] = {}
        self.last: JobResult | None = None

    def add(self, body: JobFinished) -> None:
        """One more has ended. The tree knows of it."""
        in_tree = body.purpose == "search"
        if body.job not in self._jobs and not in_tree:
            self._apart.setdefault((body.experiment, body.purpose), []).append(body.job)
        self._jobs[body.job] = body.experiment if in_tree else body
        self.last = body.result

    def of(self, experiment: str, purpose: Split) -> list[JobResult]:
        """What the jobs of an experiment for a split gave back, in the order they ended."""
        if purpose == "search":
            node = self._tree().experiments.get(experiment)
            return list({result.job: result for result in node.results}.values()) if node is not None else []
        return [self[job].result for job in self._apart.get((experiment, purpose), ())]

    def served(self, job: str) -> bool:
        """True where a job has ended and is not tried again, as a final training that failed is."""
        found = self._jobs.get(job)
        tried_again = isinstance(found, JobFinished) and found.purpose == "sealed" and found.result.failure is not None
        return found is not None and not tried_again

    def apart(self) -> Iterator[JobFinished]:
        """Those that are none of the search's."""
        return (body for body in self._jobs.values() if isinstance(body, JobFinished))

    def __getitem__(self, job: str) -> JobFinished:
        found = self._jobs[job]
        if isinstance(found, JobFinished):
            return found
        result = next(result for result in reversed(self._tree()[found].results) if result.job == job)
        return JobFinished(job=job, experiment=found, purpose="search", result=result)

    def __contains__(self, job: object) -> bool:
        return job in self._jobs

    def __iter__(self) -> Iterator[str]:
        return iter(self._jobs)

    def __len__(self) -> int:
        return len(self._jobs)
