"""Events: the only truth of a run. Everything else (tree, ledger, report, screen) is read off them.

A run's log is a list of `Event`s in the order they happened. Each holds one body; bodies are told apart by `type`.
"""

from __future__ import annotations

from typing import Annotated, Iterable, Literal, Union

from pydantic import Field

from postgrad.records import (
    Analysis,
    Asked,
    Budget,
    Choice,
    DataCard,
    Described,
    Difference,
    Estimate,
    Evaluation,
    JobResult,
    JudgeControl,
    Order,
    Proposal,
    Record,
    Remembered,
    ScriptPrepared,
    SealedRead,
    Split,
    TaskSpec,
    Usage,
)


class RunStarted(Record):
    """`memory` is the name, drawn by chance, that the run is remembered under; None where it is not, and remembers
    nothing."""

    type: Literal["run_started"] = "run_started"
    run: str
    task: TaskSpec
    task_file: str | None = None
    postgrad: str
    machine: dict[str, str]
    packages: dict[str, str]
    memory: str | None = None


class RunResumed(Record):
    type: Literal["run_resumed"] = "run_resumed"
    note: str = ""
    budget: Budget | None = None


class DataPrepared(Record):
    """`judge` is what became of the control of the task's judge; None where it has none. `tags` are the further columns
    of the search rows, where the task names some; `script` is what a task that is a program began with."""

    type: Literal["data_prepared"] = "data_prepared"
    card: DataCard
    labels: tuple[str, ...]
    plan: str
    guards: str | None = None
    remembered: Remembered | None = None
    judge: JudgeControl | None = None
    tags: str | None = None
    script: ScriptPrepared | None = None


class Proposed(Record):
    """An experiment that is to be tried.

    Attributes:
        asks: why it waits for a person's approval; "" where it does not.
        forecast_s: wall seconds that it was expected to take, where it waits.
        shown: how many experiments had ended in the view that it was chosen from, where not all others had their turn.
        order: id of the order that brought it.
    """

    type: Literal["proposed"] = "proposed"
    experiment: str
    choice: Choice
    proposal: Proposal
    incumbent: str | None
    nominal_s: float
    asks: str = ""
    forecast_s: float | None = None
    shown: int | None = None
    order: str | None = None


class JobStarted(Record):
    """`expected` is what it will use at the measured pace, where it holds devices or has a price; it is set aside."""

    type: Literal["job_started"] = "job_started"
    job: str
    experiment: str
    purpose: Split
    units: tuple[str, ...]
    reserved_s: float
    base_hash: str | None = None
    sandbox: str = ""
    expected: Usage | None = None


class JobStopped(Record):
    """The run ended a job that it had no more use for. Nothing came of it, and what it used counts."""

    type: Literal["job_stopped"] = "job_stopped"
    job: str
    experiment: str
    purpose: Split
    usage: Usage


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


class TestBegun(Record):
    """A test on the select items is owed: of an experiment that leads, against what was kept before.

    The search goes on while it trains. Its result is taken in when `due` experiments have ended, however long it took,
    so that what follows does not depend on which worker was faster; earlier only where nothing else is under way and
    the search cannot go on without it.
    """

    type: Literal["test_begun"] = "test_begun"
    experiment: str
    against: str
    due: int


class Tested(Record):
    """An experiment was tested on the select items against what was kept before (`against`), both trained afresh.

    `difference` has its interval with seed noise; its `p` is one-sided and had to reach `level`. It is None where a
    training failed. `champion` is the run's champion after the test.
    """

    type: Literal["tested"] = "tested"
    experiment: str
    against: str
    difference: Difference | None
    level: float
    kept: bool
    champion: str | None


class Pared(Record):
    """What one change of the leader (`against`) brings: it was compared with the recipe that lacks just this change.

    `experiment` tried that recipe; `gain` is the posterior of what the change brings, with a 95 % interval, `measured`
    the plain difference of the scores; both are None where the recipe without it has no score. Where it was `dropped`,
    the recipe without it is the champion now. `brought_by` is the experiment that made the change.
    """

    type: Literal["pared"] = "pared"
    experiment: str
    against: str
    what: str
    change: str
    brought_by: str
    gain: Estimate | None
    measured: float | None = None
    dropped: bool
    champion: str | None


class Decided(Record):
    """An order was looked at: it took effect, or was refused.

    Attributes:
        said: what it did, or why it was refused, in words.
        proposal: the proposal as an edit left it, or the idea to be tried, with its nominal and forecast seconds.
    """

    type: Literal["decided"] = "decided"
    order: Order
    took_effect: bool
    said: str
    proposal: Proposal | None = None
    nominal_s: float = 0.0
    forecast_s: float | None = None


