"""One run in memory: the store, and what is derived from it. The other files of the spine work on this.

A session holds no truth of its own: everything but the jobs under way is rebuilt from the events.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Callable, Literal, Mapping, Sequence

from postgrad.budget import Ledger, Remaining
from postgrad.errors import UserError
from postgrad.evaluate.evaluator import held_out_of, read_outputs, unit_items
from postgrad.evaluate.splits import SplitPlan, UnitPlan, load_rows
from postgrad.events import (
    Body,
    Certified,
    DataPrepared,
    Event,
    JobFinished,
    JobStarted,
    RunStarted,
    SealedDone,
    SearchEnded,
)
from postgrad.execute.executor import Executor, RunningJob
from postgrad.metrics.items import Items, load_items
from postgrad.records import Evaluation, JobResult, JobSpec, Limits, Recipe, Row, Split, TaskSpec, Unit, content_hash
from postgrad.store.base import Store
from postgrad.train import BACKENDS
from postgrad.train.models import resolve_model
from postgrad.tree import Experiment, Tree

START_UP_S = 5.0
Inputs = tuple[tuple[Row, ...], tuple[Row, ...]]


@dataclass(frozen=True)
class Job:
    """A job to be started: which units of which experiment, for which split, with which training seed."""

    experiment: str
    purpose: Split
    units: tuple[UnitPlan, ...]
    recipe: Recipe
    seed: int
    save_model: bool = False

    @property
    def id(self) -> str:
        return f"{self.experiment}-{self.purpose}-{self.units[0].name}-{self.seed}"


def unit_seed(seed: int, unit: str) -> int:
    """The training seed of one unit: the same for every experiment with this seed, so that pairs share it."""
    return int(content_hash([seed, unit])[:8], 16) % (2**31)


def run_started(store: Store, events: Sequence[Event] | None = None) -> RunStarted:
    """The first event of a run, which says what the run is.

    Raises:
        UserError: there is none: the run was stopped before it began.
    """
    events = store.events() if events is None else events
    first = events[0].body if events else None
    if not isinstance(first, RunStarted):
        raise UserError(
            f"The run '{store.folder.name}' was stopped before its first event: there is nothing to go on with. "
            "Start it again with: postgrad run TASK"
        )
    return first


class Session:
    """A run that is being written, with its engine."""

    def __init__(self, store: Store, executor: Executor, listener: Callable[[Event], None]) -> None:
        self.store = store
        self.executor = executor
        self.listener = listener
        self.tree = Tree()
        self.bodies: dict[str, Body] = {}
        self.finished: dict[str, JobFinished] = {}
        self.speeds: list[float] = []
        self.seq = 0
        self._nominal: dict[str, float] = {}
        events = store.events()
        first = run_started(store, events)
        self.task: TaskSpec = first.task
        self.run = first.run
        self.ledger = Ledger.from_events(first.task.budget, ())
        for event in events:
            self._fold(event)

    def _fold(self, event: Event) -> None:
        body = event.body
        self.seq = event.seq
        self.tree = self.tree.with_event(event)
        self.ledger = self.ledger.with_event(event)
        self.bodies[body.type] = body
        if isinstance(body, JobStarted):
            self._nominal[body.job] = body.reserved_s
        if isinstance(body, JobFinished):
            self.finished[body.job] = body
            if body.result.failure is None and self._nominal.get(body.job):
                self.speeds.append(body.result.usage.wall_s / self._nominal[body.job])

    def append(self, body: Body) -> None:
        """Store an event, then derive from it."""
        event = self.store.append(body)
        self._fold(event)
        self.listener(event)

    # --- what the events say --------------------------------------------------------------------------------------

    @property
    def prepared(self) -> DataPrepared | None:
        body = self.bodies.get("data_prepared")
        return body if isinstance(body, DataPrepared) else None

    @property
    def search_ended(self) -> SearchEnded | None:
        body = self.bodies.get("search_ended")
        return body if isinstance(body, SearchEnded) else None

    @property
    def certified(self) -> Certified | None:
        body = self.bodies.get("certified")
        return body if isinstance(body, Certified) else None

    @property
    def sealed(self) -> SealedDone | None:
        body = self.bodies.get("sealed_done")
        return body if isinstance(body, SealedDone) else None

    @cached_property
    def plan(self) -> SplitPlan:
        assert self.prepared is not None, "the plan is made before anything is asked of it"
        return SplitPlan.model_validate_json(self.store.artifacts.read(self.prepared.plan))

    @cached_property
    def _rows(self) -> dict[str, dict[str, Row]]:
        read = self.store.artifacts.read
        return {part: {row.id: row for row in load_rows(read(name))} for part, name in self.plan.rows.items()}

    def rows(self, part: str) -> Mapping[str, Row]:
        """Row id -> row of train, search, select or sealed."""
        return self._rows[part]

    def remaining(self) -> Remaining:
        return self.ledger.remaining(self.store.clock())

    def guards_hold(self, evaluation: Evaluation) -> bool:
        """True when the metrics of an evaluation keep every guard of the task; a metric without a value breaks one."""
        for guard in self.task.guards:
            value = evaluation.metrics.get(guard.metric)
            if value is None:
                return False
            if (guard.min is not None and value < guard.min) or (guard.max is not None and value > guard.max):
                return False
        return True

    # --- costs ----------------------------------------------------------------------------------------------------

    def nominal_s(self, recipe: Recipe, units: Sequence[UnitPlan]) -> float:
        """Reference seconds of these units on one core. Deterministic."""
        backend = BACKENDS.get(recipe.stage.backend)
        params = recipe.stage.params
        return sum(backend.nominal_cost(params, len(u.train), len(u.items)) for u in units)

    def speed(self) -> float:
        """Measured wall seconds for each nominal second, the median over the run's jobs; 1 before the first."""
        return median(self.speeds[-20:]) if self.speeds else 1.0

    def forecast_s(self, recipe: Recipe, units: Sequence[UnitPlan]) -> float:
        """Expected wall seconds of these units in one job. Depends on the machine: for budgets only."""
        return (START_UP_S + self.nominal_s(recipe, units)) * self.speed()

    # --- jobs -----------------------------------------------------------------------------------------------------

    @cached_property
    def sealed_unit(self) -> UnitPlan:
        """Train on all of train, answer the sealed inputs."""
        return UnitPlan(name="sealed", train=tuple(self.rows("train")), items=self.plan.sealed)

    def start(self, job: Job) -> RunningJob:
        """Reserve, record and start a job."""
        spec = self.job_spec(job)
        reserved = START_UP_S + self.nominal_s(job.recipe, job.units)
        self.append(
            JobStarted(
                job=job.id,
                experiment=job.experiment,
                purpose=job.purpose,
                units=tuple(u.name for u in job.units),
                reserved_s=reserved,
            )
        )
        return self.executor.start(spec, self.inputs(job))

    def finish(self, job: Job, result: JobResult) -> None:
        """Record what a job gave back."""
        self.append(JobFinished(job=job.id, experiment=job.experiment, purpose=job.purpose, result=result))

    def inputs(self, job: Job) -> dict[str, Inputs]:
        """Unit name -> (train rows, rows to be asked). The executor leaves the labels of the latter behind."""
        train, asked = self.rows("train"), self.rows(job.purpose)
        return {
            unit.name: (tuple(train[name] for name in unit.train), tuple(asked[name] for name in unit.items))
            for unit in job.units
        }

    def job_spec(self, job: Job) -> JobSpec:
        wall = self.task.engine.job_wall_s
        base = resolve_model(job.recipe.base_model) if job.recipe.base_model else None
        return JobSpec(
            job=job.id,
            experiment=job.experiment,
            recipe=job.recipe,
            labels=self.plan.labels,
            out_of_scope=self.plan.out_of_scope,
            base_model=str(base) if base else None,
            units=tuple(
                Unit(
                    name=u.name,
                    train=f"{u.name}.train.jsonl",
                    predict=f"{u.name}.inputs.jsonl",
                    seed=unit_seed(job.seed, u.name),
                )
                for u in job.units
            ),
            limits=Limits(wall_s=wall, memory_mb=self.task.engine.memory_mb, threads=self.executor.engine.threads),
            save_model=job.save_model,
        )

    # --- answers --------------------------------------------------------------------------------------------------

    def results(self, experiment: str, purpose: Split) -> list[JobResult]:
        """Finished jobs of an experiment for a split, in the order they ended."""
        return [
            body.result for body in self.finished.values() if body.experiment == experiment and body.purpose == purpose
        ]

    def raw_items(self, experiment: str, split: Literal["search", "select"]) -> list[Items]:
        """The unthresholded items of each finished unit, in plan order."""
        held = held_out_of(self.plan.units(split))
        truth = {row.id: row.label for row in self.rows(split).values()}
        done = {unit.name: unit.outputs for result in self.results(experiment, split) for unit in result.units}
        read = self.store.artifacts.read
        plan = self.plan
        return [
            unit_items(name, read_outputs(read(done[name])), truth, plan.labels, plan.out_of_scope, gone)
            for name, gone in held.items()
            if name in done
        ]

    def items(self, experiment: Experiment) -> Items | None:
        """The answered search items of an experiment, or None."""
        if experiment.evaluation is None:
            return None
        return load_items(self.store.artifacts.read(experiment.evaluation.items))
