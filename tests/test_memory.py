"""Lessons name their evidence, and only a difference that is clear of zero supports one."""

from __future__ import annotations

import pytest

from postgrad.memory import lesson_of
from postgrad.records import Analysis, Difference, Proposal, Recipe, Stage

PROPOSAL = Proposal(
    recipe=Recipe(stage=Stage(backend="classic")),
    kind="data.typos",
    hypothesis="Customers mistype.",
    change="add copies with typing errors",
    expected_effect=0.005,
    refuted_by="no gain",
    proposer="playbook",
    seed=0,
)


def analysis(verdict: str, value: float | None = 0.04, against: str | None = "e0001") -> Analysis:
    gap = None if value is None else Difference(value=value, low=value - 0.01, high=value + 0.01, p=0.01, n=80)
    return Analysis.model_validate({"verdict": verdict, "against": against, "difference": gap, "cause": "by hand"})


def test_a_gain_is_a_lesson_with_its_evidence() -> None:
    lesson = lesson_of(PROPOSAL, analysis("better"), "e0007")
    assert lesson is not None
    assert lesson.experiments == ("e0001", "e0007")
    assert lesson.claim == ("data.typos: add copies with typing errors: helped (+0.040, expected +0.005) against e0001")
    assert (lesson.effect.value, lesson.effect.low, lesson.effect.high, lesson.effect.n) == (0.04, 0.03, 0.05, 80)


@pytest.mark.parametrize("verdict", ["worse", "raced"])
def test_a_loss_is_a_lesson_too(verdict: str) -> None:
    lesson = lesson_of(PROPOSAL, analysis(verdict, -0.05), "e0007")
    assert lesson is not None
    assert "did harm (-0.050" in lesson.claim


@pytest.mark.parametrize(
    "unclear",
    [
        analysis("tie", 0.001),
        analysis("failed", None, None),
        analysis("unscored", None, None),
        analysis("raced", None),
        analysis("better", 0.04, None),
    ],
)
def test_what_shows_nothing_teaches_nothing(unclear: Analysis) -> None:
    assert lesson_of(PROPOSAL, unclear, "e0007") is None
