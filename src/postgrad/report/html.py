"""The report as one self-contained HTML page: no script, no outside link, no font to fetch.

Every text that comes from data or from a recipe is escaped by the template engine; the pictures escape their own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Callable, Sequence

from postgrad.budget import format_budget, format_duration
from postgrad.report import pictures, wording
from postgrad.report.content import contents, result_word
from postgrad.report.view import RunView

if TYPE_CHECKING:
    from jinja2 import Environment

NO_BREAK = "\u00a0"
_INTERVAL = re.compile(r"(\[[^\],]*), ")
_SIGN = re.compile(r"(?:(?<=[ \[])|^)-(?=\d)")


def html_report(view: RunView, why: Sequence[str] = ()) -> str:
    """The page of a run, finished or not."""
    template = _environment().get_template("report.html.j2")
    return template.render(view=view, page=contents(view), why=why, pictures=pictures, result_word=result_word)


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("postgrad.report", "templates"),
        autoescape=True,
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
    }
    made.filters.update({name: _with_minus(show) for name, show in numbers.items()})
    made.filters.update(
        minus=lambda shown: minus(str(shown)),
        setting=wording.setting,
        p_value=lambda p: wording.p_value(p).replace(" ", NO_BREAK),
        metric=wording.metric_name,
        kind=wording.kind_name,
        method=wording.method,
        plural=wording.plural,
        duration=format_duration,
        budget=format_budget,
        day=wording.day,
        short=wording.short,
        recipe_lines=wording.recipe_lines,
        pared=wording.pared,
        moment=wording.moment,
        came_of=wording.came_of,
    )
    return made


def minus(shown: str) -> str:
    """A typographic minus before numbers, no line break inside an interval, and a dash for "none"."""
    return "–" if shown == wording.NONE else _INTERVAL.sub(rf"\1,{NO_BREAK}", _SIGN.sub("−", shown))


def _with_minus(show: Callable[..., str]) -> Callable[..., str]:
    return lambda *values, **options: minus(show(*values, **options))
