"""Causes of bad cases: each is found where it was planted, and the moves it names are the playbook's."""

from __future__ import annotations

import numpy as np
import pytest

from postgrad.analyze.causes import CAUSES, curve_causes, inference_causes, path_causes
from postgrad.analyze.findings import Material, findings_of
from postgrad.analyze.matrix import item_matrix
from postgrad.analyze.missing import far_from_train, similarity_to_label
from postgrad.metrics.base import Answered, Answers
from postgrad.metrics.items import Items, grade
from postgrad.records import Row
from postgrad.research.moves import PLAYS

STEPS = np.arange(40)


def labelled(truth: list[int], predicted: list[int], argmax: list[int] | None = None, unit: str = "s0") -> Items:
    """Items r000, r001, ... of one unit."""
    names = [f"r{n:03d}" for n in range(len(truth))]
    true, said, best = (np.array(values, dtype=np.int64) for values in (truth, predicted, argmax or predicted))
    keys = np.array([f"{unit}/{name}" for name in names])
    return Items(keys, np.array(names), Answers(true, said, best, np.ones(len(truth)), 3))


def spoken(answers: list[tuple[str, str, int]]) -> Items:
    """Items in words: (reference, answer, tokens)."""
    graded = grade([Answered("a question", wanted, said, tokens) for wanted, said, tokens in answers], ["exact_match"])
    keys = np.array([f"s0/r{n}" for n in range(len(answers))])
    return Items(keys, keys, graded)


def points(losses: np.ndarray) -> tuple[tuple[int, float], ...]:
    return tuple((n, float(loss)) for n, loss in enumerate(losses))


# --- the table ------------------------------------------------------------------------------------------------------


def test_causes_name_moves_of_the_playbook() -> None:
    known = {play.kind for play in PLAYS}
    for kind, cause in CAUSES.items():
        assert set(cause.moves) <= known, f"{kind} names {set(cause.moves) - known}"
        assert cause.moves or cause.otherwise, f"nothing is to be done about {kind}"


# --- inference ------------------------------------------------------------------------------------------------------


def test_a_rejection_of_a_right_answer_is_told_from_a_wrong_answer() -> None:
    items = labelled(truth=[0, 0, 0, -1, -1], predicted=[-1, -1, 1, 2, -1], argmax=[0, 1, 1, 2, 2])
    assert {cause.kind: cause.keys for cause in inference_causes(items)} == {
        "rejected": ("s0/r000",),
        "accepted": ("s0/r003",),
    }


def test_cut_answers_and_answers_in_the_wrong_form_are_told_apart() -> None:
    items = spoken(
        [("Paris", "The answer is: Paris.", 6), ("Rome", "Well, let me", 8), ("Bonn", "bonn", 8), ("a", "b", 1)]
    )
    found = {cause.kind: cause.keys for cause in inference_causes(items, max_new_tokens=8)}
    assert found == {"truncated": ("s0/r1",), "wrong_form": ("s0/r0",)}


# --- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "error", "kinds"),
    [
        (2.0 - 0.03 * STEPS, 0.3, ["underfit"]),
        (1.0 + 0.05 * STEPS, 0.3, ["divergence"]),
        (np.where(STEPS < 30, 1.0, np.nan), 0.3, ["divergence"]),
        (2.0 * np.exp(-0.5 * STEPS) + 0.01, 0.3, ["overfit"]),
        (2.0 * np.exp(-0.5 * STEPS) + 0.01, 0.02, []),
        (1.0 + np.exp(-0.5 * STEPS), 0.3, []),
        (2.0 - 0.3 * STEPS[:6], 0.3, []),
    ],
)
def test_curves_tell_what_went_wrong(losses: np.ndarray, error: float, kinds: list[str]) -> None:
    assert [cause.kind for cause in curve_causes([points(losses)] * 4, error)] == kinds


def test_one_odd_training_of_four_says_nothing() -> None:
    sound, odd = points(1.0 + np.exp(-0.5 * STEPS)), points(1.0 + 0.05 * STEPS)
    assert curve_causes([sound, sound, sound, odd], 0.3) == ()


