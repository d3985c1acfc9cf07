"""The root cause of an experiment that failed, from what its jobs recorded."""

from __future__ import annotations

from postgrad.analyze.failures.classify import root_cause
from postgrad.records import EngineSpec, Left, Limits, RootCause
from postgrad.tree import Experiment

#: Where a job's own doings end in a failure. What the referee or a person says of a result needs no cause.
OF_JOBS = ("recipe", "data", "train", "predict", "engine", "resource", "isolation")


def cause_of(node: Experiment, engine: EngineSpec) -> RootCause | None:
    """Why it failed; None where no job of it did."""
    found = next((result for result in node.results if result.failure is not None), None)
    if found is None or found.failure is None or found.failure.boundary not in OF_JOBS:
        return None
    limits = Limits(wall_s=engine.job_wall_s, memory_mb=engine.memory_mb, threads=1)
    return root_cause(Left(failure=found.failure, log=found.log_tail, usage=found.usage, limits=limits))
