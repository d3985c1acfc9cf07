"""What metrics over answers in words read out of texts, and that their values are those of the reference libraries."""

from __future__ import annotations

import json
import math
import random
import warnings
from importlib.util import find_spec
from time import process_time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postgrad.metrics import TEXT_METRICS
from postgrad.metrics.base import Answered, TextMetric
from postgrad.metrics.numbers import last_number
from postgrad.metrics.overlap import common_subsequence
from postgrad.metrics.reading import DEPTH, first_json, read_json
from postgrad.metrics.structured import same_leaf
from postgrad.metrics.texts import named_letters
from postgrad.testing.text_metric import answered, plain, weighted


def installed() -> list[str]:
    """The metrics whose libraries are here: RDKit is an extra of its own, and `test_chem_metrics.py` has its tests."""
    module = "postgrad.metrics.molecules"
    return [name for name in TEXT_METRICS.names() if find_spec("rdkit") or TEXT_METRICS.module(name) != module]


def get(name: str) -> TextMetric:
    return TEXT_METRICS.get(name)


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,234.5", 1234.5),
        ("from 5-3", 3.0),
        ("it is -3.", -3.0),
        ("−3", -3.0),
        ("-$3", -3.0),
        ("$1,000,000", 1e6),
        ("1, 2,3", 3.0),
        ("1,2345", 2345.0),
        ("2/3", 2 / 3),
        ("1 1/2 cups", 1.5),
        (r"\boxed{\frac{2}{3}}", 2 / 3),
        (r"-\frac{1}{4}", -0.25),
        (r"1\frac{1}{2}", 1.5),
        ("50%", 0.5),
        (r"50\%", 0.5),
        ("1.5e3", 1500.0),
        ("1.5 x 10^-3", 0.0015),
        (r"3 \times 10^{8} m/s", 3e8),
        ("25 m^2", 25.0),
        ("an area of 25 m2", 25.0),
        ("an F16 flew", None),
        ("in v1.5", None),
        (".5", 0.5),
        ("答案是42。", 42.0),
        ("#### 42", 42.0),
        ("1/0", None),
        ("NaN", None),
        ("none", None),
        ("9" * 500, math.inf),
        ("0" * 500 + "7", 7.0),
    ],
)
def test_the_last_number_is_read(text: str, expected: float | None) -> None:
    found = last_number(text)
    assert (found and found.value) == (None if expected is None else pytest.approx(expected, rel=1e-12))


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["{}", "It is {}.", "x = {!r}", "({})"]))
def test_any_float_is_read_as_python_writes_it(value: float, around: str) -> None:
    found = last_number(around.format(value))
    assert found is not None and found.value == pytest.approx(value, rel=1e-15)


@settings(max_examples=100, deadline=None)
@given(st.integers(-(10**15), 10**15))
def test_thousands_are_read(value: int) -> None:
    found = last_number(f"about {value:,} of them")
    assert found is not None and found.value == value


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("The answer is (B).", "B"),
        ("**B**", "B"),
        ("b)", "B"),
        ("B.", "B"),
        ("Answer: C", "C"),
        (r"\boxed{D}", "D"),
        ("I think it is D", "D"),
        ("I think A is right", "A"),
        ("A good guess is B", "B"),
        ("A is right, not B", "AB"),
        ("B) Vitamin C", "B"),
        ("A) or B)", "AB"),
        ("A. Both B and C", "A"),
        ("B, since it is B", "B"),
        ("答案是B", "B"),
        ("Don't know. I'd pass", ""),
        ("K", ""),
        ("ABC", ""),
        ("(B) ................................. or C", "BC"),
    ],
)
def test_letters_are_read(text: str, letters: str) -> None:
    assert named_letters(text) == set(letters)


def test_json_is_found_in_words_and_depth_is_bounded_wherever_it_is_read_from() -> None:
    assert first_json('so {not json} but {"a": [1]} and {"b": 2}', "{") == {"a": [1]}
    assert first_json("no brackets", "{") is None
    fits = "[" * DEPTH + "1" + "]" * DEPTH
    assert read_json(fits) is not None and read_json(f"[{fits}]") is None
    assert not same_leaf(2**53, 2**53 + 1) and same_leaf(2, 2.0) and not same_leaf(1, True) and same_leaf(None, None)


# --- agreement with the reference libraries ---------------------------------------------------------------------------

WORDS = [
    "the",
    "The",
    "cat",
    "cats",
    "running",
    "runs",
    "Ünder",
    "3.5",
    "don't",
    "(x)",
    "-",
    "a-b",
    "&amp;",
    "猫",
    "end.",
]


def _text(draws: random.Random, longest: int) -> str:
    return " ".join(draws.choices(WORDS, k=draws.randint(0, longest)))


def _pairs(draws: random.Random) -> list[Answered]:
    """Answers that share runs of words with their references; empty texts among them."""
    items = []
    for _ in range(draws.randint(1, 8)):
        reference = _text(draws, 14)
        start = draws.randint(0, max(0, len(reference) - 1))
        items.append(answered(reference, f"{_text(draws, 3)} {reference[start:]} {_text(draws, 3)}"))
    return items


def _repeated(items: list[Answered], weights: list[int]) -> list[Answered]:
    return [item for item, weight in zip(items, weights, strict=True) for _ in range(weight)]


