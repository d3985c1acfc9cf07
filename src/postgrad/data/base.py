"""The contract of a data operator. Operators run inside the worker, on train rows only."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any, Protocol

from postgrad.records import Record, Row, StepReport


class Operator(Protocol):
    """Changes training rows. Pure: the input is untouched, and the generator is the only source of chance.

    An operator that never draws may say so: `seeded = False`.
    """

    Params: type[Record]

    def apply(
        self, rows: tuple[Row, ...], params: Any, rng: Random, *, out_of_scope: str | None, base_model: Path | None
    ) -> tuple[tuple[Row, ...], StepReport]:
        """Return new rows and a report of what was dropped or added, and why.

        `params` is a validated `Params`. `out_of_scope` is the label that negatives get. Ids of added rows are
        `<source id>+<op>` with a counter, so that lineage stays readable.
        """
        ...
