"""Task -> data card and split plan, stored before anything is spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Mapping, Sequence

from postgrad.choices import check_choices
from postgrad.data.card import build_card
from postgrad.data.sources import load_rows
from postgrad.evaluate.guards.rows import GuardPlan, SideRows, check_labels, side_rows, slice_rows
from postgrad.evaluate.judge_control import judge_control
from postgrad.evaluate.judging import judge_folder
from postgrad.evaluate.splits import Parts, dump_rows, split_task
from postgrad.evaluate.tags import dump_tags, tags_of
from postgrad.events import DataPrepared
from postgrad.isolated import build_environments
from postgrad.recall import recall
from postgrad.records import JudgeControl, Row, TaskSpec
from postgrad.scripts.prepare import prepare_script
from postgrad.scripts.session import ScriptSession
from postgrad.session import Session
from postgrad.train.models import resolve_model


def part_rows(task: TaskSpec, part: str) -> tuple[Row, ...]:
    """The rows of `train`, `dev` or `test`; () where the task has no such file.

    Raises:
        UserError: the file is missing or not what the task says.
    """
    data, source = task.data, getattr(task.data, part)
    if source is None:
        return ()
    words = task.kind == "generation"
    rows = load_rows(source, part=part, input=data.input, target=data.target, check=data.check, words=words)
    check_choices(rows, task.generation, part)
    return rows


def load_parts(task: TaskSpec) -> Parts:
    """Read the task's files.

    Raises:
        UserError: a file is missing or not what the task says.
    """
    given = {part: part_rows(task, part) for part in ("train", "dev", "test")}
    return Parts(**given, side=side_rows(task).all)


def plan_guards(
    task: TaskSpec, labels: Sequence[str], stored: Mapping[str, Sequence[Row]], put: Callable[[bytes], str]
) -> GuardPlan:
    """Which rows each guard is about; `stored` are the rows of the splits, `put` keeps the side rows.

    Raises:
        UserError: a file or a column is missing, a slice is empty, or a side row has an unknown label.
    """
    side: SideRows = side_rows(task)
    check_labels(task, side, labels)
    return GuardPlan(
        rows=put(dump_rows(side.all)) if side.of else None,
        asked={name: tuple(row.id for row in rows) for name, rows in side.of.items()},
        slices=slice_rows(task, stored),
    )


def prepare(session: Session, say: Callable[[str], None] = lambda line: None) -> None:
    """Load, look, split, store. `say` is told what takes long."""
    task = session.task
    if isinstance(session, ScriptSession):
        prepare_script(session, say)
        return
    for base in task.base_models:  # What kind a model is, and so what is tried, can be read once it is here.
        resolve_model(base)
    if task.judge is not None:
        judge_folder(task.judge)
    build_environments(task, say)
    parts = load_parts(task)
    stored = store_plan(session, parts)
    given = {"train": parts.train, "dev": parts.dev, "test": parts.test}
    card = build_card(given, task.data.out_of_scope, words=task.kind == "generation")
    known = recall(task, len(stored.rows["train"]), len(stored.labels)) if session.memory is not None else None
    found = _controlled(session, stored.rows["search"], say)
    session.append(
        DataPrepared(
            card=card,
            labels=stored.labels,
            plan=stored.plan,
            guards=stored.guards,
            remembered=known,
            judge=found,
            tags=stored.tags,
        )
    )


@dataclass(frozen=True)
class Stored:
    """Names of what says how the rows of a task are split, and the rows themselves by part."""

    plan: str
    guards: str | None
    tags: str | None
    labels: tuple[str, ...]
    rows: Mapping[str, Sequence[Row]]


def store_plan(session: Session, parts: Parts) -> Stored:
    """Split, and store what the run is measured by. The same rows give the same artefacts."""
    task, put = session.task, session.store.artifacts.put_bytes
    plan, stored = split_task(task, parts)
    plan = plan.model_copy(update={"rows": {name: put(dump_rows(rows)) for name, rows in stored.items()}})
    guards = put(plan_guards(task, plan.labels, stored, put).model_dump_json().encode()) if task.guards else None
    tags = tags_of(task, stored["search"])
    named = put(plan.model_dump_json().encode())
    return Stored(named, guards, put(dump_tags(tags)) if tags else None, plan.labels, stored)


def _controlled(session: Session, rows: Sequence[Row], say: Callable[[str], None]) -> JudgeControl | None:
    """Ask the task's judge where the right answer is known."""
    if session.judge is None:
        return None
    say("asking the judge where the right answer is known")
    return judge_control(session.judge, rows)
