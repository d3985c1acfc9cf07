"""`postgrad list`: the runs there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postgrad.cli.output import RUNS_DIR, JsonOption, RunsDirOption, console, print_json, span

if TYPE_CHECKING:
    from postgrad.cli.runs import RunLine

COLOURS = {"running": "cyan", "finished": "green", "interrupted": "yellow", "failed": "red", "damaged": "red"}


def command(runs_dir: RunsDirOption = RUNS_DIR, as_json: JsonOption = False) -> None:
    """List the runs, oldest first: their state, champion and what they have spent."""
    from postgrad.cli.runs import describe
    from postgrad.store.sqlite import run_folders

    lines = [describe(folder) for folder in run_folders(runs_dir)]
    if as_json:
        print_json(lines)
    elif lines:
        _print(lines)
    else:
        console().print(f"No runs in {runs_dir}. Start one with: postgrad run task.yaml", markup=False)


def _print(lines: list[RunLine]) -> None:
    from datetime import datetime

    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("run", "task", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("experiments", "champion", "search", "sealed", "spent"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("started", no_wrap=True)
    for line in lines:
        scores = [f"{value:.3f}" if value is not None else "-" for value in (line.search, line.sealed)]
        started = datetime.fromtimestamp(line.started).strftime("%Y-%m-%d %H:%M") if line.started else "-"
        state = f"[{COLOURS[line.state]}]{line.state}[/]"
        count = str(line.experiments) if line.experiments else "-"
        table.add_row(
            line.run, line.task or "-", state, count, line.champion or "-", *scores, span(line.spent_s), started
        )
    console().print(table)
    for line in lines:
        if line.note:
            console().print(f"{line.run}: {line.note}", style="dim", markup=False)
    for line in lines:
        if line.asks:
            console().print(f"{line.run}: {line.asks}", style="yellow", markup=False)
    if any(line.state == "interrupted" for line in lines):
        console().print("\n[dim]An interrupted run goes on with:[/dim] postgrad resume RUN")
