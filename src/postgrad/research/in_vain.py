"""Questions that were answered, and paid, and that no experiment began with: they are on the account all the same.

The search may end, or go on without it, while an answer is on its way; and a controller may be killed between an answer
and the event that would have held it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Callable, Iterable

from postgrad.events import AskedInVain, BadCasesDescribed, Event, Proposed
from postgrad.llm.recorded import costs
from postgrad.records import Asked
from postgrad.research.assemble import RECORD
from postgrad.research.language_model import account

# Experiment, parent and proposer, as `Asking` names its questions.
NAMED = re.compile(r"e\d+ (?:(?:-|e\d+) )?(.+)")
WHY = "the search went on, or ended, without it"


def asked_in_vain(folder: Path, events: Callable[[], Iterable[Event]]) -> tuple[Asked, ...]:
    """The questions of a run's folder that are in none of its events, in the order they were asked. The events are read
    only where something was asked."""
    record = folder / RECORD
    if not record.exists():
        return ()
    booked = {slot for event in events() if (slot := _slot(event)) is not None}
    return tuple(
        Asked(proposer=_proposer(slot), slot=slot, failed=WHY, rounds=rounds).model_copy(update=account(usage))
        for slot, (usage, rounds) in costs(record).items()
        if slot not in booked
    )


def _proposer(slot: str) -> str:
    """Who was asked, as far as the name of a question tells."""
    found = NAMED.fullmatch(slot)
    return found[1] if found else slot


def _slot(event: Event) -> str | None:
    """The name of the question that an event holds."""
    body = event.body
    if isinstance(body, AskedInVain | BadCasesDescribed):
        return body.asked.slot
    if not isinstance(body, Proposed) or body.proposal.asked is None:
        return None
    asked = body.proposal.asked
    # Before questions kept their names they were named by experiment and proposer.
    return asked.slot or f"{body.experiment} {asked.proposer}"
