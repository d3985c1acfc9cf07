"""How often the sealed split was read, in words: the page, the Markdown, the card and the screen all say it.

One read after everything is decided needs no words. A second one does, and for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from postgrad.report import wording

if TYPE_CHECKING:
    from postgrad.report.view import Reading, RunView

WARNING = (
    "Only the first read is untouched by selection: whoever searched on knew what the reads before had said, so the "
    "intervals of later ones are too optimistic, wider though they are."
)


@dataclass(frozen=True)
class Readings:
    """What is said: how many reads, each of them, and what that means for the last."""

    lead: str
    reads: tuple[str, ...]
    warning: str

    @property
    def lines(self) -> tuple[str, ...]:
        numbered = (f"{number}) {read}" for number, read in enumerate(self.reads, start=1))
        return (self.lead, *numbered, self.warning)


def readings_of(view: RunView) -> Readings | None:
    """None for a run that was never reopened."""
    count = len(view.readings)
    if count == 0 or (count == 1 and view.reopened is None):
        return None
    lead = f"The sealed split was read {wording.plural(count, 'time')}"
    if view.reopened is not None:
        lead += f", and the run was reopened for one more because '{view.reopened}'"
        warning = WARNING
    else:
        warning = f"{WARNING} That of the last is a {wording.percent(view.readings[-1].read.confidence)} interval, "
        warning += f"widened for {count} reads (Bonferroni)."
    return Readings(f"{lead}.", tuple(_told(reading) for reading in view.readings), warning)


def _told(reading: Reading) -> str:
    read = reading.read
    words = (
        f"{wording.day(reading.at)}: champion {reading.champion}, "
        f"difference {wording.difference(read.difference)} ({wording.percent(read.confidence)} interval)"
    )
    words += ", not certified" if read.refused else ""
    return f"{words}, because '{reading.reason}'." if reading.reason else f"{words}."
