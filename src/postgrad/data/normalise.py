"""The `normalise` operator: one way of writing for the training texts.

Changes training rows only. What the model is asked stays as it is, so use it for what the model would ignore anyway.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from random import Random

from postgrad.records import Record, Row, StepReport


class NormaliseParams(Record):
    """What is made equal.

    Attributes:
        lower: lower case.
        strip: no spaces at the ends.
        collapse: every run of white space becomes one space.
        unaccent: letters lose their accents (NFKD without combining marks).
    """

    lower: bool = True
    strip: bool = True
    collapse: bool = True
    unaccent: bool = False


class Normalise:
    """Rewrites every text; drops and adds no row. A text that would become empty stays as it is."""

    Params: type[Record] = NormaliseParams
    seeded = False

    def apply(
        self,
        rows: tuple[Row, ...],
        params: NormaliseParams,
        rng: Random,
        *,
        out_of_scope: str | None,
        base_model: Path | None,
    ) -> tuple[tuple[Row, ...], StepReport]:
        """See `Operator.apply`."""
        done = tuple(row._replace(text=_rewritten(row.text, params) or row.text) for row in rows)
        changed = sum(before.text != after.text for before, after in zip(rows, done, strict=True))
        report = StepReport(op="normalise", rows_in=len(rows), rows_out=len(done), note=f"{changed} texts changed")
        return done, report


def _rewritten(text: str, params: NormaliseParams) -> str:
    if params.unaccent:
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    if params.lower:
        text = text.lower()
    if params.collapse:
        text = re.sub(r"\s+", " ", text)
    return text.strip() if params.strip else text
