"""What all commands share: options, printing for people and for programs, and what an error looks like.

Results go to standard output, everything else to standard error, so that `--json` output can be piped.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import sys
import tempfile
import traceback
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Callable, Iterable

import typer

from postgrad.errors import Interrupted, PostgradError, UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
RunsDirOption = Annotated[
    Path, typer.Option("--runs-dir", envvar="POSTGRAD_RUNS", help="Folder that holds the runs.", show_default="./runs")
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's name, the beginning of it, or `last`.", show_default=False)
]
UnsandboxedOption = Annotated[
    bool,
    typer.Option(
        "--unsandboxed", help="Run jobs without a sandbox: whatever a job runs can read your files. It is recorded."
    ),
]
RUNS_DIR = Path("runs")

FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What `tempfile` says, by the number of a missing file, where no folder for temporary files can be written.
NO_TEMPORARY = "No usable temporary directory"
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
WIDTH_IN_A_PIPE = 120


def console(error: bool = False) -> Console:
    """A console on standard output or error. In a pipe it is wide, and without colour.

    Texts come from data files: what they hold is shown, and moves no cursor and sets no title.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    from postgrad.data.text import visible

    class DataConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(visible(segment.text), segment.style)

    made = DataConsole(stderr=error, highlight=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = WIDTH_IN_A_PIPE
    return made


def plain(value: Any) -> Any:
    """The JSON form of a value: records become objects, numbers that JSON does not know become null."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    # JSON leaves these as they are, and a terminal may act on them.
    sys.stdout.write(re.sub(r"[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")
    sys.stdout.flush()


def span(seconds: float | None) -> str:
    """A length of time as budgets are written: "45s", "12m5s", "3h20m"; "-" for none."""
    from postgrad.budget import format_duration

    return "-" if seconds is None else format_duration(seconds)


def facts(pairs: Iterable[tuple[str, str]]) -> Table:
    """Names and what is known of them, in two columns. The texts are shown as they are: a "[" in them is no markup."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in pairs:
        table.add_row(name, Text(text))
    return table


def exit_code_of(call: Callable[[], object], *, as_json: bool) -> int:
    """Make the call, show what a person has to know, and return the exit code.

    Typer turns a Ctrl-C that nothing else took into exit code 130. What is not named here is a bug: it reaches
    `report_crash`, and the code is 1.
    """
    try:
        call()
    except UserError as problem:
        return _show("error", str(problem), problem.exit_code, as_json)
    except PostgradError as problem:
        return _show("failed", str(problem), problem.exit_code, as_json)
    except Interrupted as stopped:
        return _show("stopped", str(stopped) or "Stopped.", stopped.exit_code, as_json)
    except OSError as problem:
        if problem.errno in FULL_DISK or NO_TEMPORARY in str(problem):
            return _show("failed", _full_disk(problem), PostgradError.exit_code, as_json)
        if problem.errno in REFUSED:
            return _show("error", _refused(problem), UserError.exit_code, as_json)
        raise
    return 0


def _full_disk(problem: OSError) -> str:
    return (
        f"The disk is full{_place(problem)}. Nothing that was stored is lost. Make room, then go on with: "
        "postgrad resume RUN"
    )


def _refused(problem: OSError) -> str:
    return (
        f"The system refused: {problem.strerror}{_place(problem)}. Postgrad reads the task's files and writes its "
        "runs. Give it the rights, or name another folder with --runs-dir or --output."
    )


def _place(problem: OSError) -> str:
    return f" ({problem.filename})" if problem.filename else ""


def _show(kind: str, text: str, code: int, as_json: bool) -> int:
    """The block that an error is shown in; with --json also a document on standard output."""
    from rich.panel import Panel
    from rich.text import Text

    from postgrad.data.text import visible

    if as_json:
        print_json({"error": {"kind": kind, "message": text, "exit_code": code}})
    colour = "yellow" if kind == "stopped" else "red"
    panel = Panel(Text(text), title=f"[bold]{kind}[/bold]", title_align="left", border_style=colour)
    target = console(error=True)
    if target.is_terminal:
        target.print(panel)
    else:
        sys.stderr.write(f"{kind}: {visible(text)}\n")
    return code


def report_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """`sys.excepthook`: keep the traceback in a file, and tell the person what it is and what to do."""
    full = "".join(traceback.format_exception(kind, error, trace))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="postgrad-crash-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(full)
        kept = f"The traceback is in {file.name}."
    except OSError:
        sys.stderr.write(full)
        kept = "The traceback is above; it could not be written to a file."
    _show(
        "bug",
        f"Postgrad hit something it does not know: {kind.__name__}: {error}\n"
        f"{kept} Nothing that was stored is lost: `postgrad list` shows the run, `postgrad resume RUN` goes on. "
        "Please report it with that file and the output of `postgrad doctor`.",
        1,
        "--json" in sys.argv,
    )
