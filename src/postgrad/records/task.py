"""What the user asked for: the task, its data, guards, budget and engine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from postgrad.records.base import Record, Value
from postgrad.records.researcher import ResearcherSpec
from postgrad.records.script import ScriptSpec


class DataSpec(Record):
    """Where the rows are and what their columns mean.

    `check` is the column of what answers in words are graded with, where that is more than `target`; `slices` are
    columns whose values cut bad cases into slices.
    """

    train: str
    dev: str | None = None
    test: str | None = None
    input: str = "text"
    target: str = "label"
    check: str | None = None
    slices: tuple[str, ...] = ()
    out_of_scope: str | None = None


# A task that is a program reads what it trains on by itself.
NO_DATA = DataSpec(train="")


class Budget(Record):
    """What may be spent. `None` is no limit of that kind. `disk_gb` is what the run's folder may hold, in 1e9 bytes."""

    wall_s: float | None = None
    experiments: int | None = None
    cpu_hours: float | None = None
    gpu_hours: float | None = None
    usd: float | None = None
    disk_gb: float | None = None


class Slice(Record):
    """The rows whose `column` of the data files holds `equals`, compared as texts."""

    column: str
    equals: bool | int | float | str


class Guard(Record):
    """What a champion may not break: one of `metric`, `measure`, `forbidden` and `required`, within `min` and `max`.

    Attributes:
        name: what the report calls it; without one, what it measures.
        metric: a metric over answers, as the task's own.
        measure: a property of the saved model, such as its size.
        forbidden, required: patterns (RE2 syntax); the value is the share of answers that match one of them.
        data: a file of the user's own rows to be asked, instead of the search items.
        input, target: columns of `data`; those of the task where left out.
        slice: only these search items count.
    """

    name: str | None = None
    metric: str | None = None
    measure: str | None = None
    forbidden: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    data: str | None = None
    input: str | None = None
    target: str | None = None
    slice: Slice | None = None
    min: float | None = None
    max: float | None = None


class EngineSpec(Record):
    """Where jobs run, and the limits of one job.

    Attributes:
        workers: jobs side by side; None for as many as the machine or the cluster holds.
        threads, memory_mb, nodes: of one job, on each of its nodes.
        gpus: devices of one job, which no other job has; below 1 a part of one; 0 says nothing of devices.
        address: of the cluster, where it has one.
        partition: of the cluster that jobs are sent to, where it has several.
        python: the interpreter on the nodes, which has Postgrad; that of the controller if not given.
        storage: the URL through which controller and nodes exchange files; None for a folder that both see.
        lease_s: a node that was not heard of for so long is lost.
        retries: how often a job is started again whose node was lost.
        options: further settings of the cluster, in its own words.
        prices: US dollars by kind of hardware, as the person pays them: `cpu_core_hour` for an hour of one core,
            `default_gpu` for an hour of any device, and the kinds of devices, as jobs record them or a part of that.
    """

    kind: str = "local"
    workers: int | None = None
    threads: int | None = None
    memory_mb: int = 6000
    job_wall_s: float = 1800.0
    sandbox: Literal["auto", "bubblewrap", "sandlock", "none"] = "auto"
    address: str | None = None
    partition: str | None = None
    gpus: float = 0.0
    nodes: int = 1
    python: str | None = None
    storage: str | None = None
    lease_s: float = 30.0
    retries: int = 2
    options: dict[str, str] = Field(default_factory=dict)
    prices: dict[str, float] = Field(default_factory=dict)


class ApproveSpec(Record):
    """Which proposals wait for a person: none, all, or those that are forecast to take longer than `above` seconds;
    without `above`, longer than a tenth of the time that is granted."""

    when: Literal["never", "expensive", "all"] = "never"
    above: float | None = None


class SearchSpec(Record):
    """Which policy chooses, and its own settings. `pare` is the share of the budget that may be spent on leaving out
    changes of the champion before it is certified; 0 leaves all of them in."""

    policy: str = "posterior"
    params: dict[str, Value] = Field(default_factory=dict)
    pare: float = 0.1


class Generation(Record):
    """How a language model is asked, and what it may answer: the referee's, the same for every model of a run.

    Attributes:
        system: the system message; "" for none.
        prompt: the user's message; `{input}` stands for the row's text.
        max_prompt_tokens: what is longer loses tokens from the middle of the input.
        max_new_tokens: of an answer; what is longer is cut there.
        stop: texts at which an answer ends. They are no part of it.
        json_schema: what an answer has to conform to (JSON schema); None for free text.
        choices: the answer is the likeliest of the options that the input lists, named by its letter (`letter`) or in
            its words (`text`; `text_per_byte`: likelihood by length); None where answers are generated.
    """

    system: str = ""
    prompt: str = "{input}"
    max_prompt_tokens: int = 1024
    max_new_tokens: int = 128
    stop: tuple[str, ...] = ()
    json_schema: dict[str, Value] | None = None
    choices: Literal["letter", "text", "text_per_byte"] | None = None


class JudgeSpec(Record):
    """A language model that compares answers with references, for the metrics that count its verdicts.

    Attributes:
        model: a reference, as those of `base_models`.
        criteria: what makes an answer the better one, as a question to the judge.
        max_tokens: the most tokens of the question, and of each of the two answers, that the judge is shown; what is
            longer loses its middle.
    """

    model: str
    criteria: str = "Which answer is more correct and more helpful?"
    max_tokens: int = 1024


class TaskSpec(Record):
    """What the user wrote, resolved: every default filled in, every path absolute. A task of kind `script` has `script`
    and no data. `experiment` is what the search may spend on one experiment, all its jobs and attempts together."""

    name: str
    objective: str
    kind: Literal["classification", "generation", "script"] = "classification"
    data: DataSpec = NO_DATA
    script: ScriptSpec | None = None
    metric: str
    min_effect: float = 0.02
    guards: tuple[Guard, ...] = ()
    base_models: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    budget: Budget = Budget()
    experiment: Budget = Budget()
    researcher: ResearcherSpec | str = "playbook"
    approve: ApproveSpec = ApproveSpec()
    search: SearchSpec = SearchSpec()
    engine: EngineSpec = EngineSpec()
    memory: bool = True
    seed: int = 0
    generation: Generation = Generation()
    judge: JudgeSpec | None = None
