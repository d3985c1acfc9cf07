"""Classification metrics with rejection, over weighted items. They count; they choose no threshold and no winner.

Out of scope is index -1: a class of its own for `accuracy`, `mcc` and `weighted_f1`. Every metric takes (B, N) weights
and returns (B,) values from a few matrix products, so that thousands of bootstrap rows cost well under a second. An
item of weight 2 counts as two equal items, one of weight 0 as none.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from postgrad.metrics.base import Answers

Floats = NDArray[np.float64]


class _Counts(NamedTuple):
    """Weighted totals by class, each (B, K + 1); the last column is out of scope."""

    true: Floats
    predicted: Floats
    right: Floats


def _one_hot(indices: NDArray[np.int64], labels: int) -> Floats:
    """(N,) indices in [-1, labels) to (N, labels + 1); -1 goes to the last column."""
    return np.asarray(indices[:, None] % (labels + 1) == np.arange(labels + 1), dtype=np.float64)


def _counts(answers: Answers, weights: Floats) -> _Counts:
    truth = _one_hot(answers.truth, answers.labels)
    predicted = _one_hot(answers.predicted, answers.labels)
    return _Counts(weights @ truth, weights @ predicted, weights @ (truth * predicted))


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide; NaN where the denominator is zero."""
    out = np.full(denominator.shape, np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out


def _share(hits: NDArray[np.bool_], among: NDArray[np.bool_], weights: Floats) -> Floats:
    """Weighted share of `hits` among the items of `among`: (B,)."""
    return _ratio(weights @ (hits & among).astype(np.float64), weights @ among.astype(np.float64))


def _f1(counts: _Counts) -> Floats:
    """F1 of each class, (B, K + 1): 2 right / (true + predicted), 0 for a class without either."""
    total = counts.true + counts.predicted
    return np.nan_to_num(_ratio(2.0 * counts.right, total), nan=0.0)


class Accuracy:
    """Share of right answers; a rejection is right on an out-of-scope item."""

    low = 0.0
    high = 1.0
    needs_out_of_scope = False

    def values(self, answers: Answers, weights: Floats) -> Floats:
        everything = np.ones(answers.truth.shape, dtype=np.bool_)
        return _share(answers.predicted == answers.truth, everything, weights)


class MacroF1:
    """Mean F1 of the in-scope labels that occur in the truth.

    Labels without a test item do not count, as in HINT3 (Arora et al. 2020); an out-of-scope item that is answered
    with a label costs that label precision.
    """

    low = 0.0
    high = 1.0
    needs_out_of_scope = False

    def values(self, answers: Answers, weights: Floats) -> Floats:
        counts = _counts(answers, weights)
        present = counts.true[:, :-1] > 0
        return _ratio((_f1(counts)[:, :-1] * present).sum(axis=1), present.sum(axis=1).astype(np.float64))


class WeightedF1:
    """Mean F1 of the labels that occur in the truth, out of scope included, weighted by how often they occur."""

    low = 0.0
    high = 1.0
    needs_out_of_scope = False

    def values(self, answers: Answers, weights: Floats) -> Floats:
        counts = _counts(answers, weights)
        return _ratio((_f1(counts) * counts.true).sum(axis=1), counts.true.sum(axis=1))


class MCC:
    """Multiclass Matthews correlation coefficient R_K (Gorodkin 2004), out of scope as a class.

    0 where every answer is the same, as in scikit-learn; NaN where the truth holds one class only, since no answers
    could then be better than others.
    """

    low = -1.0
    high = 1.0
    needs_out_of_scope = False

    def values(self, answers: Answers, weights: Floats) -> Floats:
        true, predicted, right = _counts(answers, weights)
        total = true.sum(axis=1)
        covariance = right.sum(axis=1) * total - (true * predicted).sum(axis=1)
        # s^2 - sum p^2, written as sum p (s - p): exactly zero for a single class, whatever the weights round to.
        of_truth = (true * (total[:, None] - true)).sum(axis=1)
        of_answers = (predicted * (predicted.sum(axis=1)[:, None] - predicted)).sum(axis=1)
        product = np.sqrt(of_truth) * np.sqrt(of_answers)
        out = np.where(of_truth > 0, 0.0, np.nan)
        np.divide(covariance, product, out=out, where=product > 0)
        return np.clip(out, -1.0, 1.0)


class InScopeAccuracy:
    """Right answers among in-scope items, with rejection applied: a rejected in-scope item is wrong."""

    low = 0.0
    high = 1.0
    needs_out_of_scope = False

    def values(self, answers: Answers, weights: Floats) -> Floats:
        return _share(answers.predicted == answers.truth, answers.truth >= 0, weights)


class UnthresholdedAccuracy:
    """Right answers among in-scope items, had nothing been rejected."""

    low = 0.0
    high = 1.0
    needs_out_of_scope = False
    reads_score = True  # equal `predicted` does not make it equal: it looks below the threshold

    def values(self, answers: Answers, weights: Floats) -> Floats:
        return _share(answers.argmax == answers.truth, answers.truth >= 0, weights)


class OutOfScopeRecall:
    """Share of the out-of-scope items that were rejected."""

    low = 0.0
    high = 1.0
    needs_out_of_scope = True

    def values(self, answers: Answers, weights: Floats) -> Floats:
        return _share(answers.predicted < 0, answers.truth < 0, weights)


class AUROC:
    """Chance that an in-scope item has a higher score than an out-of-scope one; a tie counts one half.

    The Mann-Whitney form of the area under the ROC curve (Hanley and McNeil 1982).
    """

    low = 0.0
    high = 1.0
    needs_out_of_scope = True
    reads_score = True  # equal `predicted` does not make it equal: it ranks the scores

    def values(self, answers: Answers, weights: Floats) -> Floats:
        order = np.argsort(answers.score, kind="stable")
        scores = answers.score[order]
        inside = answers.truth[order] >= 0
        if not len(scores):
            return np.full(len(weights), np.nan)
        starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
        ordered = weights[:, order]
        of_in = np.add.reduceat(ordered * inside, starts, axis=1)
        of_out = np.add.reduceat(ordered * ~inside, starts, axis=1)
        below = np.cumsum(of_out, axis=1) - 0.5 * of_out
        pairs = of_in.sum(axis=1) * of_out.sum(axis=1)
        return np.clip(_ratio((of_in * below).sum(axis=1), pairs), 0.0, 1.0)
