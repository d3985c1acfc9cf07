"""Test rows in the train file, copied and lightly edited: found, taken out, counted, and found again by the audit."""

from __future__ import annotations

from typing import Iterator, Sequence

from postgrad.audit import audit_run
from postgrad.data.card import build_card
from postgrad.evaluate.splits import dump_rows, split_task
from postgrad.events import DataPrepared
from postgrad.prepare import load_parts
from postgrad.records import TaskSpec
from postgrad.report import TEXT
from postgrad.selftest.base import Observation, Sentinel
from postgrad.selftest.place import TRAIN_EACH, Place, cheat, reading
from postgrad.selftest.texts import Example, messages
from postgrad.session import Session

TEST_EACH = 5


def leaks(test: Sequence[Example]) -> list[Example]:
    """Test rows as they get into train files: twice as they are, then with light edits."""
    (same, a), (again, b), (loud, c), (turned, d), (typed, e), (framed, f) = test[::TEST_EACH][:6]
    middle = len(typed) // 2
    return [
        (same, a),
        (again, b),
        (f"{loud.upper()} !!", c),
        (" ".join(reversed(turned.split())), d),
        (typed[:middle] + typed[middle + 1 :], e),
        (f"hello there, {framed}, thank you", f),
    ]


def play(place: Place) -> Iterator[Observation]:
    """A run as it should be, and one whose split and workers let everything through."""
    yield from taken_out(place)
    yield from let_through(place)


def _planted(place: Place) -> tuple[TaskSpec, set[str]]:
    """A task with leaked rows, and their ids."""
    test = messages(TEST_EACH, 8)
    planted = leaks(test)
    task = place.task("leak", [*messages(TRAIN_EACH, 7), *planted], test, experiments=2)
    texts = {text for text, _ in planted}
    return task, {row.id for row in load_parts(task).train if row.text in texts}


def taken_out(place: Place) -> Iterator[Observation]:
    """A run as it should be, and its audit."""
    task, ids = _planted(place)
    run = place.run(task)
    with reading(run) as (store, view):
        removed = {found.match.row for found in view.contamination.removed}
        found = audit_run(store, encoder=False)
    words = f"{len(removed & ids)} of {len(ids)} planted rows were taken out, and {len(removed - ids)} others"
    yield Observation(ok=removed == ids, words=words)
    told = f"{len(ids)} rows of train" in (run / TEXT).read_text(encoding="utf-8")
    yield Observation(ok=told, words=f"the report {'counts' if told else 'does not count'} them")
    wrong = [check.name for check in found.checks if check.state == "finding"]
    yield Observation(ok=not wrong, words=f"audit: {', '.join(wrong) or 'no finding'}")


def let_through(place: Place) -> Iterator[Observation]:
    """The audit of a run in which nothing is removed, by the split or by the worker."""
    task, ids = _planted(place)
    tampered = place.run(task, engine=cheat("unchecked"), before=prepare_unchecked)
    with reading(tampered) as (store, _):
        found = audit_run(store, encoder=False)
    seen = {match.row for match in found.matches}
    words = f"with the removal switched off, audit finds {len(seen & ids)} of {len(ids)}: {found.verdict}"
    yield Observation(ok=ids <= seen and found.verdict == "findings", words=words)


def prepare_unchecked(session: Session) -> None:
    """What `prepare` would do if the split let contaminated rows through."""
    task, put = session.task, session.store.artifacts.put_bytes
    parts = load_parts(task)
    plan, stored = split_task(task, parts)
    gone = {match.row for match in (plan.matches or {}).get("train", ())}
    leaked = tuple(row for row in parts.train if row.id in gone)
    names = tuple(row.id for row in leaked)
    stored = {**stored, "train": (*stored["train"], *leaked)}
    changes = {
        "rows": {name: put(dump_rows(rows)) for name, rows in stored.items()},
        "search": tuple(unit.model_copy(update={"train": (*unit.train, *names)}) for unit in plan.search),
        "select": tuple(unit.model_copy(update={"train": (*unit.train, *names)}) for unit in plan.select),
        "removed": {"train": 0, "dev": 0},
        "matches": {"train": (), "dev": ()},
    }
    whole = plan.model_copy(update=changes)
    card = build_card({"train": parts.train, "dev": (), "test": parts.test}, out_of_scope=None)
    session.append(DataPrepared(card=card, labels=plan.labels, plan=put(whole.model_dump_json().encode())))


SENTINEL = Sentinel("leak", "test rows in the train file are found, taken out and counted", 15.0, play)
