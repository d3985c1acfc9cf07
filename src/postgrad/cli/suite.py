"""`postgrad suite`: the champion and its untouched base model side by side on tasks of lm-eval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from postgrad.cli.output import (
    RUNS_DIR,
    JsonOption,
    RunArgument,
    RunsDirOption,
    UnsandboxedOption,
    console,
    print_json,
)

if TYPE_CHECKING:
    from postgrad.evaluate.suites import SuiteLine
    from postgrad.store.sqlite import SqliteStore


def command(
    run: RunArgument,
    tasks: Annotated[str, typer.Option(help="Tasks of lm-eval, with commas between them.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Ask the first examples of each task only.")] = None,
    include: Annotated[
        Path | None, typer.Option(help="A folder with tasks as YAML and the rows that they read.", show_default=False)
    ] = None,
    unsandboxed: UnsandboxedOption = False,
    runs_dir: RunsDirOption = RUNS_DIR,
    as_json: JsonOption = False,
) -> None:
    """Ask the champion's language model and its base, as it was before, tasks of the library lm-eval.

    It shows what the training cost or gave beside the run's own task. Nothing is trained, and nothing is written to the
    run. There is no network: tasks are read from the folder of --include.
    """
    from postgrad.cli.runs import open_run
    from postgrad.errors import UserError

    names = tuple(dict.fromkeys(name.strip() for name in tasks.split(",") if name.strip()))
    if not names:
        raise UserError("--tasks names no task. Name one or more of lm-eval, as: --tasks arc_easy,piqa")
    if include is not None and not include.is_dir():
        raise UserError(f"--include {include} is no folder. Name the folder that holds the tasks' YAML files.")
    with open_run(runs_dir, run) as store:
        lines = compared(store, names, limit, include, unsandboxed=unsandboxed)
    if as_json:
        print_json({"run": run, "limit": limit, "tasks": lines})
    else:
        _print(lines)


def compared(
    store: SqliteStore, tasks: tuple[str, ...], limit: int | None, include: Path | None, *, unsandboxed: bool = False
) -> tuple[SuiteLine, ...]:
    """Champion and base of a finished run on these tasks.

    Raises:
        UserError: the run has no champion, the champion is no language model, its base is not at hand, or a task
            cannot be asked.
    """
    from tempfile import TemporaryDirectory

    from postgrad.audit.case import open_case
    from postgrad.errors import UserError
    from postgrad.evaluate.guards.base import Unmeasured
    from postgrad.evaluate.suites import language_model_in, side_by_side, suite_of

    case = open_case(store)
    if case.model is None:
        raise UserError(f"No final weights of {case.champion} are on record. Take a run that was finished.")
    engine = case.started.task.engine.model_copy(update={"sandbox": "none"} if unsandboxed else {})
    with TemporaryDirectory(prefix="postgrad-suite-") as place:
        folder = Path(place)
        case.store.artifacts.restore_folder(case.model, folder / "champion")
        try:
            mine = language_model_in(folder / "champion")
            if case.base is None:
                raise UserError(
                    f"The base model {case.recipe.base_model} is not at hand, so there is nothing to compare."
                )
            scores = [
                suite_of(model, tasks, engine, folder / "asked", limit=limit, include=include)
                for model in (mine, case.base)
            ]
            return side_by_side(*scores)
        except Unmeasured as wrong:
            raise UserError(
                f"The champion {case.champion} of {case.started.run}: {wrong}.".replace("..", ".")
            ) from wrong


def _print(lines: tuple[SuiteLine, ...]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("task", "metric"):
        table.add_column(name, no_wrap=True)
    for name in ("examples", "champion", "base", "difference", "95 % interval", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        gap = line.difference
        table.add_row(
            line.task,
            line.metric if line.higher_is_better else f"{line.metric} (lower is better)",
            str(line.n),
            f"{line.champion:.3f} ± {line.champion_stderr:.3f}",
            f"{line.base:.3f} ± {line.base_stderr:.3f}",
            f"{gap.value:+.3f}",
            f"{gap.low:+.3f} to {gap.high:+.3f}",
            f"{gap.p:.3f}",
        )
    console().print(table)
    console().print("± is one standard error; the difference is paired, example by example.", style="dim", markup=False)