@pytest.mark.parametrize("seed", range(60))
def test_bleu_and_chrf_are_those_of_sacrebleu(seed: int) -> None:
    from sacrebleu import corpus_bleu, corpus_chrf

    draws = random.Random(seed)
    items = _pairs(draws)
    weights = [1] * len(items) if seed % 3 == 0 else [draws.randint(0, 3) for _ in items]
    weights[0] = max(1, weights[0])
    items[0] = items[0]._replace(reference=items[0].reference or "cat")
    repeated = _repeated(items, weights)
    hypotheses, references = [item.answer for item in repeated], [[item.reference for item in repeated]]
    bleu, chrf = corpus_bleu(hypotheses, references).score, corpus_chrf(hypotheses, references).score
    assert weighted(get("bleu"), items, weights) == pytest.approx(min(bleu, 100.0) / 100, abs=1e-9)
    assert weighted(get("chrf"), items, weights) == pytest.approx(chrf / 100, abs=1e-9)


@pytest.mark.parametrize("seed", range(40))
def test_rouge_is_that_of_rouge_score(seed: int) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    draws = random.Random(seed)
    # Two words of letters in front, so that every item has what each metric needs.
    items = [item._replace(reference=f"one two {item.reference}") for item in _pairs(draws)]
    weights = [draws.randint(1, 3) for _ in items]
    names = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(names, use_stemmer=True)
    scored = [scorer.score(item.reference, item.answer) for item in _repeated(items, weights)]
    for name in names:
        expected = float(np.mean([one[name].fmeasure for one in scored]))
        assert weighted(get(name), items, weights) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from("abcd"), max_size=90), st.lists(st.sampled_from("abcd"), max_size=90))
def test_the_common_subsequence_is_that_of_the_table(first: list[str], second: list[str]) -> None:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, one in enumerate(first, start=1):
        for j, two in enumerate(second, start=1):
            table[i][j] = table[i - 1][j - 1] + 1 if one == two else max(table[i - 1][j], table[i][j - 1])
    assert common_subsequence(first, second) == table[-1][-1]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_pr_auc_is_average_precision_of_scikit_learn(seed: int, digits: int) -> None:
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(seed)
    truth, scores = rng.integers(0, 2, 30), np.round(rng.normal(size=30), digits)
    truth[0] = 1
    items = [answered(str(one), repr(float(score))) for one, score in zip(truth, scores, strict=True)]
    weights = rng.integers(0, 4, 30) if seed % 2 else rng.exponential(size=30)
    weights[0] = 1
    expected = average_precision_score(truth, scores, sample_weight=weights)
    assert weighted(get("pr_auc"), items, weights) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(30))
def test_label_sets_are_scored_as_by_scikit_learn(seed: int) -> None:
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(seed)
    names = np.array(["red", "blue", "green", "deep pink"])
    truth, answers = rng.integers(0, 2, (2, 25, 4))
    items = [
        answered(json.dumps(names[one == 1].tolist()), "; ".join(names[other == 1]))
        for one, other in zip(truth, answers, strict=True)
    ]
    weights = rng.integers(0, 3, 25)
    present = np.flatnonzero(weights @ truth)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scored: dict[str, Any] = {"sample_weight": weights, "zero_division": 0}
        micro = f1_score(truth, answers, average="micro", **scored)
        macro = f1_score(truth[:, present], answers[:, present], average="macro", **scored)
    assert weighted(get("label_set_micro_f1"), items, weights) == pytest.approx(micro, abs=1e-12)
    assert weighted(get("label_set_macro_f1"), items, weights) == pytest.approx(macro, abs=1e-12)


@pytest.mark.parametrize("seed", range(30))
def test_rankings_are_scored_as_by_scikit_learn_and_scipy(seed: int) -> None:
    from scipy.stats import kendalltau
    from sklearn.metrics import ndcg_score

    rng = np.random.default_rng(seed)
    gains, order = rng.integers(0, 4, 15), rng.permutation(15)
    gains[0] = 1
    places = np.empty(15)
    places[order] = np.arange(15)
    reference = json.dumps({f"d{one}": int(gain) for one, gain in enumerate(gains)})
    ndcg = plain(get("ndcg_at_10"), [answered(reference, "\n".join(f"d{one}" for one in order))])
    assert ndcg == pytest.approx(ndcg_score([gains], [-places], k=10), abs=1e-12)
    steps = ", ".join(f"d{one}" for one in range(15))
    tau = plain(get("order_tau"), [answered(steps, " > ".join(f"d{one}" for one in order))])
    assert 2 * tau - 1 == pytest.approx(kendalltau(np.arange(15), places).statistic, abs=1e-12)


# --- laws -------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40), st.text(max_size=80))
def test_any_reference_and_answer_can_be_graded(reference: str, answer: str) -> None:
    for name in installed():
        metric = get(name)
        value = plain(metric, [answered(reference, answer)])
        assert math.isnan(value) or metric.low <= value <= metric.high


def test_thousands_of_bootstrap_rows_are_quick() -> None:
    rng = np.random.default_rng(0)
    size, rows = 1000, 1000
    weights = rng.multinomial(size, np.full(size, 1 / size), size=rows).astype(np.float64)
    references = {
        "pr_auc": "1",
        "cost_error": '{"label": "word", "cost": 2}',
        "numeric_match": "3",
        "choice_letter": "B",
        "law_article_f1": "刑法第264条",
        "mechanism_steps": '[{"subtype": "a", "intermediate_smiles": "C", "step_weight": 1}]',
    }
    for name in installed():
        own = references.get(name, '{"a": "word"}' if name.startswith("json") else "one, two, three, four")
        parts = get(name).grade([answered(own, f"{rng.random()} word") for _ in range(size)])
        begun = process_time()
        assert get(name).values(parts, weights).shape == (rows,)
        assert process_time() - begun < 2.0, f"{name}: too slow to bootstrap"
