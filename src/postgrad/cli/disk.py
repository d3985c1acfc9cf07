"""`postgrad disk`: what a run's folder holds, what of it stays and why, and freeing what nothing needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Sequence

import typer

from postgrad.cli.output import RUNS_DIR, JsonOption, RunArgument, RunsDirOption, console, print_json

if TYPE_CHECKING:
    from postgrad.events import Removed
    from postgrad.keeping import Part
    from postgrad.store.sqlite import SqliteStore


def command(
    run: RunArgument,
    free: Annotated[bool, typer.Option("--free", help="Remove what nothing needs, and record it in the run.")] = False,
    runs_dir: RunsDirOption = RUNS_DIR,
    as_json: JsonOption = False,
) -> None:
    """Show what the folder of a run holds, what of it stays and why. With --free, remove what nothing needs any more.

    Rows, answers, items and the champion always stay. A run that is being written frees by itself what it must, under
    the key `disk` of its budget.
    """
    from postgrad.cli.runs import is_being_written, open_run
    from postgrad.keeping import free as freed_of

    with open_run(runs_dir, run, write=free) as store:
        parts, granted = _parts(store, quiet=free or not is_being_written(store.folder))
        removed = freed_of(store, store.append, parts, "a person asked for it") if free else ()
        if as_json:
            facts = {"run": store.folder.name, "folder": store.folder, "bytes": sum(part.bytes for part in parts)}
            print_json({**facts, "granted_gb": granted, "parts": parts, "freed": removed})
        else:
            _print(parts, removed, granted, store.folder.name, free)


def _parts(store: SqliteStore, *, quiet: bool) -> tuple[tuple[Part, ...], float | None]:
    """What the folder holds, and the disk that the run was granted. `quiet`: nobody else writes the run."""
    from postgrad.budget import Ledger
    from postgrad.keeping import Known, named_in, survey
    from postgrad.session import run_started

    granted = Ledger.from_events(run_started(store).task.budget, store.in_order()).granted.disk_gb
    known = Known.of_events(store.in_order())
    if quiet:
        return survey(store.folder, store.artifacts, known, named=named_in(store, known.models)), granted
    running = [place.name for place in (store.folder / "scratch").glob("*")]
    return survey(store.folder, store.artifacts, known, running), granted


def _print(parts: Sequence[Part], removed: Sequence[Removed], granted: float | None, run: str, asked: bool) -> None:
    from rich.table import Table

    from postgrad.keeping import called, told_size

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("what")
    table.add_column("stays because")
    gone = {(each.kind, each.name) for each in removed}
    for part in parts:
        why = part.stays or ("[green]removed[/green]" if (part.kind, part.name) in gone else "[yellow]may go[/yellow]")
        table.add_row(told_size(part.bytes), called(part), why)
    console().print(table)
    total, may_go = sum(part.bytes for part in parts), sum(part.bytes for part in parts if not part.stays)
    limit = f" of {granted:g} GB granted" if granted is not None else ""
    if asked:
        freed = sum(each.bytes for each in removed)
        console().print(f"{told_size(total - freed)}{limit}; {told_size(freed)} were freed.", markup=False)
    else:
        more = f"; {told_size(may_go)} may go: postgrad disk {run} --free" if may_go else ""
        console().print(f"{told_size(total)}{limit}{more}", markup=False)
