"""The `clean_labels` operator: train rows whose labels look wrong."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from typing import Literal

from pydantic import Field

from postgrad.data.labels import LIKELIER, suspects
from postgrad.records import Record, Row, StepReport

# What a data step adds to the id of the row that a copy was made from.
_MADE = re.compile(r"\+[a-z_]+.*")
DROPPED = "another label is far likelier"


class CleanLabelsParams(Record):
    """Attributes:
    action: leave such rows out, or give them the likelier label.
    likelier: how many times as likely another label has to be for a model that has not seen the row.
    """

    action: Literal["drop", "relabel"] = "drop"
    likelier: float = Field(default=LIKELIER, gt=1, allow_inf_nan=False)


class CleanLabels:
    """Judges the given rows of the step's input, and treats copies as the rows that they were made from."""

    Params: type[Record] = CleanLabelsParams
    seeded = False

    def apply(
        self,
        rows: tuple[Row, ...],
        params: CleanLabelsParams,
        rng: Random,
        *,
        out_of_scope: str | None,
        base_model: Path | None,
    ) -> tuple[tuple[Row, ...], StepReport]:
        """See `Operator.apply`."""
        given = [row for row in rows if row.label != out_of_scope and not _MADE.search(row.id)]
        odd = {each.id: each.suggested for each in suspects(given, params.likelier)}
        drop = params.action == "drop"
        if drop:
            kept = tuple(row for row in rows if _source(row) not in odd)
        else:
            kept = tuple(_relabelled(row, odd, out_of_scope) for row in rows)
        report = StepReport(
            op="clean_labels",
            rows_in=len(rows),
            rows_out=len(kept),
            dropped=len(rows) - len(kept),
            note=f"{len(odd)} of {len(given)} labels look wrong" if odd else "",
            removed={DROPPED: tuple(sorted(odd))} if odd and drop else {},
        )
        return kept, report


def _source(row: Row) -> str:
    return _MADE.sub("", row.id)


def _relabelled(row: Row, odd: dict[str, str], out_of_scope: str | None) -> Row:
    """Negatives that were made of a row stay negatives."""
    suggested = odd.get(_source(row))
    return row if suggested is None or row.label == out_of_scope else row._replace(label=suggested)
