"""What a run takes from finished runs when it begins, and what it leaves for later ones when it has ended.

Both may fail without harm: a run without memory is a run. What was read is recorded once, in `DataPrepared`, and the
search goes by the log alone; so a resumed run does not depend on what the file says by then.
"""

from __future__ import annotations

import time
from secrets import token_hex

from pydantic import ValidationError

from postgrad import __version__
from postgrad.errors import PostgradError
from postgrad.memory.book import Book, default_folder, is_switched_off
from postgrad.memory.effects import brought
from postgrad.memory.entries import Base, RunEntry, kind_entries, task_type
from postgrad.memory.library import taught
from postgrad.memory.prior import Normal, priors
from postgrad.records import Remembered, TaskSpec
from postgrad.research.priors import table
from postgrad.session import Session
from postgrad.train.models import model_kind


def new_name(task: TaskSpec) -> str | None:
    """A name by chance that a new run is remembered under; None where it is not to be."""
    return token_hex(16) if task.memory and not is_switched_off() else None


def recall(task: TaskSpec, rows: int, labels: int) -> Remembered:
    """What finished runs taught, for a task with so many train rows and labels."""
    if is_switched_off():
        return Remembered()
    try:
        found = Book(default_folder()).read()
    except PostgradError as problem:
        return Remembered(notes=(f"Nothing was taken from finished runs: {problem}",))
    known = {kind: Normal(belief.mean, belief.sd) for kind, belief in table().items()}
    notes = (f"{found.ignored} lines of the memory are no entries and were left out.",) if found.ignored else ()
    about = task_type(task, rows, labels)
    return Remembered(
        runs=len(found.entries),
        priors=priors(found.entries, about, known),
        lessons=taught(found.entries, about, bases(task), known),
        notes=notes,
    )


def bases(task: TaskSpec) -> tuple[Base, ...]:
    """The kinds of base model that a task names."""
    kinds: set[Base] = {model_kind(name) for name in task.base_models}
    return tuple(sorted(kinds or {"none"}))


def remember(session: Session) -> str | None:
    """Keep what this run taught, in place of what was kept of it before.

    Returns:
        Why it could not be kept, for the person; None where it was, or where the run is not to be remembered.
    """
    if session.memory is None or "run_ended" not in session.bodies or is_switched_off():
        return None
    try:
        Book(default_folder()).put(_entry(session, session.memory))
    except (PostgradError, ValidationError) as problem:
        return f"The run is complete, but later runs will not learn from it: {problem}"
    return None


def _entry(session: Session, name: str) -> RunEntry:
    ended = [event.at for event in session.store.in_order(("run_ended",))][-1]
    return RunEntry(
        run=name,
        month=time.strftime("%Y-%m", time.gmtime(ended)),
        postgrad=__version__,
        task=task_type(session.task, len(session.rows("train")), len(session.plan.labels)),
        kinds=kind_entries(brought(session.tree), table()),
        bases=bases(session.task),
    )
