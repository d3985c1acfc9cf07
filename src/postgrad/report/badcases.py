"""What the report says of the bad cases of a run, with a language model's words where the run asked for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from postgrad.analyze.causes import Cause
from postgrad.erring import read_findings, words_of
from postgrad.errors import PostgradError, UserError
from postgrad.events import BadCasesDescribed
from postgrad.report.wording import plural

if TYPE_CHECKING:
    from postgrad.store.sqlite import SqliteStore

SHOWN = 5


def why_it_errs(store: SqliteStore) -> tuple[str, ...]:
    """What the report says of the champion's bad cases, a line each; nothing where there is nothing to analyse.

    Clusters by words, so that writing a report loads no model.
    """
    try:
        found = read_findings(store)
    except UserError:
        return ()
    except PostgradError as problem:
        return (f"The bad cases could not be analysed: {problem}",)
    often, words = found.solved, words_of(store, found.experiment)
    lines = [
        f"Of {plural(found.items, 'search item')}, {found.wrong} are not solved. Over "
        f"{plural(found.experiments, 'experiment')}, {often['never']} are never solved, {often['sometimes']} sometimes "
        f"and {often['always']} always; {often['open']} were asked too seldom to say."
    ]
    lines += [
        f"{cause.known.where}, {cause.kind}: {_told(cause)}{said(words, 'causes', cause.kind)}"
        for cause in found.causes
    ]
    lines += [f"weak slice, {each.words}" for each in found.slices[:SHOWN]]
    lines += [
        f"{plural(topic.size, 'text')} about: {topic.name}.{said(words, 'topics', topic.name)}"
        for topic in found.topics[:SHOWN]
    ]
    return tuple(lines)


def said(words: BadCasesDescribed | None, part: Literal["topics", "causes"], name: str) -> str:
    """What a language model calls a cluster or a cause, as its words; "" where it said nothing. No quotation mark
    of its own can end the quotation."""
    if words is None:
        return ""
    told = (words.topics if part == "topics" else words.causes).get(name)
    if told is None:
        return ""
    text = f"{told.name}: {told.sentence}".replace("“", '"').replace("”", '"')
    return f" In the words of {words.asked.proposer}: “{text}”"


def _told(cause: Cause) -> str:
    advice = f" Or {cause.known.otherwise}." if cause.known.otherwise else ""
    return f"{cause.words}. Moves that address it: {', '.join(cause.known.moves)}.{advice}"
