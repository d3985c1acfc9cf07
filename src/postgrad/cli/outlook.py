"""What a task would do, worked out without spending anything: its problems, splits, workers, power and cost.

Reads the data files; loads no model, starts no job.
"""

from __future__ import annotations

from typing import Mapping, Sequence

from postgrad.certify import RESERVE_START
from postgrad.cli.machine import training_libraries
from postgrad.data.card import build_card, problems
from postgrad.data.sources import load_rows
from postgrad.engines import ENGINES
from postgrad.errors import UserError
from postgrad.evaluate.power import items_needed, smallest_effect
from postgrad.evaluate.splits import Parts, SplitPlan, UnitPlan, group_of, split_task
from postgrad.records import DataCard, Recipe, Record, Row, Stage, TaskSpec
from postgrad.research.references import reference_recipes
from postgrad.session import START_UP_S
from postgrad.train import BACKENDS


class SplitLine(Record):
    """One split: how many different texts are asked how often in how many trainings, and what they can show.

    `smallest_effect` counts each text once: asking it again with other train rows is not a new item.
    """

    split: str
    texts: int
    questions: int
    trainings: int
    smallest_effect: float


class CostLine(Record):
    """What one experiment of a kind takes on one core, and how many of them the wall-clock budget holds, if any."""

    what: str
    seconds: float
    fits: int | None


class Outlook(Record):
    """What `check` says. `card`, `splits` and `costs` are empty where problems hide them."""

    task: TaskSpec
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    card: DataCard | None = None
    mode: str | None = None
    train_rows: int = 0
    splits: tuple[SplitLine, ...] = ()
    workers: int = 0
    threads: int = 0
    costs: tuple[CostLine, ...] = ()


def outlook(task: TaskSpec) -> Outlook:
    """Work out what a run of this task would do. Problems are collected, never raised."""
    found: list[str] = []
    parts = _read(task, found)
    workers, threads = _engine(task, found)
    libraries = training_libraries()
    if libraries.status == "fail":
        found.append(f"Libraries that train are {libraries.found}. {libraries.advice}.")
    if parts is None:
        return Outlook(task=task, problems=tuple(found), workers=workers, threads=threads)
    named: Mapping[str, tuple[Row, ...]] = {"train": parts.train, "dev": parts.dev, "test": parts.test}
    found += problems(named, task.data.out_of_scope)
    card = build_card(named, task.data.out_of_scope) if parts.train else None
    told = Outlook(task=task, card=card, workers=workers, threads=threads)
    plan = _plan(task, parts, found) if not found else None
    if plan is None:
        return told.model_copy(update={"problems": tuple(found)})
    splits = _splits(plan)
    warnings = (*(card.warnings if card else ()), *_power_warnings(task, splits))
    return told.model_copy(
        update={
            "warnings": warnings,
            "mode": plan.mode,
            "train_rows": len({name for unit in (*plan.search, *plan.select) for name in unit.train}),
            "splits": splits,
            "costs": _costs(task, plan, workers),
        }
    )


def _read(task: TaskSpec, found: list[str]) -> Parts | None:
    """All rows, or None and every part that cannot be read as a problem."""
    data = task.data
    rows: dict[str, tuple[Row, ...]] = {}
    for part in ("train", "dev", "test"):
        source = getattr(data, part)
        if source is None:
            continue
        try:
            rows[part] = load_rows(source, part=part, input=data.input, target=data.target)
        except UserError as problem:
            found.append(f"data.{part}: {problem}")
    return None if found else Parts(**rows)


def _engine(task: TaskSpec, found: list[str]) -> tuple[int, int]:
    """(workers, threads of each), or (0, 0) and a problem."""
    try:
        engine = ENGINES.get(task.engine.kind)
        engine.open(task.engine)
    except UserError as problem:
        found.append(f"engine: {problem}")
        return 0, 0
    try:
        return engine.slots, engine.threads
    finally:
        engine.close()


def _plan(task: TaskSpec, parts: Parts, found: list[str]) -> SplitPlan | None:
    try:
        return split_task(task, parts)[0]
    except UserError as problem:
        found.append(str(problem))
        return None


def _splits(plan: SplitPlan) -> tuple[SplitLine, ...]:
    asked = {
        "search": [unit.items for unit in plan.search],
        "select": [unit.items for unit in plan.select],
        "sealed": [plan.sealed],
    }
    lines = []
    for split, trainings in asked.items():
        texts = len({group_of(item) for items in trainings for item in items})
        lines.append(
            SplitLine(
                split=split,
                texts=texts,
                questions=sum(len(items) for items in trainings),
                trainings=len(trainings),
                smallest_effect=smallest_effect(texts),
            )
        )
    return tuple(lines)


def _power_warnings(task: TaskSpec, splits: Sequence[SplitLine]) -> list[str]:
    sealed = splits[-1]
    if sealed.smallest_effect <= task.min_effect:
        return []
    return [
        f"The sealed split is too small for the effect you asked for: its {sealed.texts:,} texts show differences from "
        f"about {sealed.smallest_effect:.3f} on, and min_effect is {task.min_effect:g}, which takes about "
        f"{items_needed(task.min_effect):,}. Add test rows, or expect 'not shown' for smaller gains."
    ]


def _costs(task: TaskSpec, plan: SplitPlan, workers: int) -> tuple[CostLine, ...]:
    """The references, and a full fine-tune with the standard settings."""
    recipes = [(proposal.change, proposal.recipe) for proposal in reference_recipes(task)]
    if task.base_models:
        tuned = Recipe(base_model=task.base_models[0], stage=Stage(backend="embedder"))
        recipes.append(("a full fine-tune with the standard settings", tuned))
    lines = []
    for what, recipe in recipes:
        seconds = START_UP_S + _nominal_s(recipe, plan.search)
        wall = task.budget.wall_s
        fits = None if wall is None else int(workers * (1 - RESERVE_START) * wall / seconds)
        lines.append(CostLine(what=what, seconds=seconds, fits=fits))
    return tuple(lines)


def _nominal_s(recipe: Recipe, units: Sequence[UnitPlan]) -> float:
    backend = BACKENDS.get(recipe.stage.backend)
    return sum(backend.nominal_cost(recipe.stage.params, len(u.train), len(u.items)) for u in units)
