"""Several labels an item: the reference and the answer are sets, written as a JSON list or with separators.

Case and white space do not matter. The empty text and `[]` are the empty set.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np

from postgrad.metrics.base import Answered
from postgrad.metrics.reading import answered_list, expected_list, folded
from postgrad.metrics.texts import Floats, MeanMetric, MicroF1Metric, ratio


def _sets(item: Answered) -> tuple[frozenset[str], frozenset[str]] | None:
    """The expected and the answered labels; None where the reference cannot be read."""
    listed = expected_list(item.reference)
    if listed is None:
        return None
    expected = frozenset(map(folded, listed))
    return expected, frozenset(answered_list(item.answer, expected, folded))


class LabelSetExact(MeanMetric):
    """Share of answers with exactly the expected labels."""

    name = "label_set_exact"

    def score(self, item: Answered) -> float | None:
        sets = _sets(item)
        return None if sets is None else float(sets[0] == sets[1])


class LabelSetMicroF1(MicroF1Metric):
    """F1 of all labels of all items, pooled."""

    name = "label_set_micro_f1"

    def row(self, item: Answered) -> Sequence[float] | None:
        sets = _sets(item)
        return None if sets is None else (len(sets[0] & sets[1]), len(sets[1]), len(sets[0]))


class LabelSetMacroF1:
    """Mean F1 of the labels that occur in a reference; a label that is only answered does not count, as in `macro_f1`.

    The parts have one column for each label of the references of the call, in the order of the alphabet, after a column
    that is 0 for a scored item: rows of two calls can be put together only if the calls had the same labels. A cell is
    1 where the label was expected, plus 2 where it was answered.
    """

    name = "label_set_macro_f1"
    low = 0.0
    high = 1.0
    dear = False

    def grade(self, items: Sequence[Answered]) -> Floats:
        read = [_sets(item) for item in items]
        labels = sorted(set().union(*(sets[0] for sets in read if sets is not None)))
        column = {label: place for place, label in enumerate(labels, start=1)}
        parts = np.zeros((len(read), 1 + len(labels)))
        for row, sets in zip(parts, read, strict=True):
            if sets is None:
                row[:] = np.nan
                continue
            row[[column[label] for label in sets[0]]] += 1.0
            row[[column[label] for label in sets[1] if label in column]] += 2.0
        return parts

    def values(self, parts: Floats, weights: Floats) -> Floats:
        codes = np.nan_to_num(parts[:, 1:], nan=0.0)
        expected, answered = (codes % 2.0).astype(np.float64), (codes >= 2.0).astype(np.float64)
        occurs = weights @ expected
        f1 = np.nan_to_num(ratio(2.0 * (weights @ (expected * answered)), occurs + weights @ answered), nan=0.0)
        present = occurs > 0
        return np.clip(ratio((f1 * present).sum(axis=1), present.sum(axis=1).astype(np.float64)), 0.0, 1.0)
