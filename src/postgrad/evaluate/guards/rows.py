"""Which rows the guards of a run are about: read once, before anything is spent, and stored with the run.

Side rows are rows that the user brings for a guard. They are asked in every unit beside its items; their labels stay
with the referee, and they enter no score and no choice of a threshold. No training may hold their texts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, Sequence

from postgrad.data.files import Table, read_lines
from postgrad.data.sources import read_source, to_rows
from postgrad.errors import UserError, near_miss
from postgrad.evaluate.guards import kind_name, kind_of, named
from postgrad.records import Guard, Record, Row, Slice, TaskSpec

PROMPTS = ".txt"
NO_LABEL = "-"
SHOWN = 8


class GuardPlan(Record):
    """Stored beside the split plan.

    Attributes:
        rows: artefact of all side rows, as JSON lines.
        asked: guard -> ids of its side rows.
        slices: guard -> split -> ids of its rows. A split whose file has no such column is left out.
    """

    rows: str | None = None
    asked: dict[str, tuple[str, ...]] = {}
    slices: dict[str, dict[str, tuple[str, ...]]] = {}


class SideRows(Record):
    """The side rows of a task: guard -> rows. Guards on the same file share them."""

    of: dict[str, tuple[Row, ...]] = {}

    @property
    def all(self) -> tuple[Row, ...]:
        """Each row once."""
        return tuple({row.id: row for rows in self.of.values() for row in rows}.values())


def side_rows(task: TaskSpec) -> SideRows:
    """Read the data sets that guards name. Ids are those of the texts, marked so that they are nobody else's.

    Raises:
        UserError: a file cannot be read, or does not hold what the guard needs.
    """
    known: dict[tuple[str, str, str | None], tuple[Row, ...]] = {}
    found = {}
    for name, guard in named(task.guards).items():
        if guard.data is None or kind_of(guard).takes_folder:
            continue
        labelled = kind_name(guard) == "metric"
        column = guard.input or task.data.input
        key = (guard.data, column, (guard.target or task.data.target) if labelled else None)
        if key not in known:
            try:
                rows = _rows(guard.data, column, key[2], task.kind == "generation")
            except UserError as wrong:
                raise UserError(f"The guard '{name}': {wrong}") from wrong
            mark = f"~side{len(known)}"
            known[key] = tuple(row._replace(id=f"{row.id}{mark}") for row in rows)
        found[name] = known[key]
    return SideRows(of=found)


def _rows(source: str, input: str, target: str | None, words: bool) -> tuple[Row, ...]:
    """The rows of a side set; those that need no label get one that nothing reads."""
    if Path(source).suffix.lower() == PROMPTS:
        lines = tuple((number, {input: text}) for number, text in read_lines(Path(source)))
        table = Table(source, (input,), lines)
    else:
        table = read_source(source)
    if target is not None:
        return to_rows(table, input=input, target=target, words=words)
    empty = f"{input} "  # No file has it: names of columns are stripped.
    records = tuple((line, {**cells, empty: NO_LABEL}) for line, cells in table.records)
    return to_rows(Table(table.name, (*table.columns, empty), records, table.unit), input=input, target=empty)


def check_labels(task: TaskSpec, side: SideRows, labels: Sequence[str]) -> None:
    """Refuse labelled side rows that no model of this run can get right.

    Raises:
        UserError: a label is neither one of the task nor out of scope.
    """
    known = {*labels, task.data.out_of_scope}
    if task.kind == "generation":  # Any text can be the right one.
        return
    for name, guard in named(task.guards).items():
        if kind_name(guard) != "metric" or guard.data is None:
            continue
        strange = [row.label for row in side.of[name] if row.label not in known]
        if strange:
            kinds = sorted(set(strange))
            count = "1 row" if len(strange) == 1 else f"{len(strange)} rows"
            raise UserError(
                f"The guard '{name}': {count} of {guard.data} with a label that no train row has "
                f"({', '.join(kinds[:SHOWN])}{', ...' if len(kinds) > SHOWN else ''}): no model can be right on them."
                f"{near_miss(kinds[0], labels)} Correct the labels, or name the column with the guard's target."
            )


def slice_rows(task: TaskSpec, stored: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Guard -> split -> ids of the given rows in its slice; `stored` are the rows of the splits.

    Raises:
        UserError: the column is not there, or no search row is in the slice.
    """
    tables: dict[str, Table] = {}
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, guard in named(task.guards).items():
        if guard.slice is None:
            continue
        found[name] = {}
        for split in ("search", "select", "sealed"):
            part = source_of(task, split)
            if part not in tables:
                tables[part] = read_source(str(getattr(task.data, part)), part=part)
            table = tables[part]
            if guard.slice.column not in table.columns:
                if split == "sealed":
                    continue
                raise UserError(_no_column(name, guard, table))
            inside = _members(task, table, guard.slice)
            ids = tuple(row.id for row in stored[split] if row.id in inside)
            if not ids and split == "search":
                raise UserError(_nobody(name, guard.slice, table))
            found[name][split] = ids
    return found


def source_of(task: TaskSpec, split: str) -> str:
    """Which part of the task's data the rows of a split come from."""
    own = "test" if split == "sealed" else "dev"
    return own if getattr(task.data, own) is not None else "train"


def _members(task: TaskSpec, table: Table, wanted: Slice) -> set[str]:
    words = task.kind == "generation"
    rows = to_rows(table, input=task.data.input, target=task.data.target, words=words)
    pairs = zip(rows, table.records, strict=True)
    return {row.id for row, (_, cells) in pairs if cell_text(cells.get(wanted.column)) == cell_text(wanted.equals)}


def cell_text(value: Any) -> str:
    """A cell as slices compare it: 3 and 3.0 are "3", true is "true", no value is ""."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _no_column(name: str, guard: Guard, table: Table) -> str:
    column = guard.slice.column if guard.slice else ""
    return (
        f"The guard '{name}': {table.name} has no column '{column}'.{near_miss(column, table.columns)} "
        f"Its columns: {', '.join(table.columns)}. Correct slice.column, or add the column."
    )


def _nobody(name: str, wanted: Slice, table: Table) -> str:
    values = sorted({cell_text(cells.get(wanted.column)) for _, cells in table.records})
    shown = f"{', '.join(values[:SHOWN])}{', ...' if len(values) > SHOWN else ''}"
    return (
        f"The guard '{name}': no search row has {wanted.column} = '{cell_text(wanted.equals)}'."
        f"{near_miss(cell_text(wanted.equals), values)} Values of {wanted.column} in {table.name}: {shown}."
    )
