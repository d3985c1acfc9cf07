"""The `postgrad` command: which commands there are. A command's file is imported when it is asked for.

Nothing heavy is imported here or at the top of a command's file, so that `postgrad --help` answers at once.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Any, Iterator, Mapping

import typer
from typer.core import TyperGroup

from postgrad import __version__
from postgrad.cli import output

# In the order that a user meets them. Each is `postgrad.cli.<name>` with a function `command`; where the file has a
# dictionary `OPEN`, these are more settings of its parser.
COMMANDS = (
    "init", "check", "run", "resume", "list", "show", "inbox", "mcp", "report", "export", "replay", "audit", "suite",
    "disk", "selftest", "bench", "contest", "memory", "doctor",
)  # fmt: skip
HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


class LazyCommands(Mapping[str, Any]):
    """Name -> command, imported when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        single = typer.Typer(add_completion=False)
        module = import_module(f"postgrad.cli.{name}")
        single.command(name, context_settings={**HELP_OPTIONS, **getattr(module, "OPEN", {})})(module.command)
        return typer.main.get_command(single)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class LazyGroup(TyperGroup):
    """The group of all commands."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "commands": LazyCommands()})

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)


app = typer.Typer(
    name="postgrad",
    cls=LazyGroup,
    add_completion=False,
    no_args_is_help=True,
    context_settings=HELP_OPTIONS,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"postgrad {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Objective, data, a small base model and a budget in; a tuned model and honest evidence out.

    Start with `postgrad init --train my.csv`, then `postgrad check task.yaml`, then `postgrad run task.yaml`.
    """


def main() -> None:
    """Run the command line and exit: 0 done, 1 our fault, 2 the input's fault, 130 stopped by the user."""
    group = typer.main.get_command(app)
    sys.excepthook = output.report_crash
    sys.exit(output.exit_code_of(lambda: group(prog_name="postgrad"), as_json="--json" in sys.argv))
