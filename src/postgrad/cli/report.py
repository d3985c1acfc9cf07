"""`postgrad report`: write the report of a run, finished or not, from its store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from postgrad.cli.output import RUNS_DIR, JsonOption, RunArgument, RunsDirOption, console, print_json


def command(
    run: RunArgument,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder to write into.", show_default="the run's own folder")
    ] = None,
    runs_dir: RunsDirOption = RUNS_DIR,
    as_json: JsonOption = False,
) -> None:
    """Write report.html and report.md of a run, and say where they are."""
    from postgrad.cli.runs import open_run
    from postgrad.report import TEXT, read_view, write_report
    from postgrad.report.badcases import why_it_errs

    with open_run(runs_dir, run) as store:
        folder = output or store.folder
        folder.mkdir(parents=True, exist_ok=True)
        page = write_report(read_view(store), folder, why_it_errs(store))
    if as_json:
        print_json({"run": store.folder.name, "report": page, "markdown": folder / TEXT})
    else:
        console().print(f"{page}\n{folder / TEXT}", soft_wrap=True, markup=False)
