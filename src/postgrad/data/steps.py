"""From given train rows to the rows that a model is trained on: the recipe's data steps, then the check against what
is asked. Workers call it, and the audit does once more.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Callable, Sequence

from postgrad.data import OPERATORS
from postgrad.data.decontaminate import by_matcher, cleared
from postgrad.records import Row, Step, StepReport


def training_rows(
    rows: tuple[Row, ...],
    asked: Sequence[str],
    steps: Sequence[Step],
    *,
    seed: int,
    out_of_scope: str | None,
    base_model: Path | None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[tuple[Row, ...], tuple[StepReport, ...]]:
    """Apply the steps in order, then take out what is near an asked text. Each step has a generator of its own, so that
    leaving one out moves no other. Deterministic.

    Args:
        asked: the texts that the same training will be asked.
        seed: of the unit.
        say: called with one line after each step.
    """
    reports = []
    for position, step in enumerate(steps):
        operator = OPERATORS.get(step.op)
        rows, report = operator.apply(
            rows,
            operator.Params.model_validate(step.params),
            Random(f"{seed}/{position}/{step.op}"),
            out_of_scope=out_of_scope,
            base_model=base_model,
        )
        reports.append(report)
        say(f"{step.op}: {report.rows_in} rows in, {report.rows_out} out")
    rows, report = decontaminated(rows, asked)
    return rows, (*reports, report)


def decontaminated(rows: tuple[Row, ...], asked: Sequence[str]) -> tuple[tuple[Row, ...], StepReport]:
    """Train rows without those that are near an asked text, and the ids that went by matcher.

    Splits keep given rows apart; this is for rows that data steps made. Everyday utterances, for one, are both
    negatives to train on and questions of the referee.
    """
    # Sorted, so that it does not matter in what order a job is asked.
    kept, matches = cleared(rows, [(f"{number:09d}", text) for number, text in enumerate(sorted(asked))])
    report = StepReport(
        op="decontaminate",
        rows_in=len(rows),
        rows_out=len(kept),
        dropped=len(rows) - len(kept),
        note="near a text that is asked in this unit" if matches else "",
        removed=by_matcher(matches),
    )
    return kept, report
