"""Metrics: the contract, hand-computed cases, and agreement with scikit-learn on random data."""

from __future__ import annotations

import math
import warnings
from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from postgrad.errors import UserError
from postgrad.metrics import METRICS
from postgrad.metrics.base import Answers
from postgrad.metrics.classification import (
    AUROC,
    MCC,
    Accuracy,
    InScopeAccuracy,
    MacroF1,
    OutOfScopeRecall,
    UnthresholdedAccuracy,
    WeightedF1,
)
from postgrad.testing.metric import Case, MetricContract, plain

NAN = math.nan
# Four in-scope items of three labels (label 2 has no item) and two out-of-scope ones: 2 of 4 and 1 of 2 are right.
TRUTH = (0, 0, 1, 1, -1, -1)
PREDICTED = (0, 1, 1, -1, -1, 0)
ARGMAX = (0, 1, 1, 1, 2, 0)


class TestAccuracy(MetricContract):
    metric = Accuracy()
    cases = (
        Case(TRUTH, PREDICTED, 3, value=3 / 6),
        Case((-1, -1), (-1, -1), 2, value=1.0),
        Case((0,), (-1,), 1, value=0.0),
    )


class TestMacroF1(MetricContract):
    metric = MacroF1()
    cases = (
        # Label 0: 2*1 / (2 true + 2 answered); label 1: the same; label 2 has no item and does not count.
        Case(TRUTH, PREDICTED, 3, value=0.5),
        # An out-of-scope item answered 0 costs label 0 precision: 2*1 / (1 + 2).
        Case((0, -1), (0, 0), 1, value=2 / 3),
        # A label without an item that is answered does not count either.
        Case((0, 0), (0, 1), 2, value=2 / 3),
        Case((-1, -1), (0, -1), 2, value=NAN),
    )


class TestWeightedF1(MetricContract):
    metric = WeightedF1()
    cases = (
        # 0: 2/4, 1: 2/4, out of scope: 2/(2+2), two items each.
        Case(TRUTH, PREDICTED, 3, value=0.5),
        # 0: 2*1/(1+2) with one item, out of scope: 2*2/(3+2) with three.
        Case((0, -1, -1, -1), (0, 0, -1, -1), 1, value=(2 / 3 + 3 * 0.8) / 4),
    )


class TestMCC(MetricContract):
    metric = MCC()
    cases = (
        # c=3, s=6, t=(2,2,2), p=(2,2,2): (18 - 12) / sqrt((36-12)(36-12)).
        Case(TRUTH, PREDICTED, 3, value=6 / 24),
        Case((0, 0, 1, 1), (1, 1, 0, 0), 2, value=-1.0),
        # The constant answer says nothing, which is zero; a truth of one class cannot be scored.
        Case((0, 1, -1), (-1, -1, -1), 2, value=0.0),
        Case((0, 0, 0), (0, 1, 0), 2, value=NAN),
        Case((-1, -1), (-1, 0), 1, value=NAN),
    )


class TestInScopeAccuracy(MetricContract):
    metric = InScopeAccuracy()
    cases = (
        Case(TRUTH, PREDICTED, 3, value=2 / 4),
        Case((0, 0), (-1, 0), 1, value=0.5),
        Case((-1,), (-1,), 2, value=NAN),
    )


class TestUnthresholdedAccuracy(MetricContract):
    metric = UnthresholdedAccuracy()
    cases = (
        Case(TRUTH, PREDICTED, 3, argmax=ARGMAX, value=3 / 4),
        Case((0, 1), (-1, -1), 2, argmax=(0, 1), value=1.0),
        Case((-1,), (-1,), 2, argmax=(0,), value=NAN),
    )


class TestOutOfScopeRecall(MetricContract):
    metric = OutOfScopeRecall()
    cases = (
        Case(TRUTH, PREDICTED, 3, value=1 / 2),
        Case((-1, 0), (0, -1), 1, value=0.0),
        Case((0, 1), (0, -1), 2, value=NAN),
    )


