"""What a task would do, worked out without spending anything: its problems, splits, workers, power and cost.

Reads the data files; loads no model, starts no job.
"""

from __future__ import annotations

from pathlib import Path
from typing import Mapping, Sequence

from postgrad.certify import RESERVE_START
from postgrad.cli.machine import training_libraries
from postgrad.cli.planning import Measured, SplitLine, assumption, earlier_run, needs_told, rounded, split_lines
from postgrad.data.card import build_card, problems
from postgrad.errors import UserError
from postgrad.evaluate.guards.rows import side_rows
from postgrad.evaluate.power import refusal
from postgrad.evaluate.splits import Parts, SplitPlan, UnitPlan, split_task
from postgrad.evaluate.tags import tags_of
from postgrad.forecast import Forecast
from postgrad.prepare import part_rows, plan_guards
from postgrad.prospect import foreseen, looked, too_dear
from postgrad.records import DataCard, Hardware, Recipe, Record, Row, Stage, TaskSpec
from postgrad.research.assemble import ready
from postgrad.research.drafts import starts_of
from postgrad.research.language import speaks
from postgrad.research.references import reference_recipes
from postgrad.session import START_UP_S
from postgrad.train import BACKENDS


class CostLine(Record):
    """What one experiment of a kind takes on one core, and how many of them the wall-clock budget holds, if any."""

    what: str
    seconds: float
    fits: int | None


class Outlook(Record):
    """What `check` says. `card`, `splits` and `costs` are empty where problems hide them.

    `hardware` is what one job has, `expected` what the whole run will have used.
    `not_certifiable` is why the sealed split is too small to certify anything; `power` says what the splits can show.
    """

    task: TaskSpec
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    card: DataCard | None = None
    mode: str | None = None
    train_rows: int = 0
    splits: tuple[SplitLine, ...] = ()
    not_certifiable: str | None = None
    power: tuple[str, ...] = ()
    workers: int = 0
    threads: int = 0
    costs: tuple[CostLine, ...] = ()
    hardware: Hardware = Hardware()
    expected: Forecast | None = None


def outlook(task: TaskSpec, runs_dir: Path | None = None) -> Outlook:
    """Work out what a run of this task would do. Problems are collected, never raised.

    Args:
        runs_dir: where an earlier run of the task may have measured how noisy its scores are.
    """
    found: list[str] = []
    parts = _read(task, found)
    prospect = looked(task, found)
    has = {"workers": prospect.workers, "threads": prospect.threads, "hardware": prospect.where}
    _researcher(task, found)
    libraries = training_libraries()
    if libraries.status == "fail":
        found.append(f"Libraries that train are {libraries.found}. {libraries.advice}.")
    if parts is None:
        return Outlook(task=task, problems=tuple(found)).model_copy(update=has)
    named: Mapping[str, tuple[Row, ...]] = {"train": parts.train, "dev": parts.dev, "test": parts.test}
    words = task.kind == "generation"
    found += problems(named, task.data.out_of_scope, words=words)
    card = build_card(named, task.data.out_of_scope, words=words) if parts.train else None
    told = Outlook(task=task, card=card).model_copy(update=has)
    plan = _plan(task, parts, found) if not found else None
    if plan is None:
        return told.model_copy(update={"problems": tuple(found)})
    measured = earlier_run(task, runs_dir) if runs_dir is not None else None
    splits = split_lines(task, plan, lambda units: START_UP_S + _nominal_s(_dearest(task), units), measured)
    refused = refusal(splits[-1].texts)
    costs = _costs(task, plan, prospect.workers)
    speed, basis = _speed(measured)
    usual_s = speed * costs[-1].seconds
    warnings = (*(card.warnings if card else ()), *_near_copies(plan), *_power_warnings(task, splits, refused))
    return told.model_copy(
        update={
            "warnings": (*warnings, *too_dear(task, prospect, usual_s)),
            "mode": plan.mode,
            "train_rows": len({name for unit in (*plan.search, *plan.select) for name in unit.train}),
            "splits": splits,
            "not_certifiable": refused,
            "power": (assumption(splits), *needs_told(task, splits)),
            "costs": costs,
            "expected": foreseen(task, prospect, usual_s, f"{costs[-1].what}, {basis}"),
        }
    )


