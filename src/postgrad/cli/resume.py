"""`postgrad resume`: go on where a run was stopped or killed, or reopen one that has ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from postgrad.cli.output import RUNS_DIR, JsonOption, RunArgument, RunsDirOption, UnsandboxedOption, console

if TYPE_CHECKING:
    from postgrad.events import Body
    from postgrad.records import Budget, TaskSpec
    from postgrad.store.sqlite import SqliteStore


def command(
    run: RunArgument,
    budget: Annotated[
        str | None, typer.Option(help="A new budget for the whole run, what is spent included.", show_default=False)
    ] = None,
    task: Annotated[
        Path | None, typer.Option(help="The task file, where it was moved since the run began.", show_default=False)
    ] = None,
    again: Annotated[
        str | None,
        typer.Option(
            metavar="REASON",
            help="Reopen a run that has ended: search on, then read the sealed split once more. The reason is kept for "
            "ever and printed in every later report.",
            show_default=False,
        ),
    ] = None,
    unsandboxed: UnsandboxedOption = False,
    runs_dir: RunsDirOption = RUNS_DIR,
    as_json: JsonOption = False,
) -> None:
    """Go on where a run was stopped or killed. A run that has ended only gets its report again, unless it is reopened.

    The run keeps the task it was started with: splits, metric and data are part of its record. Edits of the task file
    are listed and take effect in a new run.
    """
    from postgrad.budget import parse_budget
    from postgrad.cli.driving import drive_with_screen, say_source_since
    from postgrad.cli.runs import open_run
    from postgrad.errors import UserError
    from postgrad.events import current
    from postgrad.session import run_started

    granted = parse_budget(budget) if budget else None
    store = open_run(runs_dir, run, write=True)
    first = run_started(store)
    note = _edits(first.task, task or _still_there(first.task_file))
    if note:
        _warn(f"The task file was edited since. This run goes on with the old one: {note}")
    say_source_since(store, first.task)
    if unsandboxed:
        note = "; ".join(filter(None, [note, "jobs run without a sandbox from here on"]))
    try:
        _go_on(store, current(store.in_order()), granted, again, note)
    except UserError:
        store.close()
        raise
    drive_with_screen(store, as_json=as_json, unsandboxed=unsandboxed)


def _go_on(store: SqliteStore, bodies: dict[str, Body], granted: Budget | None, again: str | None, note: str) -> None:
    """Record that the run goes on, and how.

    Raises:
        UserError: it has ended and the options ask for more without `--again`, or for `--again` without need.
    """
    from postgrad.errors import UserError
    from postgrad.runner import reopen, resume_event

    name = store.folder.name
    if again is not None:
        reopen(store, again, granted, note)
        return
    if granted and not granted.model_dump(exclude={"disk_gb"}, exclude_none=True):
        resume_event(store, granted, note)  # Room on the disk buys no search.
        return
    if "sealed_done" in bodies and granted:
        raise UserError(
            f"{name} has ended: its sealed split has been read, and more search would lead to a second look. "
            f'If you want that, say why, for the record: postgrad resume {name} --budget ... --again "the reason". '
            "For a result that nobody can doubt, start a new run with test rows that were not read yet."
        )
    if granted and "search_ended" in bodies:
        _warn(
            "The search of this run has ended and the sealed read is next, so the new budget buys no experiments. "
            "`postgrad resume` with --again searches on after it."
        )
    if "run_ended" not in bodies:
        resume_event(store, granted, note)


def _warn(text: str) -> None:
    """On standard error, so that it does not disturb `--json`."""
    console(error=True).print(text, style="yellow", markup=False)


def _still_there(path: str | None) -> Path | None:
    """The task file of the run, where it can still be read."""
    found = Path(path) if path else None
    return found if found is not None and found.is_file() else None


def _edits(old: TaskSpec, path: Path | None) -> str:
    """What the task file says now that the run's record does not. Budget, seed, policy and workers are left out:
    options of `run` set them, and a run keeps those. A file that is no task any more is an edit too."""
    from postgrad.errors import UserError
    from postgrad.spec import load_task, task_changes

    if path is None or (old.script is not None and not Path(old.script.source).is_dir()):
        return ""  # A task whose source is gone cannot be read for that alone, and that is said by itself.
    try:
        new = load_task(path)
    except UserError as problem:
        return f"it cannot be read any more ({problem})"
    kept = {"budget": old.budget, "seed": old.seed, "search": old.search, "engine": old.engine}
    return "; ".join(task_changes(old, new.model_copy(update=kept)))
