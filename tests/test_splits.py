"""The split plan: nothing straddles, nothing leaks, file order does not matter."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postgrad.data.text import row_ids
from postgrad.errors import UserError
from postgrad.evaluate.splits import Near, Parts, SplitPlan, dump_rows, group_of, load_rows, split_task
from postgrad.records import DataSpec, Row, TaskSpec


def rows_of(pairs: list[tuple[str, str]]) -> tuple[Row, ...]:
    ids = row_ids([text for text, _ in pairs])
    return tuple(Row(name, text, label) for name, (text, label) in zip(ids, pairs, strict=True))


def task(out_of_scope: str | None = "oos", seed: int = 0) -> TaskSpec:
    data = DataSpec(train="train.csv", out_of_scope=out_of_scope)
    return TaskSpec(name="t", objective="o", data=data, metric="mcc", seed=seed)


def toy(labels: int = 10, each: int = 12) -> list[tuple[str, str]]:
    return [(f"question {i} about topic {label}", f"L{label}") for label in range(labels) for i in range(each)]


def test_cv_units_leave_whole_intents_out_and_ask_them_as_out_of_scope() -> None:
    plan, stored = split_task(task(), Parts(train=rows_of(toy()), test=rows_of([("never seen", "oos")])))
    assert plan.mode == "cv"
    by_id = {row.id: row for row in stored["train"]}
    assert {label for unit in plan.search for label in unit.held_out} == set(plan.labels)
    for unit in plan.search:
        assert unit.held_out
        assert not {by_id[name].label for name in unit.train} & set(unit.held_out)
        assert {name for name in by_id if by_id[name].label in unit.held_out} <= set(unit.items)
        assert not set(unit.train) & set(unit.items)


def test_search_and_select_use_other_folds() -> None:
    plan, _ = split_task(task(), Parts(train=rows_of(toy()), test=rows_of([("never seen", "oos")])))
    assert [set(u.items) for u in plan.search] != [set(u.items) for u in plan.select]


def test_without_rejection_every_row_is_asked_once() -> None:
    plan, stored = split_task(task(None), Parts(train=rows_of(toy()), test=rows_of([("never seen", "L1")])))
    asked = [name for unit in plan.search for name in unit.items]
    assert sorted(asked) == sorted(row.id for row in stored["train"])
    assert all(not unit.held_out for unit in plan.search)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcdefghij"), st.sampled_from(["X", "Y", "Z"])), min_size=30, max_size=80),
    st.integers(0, 5),
)
def test_duplicates_never_straddle(pairs: list[tuple[str, str]], seed: int) -> None:
    pairs = pairs + [(f"extra {i} {label}", label) for label in "XYZ" for i in range(9)]
    plan, stored = split_task(task(seed=seed), Parts(train=rows_of(pairs)))
    sealed = {group_of(name) for name in plan.sealed}
    for unit in (*plan.search, *plan.select):
        train = {group_of(name) for name in unit.train}
        assert not train & {group_of(name) for name in unit.items}
        assert not train & sealed
    assert sum(map(len, stored.values())) >= len(pairs) - sum(plan.removed.values())


def test_file_order_does_not_matter() -> None:
    pairs = toy()
    shuffled = random.Random(3).sample(pairs, len(pairs))
    first, _ = split_task(task(), Parts(train=rows_of(pairs)))
    second, _ = split_task(task(), Parts(train=rows_of(shuffled)))
    assert set(first.sealed) == set(second.sealed)
    assert [set(u.items) for u in first.search] == [set(u.items) for u in second.search]


def test_train_rows_that_are_in_the_test_file_are_removed_and_counted() -> None:
    pairs = toy()
    plan, stored = split_task(task(), Parts(train=rows_of(pairs), test=rows_of([("Question 3 about topic 4!", "L4")])))
    assert plan.removed["train"] == 1
    assert "question 3 about topic 4" not in {row.text for row in stored["train"]}


def test_dev_file_makes_two_holdouts() -> None:
    dev = rows_of([(f"dev {i} of {label}", f"L{label}") for label in range(10) for i in range(6)] + [("w", "oos")])
    plan, stored = split_task(task(), Parts(train=rows_of(toy()), dev=dev, test=rows_of([("x", "oos")])))
    assert plan.mode == "holdout"
    assert not {row.id for row in stored["search"]} & {row.id for row in stored["select"]}
    assert len(stored["search"]) + len(stored["select"]) == len(dev)


def test_one_row_classes_stay_in_train() -> None:
    pairs = [*toy(4), ("the only one", "RARE")]
    plan, stored = split_task(task(None), Parts(train=rows_of(pairs), test=rows_of([("x", "L1")])))
    rare = next(row.id for row in stored["train"] if row.label == "RARE")
    assert all(rare in unit.train and rare not in unit.items for unit in plan.search)


def test_one_class_is_refused() -> None:
    with pytest.raises(UserError, match="at least 2"):
        split_task(task(None), Parts(train=rows_of([(f"row {i}", "A") for i in range(30)])))


def test_plan_and_rows_round_trip() -> None:
    plan, stored = split_task(task(), Parts(train=rows_of(toy())))
    assert SplitPlan.model_validate_json(plan.model_dump_json()) == plan
    odd = (Row("1", 'quote " newline \n tab \t \u2028', "é"),)
    assert load_rows(dump_rows(odd)) == odd
    assert load_rows(dump_rows(stored["train"])) == stored["train"]


# --- near copies ----------------------------------------------------------------------------------------------------

WORDY = (
    "where is the parcel that I ordered last week",
    "please tell me how to return shoes that do not fit",
    "do your boutiques open on public holidays",
    "my gift card balance shows nothing at all",
    "can somebody engrave initials inside a ring",
    "I was charged twice for the same handbag",
)


def wordy(copies: int = 0) -> list[tuple[str, str]]:
    """Six sentences under each of six labels, told apart by two words, and near copies of some."""
    verbs = ("morning", "evening", "autumn", "winter", "harbour", "station")
    rows = [(f"{verb} {label}word {text}", f"L{label}") for label, verb in enumerate(verbs) for text in WORDY]
    edits = (
        str.upper,
        lambda text: f"hello {text}",
        lambda text: text.replace("e", "е"),
        lambda text: text + " thanks",
    )
    return rows + [(edits[n % 4](rows[n * 5 % len(rows)][0]), rows[n * 5 % len(rows)][1]) for n in range(copies)]


def test_near_copies_of_test_rows_are_removed_and_named_by_id() -> None:
    pairs = toy() + [("hello, where is the parcel that I ordered last week", "L1"), ("whеrе іs my rіng nоw", "L2")]
    test = rows_of([(WORDY[0], "L1"), ("where is my ring now", "L2")])
    plan, stored = split_task(task(), Parts(train=rows_of(pairs), test=test))
    assert plan.removed == {"train": 2, "dev": 0}
    assert plan.matches is not None
    found = {match.item: match for match in plan.matches["train"]}
    assert {name: match.how for name, match in found.items()} == {test[0].id: "contained", test[1].id: "exact"}
    assert not {match.row for match in found.values()} & {row.id for row in stored["train"]}
    assert "parcel" not in plan.model_dump_json()


def test_near_copies_of_dev_rows_leave_train_and_those_of_test_rows_leave_dev() -> None:
    dev = [(f"dev {i} of {label}", f"L{label}") for label in range(10) for i in range(6)]
    dev.append((f"Hello! {WORDY[1]}", "L3"))
    pairs = [*toy(), ("please tell me how to return shoes that do not fti", "L3"), ("DEV 1 - of: 2", "L2")]
    parts = Parts(train=rows_of(pairs), dev=rows_of(dev), test=rows_of([(WORDY[1], "L3")]))
    plan, stored = split_task(task(), parts)
    assert plan.removed == {"train": 2, "dev": 1}
    assert len(stored["search"]) + len(stored["select"]) == len(dev) - 1


@pytest.mark.parametrize("seed", range(4))
def test_near_copies_never_straddle(seed: int) -> None:
    rows = rows_of(wordy(copies=14))
    near = Near(rows)
    assert len({near(row.id) for row in rows}) == len(wordy()), "each copy is with its original"
    plan, _ = split_task(task(seed=seed), Parts(train=rows))
    sealed = {near(name) for name in plan.sealed}
    for unit in (*plan.search, *plan.select):
        train = {near(name) for name in unit.train}
        assert not train & {near(name) for name in unit.items}
        assert not train & sealed
    assert plan.removed == {"train": 0, "dev": 0}


def test_file_order_does_not_matter_to_near_copies() -> None:
    pairs = wordy(copies=14)
    first, _ = split_task(task(), Parts(train=rows_of(pairs)))
    second, _ = split_task(task(), Parts(train=rows_of(random.Random(5).sample(pairs, len(pairs)))))
    assert set(first.sealed) == set(second.sealed)
    assert [set(u.items) for u in first.search] == [set(u.items) for u in second.search]
    assert [set(u.train) for u in first.search] == [set(u.train) for u in second.search]


def test_plans_that_looked_for_equal_texts_only_are_still_read() -> None:
    plan, _ = split_task(task(), Parts(train=rows_of(toy())))
    older = plan.model_dump(mode="json")
    del older["matches"]
    assert SplitPlan.model_validate(older).matches is None
