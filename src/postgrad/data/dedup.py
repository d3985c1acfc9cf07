"""The `dedup` operator: one row for each normalised text."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Literal

from postgrad.data.text import normalise_text
from postgrad.records import Record, Row, StepReport


class DedupParams(Record):
    """Attributes:
    conflicts: what to do with a text that carries several labels: keep the first row, or drop all of them.
    """

    conflicts: Literal["keep_first", "drop"] = "keep_first"


class Dedup:
    """Keeps the first row of each normalised text, in file order."""

    Params: type[Record] = DedupParams
    seeded = False

    def apply(
        self,
        rows: tuple[Row, ...],
        params: DedupParams,
        rng: Random,
        *,
        out_of_scope: str | None,
        base_model: Path | None,
    ) -> tuple[tuple[Row, ...], StepReport]:
        """See `Operator.apply`."""
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            groups[normalise_text(row.text)].append(row)
        torn = {text for text, group in groups.items() if len({row.label for row in group}) > 1}
        kept = tuple(group[0] for text, group in groups.items() if not (params.conflicts == "drop" and text in torn))
        how = "the first was kept" if params.conflicts == "keep_first" else "all were dropped"
        note = f"{len(torn)} texts had several labels: {how}" if torn else ""
        dropped = len(rows) - len(kept)
        report = StepReport(op="dedup", rows_in=len(rows), rows_out=len(kept), dropped=dropped, note=note)
        return kept, report
