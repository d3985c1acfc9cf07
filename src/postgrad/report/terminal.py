"""The tree and the champion's curve for a terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Sequence

from postgrad.report import wording
from postgrad.tree import Experiment, State

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree as RichTree

    from postgrad.report.view import RunView

BLOCKS = "▁▂▃▄▅▆▇█"
STYLES = {
    State.DONE: "",
    State.RACED: "yellow",
    State.FAILED: "red",
    State.UNSCORED: "dim",
    State.PENDING: "cyan",
}


def champion_sparkline(view: RunView, width: int = 40) -> str:
    """The champion's search score over the experiments that have ended, one block a column; "" before the first."""
    values = champion_scores(view)
    return sparkline(values, width) if values else ""


def champion_scores(view: RunView) -> list[float]:
    """The champion's search score after each closed experiment, from the first champion on."""
    values: list[float] = []
    reigns = list(view.reigns)
    score = math.nan
    for closed in range(1, len(view.moments) + 1):
        while reigns and reigns[0].closed <= closed:
            score = reigns.pop(0).estimate.value
        if math.isfinite(score):
            values.append(score)
    return values


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Blocks for values; of more values than columns, each column shows the last of its share."""
    columns = min(width, len(values))
    shown = [values[(column + 1) * len(values) // columns - 1] for column in range(columns)]
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    steps = len(BLOCKS) - 1
    return "".join(BLOCKS[round(steps * (value - low) / (high - low)) if high > low else steps] for value in shown)


def terminal_tree(view: RunView, *, changes: int = 60) -> RichTree:
    """The tree for a rich console: id, score, outcome, change (cut at `changes` characters), the champion in bold."""
    from rich.text import Text
    from rich.tree import Tree as RichTree

    path = {node.id for node in view.tree.path(view.champion.id)} if view.champion else set()
    root = RichTree(
        Text(f"{view.run}  {wording.plural(len(view.tree), 'experiment')}", style="bold"), guide_style="dim"
    )
    branches: dict[str | None, RichTree] = {None: root}
    for node in view.tree.all():
        above = branches[node.parent]
        on_path = node.id in path
        branches[node.id] = above.add(_line(view, node, on_path, changes), guide_style="green" if on_path else "dim")
    return root


def _line(view: RunView, node: Experiment, on_path: bool, changes: int) -> Text:
    from rich.text import Text

    champion = view.champion is not None and node.id == view.champion.id
    score = wording.number(node.evaluation.estimate.value if node.evaluation else None)
    verdict = "waits for you" if node.waits else node.verdict or node.state.value
    style = STYLES[node.state]
    return Text.assemble(
        ("★ " if champion else "", "bold green"),
        (node.id, "bold green" if on_path else "bold"),
        "  ",
        (score, style),
        "  ",
        (verdict, style or "dim"),
        "  ",
        (wording.short(node.proposed.proposal.change, changes), "" if on_path else "dim"),
    )
