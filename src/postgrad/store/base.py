"""The contract of a store: one run's append-only event log and its artefacts.

The store is the only truth. The tree, the ledger, resume and the report are read from it; it knows none of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Protocol

from postgrad.events import Body, Event
from postgrad.store.artifacts import Artifacts


class Store(Protocol):
    """One run. A single writer appends; any number of readers look on."""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        ...

    @property
    def artifacts(self) -> Artifacts:
        """The run's artefacts. An event that names an artefact is appended after it was put."""
        ...

    def append(self, body: Body) -> Event:
        """Store one event for good, then return it with its number, its time and the run's clock.

        When this returns, the event survives a crash of the process and of the machine. Numbers go up by one from 1.

        Raises:
            PostgradError: nothing was stored: the disk is full or fails, or the store is closed or not the writer's.
        """
        ...

    def events(self, after: int = 0) -> tuple[Event, ...]:
        """Return every event whose number is greater than `after`, in order."""
        ...

    def in_order(self, types: Collection[str] = ()) -> Iterator[Event]:
        """Every event, one after the other, for logs that are too long to be held at once.

        Args:
            types: only events of these; of all where none is named.
        """
        ...

    def clock(self) -> float:
        """Return the seconds of controller time spent in this run: a writer's goes on from the last event, a reader's
        stands at it. Never runs backwards, whatever happens to the time of day."""
        ...

    def close(self) -> None:
        """Let go of the run. Idempotent."""
        ...