def _read(task: TaskSpec, found: list[str]) -> Parts | None:
    """All rows, or None and every part that cannot be read as a problem."""
    rows: dict[str, tuple[Row, ...]] = {}
    for part in ("train", "dev", "test"):
        try:
            rows[part] = part_rows(task, part)
        except UserError as problem:
            found.append(f"data.{part}: {problem}")
    try:
        rows["side"] = side_rows(task).all
    except UserError as problem:
        found.append(f"guards: {problem}")
    return None if found else Parts(**rows)


def _researcher(task: TaskSpec, found: list[str]) -> None:
    """What the researcher lacks, as a problem. Nobody is asked anything."""
    try:
        ready(task)
    except UserError as problem:
        found.append(f"researcher: {problem}")


def _speed(measured: Measured | None) -> tuple[float, str]:
    """(measured wall seconds for each nominal one, what that rests on)."""
    if measured is None or not measured.speed:
        return 1.0, "from the sizes alone"
    return measured.speed, f"at the pace of {measured.run}"


def _plan(task: TaskSpec, parts: Parts, found: list[str]) -> SplitPlan | None:
    try:
        plan, stored = split_task(task, parts)
        plan_guards(task, plan.labels, stored, lambda rows: "")
        tags_of(task, stored["search"])
        return plan
    except UserError as problem:
        found.append(str(problem))
        return None


def _near_copies(plan: SplitPlan) -> list[str]:
    """Rows that go beyond those with an equal text, which the data card names."""
    found = {part: [m for m in matches if m.how != "exact"] for part, matches in (plan.matches or {}).items()}
    return [
        f"{len(near)} more rows of {part} are nearly held-out rows ({', '.join(sorted({m.how for m in near}))}): they "
        "are taken out as well, and the report lists them by id."
        for part, near in found.items()
        if near
    ]


def _power_warnings(task: TaskSpec, splits: Sequence[SplitLine], refused: str | None) -> list[str]:
    sealed, warnings = splits[-1], []
    if refused is not None:
        warnings.append(
            f"The result of this run will not be certified: {refused}. The run trains, reads and reports all the "
            "same, and says 'not certified' first. Add test rows before you spend anything."
        )
    if sealed.need is None:
        return warnings
    return [
        *warnings,
        f"The sealed split is too small for the effect you asked for: its {sealed.texts:,} texts show differences from "
        f"about {sealed.smallest_effect:.3f} on, and min_effect is {task.min_effect:g}, which takes about "
        f"{rounded(sealed.need.items or 0):,}. Add test rows, or expect 'not shown' for smaller gains.",
    ]


def _costs(task: TaskSpec, plan: SplitPlan, workers: int) -> tuple[CostLine, ...]:
    """The references, and a training with the standard settings."""
    recipes = [(proposal.change, proposal.recipe) for proposal in reference_recipes(task)]
    if task.base_models:
        recipes.append(_standard(task, task.base_models[0]))
    lines = []
    for what, recipe in recipes:
        seconds = START_UP_S + _nominal_s(recipe, plan.search)
        wall = task.budget.wall_s
        fits = None if wall is None else int(workers * (1 - RESERVE_START) * wall / seconds)
        lines.append(CostLine(what=what, seconds=seconds, fits=fits))
    return tuple(lines)


def _standard(task: TaskSpec, base: str) -> tuple[str, Recipe]:
    """What a first training of a base model is, in words, and its recipe."""
    if speaks(task, base):
        first = starts_of(task, base)[0]
        return f"{first.change}, with the standard settings", first.recipe
    return "a full fine-tune with the standard settings", Recipe(base_model=base, stage=Stage(backend="embedder"))


def _dearest(task: TaskSpec) -> Recipe:
    """The dearest of the forecast: a training where there is a base model, else the classic baseline."""
    return _standard(task, task.base_models[0])[1] if task.base_models else Recipe(stage=Stage(backend="classic"))


def _nominal_s(recipe: Recipe, units: Sequence[UnitPlan]) -> float:
    backend = BACKENDS.get(recipe.stage.backend)
    return sum(backend.nominal_cost(recipe.stage.params, len(u.train), len(u.items)) for u in units)
