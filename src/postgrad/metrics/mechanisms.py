"""Mechanisms of organic reactions as oMeBench has them: a JSON list of steps with `subtype` and `intermediate_smiles`.

In a reference every step has a `step_weight` as well. Knows no chemistry; `molecules.py` does.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from postgrad.metrics.base import Answered
from postgrad.metrics.reading import first_json, read_json
from postgrad.metrics.texts import MeanMetric

# The longest mechanism of the data set has 11 steps; aligning two takes time with the product of their lengths.
MOST_STEPS = 100


class Step(NamedTuple):
    """One step; answers have no weight."""

    subtype: str
    smiles: str
    weight: float = 0.0


def expected_steps(reference: str) -> list[Step] | None:
    """The steps of a reference; None where it is no list of weighted steps with a positive sum of weights."""
    found = _steps(read_json(reference))
    if not found or any(not math.isfinite(step.weight) or step.weight < 0 for step in found):
        return None
    return found if sum(step.weight for step in found) > 0 else None


def answered_steps(answer: str) -> list[Step]:
    """The steps of the first JSON list in an answer. None at all where one of them is malformed, as oMeBench counts."""
    return _steps(first_json(answer, "[")) or []


def _steps(value: Any) -> list[Step] | None:
    if not isinstance(value, list) or not 0 < len(value) <= MOST_STEPS:
        return None
    found = []
    for each in value:
        subtype, smiles = (each.get("subtype"), each.get("intermediate_smiles")) if isinstance(each, dict) else (0, 0)
        weight = each.get("step_weight", 0.0) if isinstance(each, dict) else 0.0
        if not isinstance(subtype, str) or not isinstance(smiles, str):
            return None
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        found.append(Step(subtype, smiles, float(weight) if is_number else 0.0))
    return found


class MechanismSteps(MeanMetric):
    """Mean share of the weight of a mechanism whose kinds of steps are answered in the right order.

    The heaviest common subsequence of subtypes; molecules are not looked at, so that no chemistry library is needed.
    This is not the score of oMeBench, which `mechanism_score` is: it is an upper bound of that.
    """

    name = "mechanism_steps"

    def score(self, item: Answered) -> float | None:
        expected = expected_steps(item.reference)
        if expected is None:
            return None
        answered = answered_steps(item.answer)
        best = [0.0] * (len(answered) + 1)
        for step in expected:
            before = best[:]
            for place, one in enumerate(answered, start=1):
                taken = before[place - 1] + (step.weight if one.subtype == step.subtype else 0.0)
                best[place] = max(before[place], best[place - 1], taken)
        return min(1.0, best[-1] / sum(step.weight for step in expected))
