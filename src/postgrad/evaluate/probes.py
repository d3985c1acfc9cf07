"""Questions that the referee makes from train rows, so that out-of-fold scores say more about real customers.

Train rows are tidy; customers mistype and write fragments. Each row gets one disturbed copy that is asked in the same
fold. And customers ask what nothing covers: everyday utterances of other domains, those near a train row left out, are
asked in every fold. Both only where a task rejects and its own files hold nothing out of scope to ask.
"""

from __future__ import annotations

from random import Random
from typing import Sequence

from postgrad.data import OPERATORS
from postgrad.data.text import stable_unit
from postgrad.records import Row, Value

BACKGROUND_SHARE = 0.2
DISTURBERS = ("typos", "word_dropout")
BACKGROUND_CAP = 150


def disturbed(rows: Sequence[Row], salt: str) -> tuple[Row, ...]:
    """One noisy copy of each row that is long enough: typing errors for one half, missing words for the other."""
    ordered = sorted(rows, key=lambda row: row.id)
    halves: tuple[list[Row], list[Row]] = ([], [])
    for row in ordered:
        halves[stable_unit(row.id, f"{salt}disturbed") < 0.5].append(row)
    made: list[Row] = []
    for op, half in zip(DISTURBERS, halves, strict=True):
        made += _added(op, half, {"share": 1.0}, salt, None)
    return tuple(made)


def is_disturbed(item_id: str) -> bool:
    """True for the id of a disturbed copy."""
    return any(f"+{op}" in item_id for op in DISTURBERS)


def background(rows: Sequence[Row], out_of_scope: str, salt: str) -> tuple[Row, ...]:
    """Everyday utterances that are not close to any row, as out-of-scope questions."""
    ordered = sorted(rows, key=lambda row: row.id)
    share = min(BACKGROUND_SHARE, BACKGROUND_CAP / max(1, len(ordered)))
    return _added("background", ordered, {"share": share}, salt, out_of_scope)


def _added(
    op: str, rows: Sequence[Row], params: dict[str, Value], salt: str, out_of_scope: str | None
) -> tuple[Row, ...]:
    """What an operator adds to rows."""
    if not rows:
        return ()
    operator = OPERATORS.get(op)
    found, _ = operator.apply(
        tuple(rows),
        operator.Params.model_validate(params),
        Random(f"{salt}/{op}"),
        out_of_scope=out_of_scope,
        base_model=None,
    )
    known = {row.id for row in rows}
    return tuple(row for row in found if row.id not in known)
