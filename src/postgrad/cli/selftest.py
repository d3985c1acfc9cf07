"""`postgrad selftest`: attack the system's own honesty, and see whether it holds on this machine."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Iterator

import typer

from postgrad.cli.output import JsonOption, console, print_json, span

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from postgrad.selftest import Progress
    from postgrad.selftest.base import Finding, Sentinel


def command(
    sentinels: Annotated[
        list[str] | None, typer.Argument(metavar="[SENTINEL]...", help="Only these sentinels.", show_default=False)
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="Keep the runs that are made in a new folder of this one, to look at.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Play the sentinels: shuffled labels, changes of nothing, leaked test rows, workers that cheat and others.

    All parts are real, and all work is in a temporary folder. Exit code 1 when a sentinel is red.
    """
    from postgrad.selftest import chosen

    wanted = chosen(sentinels or [])
    started = time.monotonic()
    with _folder(keep) as folder:
        findings = _played(wanted, folder, quiet=as_json)
    wall_s = time.monotonic() - started
    green = all(finding.green for finding in findings)
    if as_json:
        kept = folder if keep else None
        print_json({"green": green, "wall_s": round(wall_s, 1), "folder": kept, "sentinels": findings})
    else:
        console().print(_table(findings, wall_s))
    raise typer.Exit(0 if green else 1)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """A new folder for the work; it is removed unless it is to be kept."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="postgrad-selftest-", dir=keep)).resolve()
    try:
        yield folder
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def _played(wanted: tuple[Sentinel, ...], folder: Path, *, quiet: bool) -> list[Finding]:
    """Play them; on a terminal with a line that says what is going on, in a pipe with a line for each that ended."""
    from rich.text import Text

    from postgrad.selftest import play_all

    screen = console(error=True)
    findings: list[Finding] = []
    shows = screen.is_terminal and not quiet
    with screen.status("") as status:
        if not shows:
            status.stop()

        def tell(progress: Progress) -> None:
            if shows:
                status.update(Text(_line(progress)))

        for finding in play_all(wanted, folder, tell):
            findings.append(finding)
            if not quiet:
                done = f"{len(findings)} of {len(wanted)}  {span(finding.wall_s):>6}  "
                screen.print(Text.assemble((done, "dim"), _state(finding), f" {finding.sentinel}: {finding.checks}"))
    return findings


def _line(progress: Progress) -> str:
    place = f"{progress.done + 1} of {progress.total} {progress.sentinel.name}"
    left = round(progress.left_s)
    return f"{place}: {progress.phase}, {f'about {span(left)} left' if left else 'longer than forecast'}"


def _state(finding: Finding) -> Text:
    from rich.text import Text

    return Text("green", style="green") if finding.green else Text("RED", style="bold red")


def _table(findings: list[Finding], wall_s: float) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 1, 0))
    for name in ("", "sentinel", "what it checks", "what was seen"):
        table.add_column(name, overflow="fold")
    table.add_column("seconds", justify="right")
    for finding in findings:
        seen = Text("\n").join(Text(each.words, style="" if each.ok else "bold red") for each in finding.seen)
        row = (Text(finding.sentinel, style="bold"), Text(finding.checks), seen, Text(f"{finding.wall_s:.1f}"))
        table.add_row(_state(finding), *row)
    red = [finding.sentinel for finding in findings if not finding.green]
    if red:
        verdict = Text(f"{len(red)} of {len(findings)} red: {', '.join(red)}. ", style="bold red")
        verdict.append("Do not rely on results of this machine before that is explained.", style="default")
    else:
        verdict = Text(f"All {len(findings)} green.", style="green")
    return Group(table, Text.assemble(verdict, (f" {span(wall_s)}.", "dim")))
