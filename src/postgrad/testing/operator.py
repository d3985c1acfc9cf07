"""The contract of a data operator, as tests. Give it your operator and it says whether recipes can use it.

In a test file of your own package::

    class TestMyOperator(OperatorContract):
        operator = "my_operator"
        params = {"share": 0.5}

It needs pytest as the runner only. It does not judge whether the operator helps: runs do.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, Mapping

from postgrad.data import OPERATORS
from postgrad.data.text import row_ids
from postgrad.records import Record, Row, StepReport

OUT_OF_SCOPE = "none_of_these"
_TEXTS = {
    "TRACK_ORDER": ("Where is my order?", "Track my parcel please", "order status", "when will the package arrive"),
    "REFUND": ("I want my money back", "Refund for the broken lamp!", "how do refunds work", "refund refund"),
    "OPENING_HOURS": ("When do you open on Sunday?", "opening hours", "are you open late today"),
    "GIFT_CARD": ("Can I pay with a gift card?", "Où acheter une carte cadeau ?", "gift card balance check"),
    "CANCEL": ("Cancel my order", "cancel my order.", "please stop the order i made an hour ago"),
    OUT_OF_SCOPE: ("what is the capital of peru", "tell me a joke"),
}


def example_rows() -> tuple[Row, ...]:
    """19 rows with five labels of two to four rows, two negatives, a duplicate and a text that is not ASCII."""
    pairs = [(text, label) for label, texts in _TEXTS.items() for text in texts]
    ids = row_ids(text for text, _ in pairs)
    return tuple(Row(id, text, label) for id, (text, label) in zip(ids, pairs, strict=True))


class OperatorContract:
    """Subclass it as `Test...` and set the attributes.

    Attributes:
        operator: name in the registry.
        params: parameters of a use that changes the example rows where the operator can.
        adds: it adds rows to the example rows.
        needs_out_of_scope: it makes negatives, so it changes nothing where the task has no out-of-scope label.
        base_model: local folder of a model, for an operator that uses one.
    """

    operator: str
    params: Mapping[str, Any] = {}
    adds: bool = False
    needs_out_of_scope: bool = False
    base_model: Path | None = None

    def apply(
        self, rows: tuple[Row, ...], seed: int = 0, out_of_scope: str | None = OUT_OF_SCOPE
    ) -> tuple[tuple[Row, ...], StepReport]:
        """Run the operator with the class's parameters."""
        operator = OPERATORS.get(self.operator)
        params = operator.Params.model_validate(dict(self.params))
        return operator.apply(rows, params, Random(seed), out_of_scope=out_of_scope, base_model=self.base_model)

    def test_params_are_a_record_with_defaults(self) -> None:
        params = OPERATORS.get(self.operator).Params
        assert issubclass(params, Record)
        assert params.model_validate_json(params().model_dump_json()) == params()

    def test_input_is_untouched(self) -> None:
        rows = example_rows()
        self.apply(rows)
        assert rows == example_rows()

    def test_report_adds_up(self) -> None:
        for seed in range(5):
            rows, report = self.apply(example_rows(), seed)
            assert report.op == self.operator
            assert (report.rows_in, report.rows_out) == (len(example_rows()), len(rows))
            assert report.rows_in + report.added - report.dropped == report.rows_out
            assert report.added >= 0 and report.dropped >= 0

    def test_report_counts_the_rows_that_came_and_went(self) -> None:
        before = {row.id for row in example_rows()}
        rows, report = self.apply(example_rows())
        after = {row.id for row in rows}
        assert len(after - before) == report.added
        assert len(before - after) == report.dropped

    def test_it_does_something(self) -> None:
        rows, report = self.apply(example_rows())
        assert rows != example_rows()
        assert (report.added > 0) == self.adds

    def test_same_seed_same_result(self) -> None:
        for seed in range(3):
            assert self.apply(example_rows(), seed) == self.apply(example_rows(), seed)

    def test_any_seed_gives_legal_rows(self) -> None:
        for seed in range(8):
            self._check(example_rows(), self.apply(example_rows(), seed)[0])

    def test_twice_in_a_recipe(self) -> None:
        once, _ = self.apply(example_rows())
        twice, report = self.apply(once, seed=1)
        self._check(once, twice)
        assert report.rows_in == len(once)

    def test_no_rows(self) -> None:
        rows, report = self.apply(())
        assert (rows, report.rows_in, report.rows_out) == ((), 0, 0)

    def test_one_row(self) -> None:
        row = example_rows()[:1]
        rows, report = self.apply(row)
        self._check(row, rows)
        assert report.rows_out == len(rows) >= 1

    def test_texts_of_one_word_and_of_none(self) -> None:
        rows = (Row("a", "refund", "A"), Row("b", "?", "B"), Row("c", "€5", "A"), Row("d", "ok", "C"))
        self._check(rows, self.apply(rows)[0])

    def test_without_an_out_of_scope_label(self) -> None:
        in_scope = tuple(row for row in example_rows() if row.label != OUT_OF_SCOPE)
        rows, report = self.apply(in_scope, out_of_scope=None)
        self._check(in_scope, rows, out_of_scope=None)
        if self.needs_out_of_scope:
            assert rows == in_scope
            assert report.note

    def _check(self, before: tuple[Row, ...], after: tuple[Row, ...], out_of_scope: str | None = OUT_OF_SCOPE) -> None:
        """Ids are unique, labels are known, texts are there, and the id of an added row names the operator."""
        repeated = [id for id, count in Counter(row.id for row in after).items() if count > 1]
        assert not repeated, f"ids given twice: {repeated}"
        known = {row.label for row in before} | ({out_of_scope} if out_of_scope else set())
        assert {row.label for row in after} <= known
        assert all(row.text.strip() for row in after)
        ids = {row.id for row in before}
        added = [row for row in after if row.id not in ids]
        assert all(f"+{self.operator}" in row.id for row in added)
        if self.needs_out_of_scope:
            assert all(row.label == out_of_scope for row in added)
