"""The matrix of all answers, and weak slices: a planted one is found, and none is made up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from postgrad.analyze.matrix import counts, item_matrix, solving
from postgrad.analyze.slices import Case, all_slices, benjamini_hochberg, script_of, weak_slices
from postgrad.metrics.base import Answers
from postgrad.metrics.items import Items

SOURCES = ("mail", "chat", "form", "phone")


def items(right: dict[str, bool]) -> Items:
    """Items of two labels, answered right or wrong as told."""
    keys = np.array(list(right))
    truth = np.zeros(len(keys), dtype=np.int64)
    predicted = np.array([0 if good else 1 for good in right.values()], dtype=np.int64)
    answers = Answers(truth, predicted, predicted, np.ones(len(keys)), 2)
    return Items(keys, np.array([key.split("/")[1] for key in right]), answers)


def cases(seed: int, weak: str | None = None, count: int = 400) -> list[Case]:
    """Cases of many kinds that say nothing of errors (15 %), but for a weak source (45 %)."""
    random = np.random.default_rng(seed)
    made = []
    for n in range(count):
        source = SOURCES[random.integers(len(SOURCES))]
        text = " ".join(["word", "слово"][int(random.random() < 0.3)] for _ in range(random.integers(2, 20)))
        wrong = bool(random.random() < (0.45 if source == weak else 0.15))
        label = f"label {random.integers(10)}"
        made.append(Case(f"s0/r{n}", f"r{n}", text, label, wrong, bool(random.random() < 0.2), {"source": source}))
    return made


# --- the matrix -----------------------------------------------------------------------------------------------------


def test_an_item_is_never_solved_only_where_it_was_asked_often_enough() -> None:
    answered = {f"e{n}": items({"s0/hard": False, "s0/easy": True, "s0/even": n % 2 == 0}) for n in range(6)}
    answered["e6"] = items({"s0/young": False})
    found = {each.key: each for each in solving(item_matrix(answered))}
    assert found["s0/hard"].state == "never"
    assert found["s0/hard"].sure == pytest.approx(1 - 0.5**7)
    assert found["s0/easy"].state == "always"
    assert found["s0/even"].state == "sometimes"
    assert (found["s0/young"].state, found["s0/young"].asked) == ("open", 1)
    assert counts(tuple(found.values())) == {"never": 1, "sometimes": 1, "always": 1, "open": 1}


def test_seeds_of_one_recipe_are_one_vote() -> None:
    answered = {f"e{n}": items({"s0/hard": False}) for n in range(6)}
    recipes = dict.fromkeys(answered, "the same recipe")
    (only,) = solving(item_matrix(answered, recipes))
    assert (only.state, only.asked) == ("open", 1)


def test_what_was_not_asked_is_no_zero() -> None:
    matrix = item_matrix({"e0": items({"s0/a": True, "s1/b": False}), "e1": items({"s0/a": False})})
    assert matrix.keys.tolist() == ["s0/a", "s1/b"]
    assert matrix.groups.tolist() == ["a", "b"]
    assert np.array_equal(matrix.values, np.array([[1.0, 0.0], [0.0, np.nan]]), equal_nan=True)


def test_answers_in_words_have_their_values_and_are_solved_at_the_best_one() -> None:
    matrix = item_matrix(
        {"e0": items({"s0/a": True, "s0/b": True, "s0/c": True})},
        values=lambda _: np.array([99.9995, 40.0, np.nan]),
        best=100.0,
    )
    assert np.array_equal(matrix.right, np.array([[1.0, 0.0, np.nan]]), equal_nan=True)


def test_a_run_without_answers_has_an_empty_matrix() -> None:
    assert solving(item_matrix({})) == ()


# --- slices ---------------------------------------------------------------------------------------------------------


def test_a_planted_weak_slice_is_found() -> None:
    found = [weak_slices(cases(seed, weak="chat")) for seed in range(20)]
    first = sum(bool(each) and each[0].value == "chat" for each in found)
    others = sum(one.value != "chat" for each in found for one in each)
    print(f"planted slice (45 % wrong against 15 %, 100 of 400 items): first in {first} of 20, {others} others in all")
    assert first >= 19
    assert others <= 4


def test_hardly_any_slice_is_found_where_there_is_none() -> None:
    """With nothing planted every discovery is false, and a false discovery rate of 5 % is the chance of having one."""
    runs = 200
    false = sum(bool(weak_slices(cases(seed, count=200))) for seed in range(runs))
    print(f"{false} of {runs} runs without a weak slice report one")
    assert false <= 0.05 * runs + 2 * (0.05 * 0.95 * runs) ** 0.5


def test_shuffled_errors_leave_nothing_of_a_planted_slice() -> None:
    planted = cases(0, weak="chat")
    false = 0
    for seed in range(40):
        order = np.random.default_rng(seed).permutation(len(planted))
        dealt = [replace(case, wrong=planted[int(at)].wrong) for case, at in zip(planted, order, strict=True)]
        false += bool(weak_slices(dealt))
    assert false <= 5


def test_small_slices_are_not_tested() -> None:
    few = [replace(case, tags={"source": "fax" if n < 5 else "mail"}) for n, case in enumerate(cases(1))]
    assert "fax" not in {each.value for each in all_slices([replace(c, wrong=n < 5) for n, c in enumerate(few)])}


def test_copies_of_a_row_are_one_piece_of_evidence() -> None:
    many = [Case(f"s0/r{n}", f"r{n}", "a text", "one" if n < 10 else "two", n == 0) for n in range(40)]
    copies = [replace(many[0], key=f"s0/r0+{n}") for n in range(30)]
    slice_ = next(each for each in all_slices(many + copies) if each.value == "one")
    assert (slice_.wrong, slice_.size) == (1, 10)
    assert not weak_slices(many + copies)


def test_lengths_are_cut_at_their_quarters() -> None:
    made = [Case(f"s0/r{n}", f"r{n}", "word " * (1 + n % 20), "one", n % 20 >= 15) for n in range(200)]
    (longest,) = weak_slices(made)
    assert (longest.kind, longest.value, longest.wrong, longest.size) == ("length", "16 to 20 words", 50, 50)


def test_adjusted_p_values_are_those_of_scipy() -> None:
    from scipy.stats import false_discovery_control

    p_values = [0.001, 0.2, 0.03, 0.03, 0.9, 0.0004]
    assert benjamini_hochberg(p_values) == pytest.approx(list(false_discovery_control(p_values)))
    assert benjamini_hochberg([]) == []


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Where is my order?", "LATIN"),
        ("Где мой заказ?", "CYRILLIC"),
        ("我的订单在哪里", "HAN"),
        ("मेरा ऑर्डर", "DEVANAGARI"),
        ("заказ order", "mixed"),
        ("123 !", "no letters"),
    ],
)
def test_scripts_are_told_apart(text: str, script: str) -> None:
    assert script_of(text) == script