class TestAUROC(MetricContract):
    metric = AUROC()
    cases = (
        # Pairs (in, out): .9>.4, .9>.2, .4=.4 one half, .4>.2, .1<.4, .1<.2.
        Case((0, 0, 0, -1, -1), (0,) * 5, 1, score=(0.9, 0.4, 0.1, 0.4, 0.2), value=3.5 / 6),
        Case((0, -1), (0, 0), 1, score=(0.5, 0.5), value=0.5),
        Case((0, -1), (0, 0), 1, score=(0.1, 0.5), value=0.0),
        Case((0, 0), (0, 0), 1, value=NAN),
        Case((-1, -1), (0, 0), 1, value=NAN),
    )


def test_every_name_of_the_table_loads() -> None:
    assert METRICS.names()
    for name in METRICS.names():
        metric = METRICS.get(name)
        assert metric.low < metric.high


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'macro_f1'"):
        METRICS.get("macro_f")


@st.composite
def answered(draw: st.DrawFn) -> tuple[Answers, NDArray[np.float64]]:
    """Random answers with one row of weights: integers with zeros among them, or any positive floats."""
    labels = draw(st.integers(1, 6))
    size = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    truth = rng.integers(-1, labels, size)
    argmax = np.where((rng.random(size) < 0.5) & (truth >= 0), truth, rng.integers(0, labels, size))
    score = np.round(rng.random(size), draw(st.integers(0, 3)))
    predicted = np.where(score < 0.3, -1, argmax)
    weights = rng.integers(0, 4, size).astype(np.float64) if draw(st.booleans()) else rng.exponential(size=size)
    return Answers(truth, predicted, argmax, score, labels), weights


def _agrees(got: float, expected: float) -> bool:
    return bool(np.isclose(got, expected, rtol=0.0, atol=1e-9, equal_nan=True))


@settings(max_examples=150, deadline=None)
@given(answered())
def test_agrees_with_scikit_learn(drawn: tuple[Answers, NDArray[np.float64]]) -> None:
    from sklearn import metrics as sk

    answers, weights = drawn
    kept = weights > 0
    truth, predicted, weight = answers.truth[kept], answers.predicted[kept], weights[kept]
    inside = truth >= 0

    def ours(name: str) -> float:
        return float(METRICS.get(name).values(answers, weights[None, :])[0])

    if not kept.any():
        assert all(math.isnan(ours(name)) for name in METRICS.names())
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert _agrees(ours("accuracy"), sk.accuracy_score(truth, predicted, sample_weight=weight))
        f1 = sk.f1_score(
            truth, predicted, sample_weight=weight, average="weighted", labels=np.unique(truth), zero_division=0
        )
        assert _agrees(ours("weighted_f1"), f1)
        if len(np.unique(truth)) > 1:
            assert _agrees(ours("mcc"), sk.matthews_corrcoef(truth, predicted, sample_weight=weight))
        if inside.any():
            present = np.unique(truth[inside])
            macro = sk.f1_score(
                truth, predicted, sample_weight=weight, average="macro", labels=present, zero_division=0
            )
            assert _agrees(ours("macro_f1"), macro)
        if inside.any() and (~inside).any():
            area = sk.roc_auc_score(inside, answers.score[kept], sample_weight=weight)
            assert _agrees(ours("auroc"), area)


def test_thousands_of_bootstrap_rows_are_quick() -> None:
    rng = np.random.default_rng(0)
    size, labels, rows = 1000, 30, 2000
    truth = rng.integers(-1, labels, size)
    argmax = rng.integers(0, labels, size)
    answers = Answers(truth, np.where(rng.random(size) < 0.3, -1, argmax), argmax, rng.random(size), labels)
    weights = rng.multinomial(size, np.full(size, 1 / size), size=rows).astype(np.float64)
    for name in METRICS.names():
        begun = process_time()
        assert METRICS.get(name).values(answers, weights).shape == (rows,)
        assert process_time() - begun < 2.0, f"{name}: too slow to bootstrap"


def test_all_out_of_scope_constant_scores_zero_mcc_and_full_recall() -> None:
    answers = Case((0, 1, 2, -1, -1), (-1,) * 5, 3, value=0.0).answers()
    assert plain(MCC(), answers) == 0.0
    assert plain(OutOfScopeRecall(), answers) == 1.0
    assert plain(MacroF1(), answers) == 0.0
