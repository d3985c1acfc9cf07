"""Answers in JSON. Keys are compared as they are, strings by case and white space aside, numbers as numbers.

Lists are compared by position. A string never equals a number. NaN and Infinity are not JSON, and values nested deeper
than 64 levels count as unreadable.
"""

from __future__ import annotations

import math
from typing import Any, Sequence

from postgrad.metrics.base import Answered
from postgrad.metrics.numbers import ABSOLUTE, RELATIVE
from postgrad.metrics.reading import first_json, flatten, folded, read_json, unfenced
from postgrad.metrics.texts import MeanMetric, MicroF1Metric


def same_leaf(first: Any, second: Any) -> bool:
    """Whether two leaves are equal: whole numbers exactly, others within 1e-6 of each other or 1e-9."""
    if isinstance(first, str) and isinstance(second, str):
        return folded(first) == folded(second)
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, int | float) and isinstance(second, int | float):
        if isinstance(first, int) and isinstance(second, int):
            return first == second
        return math.isclose(first, second, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return type(first) is type(second) and first == second


def _shared(first: Any, second: Any) -> tuple[int, int, int]:
    """How many path=value pairs two JSON values share, and how many each has."""
    one, two = flatten(first) or {}, flatten(second) or {}
    return sum(path in two and same_leaf(leaf, two[path]) for path, leaf in one.items()), len(one), len(two)


class JsonValid(MeanMetric):
    """Share of answers that are a JSON object or list and nothing else; one Markdown code fence around it is allowed.

    The reference is not read.
    """

    name = "json_valid"

    def score(self, item: Answered) -> float:
        return float(read_json(unfenced(item.answer)) is not None)


class JsonFieldF1(MicroF1Metric):
    """F1 of path=value pairs, pooled over items: the reference is a JSON object, the answer the first one in its text.

    An empty list or object is a pair of its own. Unscored where the reference is no JSON object.
    """

    name = "json_field_f1"

    def row(self, item: Answered) -> Sequence[float] | None:
        expected = read_json(item.reference)
        if not isinstance(expected, dict):
            return None
        return _shared(first_json(item.answer, "{") or {}, expected)


class JsonExact(MeanMetric):
    """Share of answers whose first JSON object, or list where the reference is one, has the reference's pairs.

    The order of keys does not matter. Unscored where the reference is no JSON object or list.
    """

    name = "json_exact"

    def score(self, item: Answered) -> float | None:
        expected = read_json(item.reference)
        if expected is None:
            return None
        answered = first_json(item.answer, "{" if isinstance(expected, dict) else "[")
        if answered is None:
            return 0.0
        shared, of_answer, of_reference = _shared(answered, expected)
        return float(shared == of_answer == of_reference)
