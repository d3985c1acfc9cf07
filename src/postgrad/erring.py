"""The bad cases of a run, read off its store. Of the row files only those of train and of the search split are opened:
what the select and sealed items are, and how they were answered, is nobody's to look into."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from postgrad.analyze.findings import Findings, Material, findings_of
from postgrad.analyze.matrix import Values, right_or_wrong
from postgrad.errors import UserError
from postgrad.evaluate.splits import SplitPlan, load_rows
from postgrad.evaluate.statistics.influence import contributions
from postgrad.evaluate.tags import load_tags
from postgrad.events import BadCasesDescribed, DataPrepared, RunStarted
from postgrad.metrics import metric_of
from postgrad.metrics.items import Items, load_items
from postgrad.train.models import model_kind, resolve_model
from postgrad.tree import Experiment, State, Tree

if TYPE_CHECKING:
    from postgrad.events import Event
    from postgrad.records import Row, TaskSpec
    from postgrad.store.base import Store

# Answers everything alike: what it does not solve says nothing of an item.
CONSTANT = "constant"
SCRIPT = "script"
# References that are found without asking a network.
AT_HAND = ("package:", "path:")


def words_of(store: Store, experiment: str) -> BadCasesDescribed | None:
    """What a language model called the bad cases of an experiment, where one was asked and answered."""
    bodies = (event.body for event in reversed(store.events()))
    told = (body for body in bodies if isinstance(body, BadCasesDescribed) and body.experiment == experiment)
    return next((body for body in told if body.topics or body.causes), None)


def read_findings(store: Store, experiment: str | None = None, *, encode: bool = False) -> Findings:
    """Analyse the bad cases of an experiment, by default the champion.

    Args:
        encode: cluster by the experiment's sentence encoder, where it has one that is on this machine. Loads torch.

    Raises:
        UserError: there is no such experiment, or it has no answers to search items of ours.
    """
    events = store.events()
    tree = Tree.from_events(events)
    name = experiment or tree.champion
    node = tree.experiments.get(name) if name else None
    if node is None or node.evaluation is None or node.state not in (State.DONE, State.RACED):
        raise UserError(
            f"{name or 'The run'} has no bad cases: it has no scored experiment yet. Wait for the first one to end, or "
            "name a scored experiment: `postgrad show RUN` lists them."
        )
    if node.proposed.proposal.recipe.stage.backend == SCRIPT:
        raise UserError(
            "What a script answers wrong, only its referee knows: there are no bad cases of ours. `postgrad show RUN "
            "EXPERIMENT` lists the items with the worst numbers."
        )
    try:
        return findings_of(_material(store, events, tree, node, encode))
    except ImportError as problem:
        raise UserError(
            f"Bad cases are analysed with scikit-learn, and {problem.name} is not installed. Install it with: "
            "pip install 'postgrad[train]'"
        ) from problem


def _material(store: Store, events: tuple[Event, ...], tree: Tree, node: Experiment, encode: bool) -> Material:
    task = next(event.body.task for event in events if isinstance(event.body, RunStarted))
    prepared = next(event.body for event in events if isinstance(event.body, DataPrepared))
    plan = SplitPlan.model_validate_json(store.artifacts.read(prepared.plan))
    scored = [each for each in tree.all() if _counts(each) or each.id == node.id]
    return Material(
        experiment=node.id,
        answered={each.id: _items(store, each) for each in scored},
        recipes={each.id: each.proposed.proposal.recipe.hash for each in scored},
        search=_rows(store, plan, "search"),
        train=_rows(store, plan, "train"),
        units={unit.name: unit.train for unit in plan.search},
        before=tuple(each.id for each in tree.path(node.id)[:-1] if _counts(each)),
        histories=tuple(unit.history for result in node.results for unit in result.units),
        values=_values(task) if task.kind == "generation" else right_or_wrong,
        best=metric_of(task.metric).high if task.kind == "generation" else 1.0,
        max_new_tokens=task.generation.max_new_tokens if task.kind == "generation" else None,
        encoder=_encoder(node) if encode else None,
        tags=load_tags(store.artifacts.read(prepared.tags)) if prepared.tags else {},
    )


def _counts(node: Experiment) -> bool:
    """Whether an experiment says something of how hard items are."""
    backend = node.proposed.proposal.recipe.stage.backend
    return node.state is State.DONE and node.evaluation is not None and backend != CONSTANT


def _items(store: Store, node: Experiment) -> Items:
    assert node.evaluation is not None and node.evaluation.split == "search"
    return load_items(store.artifacts.read(node.evaluation.items))


def _rows(store: Store, plan: SplitPlan, part: str) -> dict[str, Row]:
    assert part in ("train", "search"), "bad cases are search items"
    return {row.id: row for row in load_rows(store.artifacts.read(plan.rows[part]))}


def _values(task: TaskSpec) -> Values:
    metric = metric_of(task.metric)
    return lambda items: contributions(metric, items.answers)


def _encoder(node: Experiment) -> Path | None:
    reference = node.proposed.proposal.recipe.base_model
    if reference is None or not reference.startswith(AT_HAND):
        return None
    try:
        folder = resolve_model(reference)
    except UserError:
        # It is gone since the run: words cluster as well, if not as finely.
        return None
    return folder if model_kind(folder) == "encoder" else None
