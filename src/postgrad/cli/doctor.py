"""`postgrad doctor`: what this machine has, what is missing, and what to do about it. Changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from postgrad.cli.output import RUNS_DIR, JsonOption, RunsDirOption, console, print_json

if TYPE_CHECKING:
    from postgrad.cli.machine import Finding

MARKS = {
    "ok": "[green]ok[/green]",
    "warn": "[yellow]warn[/yellow]",
    "fail": "[red]fail[/red]",
    "info": "[dim]info[/dim]",
}


def command(runs_dir: RunsDirOption = RUNS_DIR, as_json: JsonOption = False) -> None:
    """Look at this machine: cores, memory, disk, libraries, models.

    Exit code 1 when something must be repaired before a run.
    """
    from postgrad.cli.machine import look

    findings = look(Path(runs_dir))
    healthy = all(finding.status != "fail" for finding in findings)
    if as_json:
        print_json({"healthy": healthy, "findings": findings})
    else:
        _print(findings)
    raise typer.Exit(0 if healthy else 1)


def _print(findings: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    screen = console()
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(MARKS[finding.status], finding.name, Text(finding.found))
        if finding.advice:
            table.add_row("", "", Text(f"→ {finding.advice}", style="dim"))
    screen.print(table)
    counts = {status: sum(finding.status == status for finding in findings) for status in ("fail", "warn")}
    screen.print(f"\n{counts['fail']} to repair, {counts['warn']} to know about.")
