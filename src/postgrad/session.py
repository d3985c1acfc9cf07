"""One run in memory: the store, and what is derived from it. The other files of the spine work on this.

A session holds no truth of its own: everything but the jobs under way is rebuilt from the events.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Callable, Literal, Mapping, Sequence

from postgrad.budget import Ledger, Remaining
from postgrad.costs import Costs
from postgrad.errors import UserError
from postgrad.evaluate.evaluator import UnitOutputs, held_out_of, items_of, read_outputs
from postgrad.evaluate.graded import Judge, UnitTexts, judge_ahead
from postgrad.evaluate.guards import AnswersKind, broken, kind_of, named, values_of
from postgrad.evaluate.guards.referee import GuardReferee, without
from postgrad.evaluate.guards.rows import GuardPlan
from postgrad.evaluate.judging import LocalJudge
from postgrad.evaluate.splits import SplitPlan, UnitPlan, load_rows
from postgrad.events import (
    Body,
    Certified,
    DataPrepared,
    Event,
    FinalModel,
    JobFinished,
    JobStarted,
    Reopened,
    RunStarted,
    SealedDone,
    SearchEnded,
    remember,
)
from postgrad.execute.executor import Executor, RunningJob
from postgrad.finished import Finished
from postgrad.isolated import built
from postgrad.metrics.items import Items, load_items
from postgrad.pace import Pace
from postgrad.packing import Packing
from postgrad.people.standing import Standing
from postgrad.records import (
    Estimate,
    Evaluation,
    Failure,
    JobResult,
    JobSpec,
    Limits,
    Recipe,
    Remembered,
    Row,
    Split,
    TaskSpec,
    Unit,
)
from postgrad.records.base import lean
from postgrad.records.job import unit_seed
from postgrad.research import edit
from postgrad.spending import allowed, expected, most_s
from postgrad.store.base import Store
from postgrad.train.models import model_hash, resolve_model
from postgrad.tree import Experiment, Tree

START_UP_S = 5.0
Inputs = tuple[tuple[Row, ...], tuple[Row, ...]]


@dataclass(frozen=True)
class Job:
    """A job to be started: which units of which experiment, for which split, with which training seed.

    `copy` tells apart two trainings that are the same in all of these.
    """

    experiment: str
    purpose: Split
    units: tuple[UnitPlan, ...]
    recipe: Recipe
    seed: int
    save_model: bool = False
    copy: str = ""

    @property
    def id(self) -> str:
        name = f"{self.experiment}-{self.purpose}-{self.units[0].name}-{self.seed}"
        return f"{name}-{self.copy}" if self.copy else name


def run_started(store: Store, events: Sequence[Event] | None = None) -> RunStarted:
    """The first event of a run, which says what the run is.

    Raises:
        UserError: there is none: the run was stopped before it began.
    """
    begun = next(iter(store.in_order() if events is None else events), None)
    first = begun.body if begun is not None else None
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
        self.bodies: dict[str, Body] = {}
        self.finished = Finished(lambda: self.tree)
        self.failures: Counter[str] = Counter()
        self.final_models: dict[str, FinalModel] = {}
        self.pace, self.packing, self.standing = Pace(), Packing(), Standing()
        self.seq = self.reads = 0
        self._base_hashes: dict[str, str] = {}
        first = run_started(store)
        self.task: TaskSpec = first.task
        self._costs = Costs(lambda: self.task)
        self.run = first.run
        self.memory = first.memory
        self.tree = Tree()
        self.ledger = Ledger.from_events(first.task.budget, ())
        for event in store.in_order():
            self.tree = self.tree.with_event(event)
            self._fold(event)

    def _fold(self, event: Event) -> None:
        body = event.body
        lean(body)
        self.seq = event.seq
        self.ledger = self.ledger.with_event(event)
        self.standing.fold(body)
        remember(self.bodies, body)
        if isinstance(body, SealedDone):
            self.reads += 1
        if isinstance(body, FinalModel):
            self.final_models[body.experiment] = body
        if isinstance(body, JobStarted):
            self.pace.started(body.job, body.reserved_s)
        if isinstance(body, JobFinished):
            self.finished.add(body)
            if body.result.failure is not None:
                self.failures[body.job] += 1
            node = self.tree.experiments.get(body.experiment)
            backend = node.proposed.proposal.recipe.stage.backend if node else ""
            self.pace.finished(body.job, backend, body.result)
            self.packing.finished(node, body.result)

    def append(self, body: Body) -> None:
        """Store an event, then derive from it."""
        event = self.store.append(body)
        self.tree = self.tree.with_event(event)
        self._fold(event)
        self.listener(event)

    # --- what the events say --------------------------------------------------------------------------------------

    @property
    def prepared(self) -> DataPrepared | None:
        body = self.bodies.get("data_prepared")
        return body if isinstance(body, DataPrepared) else None

    @property
    def remembered(self) -> Remembered:
        """What finished runs had taught when this one began, as the log has it; nothing where there is no memory."""
        return (self.prepared.remembered if self.prepared else None) or Remembered()

    @property
    def search_ended(self) -> SearchEnded | None:
        body = self.bodies.get("search_ended")
        return body if isinstance(body, SearchEnded) else None

    @property
    def certified(self) -> Certified | None:
        """The last certificate, unless the final model of its champion was refused."""
        body = self.bodies.get("certified")
        return body if isinstance(body, Certified) and not self.refused(body.champion) else None

    def refused(self, experiment: str) -> str | None:
        """Why the final model of an experiment cannot be the champion's; None where it can, or is not known yet."""
        final = self.final_models.get(experiment)
        return final.refused if final else None

    @property
    def sealed(self) -> SealedDone | None:
        body = self.bodies.get("sealed_done")
        return body if isinstance(body, SealedDone) else None

    @property
    def reopened(self) -> Reopened | None:
        """Why the run goes on after an end, where it does."""
        body = self.bodies.get("reopened")
        return body if isinstance(body, Reopened) else None

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
        """True when an evaluation keeps every guard that answers decide; one without a value is broken."""
        return not self.broken_guards(evaluation)

    def broken_guards(self, evaluation: Evaluation) -> list[str]:
        """What an evaluation breaks, in words."""
        return broken(self.task.guards, values_of(self.task.guards, evaluation), self._decided_by_answers)

    @cached_property
    def _decided_by_answers(self) -> tuple[str, ...]:
        guards = named(self.task.guards)
        return tuple(name for name, guard in guards.items() if isinstance(kind_of(guard), AnswersKind))

    @cached_property
    def guards(self) -> GuardReferee:
        """Measures the guards that answers decide."""
        read = self.store.artifacts.read
        stored = self.prepared.guards if self.prepared else None
        plan = GuardPlan.model_validate_json(read(stored)) if stored else GuardPlan()
        side = {row.id: row for row in load_rows(read(plan.rows))} if plan.rows else {}
        seed, whole = self.task.seed, self.plan
        guards = named(self.task.guards)
        return GuardReferee(guards, plan, side, whole.labels, whole.out_of_scope, seed, whole.graded, self.judge)

    @cached_property
    def judge(self) -> Judge | None:
        """Compares answers with references, where the task has a judge. Its verdicts are kept in the run's folder."""
        if self.task.judge is None:
            return None
        engine = self.task.engine.model_copy(update={"threads": self.executor.engine.threads})
        return LocalJudge(self.task.judge, self.store.folder / "judge", engine)

    def guard_values(
        self, experiment: str, split: Literal["search", "select"], items: Items, threshold: float | None
    ) -> dict[str, Estimate]:
        """What the answers of an experiment on a split say about each guard that answers decide."""
        values = self.guards.of_items(items, split)
        if self.guards.side:
            done = self._done(experiment, split)
            read = self.store.artifacts.read
            units = [unit for unit in self.plan.units(split) if unit.name in done]
            answered = [(unit, read_outputs(read(done[unit.name]))) for unit in units]
            values |= self.guards.of_side(answered, threshold)
        return values

    # --- costs ----------------------------------------------------------------------------------------------------

    def refusal(self, recipe: Recipe) -> Failure | None:
        """Why a recipe is not tried, or None."""
        return self._costs.refusal(recipe)

    def nominal_s(self, recipe: Recipe, units: Sequence[UnitPlan]) -> float:
        """Reference seconds of these units on one core; 0.0 for a recipe that is not tried. Deterministic."""
        return self._costs.nominal_s(recipe, units, len(self.guards.side))

    @property
    def final_share(self) -> float:
        """Rows of a final training for each row that an experiment trains on in its search."""
        return len(self.sealed_unit.train) / max(1, sum(len(unit.train) for unit in self.plan.search))

    def forecast_s(self, recipe: Recipe, units: Sequence[UnitPlan]) -> float:
        """Expected wall seconds of these units in one job. Depends on the machine: for budgets only."""
        return (START_UP_S + self.nominal_s(recipe, units)) * self.pace.of(recipe.stage.backend)

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
                base_hash=self._base_hash(job.recipe.base_model),
                sandbox=self.executor.engine.sandbox,
                expected=expected(self, job),
            )
        )
        return self.executor.start(spec, self.inputs(job))

    def _base_hash(self, reference: str | None) -> str | None:
        """The content hash of a base model, where lineage starts; worked out once."""
        if reference is not None and reference not in self._base_hashes:
            self._base_hashes[reference] = model_hash(resolve_model(reference))
        return self._base_hashes[reference] if reference is not None else None

    def finish(self, job: Job, result: JobResult) -> None:
        """Record what a job gave back."""
        self.append(JobFinished(job=job.id, experiment=job.experiment, purpose=job.purpose, result=result))

    def inputs(self, job: Job) -> dict[str, Inputs]:
        """Unit name -> (train rows, rows to be asked). The executor leaves the labels of the latter behind.

        The side rows of the guards are asked in every unit; what is asked is not trained on.
        """
        train, asked = self.rows("train"), self.rows(job.purpose)
        side = tuple(self.guards.side.values())
        return {
            unit.name: (tuple(train[name] for name in unit.train), (*(asked[name] for name in unit.items), *side))
            for unit in job.units
        }

    def job_spec(self, job: Job) -> JobSpec:
        engine, told = self.executor.engine, self.task.engine
        most, may = most_s(self, job), allowed(self, job)
        # The champion's final training is waited for by everything, and what runs beside it hardly trains.
        threads = engine.threads_alone if job.save_model else engine.threads
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
            environments=tuple(str(folder) for folder in built(job.recipe)),
            generation=self.task.generation,
            metric="" if self.plan.labels else self.task.metric,
            calibration=self.pace.calibration(job.recipe.stage.backend),
            models={name: str(resolve_model(name)) for name in edit.teachers(job.recipe)},
            limits=Limits(wall_s=most, memory_mb=told.memory_mb, threads=threads, allowed=may),
            save_model=job.save_model,
        )

    # --- answers --------------------------------------------------------------------------------------------------

    def results(self, experiment: str, purpose: Split) -> list[JobResult]:
        """Finished jobs of an experiment for a split, in the order they ended."""
        return self.finished.of(experiment, purpose)

    def _done(self, experiment: str, split: Split) -> dict[str, str]:
        """Unit name -> artefact of its outputs."""
        return {unit.name: unit.outputs for result in self.results(experiment, split) for unit in result.units}

    def outputs(self, artefact: str) -> UnitOutputs | UnitTexts:
        """What a unit answered to its items; the answers to side rows are left out."""
        found = read_outputs(self.store.artifacts.read(artefact))
        return without(found, self.guards.side) if self.guards.side else found

    def raw_items(self, experiment: str, split: Literal["search", "select"]) -> list[Items]:
        """The unthresholded items of each finished unit, in plan order."""
        held = held_out_of(self.plan.units(split))
        done = self._done(experiment, split)
        plan, rows = self.plan, self.rows(split)
        outputs = {name: self.outputs(done[name]) for name in held if name in done}
        judge_ahead(self.judge, [(answered, rows) for answered in outputs.values()])
        return [items_of(name, out, rows, plan, held[name], self.judge) for name, out in outputs.items()]

    def items(self, experiment: Experiment) -> Items | None:
        """The answered search items of an experiment, or None."""
        return None if experiment.evaluation is None else self.stored_items(experiment.evaluation.items)

    @cached_property
    def stored_items(self) -> Callable[[str], Items]:
        """Artefact -> items. A few are kept: what leads is compared with everything."""
        return lru_cache(maxsize=8)(lambda name: load_items(self.store.artifacts.read(name)))
