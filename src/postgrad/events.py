"""Events: the only truth of a run. Everything else (tree, ledger, report, screen) is read off them.

A run's log is a list of `Event`s in the order they happened. Each holds one body; bodies are told apart by `type`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Union

from pydantic import Field

from postgrad.records import (
    Analysis,
    Budget,
    Choice,
    DataCard,
    Evaluation,
    JobResult,
    Proposal,
    Record,
    SealedRead,
    Split,
    TaskSpec,
)


class RunStarted(Record):
    type: Literal["run_started"] = "run_started"
    run: str
    task: TaskSpec
    task_file: str | None = None
    postgrad: str
    machine: dict[str, str]
    packages: dict[str, str]


class RunResumed(Record):
    type: Literal["run_resumed"] = "run_resumed"
    note: str = ""
    budget: Budget | None = None


class DataPrepared(Record):
    type: Literal["data_prepared"] = "data_prepared"
    card: DataCard
    labels: tuple[str, ...]
    plan: str


class Proposed(Record):
    type: Literal["proposed"] = "proposed"
    experiment: str
    choice: Choice
    proposal: Proposal
    incumbent: str | None
    nominal_s: float


class JobStarted(Record):
    type: Literal["job_started"] = "job_started"
    job: str
    experiment: str
    purpose: Split
    units: tuple[str, ...]
    reserved_s: float


class JobFinished(Record):
    type: Literal["job_finished"] = "job_finished"
    job: str
    experiment: str
    purpose: Split
    result: JobResult


class Evaluated(Record):
    type: Literal["evaluated"] = "evaluated"
    evaluation: Evaluation


class Analysed(Record):
    """Closes an experiment. Written in the order of the experiments, whatever order their jobs ended in."""

    type: Literal["analysed"] = "analysed"
    experiment: str
    analysis: Analysis
    champion: str | None


class SearchEnded(Record):
    type: Literal["search_ended"] = "search_ended"
    reason: str
    finalists: tuple[str, ...]


class Certified(Record):
    type: Literal["certified"] = "certified"
    champion: str
    baseline: str
    threshold: float | None
    baseline_thresholds: dict[str, float | None] = Field(default_factory=dict)
    reason: str


class SealedDone(Record):
    type: Literal["sealed_done"] = "sealed_done"
    read: SealedRead


class RunEnded(Record):
    type: Literal["run_ended"] = "run_ended"
    reason: str
    wall_s: float


Body = Annotated[
    Union[
        RunStarted,
        RunResumed,
        DataPrepared,
        Proposed,
        JobStarted,
        JobFinished,
        Evaluated,
        Analysed,
        SearchEnded,
        Certified,
        SealedDone,
        RunEnded,
    ],
    Field(discriminator="type"),
]


class Event(Record):
    """One line of the log. `at` is Unix time; `clock` is seconds of controller time spent in the run so far."""

    seq: int
    at: float
    clock: float
    body: Body
