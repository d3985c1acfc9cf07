"""What a worker is told, and what it gives back."""

from __future__ import annotations

from typing import Iterable, Literal

from pydantic import Field

from postgrad.records.base import SCHEMA, Record, content_hash
from postgrad.records.estimates import Race
from postgrad.records.hardware import Hardware, joined
from postgrad.records.recipe import Recipe
from postgrad.records.task import Generation


class Failure(Record):
    """Something that did not work, with its address. Never a score."""

    boundary: Literal[
        "task", "data", "recipe", "train", "predict", "evaluate", "engine", "resource", "isolation", "controller"
    ]
    kind: str
    message: str
    evidence: str = ""


class Usage(Record):
    """What one job used, all its attempts together.

    Attributes:
        gpu_s: seconds times devices that it held, whether it computed on them or not.
        usd: of what has a price; `unpriced_gpu_s` are the device seconds that have none and are in no sum of money.
        hardware: where it ran: one for each different machine, in order.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    usd: float = 0.0
    max_rss_mb: float = 0.0
    unpriced_gpu_s: float = 0.0
    hardware: tuple[Hardware, ...] = ()

    def plus(self, other: Usage) -> Usage:
        """What two attempts used, or two jobs of one experiment."""
        return Usage(
            wall_s=self.wall_s + other.wall_s,
            cpu_s=self.cpu_s + other.cpu_s,
            gpu_s=self.gpu_s + other.gpu_s,
            usd=self.usd + other.usd,
            max_rss_mb=max(self.max_rss_mb, other.max_rss_mb),
            unpriced_gpu_s=self.unpriced_gpu_s + other.unpriced_gpu_s,
            hardware=joined(self.hardware, other.hardware),
        )


def sum_of(parts: Iterable[Usage]) -> Usage:
    """What all of these used."""
    found = Usage()
    for part in parts:
        found = found.plus(part)
    return found


Amount = Literal["wall_s", "cpu_s", "gpu_s", "usd"]


class Allowed(Record):
    """What one job may use of what is counted; None is no limit.

    `of_run` names those that what is left of the run's budget sets, in place of the budget of one experiment.
    """

    wall_s: float | None = None
    cpu_s: float | None = None
    gpu_s: float | None = None
    usd: float | None = None
    of_run: tuple[Amount, ...] = ()

    def over(self, used: Usage) -> Amount | None:
        """The first limit that is used up; None where all hold."""
        amounts: tuple[Amount, ...] = ("wall_s", "cpu_s", "gpu_s", "usd")
        for name in amounts:
            most = getattr(self, name)
            if most is not None and getattr(used, name) > most:
                return name
        return None

    def less(self, used: Usage) -> Allowed:
        """What is left of it."""
        left = {
            name: max(0.0, most - getattr(used, name))
            for name in ("wall_s", "cpu_s", "gpu_s", "usd")
            if (most := getattr(self, name)) is not None
        }
        return self.model_copy(update=left)


class Limits(Record):
    """What one job may use. A job that neither computes nor reports for `hung_s` is ended; `allowed` is what budgets
    leave it. `anew`: an attempt after a lost one begins with nothing that the lost one left."""

    wall_s: float
    memory_mb: int
    threads: int
    hung_s: float = 300.0
    disk_mb: int = 20_000
    allowed: Allowed | None = None
    anew: bool = False


def unit_seed(seed: int, unit: str) -> int:
    """The training seed of one unit: the same for every experiment with this seed, so that pairs share it."""
    return int(content_hash([seed, unit])[:8], 16) % (2**31)


class Unit(Record):
    """One train-and-predict inside a job: files are relative to the job folder; `train` is "" where none is needed."""

    name: str
    train: str
    predict: str
    seed: int


class JobSpec(Record):
    """What a worker is told. Holds no label of an item to be predicted.

    `loads` names a folder of the job with a saved model: that is to answer, and nothing is trained. `metric` is what
    grades answers in words to train rows, for methods that learn from grades; "" where answers are labels. `models`
    are folders of further models that the recipe names, by their names, and `environments` those of the isolated
    environments that its backends run in. `calibration` is what earlier jobs of its backend measured.
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
    metric: str = ""
    models: dict[str, str] = Field(default_factory=dict)
    environments: tuple[str, ...] = ()
    calibration: dict[str, float] = Field(default_factory=dict)
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
    """What one unit gave back. `outputs` is an artefact hash once the executor has stored the file; `measured` is what
    its backend found out for later jobs."""

    name: str
    outputs: str
    steps: tuple[StepReport, ...] = ()
    history: tuple[tuple[int, float], ...] = ()
    wall_s: float = 0.0
    measured: dict[str, float] = Field(default_factory=dict)


class JobResult(Record):
    """What one job gave back: its units, or the failure that ended it. A job can hold both.

    Where a model was saved, `model` is its artefact and `trained` that of the rows it was trained on, as JSON lines.
    `race` is of a job that was ended on its way, because what it said left hardly a chance: it has no units then.
    `made_on` is where the attempt ran that made all of this, where `usage` also counts attempts that were lost.
    """

    job: str
    units: tuple[UnitResult, ...] = ()
    model: str | None = None
    trained: str | None = None
    usage: Usage = Usage()
    failure: Failure | None = None
    race: Race | None = None
    made_on: tuple[Hardware, ...] = ()
    log_tail: str = ""

    @property
    def hardware(self) -> tuple[Hardware, ...]:
        """What made the numbers ran on this; empty where it was not recorded."""
        return self.made_on or self.usage.hardware
