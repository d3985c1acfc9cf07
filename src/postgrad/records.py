"""Every value that flows between the steps: frozen, versioned, JSON-round-trip.

Models, tokenizers, processes and handles never enter a record. A record that is written to the store can be read back
by the same or a newer Postgrad; `SCHEMA` counts breaking changes of the whole set.

Units: times are seconds, memory is megabytes, money is US dollars, scores are in [0, 1] (MCC in [-1, 1]).
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal, Mapping, NamedTuple, Self, Union

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType

SCHEMA = 1

# A named alias, because pydantic resolves recursive types by name only.
Value = TypeAliasType("Value", "Union[bool, int, float, str, None, tuple[Value, ...], dict[str, Value]]")
Split = Literal["search", "select", "sealed"]


class Record(BaseModel):
    """Base of all records."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


def content_hash(value: Any) -> str:
    """Return 16 hex digits that name a JSON-able value, stable over key order and Python versions."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Row(NamedTuple):
    """One example. `id` is stable over files and runs: the hash of the normalised text, with a counter for repeats."""

    id: str
    text: str
    label: str


# --- the task -------------------------------------------------------------------------------------------------------


class DataSpec(Record):
    """Where the rows are and what their columns mean."""

    train: str
    dev: str | None = None
    test: str | None = None
    input: str = "text"
    target: str = "label"
    out_of_scope: str | None = None


class Budget(Record):
    """What may be spent. `None` is no limit of that kind."""

    wall_s: float | None = None
    experiments: int | None = None
    cpu_hours: float | None = None
    gpu_hours: float | None = None
    usd: float | None = None


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
    """Where jobs run, and the limits of one job."""

    kind: str = "local"
    workers: int | None = None
    threads: int | None = None
    memory_mb: int = 6000
    job_wall_s: float = 1800.0
    sandbox: Literal["auto", "bubblewrap", "sandlock", "none"] = "auto"


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
    """

    system: str = ""
    prompt: str = "{input}"
    max_prompt_tokens: int = 1024
    max_new_tokens: int = 128
    stop: tuple[str, ...] = ()
    json_schema: dict[str, Value] | None = None


class TaskSpec(Record):
    """What the user wrote, resolved: every default filled in, every path absolute."""

    name: str
    objective: str
    kind: Literal["classification", "generation"] = "classification"
    data: DataSpec
    metric: str
    min_effect: float = 0.02
    guards: tuple[Guard, ...] = ()
    base_models: tuple[str, ...] = ()
    budget: Budget = Budget()
    researcher: str = "playbook"
    search: SearchSpec = SearchSpec()
    engine: EngineSpec = EngineSpec()
    memory: bool = True
    seed: int = 0
    generation: Generation = Generation()


# --- recipes and proposals ------------------------------------------------------------------------------------------


class Step(Record):
    """One data operator with its parameters. Runs inside the worker, on train rows only."""

    op: str
    params: dict[str, Value] = Field(default_factory=dict)


class Stage(Record):
    """One training backend with its parameters."""

    backend: str
    params: dict[str, Value] = Field(default_factory=dict)


class Recipe(Record):
    """The typed description of one way to make a model. Its seed is not part of it."""

    base_model: str | None = None
    data: tuple[Step, ...] = ()
    stage: Stage
    inference: dict[str, Value] = Field(default_factory=dict)

    @cached_property
    def hash(self) -> str:
        """16 hex digits; equal recipes have equal hashes."""
        return content_hash(self.model_dump(mode="json"))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy works its own hash out: pydantic copies what was cached along."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("hash", None)
        return copied


class Dimension(Record):
    """One number or choice that the tuner may move. `choices` excludes the rest."""

    low: float = 0.0
    high: float = 1.0
    log: bool = False
    integer: bool = False
    choices: tuple[Value, ...] = ()