class Waiting(Record):
    """From here on nothing but a person makes the run go on. The time until `WentOn` is not charged."""

    type: Literal["waiting"] = "waiting"
    why: str


class WentOn(Record):
    type: Literal["went_on"] = "went_on"


class BadCasesDescribed(Record):
    """A language model was asked for words on the bad cases of an experiment; `asked` says whose they are and what they
    cost. Empty where nothing came of it.

    Attributes:
        topics: name of a cluster, made of its words -> the model's words. causes: the same by kind of cause.
    """

    type: Literal["bad_cases_described"] = "bad_cases_described"
    experiment: str
    asked: Asked
    topics: dict[str, Described] = Field(default_factory=dict)
    causes: dict[str, Described] = Field(default_factory=dict)


class AskedInVain(Record):
    """A question that no proposal came of, because the search ended or went on without it. What it cost counts."""

    type: Literal["asked_in_vain"] = "asked_in_vain"
    asked: Asked


class Rebuilt(Record):
    """Artefacts of the run were missing, and were made again; by training `job` once more, where it is named. What that
    used is charged. `lost` are those that came out otherwise: they are not tried again."""

    type: Literal["rebuilt"] = "rebuilt"
    artefacts: tuple[str, ...]
    lost: tuple[str, ...] = ()
    job: str = ""
    usage: Usage = Usage()


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


class FinalModel(Record):
    """The guards of an experiment's final model, measured before any sealed label is read. `refused` says why it cannot
    be the champion; the next finalist is certified in its place."""

    type: Literal["final_model"] = "final_model"
    experiment: str
    guards: dict[str, Estimate] = Field(default_factory=dict)
    refused: str | None = None


class SealedDone(Record):
    """The sealed labels were read, for the `number`-th time in this run. `reason` is why it was read again."""

    type: Literal["sealed_done"] = "sealed_done"
    read: SealedRead
    number: int = 1
    reason: str | None = None


class Removed(Record):
    """Bytes that are gone: a final `model` by its artefact, the folder of a `job`, or what a kill `left` half done."""

    kind: Literal["model", "job", "left"]
    name: str
    experiment: str = ""
    bytes: int


class Collected(Record):
    """Bytes of the run that nothing needs are removed. Written before they are: what a kill leaves goes the next time.

    Attributes:
        why: who asked for it, in words.
        held: bytes of the run's folder before.
    """

    type: Literal["collected"] = "collected"
    why: str
    removed: tuple[Removed, ...]
    held: int


class RunEnded(Record):
    type: Literal["run_ended"] = "run_ended"
    reason: str
    wall_s: float


class Reopened(Record):
    """A finished run goes on: more search under a new budget, then certifying and one more sealed read.

    The user gave the reason; every later report prints it. What ended the run before stays in the log and is not the
    state of the run any more: see `current`.
    """

    type: Literal["reopened"] = "reopened"
    reason: str
    budget: Budget | None = None
    note: str = ""


Body = Annotated[
    Union[
        RunStarted,
        RunResumed,
        DataPrepared,
        Proposed,
        JobStarted,
        JobStopped,
        JobFinished,
        Evaluated,
        Analysed,
        TestBegun,
        Tested,
        Pared,
        Decided,
        Waiting,
        WentOn,
        BadCasesDescribed,
        AskedInVain,
        Rebuilt,
        SearchEnded,
        Certified,
        FinalModel,
        SealedDone,
        Collected,
        RunEnded,
        Reopened,
    ],
    Field(discriminator="type"),
]
ENDINGS = ("search_ended", "certified", "sealed_done", "run_ended")


class Event(Record):
    """One line of the log. `at` is Unix time; `clock` is seconds of controller time spent in the run so far."""

    seq: int
    at: float
    clock: float
    body: Body


def remember(bodies: dict[str, Body], body: Body) -> None:
    """Add one more body to the last of each type. After `Reopened` the run has no end until there is a new one."""
    if isinstance(body, Reopened):
        for ending in ENDINGS:
            bodies.pop(ending, None)
    bodies[body.type] = body


def current(events: Iterable[Event]) -> dict[str, Body]:
    """Type -> the last body of that type that still says where the run stands."""
    bodies: dict[str, Body] = {}
    for event in events:
        remember(bodies, event.body)
    return bodies


def sealed_reads(events: Iterable[Event]) -> tuple[Event, ...]:
    """Every read of the sealed labels, in order: none is ever forgotten. The bodies are `SealedDone`."""
    return tuple(event for event in events if isinstance(event.body, SealedDone))
