"""The report as Markdown: what the page says, for a pull request, a wiki or a terminal.

Every value is escaped before it is written, so that a text from the data can be neither markup nor HTML.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Callable, Sequence

from postgrad.budget import format_duration
from postgrad.report import wording
from postgrad.report.content import contents, result_word
from postgrad.report.terminal import champion_scores, sparkline
from postgrad.report.view import RunView
from postgrad.tree import Experiment

if TYPE_CHECKING:
    from jinja2 import Environment

# What means something wherever it stands; underscores at the edge of a word; the rest only where a line begins.
_ANYWHERE = re.compile(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_]))")
_AT_START = re.compile(r"^([-+](?=[-+\s]|$)|[#>=]|\d+[.)](?=\s|$))")
_HTML = re.compile(r"<(?! )|&(?=#|\w+;)")
_ADDRESS = re.compile(r"(?i)\b(https?|ftp|www|mailto)([:.])|@")
TREE_LIMIT = 60


class Written(str):
    """Text that is Markdown already: made here from escaped parts, never from data as it is."""


def escape(value: object) -> str:
    """A value as one line of Markdown text that means itself: no markup, no HTML, no address that becomes a link."""
    if isinstance(value, Written):
        return value
    text = _HTML.sub(lambda found: "&lt;" if found[0] == "<" else "&amp;", " ".join(str(value).split()))
    text = _AT_START.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", _ANYWHERE.sub(r"\\\1", text))
    return _ADDRESS.sub(lambda found: f"{found[0][:-1]}&#8203;{found[0][-1]}", text)


def code(value: object) -> Written:
    """A value as inline code, with a fence longer than any run of backticks in it."""
    text = " ".join(str(value).split())
    fence = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return Written(f"{fence}{space}{text}{space}{fence}".replace("|", "\\|"))


def block(text: str) -> Written:
    """A text in a fenced block that it cannot end."""
    fence = "`" * max(3, max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    return Written(f"{fence}text\n{text}\n{fence}")


def text_tree(view: RunView) -> str:
    """The tree in lines. Of a long search, the champion's path and the best: the page has all of it."""
    nodes = view.tree.all()
    path = {node.id for node in view.tree.path(view.champion.id)} if view.champion else set()
    kept = {node.id for node in nodes}
    if len(nodes) > TREE_LIMIT:
        kept = set(path)
        for node in view.tree.scored()[: TREE_LIMIT // 2]:
            kept |= {step.id for step in view.tree.path(node.id)}
    lines: list[str] = []
    waiting = [(node, 0) for node in reversed(view.tree.roots())]
    while waiting:
        node, depth = waiting.pop()
        if node.id in kept:
            lines.append(_tree_line(view, node, depth, node.id in path))
        waiting += [(child, depth + 1) for child in reversed(view.tree.children(node.id))]
    left = len(nodes) - len(kept)
    return "\n".join([*lines, f"({wording.plural(left, 'experiment')} more)"] if left else lines)


def _tree_line(view: RunView, node: Experiment, depth: int, on_path: bool) -> str:
    mark = "*" if view.champion and node.id == view.champion.id else "|" if on_path else " "
    score = wording.number(node.evaluation.estimate.value if node.evaluation else None)
    change = wording.short(node.proposed.proposal.change, 60)
    return f"{mark} {'  ' * depth}{node.id}  {score:>6}  {result_word(node):<13}  {change}".rstrip()


def markdown_report(view: RunView, why: Sequence[str] = ()) -> str:
    """The report of a run, finished or not."""
    scores = champion_scores(view)
    rendered = (
        environment()
        .get_template("report.md.j2")
        .render(
            view=view,
            page=contents(view),
            why=why,
            figures=Written(view.verdict.figures),
            curve=Written(sparkline(scores, 60)),
            first=wording.number(scores[0]) if scores else wording.NONE,
            last=wording.number(scores[-1]) if scores else wording.NONE,
            tree=block(text_tree(view)),
            result_word=result_word,
        )
    )
    return re.sub(r"\n{3,}", "\n\n", rendered).strip() + "\n"


def environment() -> Environment:
    """Templates whose every value goes through `escape`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("postgrad.report", "templates"),
        autoescape=False,
        finalize=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    numbers: dict[str, Callable[..., str]] = {
        "number": wording.number,
        "signed": wording.signed,
        "estimate": wording.estimate,
        "difference": wording.difference,
        "interval": wording.interval,
        "p_value": wording.p_value,
    }
    filters: dict[str, Any] = {
        "metric": wording.metric_name,
        "kind": wording.kind_name,
        "method": wording.method,
        "plural": wording.plural,
        "setting": wording.setting,
        "duration": format_duration,
        "day": wording.day,
        "short": wording.short,
        "recipe_lines": wording.recipe_lines,
        "pared": wording.pared,
        "decision": wording.decision,
        "code": code,
        "block": block,
    }
    made.filters.update(filters)
    made.filters.update({name: _as_written(show) for name, show in numbers.items()})
    return made


def _as_written(show: Callable[..., str]) -> Callable[..., Written]:
    """Figures hold no text of the data: the brackets of an interval stay brackets."""
    return lambda *values: Written(show(*values))
