"""What may be kept of a finished run: a closed form without room for a text, a name, a path or a label of its task.

Every word in an entry is one that Postgrad itself has (a kind of change, a metric of its own, a size class) or is drawn
by chance. Entries are data: whatever reads them gets values within bounds, or nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Annotated, Collection, Final, Literal, Mapping

from pydantic import Field

from postgrad.memory.effects import Brought
from postgrad.metrics import METRICS, TEXT_METRICS
from postgrad.records import Record, TaskSpec

FORMAT: Final = 2
OTHER = "other"
NAMED = 3
ROWS_FROM = (300, 1_000, 3_000, 10_000, 100_000)
LABELS_FROM = (3, 10, 30, 100)

Rows = Literal["under 300", "300 to 999", "1,000 to 2,999", "3,000 to 9,999", "10,000 to 99,999", "100,000 or more"]
Labels = Literal["2", "3 to 9", "10 to 29", "30 to 99", "100 or more"]
ROWS: tuple[Rows, ...] = (
    "under 300", "300 to 999", "1,000 to 2,999", "3,000 to 9,999", "10,000 to 99,999", "100,000 or more",
)  # fmt: skip
LABELS: tuple[Labels, ...] = ("2", "3 to 9", "10 to 29", "30 to 99", "100 or more")

Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)?$", max_length=40)]
Name = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Experiment = Annotated[str, Field(pattern=r"^e[0-9]{4,7}$")]
Base = Literal["none", "encoder", "causal_lm"]
Count = Annotated[int, Field(ge=0, le=1_000_000, strict=True)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class TaskType(Record):
    """What tasks are compared by. `metric` is one of Postgrad's own, or "other"."""

    kind: Word
    metric: Word
    rejects: bool
    rows: Rows
    labels: Labels


class KindEntry(Record):
    """What one kind of change brought in one run.

    Attributes:
        count: experiments whose effect was measured.
        mean: their effect on the metric over the parent, corrected for noise and luck; 0 where there is none.
        variance: of that mean, as an estimate of what the kind brings in such a run.
        failures: experiments that failed; they are not in `count`.
        cost_s: mean nominal seconds of all of them, to two digits.
        experiments: the last ones that were measured, or where none was, that failed; none in entries of version 1.
    """

    kind: Word
    count: Count
    mean: Annotated[Finite, Field(ge=-1, le=1)] = 0.0
    variance: Annotated[Finite, Field(gt=0, le=1)] = 1.0
    failures: Count = 0
    cost_s: Annotated[Finite, Field(ge=0, le=1e9)] = 0.0
    experiments: Annotated[tuple[Experiment, ...], Field(max_length=NAMED)] = ()


class RunEntry(Record):
    """What is kept of one finished run. `run` was drawn by chance when the run began, and is in its log.

    Version 1 knew neither `bases`, the kinds of base model that the task names, nor the experiments of a kind.
    """

    version: Literal[1, 2] = FORMAT
    run: Name
    month: Annotated[str, Field(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$")]
    postgrad: Annotated[str, Field(pattern=r"^[0-9][0-9A-Za-z.+]{0,30}$")]
    task: TaskType
    kinds: Annotated[tuple[KindEntry, ...], Field(max_length=300)]
    bases: Annotated[tuple[Base, ...], Field(max_length=3)] = ()

    @property
    def line(self) -> str:
        """The entry as it is written. One of version 1 stays what that version can read."""
        if self.version == 1:
            return self.model_dump_json(exclude={"bases": True, "kinds": {"__all__": {"experiments"}}})
        return self.model_dump_json()


def task_type(task: TaskSpec, rows: int, labels: int) -> TaskType:
    """The type of a task with so many train rows and labels."""
    return TaskType(
        kind=task.kind,
        metric=task.metric if METRICS.is_own(task.metric) or TEXT_METRICS.is_own(task.metric) else OTHER,
        rejects=task.data.out_of_scope is not None,
        rows=ROWS[bisect_right(ROWS_FROM, rows)],
        labels=LABELS[bisect_right(LABELS_FROM, labels)],
    )


def kind_entries(found: Mapping[str, Brought], known: Collection[str]) -> tuple[KindEntry, ...]:
    """The entries of a run. Kinds that are not known are left out: a researcher may put anything into a kind's name."""
    entries = []
    for kind, seen in sorted(found.items()):
        if kind not in known or not (seen.effect or seen.failures):
            continue
        measured = seen.effect
        entries.append(
            KindEntry(
                kind=kind,
                count=seen.count if measured else 0,
                mean=round(min(1.0, max(-1.0, measured.value)), 4) if measured else 0.0,
                variance=float(f"{min(1.0, measured.variance):.2g}") if measured else 1.0,
                failures=seen.failures,
                cost_s=float(f"{sum(seen.costs_s) / len(seen.costs_s):.2g}"),
                experiments=tuple((seen.measured if measured else seen.failed)[-NAMED:]),
            )
        )
    return tuple(entries)
