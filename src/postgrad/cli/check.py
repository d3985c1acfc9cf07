"""`postgrad check`: every problem of a task at once, and what a run of it would do. Spends nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Iterator

import typer

from postgrad.cli.output import RUNS_DIR, JsonOption, RunsDirOption, console, facts, print_json, span

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from postgrad.cli.outlook import Outlook
    from postgrad.forecast import Forecast
    from postgrad.records import Hardware, TaskSpec

LABELS_SHOWN = 6


def command(
    task: Annotated[Path, typer.Argument(help="The task file, e.g. task.yaml.", show_default=False)],
    budget: Annotated[str | None, typer.Option(help="Instead of the task's: '20m', '8h'.", show_default=False)] = None,
    runs_dir: RunsDirOption = RUNS_DIR,
    as_json: JsonOption = False,
) -> None:
    """Report every problem of a task, and what a run of it would do and cost.

    Exit code 2 when the task cannot be run.
    """
    from postgrad.cli.check_script import check_script
    from postgrad.cli.outlook import outlook
    from postgrad.errors import UserError
    from postgrad.spec import load_task

    try:
        spec = load_task(task, {"budget": budget} if budget else None)
        if spec.script is not None:
            raise typer.Exit(0 if check_script(spec, task, as_json) else UserError.exit_code)
        found = outlook(spec, runs_dir)
    except UserError as problem:
        if not as_json:
            raise
        print_json({"ok": False, "problems": [str(problem)]})
        raise typer.Exit(UserError.exit_code) from problem
    if as_json:
        print_json({"ok": not found.problems, **found.model_dump(mode="json")})
    else:
        screen = console()
        for part in _parts(found, task):
            screen.print(part)
    raise typer.Exit(UserError.exit_code if found.problems else 0)


def _parts(found: Outlook, path: Path) -> Iterator[RenderableType]:
    from rich.text import Text

    yield facts(_facts(found))
    if found.splits:
        yield _splits(found)
        yield facts(_named(line) for line in found.power)
        yield Text()
        yield _costs(found)
    for warning in found.warnings:
        yield Text.assemble(("note  ", "yellow"), warning)
    for number, problem in enumerate(found.problems, start=1):
        yield Text.assemble((f"problem {number}  ", "bold red"), problem)
    if found.problems:
        yield Text(f"\n{path} cannot be run yet.", style="red")
    else:
        yield Text.assemble(("\nReady. ", "green"), f"Start it with: postgrad run {path}")


def _facts(found: Outlook) -> Iterator[tuple[str, str]]:
    """The task, its rows and the machine in short."""
    from postgrad.evaluate.guards import limit, named
    from postgrad.records import called

    task, card = found.task, found.card
    yield "task", f"{task.name}: {task.objective.strip()}"
    if card is not None:
        rows = ", ".join(f"{count:,} {part}" for part, count in card.rows.items())
        yield "rows", f"{rows}; {card.words_median:g} words in the middle one"
        counts = sorted(card.labels.values())
        spread = f"{counts[0]} to {counts[-1]}" if len(set(counts)) > 1 else f"{counts[0] if counts else 0}"
        words = f"in words, at most {task.generation.max_new_tokens} tokens"
        yield (
            "answers" if task.kind == "generation" else "labels",
            (words if task.kind == "generation" else f"{len(counts)}, {spread} train rows each"),
        )
    if task.data.out_of_scope is not None:
        rejected = [f"{count:,} of {part}" for part, count in (card.out_of_scope if card else {}).items() if count]
        yield "rejects", f"{task.data.out_of_scope} ({', '.join(rejected) or 'no row of it'})"
    yield "metric", f"{task.metric}, differences from {task.min_effect:g} on matter"
    if task.guards:
        yield "guards", "; ".join(f"{name} {limit(guard)}" for name, guard in named(task.guards).items())
    yield "models", ", ".join(task.base_models) or "none: classic models only"
    yield "search", f"{called(task.researcher)} with {task.search.policy}, seed {task.seed}"
    threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
    yield "engine", f"{task.engine.kind}: {found.workers} jobs side by side, {threads} each"
    yield from spending_facts(task, found.hardware, found.expected)


def spending_facts(task: TaskSpec, where: Hardware, expected: Forecast | None) -> Iterator[tuple[str, str]]:
    """What a job runs on, what may be spent, what that costs, and what is foreseen."""
    from postgrad.budget import format_budget
    from postgrad.forecast import in_words

    if where.cpu:
        yield "hardware", f"{where.kind} for each job"
    yield "budget", format_budget(task.budget)
    if task.experiment != type(task.experiment)():
        yield "experiment", f"at most {format_budget(task.experiment)} each in the search"
    if task.engine.prices:
        yield "prices", ", ".join(f"{name} ${price:g} an hour" for name, price in task.engine.prices.items())
    elif task.budget.usd:
        yield "prices", "none of hardware: the budget's dollars are those of language models"
    if expected is not None:
        yield "at the end", in_words(expected, task.budget)


def _named(line: str) -> tuple[str, str]:
    """A line on one split under its name; the line on all of them without."""
    name, _, rest = line.partition(": ")
    return (name, rest) if name.split(",")[0] in ("search", "select", "sealed") else ("noise", line)


def _splits(found: Outlook) -> RenderableType:
    """How the rows are used, and what that can show."""
    how = "cross-validation over them" if found.mode == "cv" else "rows of their own"
    table = _table("split", "texts", "questions", "trainings", "smallest effect", "between recipes")
    for line in found.splits:
        effects = (f"{line.smallest_effect:.3f}", f"{line.between_recipes:.3f}")
        table.add_row(line.split, f"{line.texts:,}", f"{line.questions:,}", str(line.trainings), *effects)
    return _titled(
        f"Splits: {found.train_rows:,} rows to train on; search and select are {how}. The smallest effect is the "
        "difference in accuracy between two finished models that is shown four times in five at 95 % confidence; "
        "between recipes, each trained with one seed, seed noise comes on top.",
        table,
    )


def _costs(found: Outlook) -> RenderableType:
    """The forecast. The run measures the machine's real speed as it goes."""
    table = _table("experiment", "time", "in the budget")
    for line in found.costs:
        fits = "-" if line.fits is None else f"up to {line.fits:,}"
        table.add_row(line.what, span(line.seconds), fits)
    title = "Forecast: one experiment on one core, from the sizes alone; a run measures as it goes."
    return _titled(title, table)


def _table(*names: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for number, name in enumerate(names):
        table.add_column(name, justify="right" if number else "left")
    return table


def _titled(title: str, table: Table) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    return Group(Text(f"\n{title}"), table, Text())
