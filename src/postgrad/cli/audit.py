"""`postgrad audit`: check a finished run backwards, from the final weights to its data and its base model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from postgrad.cli.output import RUNS_DIR, JsonOption, RunArgument, RunsDirOption, console, print_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from postgrad.audit import Audit

COLOURS = {"clean": "green", "finding": "bold red", "unknown": "yellow", "flagged": "cyan", "skipped": "dim"}
VERDICTS = {
    "clean": ("green", "Clean. Every check was made, and none found anything."),
    "findings": ("bold red", "Findings. Something is not as it must be."),
    "incomplete": ("yellow", "Incomplete. Nothing was found, and some checks could not be made."),
}
IDS_SHOWN = 5


def command(
    run: RunArgument,
    encoder: Annotated[
        bool, typer.Option(help="Look for neighbours under the base model as well. It is loaded for that.")
    ] = True,
    runs_dir: RunsDirOption = RUNS_DIR,
    as_json: JsonOption = False,
) -> None:
    """Check the champion of a finished run: was it trained on what it was asked, and do its weights come from its base?

    Trains nothing, reads no label, and never shows a sealed text. Exit code 0 when every check was made and is clean,
    else 1: the verdict says whether something was found or could not be checked.
    """
    from postgrad.audit import audit_run
    from postgrad.cli.runs import open_run
    from postgrad.errors import UserError
    from postgrad.session import run_started

    with open_run(runs_dir, run) as store:
        if run_started(store).task.script is not None:
            raise UserError(
                "An audit follows rows from the data to the weights, and what a script trains on is its own affair. "
                f"`postgrad show {run} champion` shows what was changed, and `postgrad replay {run}` runs it again."
            )
        found = audit_run(store, encoder=encoder)
    if as_json:
        print_json(found)
    else:
        console().print(_shown(found))
    raise typer.Exit(0 if found.verdict == "clean" else 1)


def _shown(found: Audit) -> RenderableType:
    """The verdict first, then each check. Texts are shown as they are: a "[" in them is no markup."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    colour, verdict = VERDICTS[found.verdict]
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("", "about", "check", "what was seen"):
        table.add_column(name, overflow="fold")
    for check in found.checks:
        ids = f" {', '.join(check.ids[:IDS_SHOWN])}" if check.ids else ""
        more = f" and {len(check.ids) - IDS_SHOWN} more" if len(check.ids) > IDS_SHOWN else ""
        table.add_row(
            Text(check.state, style=COLOURS[check.state]),
            Text(check.about, style="dim"),
            Text(check.name),
            Text(f"{check.words}{ids}{more}"),
        )
    model = f"{found.model[:12]}, " if found.model else ""
    head = Text.assemble(
        (verdict, colour), (f"\n{found.run} {found.experiment}, {model}recipe {found.recipe_hash}\n", "dim")
    )
    parts: list[RenderableType] = [head, table]
    if found.removed or found.matches:
        parts.append(Text(f"\nAll ids: postgrad audit {found.run} --json", style="dim"))
    return Group(*parts)
