"""Sections of text within a bound of tokens: each has a share, and what one leaves goes to those that lack room.

What was left out is said in every section, so that a reader knows that there is more.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Callable, Sequence

from postgrad.llm.counting import BYTES_PER_TOKEN, size
from postgrad.records import Record

# Tokens that are kept for the note of what was left out.
NOTE = 40


class Section(Record):
    """A part of a brief. `left_out` says what of it was left out; "" for nothing."""

    title: str
    lines: tuple[str, ...]
    left_out: str = ""

    @property
    def text(self) -> str:
        """The section as it is read."""
        note = (f"[left out: {self.left_out}]",) if self.left_out else ()
        return "\n".join((f"## {self.title}", *self.lines, *note))


class Brief(Record):
    """What a proposer is told. `tokens` are an estimate on the dear side."""

    sections: tuple[Section, ...]
    tokens: int

    @property
    def text(self) -> str:
        """The whole of it."""
        return "\n\n".join(section.text for section in self.sections)

    def section(self, title: str) -> Section:
        """The section with this title; it has one."""
        return next(section for section in self.sections if section.title == title)


def some(left: int) -> str:
    """That so many lines were left out."""
    return f"{left:,} more"


@dataclass(frozen=True)
class Draft:
    """A section before it is fitted.

    Attributes:
        lines: the most important first.
        share: of the tokens; 0 for what is never cut.
        more: lines that were not even written, because there would be too many.
        left_out: words for so many lines that were left out.
    """

    title: str
    lines: Sequence[str]
    share: float = 0.0
    more: int = 0
    left_out: Callable[[int], str] = some


def tokens(text: str) -> int:
    """Tokens of a text: an estimate that errs to the dear side for English."""
    return ceil(size(text) / BYTES_PER_TOKEN)


def fitted(drafts: Sequence[Draft], most: int) -> Brief:
    """The sections within `most` tokens, as long as what is never cut leaves room: each as far as its share goes, then
    in their order as far as is left."""
    costs = [[tokens(f"{line}\n") for line in draft.lines] for draft in drafts]
    heads = [tokens(f"## {draft.title}\n\n\n") + (NOTE if draft.share else 0) for draft in drafts]
    fixed = sum(sum(cost) for draft, cost in zip(drafts, costs, strict=True) if not draft.share)
    room = max(0, most - fixed - sum(heads))
    whole = sum(draft.share for draft in drafts)
    shown = [
        len(cost) if not draft.share else _fit(cost, 0, room * draft.share / whole)
        for draft, cost in zip(drafts, costs, strict=True)
    ]
    pool = room - sum(sum(cost[:n]) for draft, cost, n in zip(drafts, costs, shown, strict=True) if draft.share)
    for place, cost in enumerate(costs):
        further = _fit(cost, shown[place], pool)
        pool -= sum(cost[shown[place] : further])
        shown[place] = further
    sections = tuple(_section(draft, n) for draft, n in zip(drafts, shown, strict=True))
    made = Brief(sections=sections, tokens=0)
    return made.model_copy(update={"tokens": tokens(made.text)})


def _fit(costs: Sequence[int], start: int, room: float) -> int:
    """How many lines there may be, where `start` of them are there already and the next ones have so much room."""
    end = start
    while end < len(costs) and costs[end] <= room:
        room -= costs[end]
        end += 1
    return end


def _section(draft: Draft, shown: int) -> Section:
    left = len(draft.lines) - shown + draft.more
    note = draft.left_out(left)[: int(BYTES_PER_TOKEN) * NOTE - 20] if left else ""
    return Section(title=draft.title, lines=tuple(draft.lines[:shown]), left_out=note)
