"""A run on a script: the same log, loop and referee as any other, with commits for recipes and no data of ours."""

from __future__ import annotations

from functools import cached_property
from math import log2
from typing import Callable, Mapping, NamedTuple, Sequence

from postgrad.evaluate.graded import UnitTexts, read_texts
from postgrad.evaluate.hardware import unlike as unlike_hardware
from postgrad.evaluate.splits import SplitPlan, UnitPlan
from postgrad.events import Body, Event, JobFinished, Proposed, SearchEnded
from postgrad.execute.executor import Executor
from postgrad.records import Failure, Hardware, JobResult, JobSpec, Limits, Recipe, Row, ScriptSpec, Split, Unit
from postgrad.records.job import unit_seed
from postgrad.scripts.evidence import unlike
from postgrad.scripts.executor import ScriptExecutor
from postgrad.scripts.protect import Rules
from postgrad.scripts.settings import LARGER, setting_of
from postgrad.scripts.versions import Versions
from postgrad.scripts.workspace import Workspace
from postgrad.session import Inputs, Job, Session
from postgrad.spending import allowed
from postgrad.store.base import Store
from postgrad.tree import Experiment

#: Trainings of champion and baseline at the end, each with a seed of its own.
TRAININGS = 3
# What a script may leave on the disk, in MB, and how long it may be silent beyond the time that it is told.
DISK_MB, SILENT_S = 4_000, 60.0


class First(NamedTuple):
    """The training of a split that others are held to: that of the source, once there is one."""

    source: bool
    experiment: str
    outputs: str
    hardware: tuple[Hardware, ...]


def tree_of(recipe: Recipe) -> str:
    """What names the files of a recipe; "" for the source as it was given."""
    return str(recipe.stage.params.get("tree", ""))


