"""What anybody could see of a run's log before a kill has to be there after it, letter by letter."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from postgrad.store.sqlite import EVENTS

Line = tuple[float, float, str, str]
BUSY_S = 10.0


@dataclass
class Watch:
    """A reader beside the writer.

    Attributes:
        seen: number of an event -> when, clock, type and body, as they were first seen.
        wrong: what was seen otherwise later on.
    """

    run: Path
    seen: dict[int, Line] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def look(self) -> int:
        """Read what is new; return how many events there are."""
        with suppress(sqlite3.OperationalError):  # The writer is at it, or was killed at it: the next look sees it.
            self.seen |= dict(self._lines(max(self.seen, default=0)))
        return len(self.seen)

    def compare(self) -> None:
        """Read everything again: nothing may be lost, changed or out of order."""
        there = dict(self._lines(0))
        for number, line in self.seen.items():
            if there.get(number) != line:
                now = "is gone" if number not in there else "was changed"
                self.wrong.append(f"event {number} ({line[2]}) had been stored, and {now}")
        if list(there) != list(range(1, len(there) + 1)):
            self.wrong.append(f"the numbers of events have gaps: {len(there)} up to {max(there, default=0)}")
        clocks = [line[1] for line in there.values()]
        if clocks != sorted(clocks):
            self.wrong.append("the run's clock ran backwards")
        self.seen |= there

    def _lines(self, after: int) -> list[tuple[int, Line]]:
        if not (self.run / EVENTS).exists():
            return []
        address = f"{(self.run / EVENTS).resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=BUSY_S)) as log:
            question = "SELECT seq, at, clock, type, body FROM events WHERE seq > ? ORDER BY seq"
            return [
                (number, (at, clock, kind, body)) for number, at, clock, kind, body in log.execute(question, (after,))
            ]
