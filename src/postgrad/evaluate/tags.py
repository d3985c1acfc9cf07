"""Further columns of the search rows, by which bad cases are cut into slices, such as the channel a text came by."""

from __future__ import annotations

import json
from typing import Mapping, Sequence

from postgrad.data.sources import read_source, to_rows
from postgrad.errors import UserError, near_miss
from postgrad.evaluate.guards.rows import cell_text, source_of
from postgrad.records import Row, TaskSpec

Tags = Mapping[str, Mapping[str, str]]


def tags_of(task: TaskSpec, search: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Row id -> column -> value, for the columns that the task names; rows without a value are left out.

    Raises:
        UserError: the file of the search rows has no such column.
    """
    if not task.data.slices:
        return {}
    part = source_of(task, "search")
    table = read_source(str(getattr(task.data, part)), part=part)
    for column in task.data.slices:
        if column not in table.columns:
            raise UserError(
                f"data.slices: {table.name} has no column '{column}'.{near_miss(column, table.columns)} Its columns: "
                f"{', '.join(table.columns)}. Correct the name, or leave it out."
            )
    rows = to_rows(table, input=task.data.input, target=task.data.target, words=task.kind == "generation")
    wanted = {row.id for row in search}
    found = {}
    for row, (_, cells) in zip(rows, table.records, strict=True):
        told = {column: cell_text(cells.get(column)) for column in task.data.slices}
        if row.id in wanted and any(told.values()):
            found[row.id] = told
    return found


def dump_tags(tags: Tags) -> bytes:
    """As they are stored."""
    return json.dumps(tags, ensure_ascii=False, sort_keys=True).encode()


def load_tags(stored: bytes) -> dict[str, dict[str, str]]:
    """What `dump_tags` made."""
    found: dict[str, dict[str, str]] = json.loads(stored)
    return found
