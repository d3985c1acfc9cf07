"""`postgrad memory`: what finished runs taught, and forgetting it."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postgrad.cli.output import JsonOption, console, print_json, span

if TYPE_CHECKING:
    from rich.console import RenderableType

    from postgrad.memory.book import Book, Contents
    from postgrad.memory.entries import KindEntry, TaskType
    from postgrad.records import EarlierLesson


class Action(StrEnum):
    SHOW = "show"
    FORGET = "forget"


def command(
    action: Annotated[Action, typer.Argument(help="Show what is remembered, or forget all of it.")] = Action.SHOW,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Forget without asking.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what finished runs taught about each kind of change, or forget it. It holds no data, name or path of a task.

    The task key `memory: off` and the variable POSTGRAD_MEMORY=off switch it off.
    """
    from postgrad.memory.book import Book, default_folder

    book = Book(default_folder())
    if action is Action.FORGET:
        _forget(book, yes, as_json)
    else:
        _show(book, as_json)


def _forget(book: Book, yes: bool, as_json: bool) -> None:
    from postgrad.errors import UserError

    there = os.path.exists(book.path)  # False where the folder may not be entered; `Path.exists` raises there.
    if not as_json:
        console(error=not yes).print(_what_goes(book) if there else "Nothing is remembered.", markup=False)
    if there and not yes:
        if as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UserError("Nothing was forgotten: there is nobody to ask. Say it with: postgrad memory forget --yes")
        if not typer.confirm("Forget it?", err=True):
            raise typer.Exit(1)
    book.forget()
    if as_json:
        print_json({"file": book.path, "forgotten": there})
    elif there:
        console().print("Forgotten.", markup=False)


def _what_goes(book: Book) -> str:
    """What forgetting removes, in words; also where the file cannot be read, since then it is what helps."""
    from postgrad.errors import PostgradError

    try:
        found = book.read()
    except PostgradError:
        return f"This removes {book.path}, which cannot be read."
    kinds = {kind.kind for entry in found.entries for kind in entry.kinds}
    return f"This removes what {len(found.entries)} finished runs taught on {len(kinds)} kinds of change: {book.path}"


def _show(book: Book, as_json: bool) -> None:
    from postgrad.memory.book import is_switched_off

    found = book.read()
    off = is_switched_off()
    kinds, lessons = _kinds(found), _lessons(found)
    if as_json:
        facts = {"file": book.path, "switched_off": off, "runs": len(found.entries), "ignored": found.ignored}
        facts |= {"later_lines": len(found.later), "kinds": kinds, "lessons": lessons, "entries": found.entries}
        print_json(facts)
        return
    out = console()
    if found.entries:
        out.print(_table(kinds))
        out.print(_tasks(found))
        out.print(_taught(lessons))
    else:
        out.print("Nothing is remembered yet. Every run that ends leaves what its kinds of change brought.")
    for line in _notes(book, found, off):
        out.print(line, style="dim", markup=False)


def _notes(book: Book, found: Contents, off: bool) -> list[str]:
    lines = [f"File: {book.path}"]
    if found.ignored:
        lines.append(f"{found.ignored} of its lines are no entries and are ignored.")
    if found.later:
        lines.append(f"{len(found.later)} of its lines are of a newer Postgrad and are ignored.")
    if off:
        lines.append("POSTGRAD_MEMORY switches it off: runs neither read nor write it.")
    return lines


def _kinds(found: Contents) -> list[dict[str, Any]]:
    """For each kind of change: what was seen of it, and what a run on a task of the last run's type starts from."""
    from postgrad.memory.prior import Normal, priors
    from postgrad.records import Prior
    from postgrad.research.priors import table

    if not found.entries:
        return []
    known = table()
    now = priors(found.entries, found.entries[-1].task, {kind: Normal(b.mean, b.sd) for kind, b in known.items()})
    rows = []
    for kind, prior in now.items():
        seen = [one for entry in found.entries for one in entry.kinds if one.kind == kind]
        table_says = Prior(mean=known[kind].mean, sd=known[kind].sd, runs=0)
        rows.append({"kind": kind, **_seen(seen), "table": table_says, "prior": prior})
    return sorted(rows, key=lambda row: -row["prior"].mean)


def _lessons(found: Contents) -> tuple[EarlierLesson, ...]:
    """What the brief of a run on a task as the last would say of earlier runs, but for what that run sees itself."""
    from postgrad.memory.library import taught
    from postgrad.memory.prior import Normal
    from postgrad.research.priors import table

    if not found.entries:
        return ()
    last, known = found.entries[-1], {kind: Normal(belief.mean, belief.sd) for kind, belief in table().items()}
    return taught(found.entries, last.task, last.bases, known)


def _taught(lessons: tuple[EarlierLesson, ...]) -> RenderableType:
    from rich.text import Text

    from postgrad.research.earlier import told

    lines = [line.removeprefix("- ") for line in told(lessons)] or ["none: no run's effect is clear of zero"]
    return Text("\n".join(["\nLessons, as a language model or a program is told them:", *lines]) + "\n")


def _seen(entries: list[KindEntry]) -> dict[str, Any]:
    count, failures = sum(one.count for one in entries), sum(one.failures for one in entries)
    effect = sum(one.count * one.mean for one in entries) / count if count else None
    cost = sum((one.count + one.failures) * one.cost_s for one in entries) / max(1, count + failures)
    return {"runs": len(entries), "experiments": count, "effect": effect, "failures": failures, "cost_s": cost}


def _table(kinds: list[dict[str, Any]]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("kind of change", no_wrap=True)
    for name in ("runs", "experiments", "effect", "failed", "cost", "before any run", "the next run starts from"):
        table.add_column(name, justify="right")
    for row in kinds:
        before, now = row["table"], row["prior"]
        table.add_row(
            row["kind"],
            str(row["runs"]),
            str(row["experiments"]),
            "-" if row["effect"] is None else f"{row['effect']:+.3f}",
            str(row["failures"]),
            span(row["cost_s"]),
            f"{before.mean:+.3f} ± {before.sd:.3f}",
            f"{now.mean:+.3f} ± {now.sd:.3f}",
        )
    return table


def _tasks(found: Contents) -> RenderableType:
    from collections import Counter

    from rich.text import Text

    counts = Counter(_words(entry.task) for entry in found.entries)
    lines = [f"{count} x {words}" for words, count in counts.most_common()]
    last = _words(found.entries[-1].task)
    return Text(
        "\nFinished runs: "
        + "; ".join(lines)
        + f".\nThe last column and the lessons are for a task as the last: {last}."
    )


def _words(task: TaskType) -> str:
    rejects = "with questions to reject" if task.rejects else "nothing to reject"
    return f"{task.kind}, {task.metric}, {rejects}, {task.rows} rows, {task.labels} labels"
