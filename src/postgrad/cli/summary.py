"""What is left on the screen when a run has ended: the verdict, the sealed table, where things are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from postgrad.cli.output import span
from postgrad.report.wording import ROLE_NAMES

if TYPE_CHECKING:
    from rich.console import RenderableType

    from postgrad.records import SealedRead
    from postgrad.report.view import RunView


def closing(view: RunView, folder: Path) -> RenderableType:
    """The last screen."""
    from rich.console import Group
    from rich.text import Text

    from postgrad.report.readings import readings_of
    from postgrad.report.summary import headline

    parts: list[RenderableType] = [Text(headline(view), style="bold")]
    parts += [Text(remark, style="yellow") for remark in view.verdict.remarks]
    if (told := readings_of(view)) is not None:
        parts += [Text(line, style="yellow") for line in told.lines]
    if view.sealed is not None:
        parts.append(_table(view.sealed, len(view.readings)))
    parts.append(
        Text.assemble(
            ("\nmodel   ", "dim"),
            f"{folder / 'model'}\n",
            ("report  ", "dim"),
            f"{folder / 'report.html'}\n",
            ("again   ", "dim"),
            f"postgrad replay {view.run}\n",
            ("take it ", "dim"),
            f"postgrad export {view.run} my-model\n",
            ("spent   ", "dim"),
            f"{span(view.spent.wall_s)}, {span(view.spent.cpu_s)} of CPU",
        )
    )
    return Group(*parts)


def _table(read: SealedRead, times: int) -> RenderableType:
    """The sealed scores, best known first."""
    from rich.table import Table

    from postgrad.report.content import secondary
    from postgrad.report.wording import percent

    extra = secondary(read)
    how = "sealed, read once" if times == 1 else f"sealed, read {times} times"
    table = Table(how, read.metric, percent(read.confidence), *extra, box=None, pad_edge=False)
    for score in read.scores:
        found = score.estimate
        table.add_row(
            f"{ROLE_NAMES[score.role].lower()} ({score.experiment})",
            f"{found.value:.3f}",
            f"[{found.low:.3f}, {found.high:.3f}]".replace("[", "\\["),
            *(f"{score.metrics[name]:.3f}" if name in score.metrics else "-" for name in extra),
        )
    return table
