"""Task -> data card and split plan, stored before anything is spent."""

from __future__ import annotations

from postgrad.data.card import build_card
from postgrad.data.sources import load_rows as load_source
from postgrad.evaluate.splits import Parts, dump_rows, split_task
from postgrad.events import DataPrepared
from postgrad.records import Row, TaskSpec
from postgrad.session import Session


def load_parts(task: TaskSpec) -> Parts:
    """Read the task's files.

    Raises:
        UserError: a file is missing or not what the task says.
    """
    data = task.data

    def read(source: str | None, part: str) -> tuple[Row, ...]:
        if source is None:
            return ()
        return load_source(source, part=part, input=data.input, target=data.target)

    return Parts(train=read(data.train, "train"), dev=read(data.dev, "dev"), test=read(data.test, "test"))


def prepare(session: Session) -> None:
    """Load, look, split, store."""
    task = session.task
    parts = load_parts(task)
    plan, stored = split_task(task, parts)
    put = session.store.artifacts.put_bytes
    plan = plan.model_copy(update={"rows": {name: put(dump_rows(rows)) for name, rows in stored.items()}})
    card = build_card({"train": parts.train, "dev": parts.dev, "test": parts.test}, out_of_scope=task.data.out_of_scope)
    session.append(DataPrepared(card=card, labels=plan.labels, plan=put(plan.model_dump_json().encode())))