class Move(StrEnum):
    """What a policy can ask for."""

    DRAFT = "draft"
    IMPROVE = "improve"
    TUNE = "tune"
    COMBINE = "combine"
    ABLATE = "ablate"
    REPAIR = "repair"
    REPLICATE = "replicate"
    STOP = "stop"


class Choice(Record):
    """A policy's answer: extend this experiment with this move. `other` is the second parent of a combine.

    `recipe` asks for exactly this recipe, without the researcher. In the log it is None: the proposal holds the recipe.
    `kinds` are the changes that make it, in order, and `gain` is what it is believed to score above the parent.
    """

    parent: str | None
    move: Move
    other: str | None = None
    reason: str = ""
    recipe: Recipe | None = None
    kinds: tuple[str, ...] = ()
    gain: float = 0.0


class Proposal(Record):
    """A hypothesis and the one change to the parent's recipe that tests it.

    `kind` is "<group>.<name>". `carried_out` is the choice that the recipe answers, where the one that was asked for
    had nothing new to offer.
    """

    recipe: Recipe
    kind: str
    hypothesis: str
    change: str
    expected_effect: float
    refuted_by: str
    proposer: str
    seed: int
    carried_out: Choice | None = None


# --- jobs -----------------------------------------------------------------------------------------------------------


class Failure(Record):
    """Something that did not work, with its address. Never a score."""

    boundary: Literal[
        "task", "data", "recipe", "train", "predict", "evaluate", "engine", "resource", "isolation", "controller"
    ]
    kind: str
    message: str
    evidence: str = ""