def test_what_a_parent_solved_and_its_child_does_not_is_forgotten() -> None:
    truth = [0] * 60
    parent, child = labelled(truth, [0] * 40 + [1] * 20), labelled(truth, [1] * 12 + [0] * 30 + [1] * 18)
    (cause,) = path_causes(item_matrix({"e0": parent, "e1": child}), "e1", ["e0"])
    assert (cause.kind, len(cause.keys)) == ("forgetting", 12)
    even = labelled(truth, [1] * 12 + [0] * 40 + [1] * 8)
    assert path_causes(item_matrix({"e0": parent, "e1": even}), "e1", ["e0"]) == ()


def test_what_another_seed_solves_is_unstable() -> None:
    runs = {"e0": labelled([0, 0, 0], [0, 1, 1]), "e1": labelled([0, 0, 0], [1, 1, 0])}
    (cause,) = path_causes(item_matrix(runs, {"e0": "same", "e1": "same"}), "e0", [])
    assert (cause.kind, cause.keys) == ("unstable", ("s0/r002",))


# --- data -----------------------------------------------------------------------------------------------------------


def test_items_that_no_train_row_is_like_are_missing() -> None:
    train = [Row(f"t{n}", f"where is my order number {n}", "order") for n in range(20)]
    near = [Row(f"n{n}", f"where is my parcel number {n}", "order") for n in range(40)]
    far = [Row(f"f{n}", f"quux blargh {n} frotz", "order") for n in range(6)]
    similar = similarity_to_label(near + far, train)
    wrong = np.array([False] * 40 + [True] * 6)
    assert far_from_train(similar, wrong).tolist() == wrong.tolist()
    assert not far_from_train(np.full(46, 0.5), wrong).any()
    assert np.isnan(similarity_to_label([Row("x", "a text", "unheard of")], train)).all()


# --- all together ---------------------------------------------------------------------------------------------------

LABELS = ("refund", "password", "delivery")
WORDS = {
    "refund": ("refund", "money", "back", "return", "paid"),
    "password": ("password", "login", "account", "reset", "locked"),
    "delivery": ("parcel", "late", "courier", "tracking", "arrive"),
}


def material() -> Material:
    """120 rows asked by five recipes, each in the one unit it is not trained in. Two search labels are planted wrong,
    all recipes answer those as the text says, and the third label is answered wrong in every third item."""
    random = np.random.default_rng(0)
    rows = {}
    for n in range(120):
        label = LABELS[n % 3]
        text = " ".join([*random.choice(WORDS[label], 3, replace=False), f"item{random.integers(40)}"])
        rows[f"r{n:03d}"] = Row(f"r{n:03d}", text, label)
    told = [LABELS.index(row.label) for row in rows.values()]
    for planted, other in (("r000", "password"), ("r001", "delivery")):
        rows[planted] = rows[planted]._replace(label=other)
    truth = [LABELS.index(row.label) for row in rows.values()]
    answers = [0 if label == 2 and n % 9 == 2 else label for n, label in enumerate(told)]
    names, half = sorted(rows), 60
    units = {"s0": tuple(names[half:]), "s1": tuple(names[:half])}
    keys = np.array([f"s{n // half}/{name}" for n, name in enumerate(names)])
    true, said = (np.array(values, dtype=np.int64) for values in (truth, answers))
    items = Items(keys, np.array(names), Answers(true, said, said, np.ones(120), 3))
    return Material("e4", {f"e{n}": items for n in range(5)}, search=rows, train=rows, units=units)


def test_findings_of_a_run_name_what_was_planted() -> None:
    found = findings_of(material())
    assert (found.experiments, found.items, found.wrong) == (5, 120, 16)
    assert found.solved == {"never": 16, "sometimes": 0, "always": 104, "open": 0}
    assert {suspect.id for suspect in found.suspects} == {"r000", "r001"}
    assert found.slices[0].value == "delivery"
    (doubtful,) = [cause for cause in found.causes if cause.kind == "mislabelled"]
    assert doubtful.keys == ("s0/r000", "s0/r001")
    assert doubtful.known.where == "data"
    assert 1 <= sum(topic.size for topic in found.topics) <= found.wrong


def test_the_same_material_gives_the_same_findings() -> None:
    assert findings_of(material()) == findings_of(material())
