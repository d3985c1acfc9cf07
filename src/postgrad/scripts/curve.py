"""What a script says of itself while it trains: the loss that it printed last, at some shares of its time.

Nobody checked that number. It is compared with what finished trainings printed at the same moment and came to, to end
what has hardly a chance; it is never a score.
"""

from __future__ import annotations

import re
import time
from math import isfinite
from pathlib import Path

from postgrad.execute.files import read_tail

#: Shares of the time that a script is told to train for, counted from its start.
SHARES = (0.25, 0.5, 0.75)
# A look that comes later than this share of the time sees another moment: the controller was busy.
LATE = 0.03
TAIL_BYTES = 8_000
_SAID = re.compile(
    r"\b(?P<key>\w*(?:loss|bpb|nll|perplexity|ppl))\b[\"']?\s*[:=]?\s*(?P<value>[-+]?\d+\.?\d*(?:e[-+]?\d+)?)(?![\w.%])",
    re.IGNORECASE,
)


def key_at(share: float) -> str:
    """The name under which what was said at a share of the time is kept with a result."""
    return f"said_at_{share:g}"


def last_said(text: str) -> float | None:
    """The last number that is printed as a loss, whatever else the line says; None where there is none."""
    found = None
    for match in _SAID.finditer(text):
        found = match
    value = float(found["value"]) if found else None
    return value if value is not None and isfinite(value) else None


class Curve:
    """What one training said at each of `SHARES`.

    Args:
        log: what it prints.
        time_s: what it is told to train for.
        begun: of `time.monotonic`, when it was started.
    """

    def __init__(self, log: Path, time_s: float, begun: float) -> None:
        self._log, self._time_s, self._begun = log, time_s, begun
        self._left = list(SHARES)
        self.points: dict[float, float] = {}

    def look(self) -> None:
        """Keep what it said last, where one of the moments has come."""
        done = (time.monotonic() - self._begun) / self._time_s
        while self._left and done >= self._left[0]:
            share = self._left.pop(0)
            said = last_said(read_tail(self._log, TAIL_BYTES)) if done <= share + LATE else None
            if said is not None:
                self.points[share] = said

    @property
    def measured(self) -> dict[str, float]:
        """The points as they are kept with a result."""
        return {key_at(share): value for share, value in self.points.items()}