class Usage(Record):
    """What one job used."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    usd: float = 0.0
    max_rss_mb: float = 0.0


class Limits(Record):
    """What one job may use. A job that neither computes nor reports for `hung_s` is ended."""

    wall_s: float
    memory_mb: int
    threads: int
    hung_s: float = 300.0
    disk_mb: int = 20_000


class Unit(Record):
    """One train-and-predict inside a job: files are relative to the job folder; `train` is "" where none is needed."""

    name: str
    train: str
    predict: str
    seed: int


class JobSpec(Record):
    """What a worker is told. Holds no label of an item to be predicted.

    `loads` names a folder of the job with a saved model: that is to answer, and nothing is trained.
    """

    schema_version: int = SCHEMA
    job: str
    experiment: str
    recipe: Recipe
    labels: tuple[str, ...]
    out_of_scope: str | None
    base_model: str | None
    units: tuple[Unit, ...]
    limits: Limits
    generation: Generation = Generation()
    save_model: bool = False
    loads: str | None = None


class StepReport(Record):
    """What an operator did to the rows. `removed` maps a reason to the ids of the rows that went for it."""

    op: str
    rows_in: int
    rows_out: int
    dropped: int = 0
    added: int = 0
    note: str = ""
    removed: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class UnitResult(Record):
    """What one unit gave back. `outputs` is an artefact hash once the executor has stored the file."""

    name: str
    outputs: str
    steps: tuple[StepReport, ...] = ()
    history: tuple[tuple[int, float], ...] = ()
    wall_s: float = 0.0


class JobResult(Record):
    """What one job gave back: its units, or the failure that ended it. A job can hold both.

    Where a model was saved, `model` is its artefact and `trained` that of the rows it was trained on, as JSON lines.
    """

    job: str
    units: tuple[UnitResult, ...] = ()
    model: str | None = None
    trained: str | None = None
    usage: Usage = Usage()
    failure: Failure | None = None
    log_tail: str = ""


# --- evaluation -----------------------------------------------------------------------------------------------------


class Estimate(Record):
    """A number with its 95 % interval. `n` counts items."""

    value: float
    low: float
    high: float
    n: int


class Difference(Record):
    """A paired difference (first minus second) with its 95 % interval and two-sided p value."""

    value: float
    low: float
    high: float
    p: float
    n: int


class Evaluation(Record):
    """What the referee measured of one experiment on one split. Per-item results are in the artefact `items`.

    `guards` holds the guards that answers decide, by `guard_names`; none in runs of older versions.
    """

    experiment: str
    split: Split
    seed: int
    metric: str
    estimate: Estimate
    metrics: dict[str, float]
    threshold: float | None
    items: str
    units: int
    units_planned: int
    guards: dict[str, Estimate] = Field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """False when racing stopped the experiment after its first units."""
        return self.units == self.units_planned


class Confusion(Record):
    """A bad case: items of `truth` that were answered `predicted`, with the ids of some."""

    truth: str
    predicted: str
    count: int
    ids: tuple[str, ...]


class Prior(Record):
    """What is believed of the effect of a kind of change before a run: normal, from `runs` finished runs.

    Attributes:
        mean, sd: with what the playbook believed before them.
        effect, error: what they say alone, for who believes something else before them; None in older logs.
    """

    mean: float
    sd: float
    runs: int
    effect: float | None = None
    error: float | None = None


class Remembered(Record):
    """What a run took from finished runs when it began, once and for all. `notes` say what could not be read."""

    runs: int = 0
    priors: dict[str, Prior] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Lesson(Record):
    """A claim with the experiments that support it."""

    claim: str
    experiments: tuple[str, ...]
    effect: Estimate
    scope: str


class Race(Record):
    """What an experiment that was stopped early would have come to.

    Attributes:
        share: the part of it that was run.
        chance: the probability that it would have beaten, or come near, the champion it was proposed against.
        expected: the whole score that was to be expected, with a 95 % interval; `n` counts the items it was asked.
        correlation: rank correlation of the score after that part with the whole one, over `ended` experiments.
    """

    share: float
    chance: float
    expected: Estimate
    correlation: float
    ended: int


class Analysis(Record):
    """What happened and why. Every experiment ends in one, failures too.

    Attributes:
        verdict: keep, discard, retest and tie are the decision rule's; `better` and `worse` are of older versions.
        against, difference: the paired difference to the parent (raced: to the champion), its interval with seed noise.
        rival, gain: the posterior of the true gain over the champion it was proposed against, with a 95 % interval.
        subject: the first experiment with this recipe, where this one only trained it again with another seed.
        seed_sd: standard deviation of a whole score over training seeds, as known then.
        race: of an experiment that was stopped early.
    """

    verdict: Literal["keep", "discard", "retest", "tie", "raced", "failed", "unscored", "better", "worse"]
    against: str | None
    difference: Difference | None
    cause: str
    rival: str | None = None
    gain: Estimate | None = None
    subject: str | None = None
    seed_sd: float | None = None
    race: Race | None = None
    confusions: tuple[Confusion, ...] = ()
    lesson: Lesson | None = None


class SealedScore(Record):
    """One model in the sealed read."""

    role: Literal["champion", "baseline", "base_model", "few_shot", "constant"]
    experiment: str
    estimate: Estimate
    metrics: dict[str, float]
    threshold: float | None
    outputs: str
    guards: dict[str, Estimate] = Field(default_factory=dict)


class SealedRead(Record):
    """One read of the sealed split: champion and baselines together.

    `confidence` is that of its intervals: 0.95 for a first read, more for a later one. `texts` counts different texts
    among the `n` rows; `smallest_effect` is the difference they show four times in five, `discordant`
    the share of rows on which exactly one of champion and baseline is right. `refused` says why the result
    is not certified; the numbers are there all the same.
    """

    metric: str
    scores: tuple[SealedScore, ...]
    difference: Difference
    mcnemar_p: float
    n: int
    confidence: float = 0.95
    texts: int | None = None
    smallest_effect: float | None = None
    discordant: float | None = None
    refused: str | None = None


class DataCard(Record):
    """What the data looks like, made before anything is spent."""

    rows: dict[str, int]
    labels: dict[str, int]
    out_of_scope: dict[str, int]
    duplicates: int
    leaked: dict[str, int]
    words_median: float
    warnings: tuple[str, ...]
