"""The `balance` operator: more equal numbers of rows for the in-scope labels, by copies and by a cap."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from random import Random

from pydantic import Field

from postgrad.data.text import AddedIds
from postgrad.records import Record, Row, StepReport


class BalanceParams(Record):
    """How equal.

    Attributes:
        ratio: copies are added until every label has this share of the largest label's rows (after the cap).
            0 adds none.
        cap: at most this many rows of a label; the rest is dropped by chance. None drops none.
    """

    ratio: float = Field(default=0.5, ge=0.0, le=1.0)
    cap: int | None = Field(default=None, ge=1)


class Balance:
    """Copies rows of small labels and drops rows of large ones. Negatives are left alone: their number has its own
    operators."""

    Params: type[Record] = BalanceParams

    def apply(
        self,
        rows: tuple[Row, ...],
        params: BalanceParams,
        rng: Random,
        *,
        out_of_scope: str | None,
        base_model: Path | None,
    ) -> tuple[tuple[Row, ...], StepReport]:
        """See `Operator.apply`."""
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            if row.label != out_of_scope:
                groups[row.label].append(row)
        gone: set[str] = set()
        for group in groups.values():
            if params.cap is not None and len(group) > params.cap:
                gone.update(row.id for row in rng.sample(group, len(group) - params.cap))
        kept = tuple(row for row in rows if row.id not in gone)
        added = _copies([[row for row in group if row.id not in gone] for group in groups.values()], params, rows, rng)
        report = StepReport(
            op="balance", rows_in=len(rows), rows_out=len(kept) + len(added), dropped=len(gone), added=len(added)
        )
        return (*kept, *added), report


def _copies(groups: list[list[Row]], params: BalanceParams, rows: tuple[Row, ...], rng: Random) -> list[Row]:
    """Rows of the small groups again, each as often as the others of its group, give or take one."""
    ids = AddedIds("balance", (row.id for row in rows))
    goal = math.ceil(params.ratio * max((len(group) for group in groups), default=0))
    copies = []
    for group in groups:
        missing = max(0, goal - len(group))
        order = rng.sample(group, len(group))
        copies += [row._replace(id=ids.new(row.id)) for row in (order[i % len(group)] for i in range(missing))]
    return copies
