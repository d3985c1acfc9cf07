"""The split plan: nothing straddles, nothing leaks, file order does not matter."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postgrad.data.text import row_ids
from postgrad.errors import UserError
from postgrad.evaluate.splits import Parts, SplitPlan, dump_rows, group_of, load_rows, split_task
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