class ScriptSession(Session):
    """A run of a task of kind `script`."""

    executor: Executor

    def __init__(self, store: Store, executor: ScriptExecutor, listener: Callable[[Event], None]) -> None:
        self.scripts = executor
        self._refused: dict[str, Failure | None] = {}
        self._sizes: dict[str, int] = {}
        self._named: dict[str, dict[str, Row]] = {}
        self._unread: dict[str, list[str]] = {}
        # Split -> the training that others are held to.
        self._first: dict[str, First] = {}
        self._items_of: dict[str, frozenset[str]] = {}
        super().__init__(store, executor, listener)  # The executor runs what this session asks of it, and nothing else.
        prepared = self.prepared
        if prepared is not None and prepared.script is not None:
            executor.attach(self.workspace, prepared.script.protected)

    def put_in_step(self) -> None:
        """Bring the repository in step with the log. For the run's one writer: locks that lie there are those of a git
        that was killed."""
        if self.prepared is not None:
            self.workspace.repair()
            self._set_aside()

    def append(self, body: Body) -> None:
        """Store an event, then derive from it. The commit of a proposal is there before it; at the end of the search,
        no commit stays that became no experiment."""
        if isinstance(body, Proposed):
            self._committed(body)
        super().append(body)
        if isinstance(body, SearchEnded):
            self._set_aside()

    def _set_aside(self) -> None:
        """Commits of what was thought of and not proposed, or proposed as another one, are no experiments."""
        there, seen = self.workspace.trees(), {""}
        for node in self.tree.all():
            tree = tree_of(node.proposed.proposal.recipe)
            if tree not in seen and there.get(node.id) == tree:
                del there[node.id]
            seen.add(tree)
        for name in there:
            self.workspace.set_aside(name)

    @property
    def script(self) -> ScriptSpec:
        assert self.task.script is not None, "a task of kind `script` has one"
        return self.task.script

    @cached_property
    def workspace(self) -> Workspace:
        """The repository of the run, once it is prepared."""
        return Workspace.open(self.store.folder.resolve(), self.run)

    @cached_property
    def versions(self) -> Versions:
        """What each version of the files changes."""
        prepared = self.prepared
        assert prepared is not None and prepared.script is not None, "the repository is there before it is changed"
        return Versions(self.workspace, prepared.script.protected)

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

    @cached_property
    def larger_unit(self) -> UnitPlan:
        """A training in the larger setting of the task, measured on the sealed file."""
        return UnitPlan(name=LARGER, train=(), items=())

    def rows(self, part: str) -> Mapping[str, Row]:
        """The items that the referee has named of a split so far: what is in them is the referee's."""
        found, unread = self._named.setdefault(part, {}), self._unread.setdefault(part, [])
        while unread:
            names = self.texts(unread[0]).ids
            found |= {name: Row(name, name, name) for name in names if name not in found}
            del unread[0]
        return found

    def _fold(self, event: Event) -> None:
        super()._fold(event)
        if isinstance(body := event.body, JobFinished):
            outputs = [unit.outputs for unit in body.result.units]
            self._unread.setdefault(body.purpose, []).extend(outputs)
            known, source = self._first.get(body.purpose), self._is_source(body.experiment)
            if outputs and (known is None or (not known.source and source)):
                self._first[body.purpose] = First(source, body.experiment, outputs[0], body.result.hardware)

    # --- items and hardware: the same of every training -----------------------------------------------------------

    def finish(self, job: Job, result: JobResult) -> None:
        """Record what a job gave back; one that cannot be compared with the source has failed."""
        wrong = self.unlike(job.experiment, job.purpose, result)
        if wrong is not None:
            result = result.model_copy(update={"units": (), "model": None, "failure": wrong})
        super().finish(job, result)

    def unlike(self, experiment: str, part: Split, result: JobResult) -> Failure | None:
        """How the items, or the hardware, of a training differ from those of the source, or of the first one while the
        source has none.

        Items of the end are weighed together, when all are there.
        """
        known = self._first.get(part)
        if not result.units or known is None or (not known.source and self._is_source(experiment)):
            return None
        if (elsewhere := unlike_hardware(self.task, result.hardware, known.hardware, known.experiment)) is not None:
            return elsewhere
        if part == "sealed":
            return None
        if known.outputs not in self._items_of:
            self._items_of = {known.outputs: frozenset(self.texts(known.outputs).ids)}
        names = frozenset(self.texts(result.units[0].outputs).ids)
        return unlike(names, self._items_of[known.outputs], known.experiment)

    def _is_source(self, experiment: str) -> bool:
        node = self.tree.experiments.get(experiment)
        return node is not None and not tree_of(node.proposed.proposal.recipe)

    def texts(self, artefact: str) -> UnitTexts:
        """The numbers of a unit, as texts."""
        return read_texts(self.store.artifacts.read(artefact))

    def larger(self, node: Experiment, rival: Experiment) -> float:
        """How much larger the difference of one experiment to the source is than that of another, in doublings of the
        changed lines."""
        mine, theirs = (self._lines(tree_of(each.proposed.proposal.recipe)) for each in (node, rival))
        return log2((1 + mine) / (1 + theirs))

    def _lines(self, tree: str) -> int:
        if tree not in self._sizes:
            workspace = self.workspace
            self._sizes[tree] = workspace.size(workspace.tree_of(workspace.baseline), tree) if tree else 0
        return self._sizes[tree]

    def _committed(self, body: Proposed) -> None:
        """Commit what nobody has yet, such as the champion less one change."""
        proposal, workspace = body.proposal, self.workspace
        tree = tree_of(proposal.recipe)
        if not tree or self.tree.first_with(proposal.recipe) is not None:
            return
        commits = workspace.commits()
        own = commits.get(body.experiment)
        if own is None or workspace.tree_of(own) != tree:
            parent = commits.get(body.choice.parent or "", workspace.baseline)
            workspace.adopt(body.experiment, parent, tree, f"{proposal.kind}: {proposal.change}")

    # --- costs ------------------------------------------------------------------------------------------------------

    def refusal(self, recipe: Recipe) -> Failure | None:
        """Why a version of the files is not run, or None."""
        if recipe.hash in self._refused:
            return self._refused[recipe.hash]
        found = self._why_not(recipe)
        if self.tree.has_tried(recipe):  # What came before it is known, and stays.
            self._refused[recipe.hash] = found
        return found

    def _why_not(self, recipe: Recipe) -> Failure | None:
        if recipe.stage.backend != "script" or recipe.data or recipe.base_model is not None or recipe.inference:
            said = "This task is a script: a recipe of it is a version of its files, and nothing else."
            return Failure(boundary="recipe", kind="scope", message=said)
        tree = tree_of(recipe)
        if not tree:
            return None
        rules = Rules(self.script.editable, self.script.protected)
        if wrong := rules.refused(self.versions.changes(tree)):
            names = ", ".join(wrong[:5])
            said = f"It changes {names}, which no experiment may change: only {', '.join(self.script.editable)}."
            return Failure(boundary="isolation", kind="changed_protected", message=said)
        return self._only_seeds(recipe, tree)

    def _only_seeds(self, recipe: Recipe, tree: str) -> Failure | None:
        """A version that differs from an earlier one in nothing but seeds: its score would be another draw of the same
        luck, and a keep of it no gain."""
        first = self.tree.first_with(recipe)
        known = {"": "the source"}
        for node in self.tree.all()[: first.index if first is not None else None]:
            known.setdefault(tree_of(node.proposed.proposal.recipe), node.id)
        apart = self.versions.apart_from_seeds
        mine = apart(tree)
        same = next((name for other, name in known.items() if other != tree and apart(other) == mine), None)
        if same is None:
            return None
        said = f"It differs from {same} in nothing but seeds. A replicate is for the referee to ask for."
        return Failure(boundary="recipe", kind="only_the_seed", message=said)

    def nominal_s(self, recipe: Recipe, units: Sequence[UnitPlan]) -> float:
        if self.refusal(recipe) is not None:
            return 0.0
        script = self.script
        return sum(script.confirm_time_s if unit.name == LARGER else script.time_s for unit in units)

    def forecast_s(self, recipe: Recipe, units: Sequence[UnitPlan]) -> float:
        """Of the end of a run, all trainings with fresh seeds, in both settings."""
        one = super().forecast_s(recipe, units)
        if all(unit.name != self.sealed_unit.name for unit in units):
            return one
        larger = super().forecast_s(recipe, (self.larger_unit,)) if self.script.confirm else 0.0
        return TRAININGS * (one + larger)

    @property
    def final_share(self) -> float:
        larger = self.script.confirm_time_s / self.script.time_s if self.script.confirm else 0.0
        return TRAININGS * (1 + larger)

    # --- jobs -------------------------------------------------------------------------------------------------------

    def inputs(self, job: Job) -> dict[str, Inputs]:
        return {}

    def job_spec(self, job: Job) -> JobSpec:
        script, engine = self.script, self.executor.engine
        setting = setting_of(script, job.units[0].name)
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
                wall_s=setting.kill_s,
                memory_mb=self.task.engine.memory_mb,
                threads=engine.threads,
                hung_s=setting.time_s + SILENT_S,
                disk_mb=DISK_MB,
                allowed=allowed(self, job),
                anew=script.fixed == "time",
            ),
            save_model=job.save_model,
        )
