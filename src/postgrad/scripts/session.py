"""A run on a script: the same log, loop and referee as any other, with commits for recipes and no data of ours."""

from __future__ import annotations

from functools import cached_property
from typing import Callable, Mapping, Sequence

from postgrad.evaluate.splits import SplitPlan, UnitPlan
from postgrad.events import Event
from postgrad.execute.executor import Executor
from postgrad.records import Failure, JobSpec, Limits, Recipe, Row, ScriptSpec, Unit
from postgrad.records.job import unit_seed
from postgrad.scripts.executor import ScriptExecutor
from postgrad.scripts.workspace import Workspace
from postgrad.session import Inputs, Job, Session
from postgrad.store.base import Store

# What a script may leave on the disk, in MB, and how long it may be silent beyond the time that it is told.
DISK_MB, SILENT_S = 4_000, 60.0


class ScriptSession(Session):
    """A run of a task of kind `script`."""

    executor: Executor

    def __init__(self, store: Store, executor: ScriptExecutor, listener: Callable[[Event], None]) -> None:
        self.scripts = executor
        super().__init__(store, executor, listener)  # The executor runs what this session asks of it, and nothing else.
        prepared = self.prepared
        if prepared is not None and prepared.script is not None:
            executor.attach(self.workspace, prepared.script.protected)

    @property
    def script(self) -> ScriptSpec:
        assert self.task.script is not None, "a task of kind `script` has one"
        return self.task.script

    @cached_property
    def workspace(self) -> Workspace:
        """The repository of the run, once it is prepared."""
        return Workspace.open(self.store.folder.resolve(), self.run)

    # --- the plan: one unit for each split, whose items the referee names -------------------------------------------

    @cached_property
    def plan(self) -> SplitPlan:
        return SplitPlan(
            mode="holdout",
            labels=(),
            out_of_scope=None,
            graded=(self.task.metric,),
            rows={},
            search=(UnitPlan(name="search", train=(), items=()),),
            select=(UnitPlan(name="select", train=(), items=()),),
            sealed=(),
            removed={},
        )

    @cached_property
    def sealed_unit(self) -> UnitPlan:
        return UnitPlan(name="sealed", train=(), items=())

    def rows(self, part: str) -> Mapping[str, Row]:
        """The items that the referee has named of a split so far: what is in them is the referee's."""
        found: dict[str, Row] = {}
        for body in self.finished.values():
            if body.purpose == part:
                for unit in body.result.units:
                    found |= {name: Row(name, name, "") for name in self.outputs(unit.outputs).ids if name not in found}
        return found

    # --- costs ------------------------------------------------------------------------------------------------------

    def refusal(self, recipe: Recipe) -> Failure | None:
        if recipe.stage.backend != "script" or recipe.data or recipe.base_model is not None or recipe.inference:
            said = "This task is a script: a recipe of it is a version of its files, and nothing else."
            return Failure(boundary="recipe", kind="scope", message=said)
        return None

    def nominal_s(self, recipe: Recipe, units: Sequence[UnitPlan]) -> float:
        return 0.0 if self.refusal(recipe) is not None else self.script.time_s * len(units)

    @property
    def final_share(self) -> float:
        return 1.0

    # --- jobs -------------------------------------------------------------------------------------------------------

    def inputs(self, job: Job) -> dict[str, Inputs]:
        return {}

    def job_spec(self, job: Job) -> JobSpec:
        script, engine = self.script, self.executor.engine
        return JobSpec(
            job=job.id,
            experiment=job.experiment,
            recipe=job.recipe,
            labels=(),
            out_of_scope=None,
            base_model=None,
            units=tuple(Unit(name=u.name, train="", predict="", seed=unit_seed(job.seed, u.name)) for u in job.units),
            metric=self.task.metric,
            limits=Limits(
                wall_s=script.kill_s,
                memory_mb=self.task.engine.memory_mb,
                threads=engine.threads,
                hung_s=script.time_s + SILENT_S,
                disk_mb=DISK_MB,
            ),
            save_model=job.save_model,
        )
