"""Numbers read out of answers, and the metrics that go by them."""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple, Sequence

import numpy as np

from postgrad.metrics.base import Answered
from postgrad.metrics.texts import Floats, MeanMetric, ratio, scored_rows

RELATIVE, ABSOLUTE = 1e-6, 1e-9
_LARGEST = float(np.finfo(np.float64).max)

# No number begins within a word ("F16"), within another number or in an exponent ("m^2"). Repeats are possessive and
# look ahead only a bounded way, so that the time is linear in the text.
_NUMBER = re.compile(
    r"""
    (?<![A-Za-z_^0-9])(?<![0-9]\.)
    (?P<minus>[-−])?\+?\\?[$€£¥]?
    (?:(?P<whole>[0-9]{1,9})\ (?=[0-9]{1,9}/[0-9]))?
    (?P<digits>(?:[0-9]{1,3}(?:,[0-9]{3}(?![0-9]))++|[0-9]++)(?:\.[0-9]++)?|\.[0-9]++)
    (?:[eE](?P<e>[-+]?[0-9]{1,9})(?![0-9A-Za-z])
      |\ ?(?:[x×*·]|\\times|\\cdot)\ ?10(?:\^|\*\*)\{?(?P<ten>[-+−]?[0-9]{1,9})\}?)?
    (?:\ ?/\ ?(?P<below>[0-9]{1,300}(?:\.[0-9]{1,300})?)(?![0-9/]))?
    (?:\ ?\\?(?P<percent>%))?
    """,
    re.VERBOSE,
)
_LATEX_FRACTION = re.compile(r"([0-9]?)\\[dt]?frac\{([^{}]{1,40})\}\{([^{}]{1,40})\}")
_DIGITS = 400  # more digits than any finite float has


class Number(NamedTuple):
    """A number as it was written.

    Attributes:
        value: with 50% as 0.5; infinite where it is too large for a float.
        percent: it had a percent sign.
    """

    value: float
    percent: bool


def _value(found: re.Match[str]) -> Number | None:
    digits = found["digits"].replace(",", "")
    before, _, behind = digits.partition(".")
    exponent = (found["e"] or found["ten"] or "0").replace("−", "-")
    long = len(before.lstrip("0")) > _DIGITS
    value = float("inf") if long else float(f"{before.lstrip('0')[-_DIGITS:]}.{behind[:_DIGITS]}0e{exponent}")
    if found["below"]:
        below = float(found["below"])
        if not below:
            return None
        value = value / below
    value += float(found["whole"] or 0)
    value = -value if found["minus"] else value
    return Number(value / 100.0, True) if found["percent"] else Number(value, False)


def last_number(text: str) -> Number | None:
    """The last number in a text, or None. It knows 1,234.5, -3, 2/3, 1 1/2, 50%, 1.5e-3, 3 x 10^8 and LaTeX's \\frac; a
    division by zero is no number."""
    text = text.replace("{,}", ",")
    if "frac" in text:
        text = _LATEX_FRACTION.sub(lambda found: f"{found[1]}{' ' * bool(found[1])}{found[2]}/{found[3]}", text)
    last = deque(_NUMBER.finditer(text), maxlen=1)
    return _value(last[0]) if last else None


def _close(answered: float, expected: float) -> bool:
    return abs(answered - expected) <= max(RELATIVE * abs(expected), ABSOLUTE)


class NumericMatch(MeanMetric):
    """Share of answers whose last number is the reference's, within 1e-6 of it or 1e-9.

    50% is 0.5; where only one of the two has a percent sign, it may also be left out, so that 50 is right as well.
    Unscored where the reference has no finite number.
    """

    name = "numeric_match"

    def score(self, item: Answered) -> float | None:
        expected, answered = last_number(item.reference), last_number(item.answer)
        if expected is None or not np.isfinite(expected.value):
            return None
        if answered is None or not np.isfinite(answered.value):
            return 0.0
        right = _close(answered.value, expected.value)
        if answered.percent and not expected.percent:
            right = right or _close(answered.value * 100.0, expected.value)
        elif expected.percent and not answered.percent:
            right = right or _close(answered.value, expected.value * 100.0)
        return float(right)


class PrAuc:
    """Average precision of the answers as scores for "1", the area under steps of precision over recall.

    sum (R_n - R_(n-1)) P_n over distinct scores from the highest down, ties together, as in scikit-learn. The reference
    is 1 or 0. The score is the last number of the answer; an answer without one has the lowest score of all. NaN
    without an item of reference 1.
    """

    name = "pr_auc"
    low = 0.0
    high = 1.0
    dear = False

    def grade(self, items: Sequence[Answered]) -> Floats:
        return np.array([self._row(item) for item in items], dtype=np.float64).reshape(len(items), 2)

    def _row(self, item: Answered) -> tuple[float, float]:
        truth = item.reference.strip()
        if truth not in ("0", "1"):
            return np.nan, np.nan
        found = last_number(item.answer)
        score = -_LARGEST if found is None else min(_LARGEST, max(-_LARGEST, found.value))
        return float(truth), score

    def values(self, parts: Floats, weights: Floats) -> Floats:
        scored = np.flatnonzero(scored_rows(parts))
        if not len(scored):
            return np.full(len(weights), np.nan)
        order = scored[np.argsort(-parts[scored, 1], kind="stable")]
        truth, scores = parts[order, 0], parts[order, 1]
        starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
        ordered = weights[:, order]
        positive = np.add.reduceat(ordered * truth, starts, axis=1)
        found = np.cumsum(positive, axis=1)
        precision = np.nan_to_num(ratio(found, np.cumsum(np.add.reduceat(ordered, starts, axis=1), axis=1)), nan=0.0)
        return np.clip(ratio((positive * precision).sum(axis=1), positive.sum(axis=1)), 0.0, 1.0)
