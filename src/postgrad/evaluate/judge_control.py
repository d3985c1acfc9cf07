"""Is a judge any good? It is asked where the right answer is known, before anything is spent on its word."""

from __future__ import annotations

from typing import Sequence

from postgrad.data.text import stable_unit
from postgrad.evaluate.graded import Judge
from postgrad.metrics.base import Answered
from postgrad.metrics.judged import JudgeAgreement, JudgedMetric, JudgeFirst
from postgrad.records import JudgeControl, Row

MOST = 40


def judge_control(judge: Judge, rows: Sequence[Row]) -> JudgeControl:
    """Compare references with references of other rows, in both orders.

    A judge that guesses is right in both orders of one question in four, and one that goes by places of none.
    """
    from scipy.stats import binomtest

    asked = control_items(rows)
    if not asked:
        return JudgeControl(n=0, right=0.0, low=0.0, high=1.0, agreement=0.0, first=0.5)
    found = [item._replace(verdicts=said) for item, said in zip(asked, judge.verdicts(asked), strict=True)]
    right = sum(item.verdicts == (1.0, 1.0) for item in found)
    interval = binomtest(right, len(found)).proportion_ci(method="wilson")
    return JudgeControl(
        n=len(found),
        right=right / len(found),
        low=float(interval.low),
        high=float(interval.high),
        agreement=_mean(JudgeAgreement(), found),
        first=_mean(JudgeFirst(), found),
    )


def control_items(rows: Sequence[Row]) -> list[Answered]:
    """Up to 40 questions with their own reference as answer, and the next one's as what it is compared with. No
    question and no reference comes twice."""
    chosen: dict[str, Row] = {}
    questions: set[str] = set()
    for row in sorted(rows, key=lambda row: stable_unit(row.id, "judge")):
        reference, question = " ".join(row.label.split()), " ".join(row.text.split())
        if reference and reference not in chosen and question not in questions and len(chosen) < MOST:
            chosen[reference] = row
            questions.add(question)
    own = list(chosen.values())
    if len(own) < 2:
        return []
    others = [*own[1:], own[0]]
    return [Answered(row.text, other.label, row.label) for row, other in zip(own, others, strict=True)]


def _mean(metric: JudgedMetric, items: Sequence[Answered]) -> float:
    scores = [metric.score(item) for item in items]
    return sum(score for score in scores if score is not None) / len(items)
