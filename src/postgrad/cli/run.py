"""`postgrad run`: one execution of the loop on one task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from postgrad.cli.output import RUNS_DIR, JsonOption, RunsDirOption, UnsandboxedOption, console


def command(
    task: Annotated[Path, typer.Argument(help="The task file, e.g. task.yaml.", show_default=False)],
    budget: Annotated[
        str | None, typer.Option(help="Instead of the task's: '20m', '8h', '40 experiments', '$5'.", show_default=False)
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Search policy, instead of the task's.", show_default=False)
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Jobs side by side.", min=1, show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the whole run.", show_default=False)] = None,
    unsandboxed: UnsandboxedOption = False,
    runs_dir: RunsDirOption = RUNS_DIR,
    as_json: JsonOption = False,
) -> None:
    """Run the loop on a task: search, certify, seal, report.

    Ctrl-C once ends the search and certifies what there is; twice stops at once. `postgrad resume` goes on.
    """
    from postgrad.cli.driving import drive_with_screen
    from postgrad.isolated import build_environments
    from postgrad.research.assemble import ready
    from postgrad.runner import start_run
    from postgrad.spec import load_task

    changes: dict[str, object] = {"budget": budget, "seed": seed}
    engine: dict[str, object] = {"workers": workers} if workers else {}
    engine |= {"sandbox": "none"} if unsandboxed else {}
    changes |= {"search": policy, "engine": engine or None}
    spec = load_task(task, {key: value for key, value in changes.items() if value is not None})
    ready(spec)
    # In front of the run, so that a download of minutes is not taken from its budget.
    build_environments(spec, lambda line: console(error=True).print(line, style="dim", markup=False))
    drive_with_screen(start_run(spec, runs_dir, task, memory=True), as_json=as_json)
