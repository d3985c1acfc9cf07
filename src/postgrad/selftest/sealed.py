"""The sealed labels are read once: whatever is tried afterwards without a reason reads nothing."""

from __future__ import annotations

import shutil
from typing import Callable, Iterator

from postgrad.errors import PostgradError, UserError
from postgrad.events import SealedDone, sealed_reads
from postgrad.loop import Loop
from postgrad.records import Budget
from postgrad.runner import drive, opened, reopen
from postgrad.seal import seal
from postgrad.selftest.base import Observation, Sentinel
from postgrad.selftest.place import Place
from postgrad.session import Session
from postgrad.store.sqlite import SqliteStore

MORE = Budget(experiments=9)
Attempt = Callable[[Session, SqliteStore], None]


def play(place: Place) -> Iterator[Observation]:
    """Ways to a second read of a run that has ended."""
    folder = place.folder / "read-again"
    shutil.copytree(place.plain, folder)
    store = SqliteStore.open(folder, write=True)
    with opened(store) as session:
        first = [event.body for event in sealed_reads(store.events())]
        once = len(first) == 1 and isinstance(first[0], SealedDone) and first[0].number == 1
        yield Observation(ok=once, words=f"{len(first)} read in a run that has ended")
        for what, attempt in ATTEMPTS.items():
            yield _tried(session, store, what, attempt)


def _tried(session: Session, store: SqliteStore, what: str, attempt: Attempt) -> Observation:
    """Refused, or without anything that was read."""
    before = store.events()
    try:
        attempt(session, store)
        said = "nothing was read"
    except (PostgradError, UserError):
        said = "refused"
    after = store.events()
    more = len(sealed_reads(after)) - len(sealed_reads(before))
    reopened = any(event.body.type == "reopened" for event in after[len(before) :])
    said = f"{more} more read" if more else "reopened" if reopened else said
    return Observation(ok=not more and not reopened, words=f"{what}: {said}")


def _seal_again(session: Session, store: SqliteStore) -> None:
    seal(session, Loop(session).run_jobs)


def _go_on(session: Session, store: SqliteStore) -> None:
    drive(session)


def _reopen_silently(session: Session, store: SqliteStore) -> None:
    reopen(store, " ", MORE)


def _forget(session: Session, store: SqliteStore) -> None:
    """What a bug might do: the session has lost that the labels were read, and owes the read."""
    session.bodies.pop("sealed_done", None)
    drive(session)


ATTEMPTS = {
    "reading again": _seal_again,
    "resuming": _go_on,
    "reopening without a reason": _reopen_silently,
    "having forgotten the read": _forget,
}
SENTINEL = Sentinel("sealed", "the sealed labels are read once, and never again without a reason", 1.0, play)
