"""The contract of a metric over answers in words, as tests: give it your metric, and it says if the referee can use it.

In a test file of your own package::

    class TestMyMetric(TextMetricContract):
        metric = MyMetric()
        cases = (TextCase((("Paris", "paris"), ("Rome", "Oslo")), value=0.5),)
        references = ("Paris", "Rome")

It needs pytest as the runner only. It does not judge whether the metric measures something worth knowing: that is what
the hand-computed `cases` are for.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import process_time
from typing import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from postgrad.metrics.base import Answered, TextMetric

SEEDS = range(8)
SIZE = 24
TOLERANCE = 1e-9
SECONDS = 3.0  # for one answer; an honest one takes well under a millisecond
_LONG = 100_000

HOSTILE: dict[str, str] = {
    "nothing": "",
    "white space": " \t\n\r\x0b\u2028 ",
    "long white space": " " * _LONG,
    "long word": "y" * _LONG,
    "long stem": "y" * _LONG + "ational",
    "long number": "9" * _LONG,
    "long words": " ".join(f"word{number}ing" for number in range(_LONG // 12)),
    "long lines": "\n" * _LONG,
    "many letters": "A " * (_LONG // 2),
    "control characters": "".join(map(chr, range(32))) + "\x7f\x00\ufeff\u202e" * 50,
    "lone surrogates": "\ud800 \udfff a\udc80b 7\ud83d" * 50,
    "escaped surrogates": '{"a": "\\ud800"}',
    "open lists": "[" * _LONG,
    "open objects": '{"a":' * (_LONG // 5),
    "deep lists": "[" * (_LONG // 2) + "]" * (_LONG // 2),
    "broken objects": "{" * _LONG,
    "open strings": '["' * (_LONG // 2),
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "NaN in JSON": '{"a": NaN, "b": [Infinity, -Infinity]}',
    "huge exponent": "1e999999999",
    "huge numbers in JSON": '{"a": 1' + "0" * 5000 + ', "b": 1e999, "c": -1e-999}',
    "division by nothing": "1/0",
    "many separators": "1,000" * (_LONG // 5),
    "many fractions": "1 1/" * (_LONG // 4),
    "many signs": "-" * _LONG + "+" * _LONG,
    "nested quantifiers": "a" * 5_000 + "!" + "(a+)+$" * 1_000,
    "backslashes": "\\frac{" * (_LONG // 6),
    "fences": "```json\n" * (_LONG // 8),
    "HTML": "&amp;<skipped>-\n" * (_LONG // 16),
    "every case": "İßŉΣςǅﬃ" * 1_000,
    "combining marks": "a" + "\u0301" * _LONG,
}
"""Answers that break careless readers."""


@dataclass(frozen=True)
class TextCase:
    """(reference, answer) pairs with the value that a person computed by hand; NaN is unscored.

    Attributes:
        tokens: of each answer; as many as it has words where it is left out.
        verdicts: what a judge said of each; what the suite's own judge says where they are left out.
    """

    pairs: tuple[tuple[str, str], ...]
    value: float
    weights: tuple[float, ...] | None = None
    tokens: tuple[int, ...] | None = None
    verdicts: tuple[tuple[float, ...], ...] | None = None

    def items(self) -> list[Answered]:
        items = [answered(reference, answer) for reference, answer in self.pairs]
        if self.tokens is None:
            return items
        return [item._replace(tokens=count) for item, count in zip(items, self.tokens, strict=True)]


def answered(reference: str, answer: str) -> Answered:
    """An item with a plausible count of tokens: none only where nothing was answered."""
    return Answered("question", reference, answer, max(len(answer.split()), int(bool(answer))))


def weighted(metric: TextMetric, items: Sequence[Answered], weights: ArrayLike) -> float:
    """The metric under one row of weights."""
    values = metric.values(metric.grade(items), np.asarray(weights, dtype=np.float64).reshape(1, len(items)))
    assert values.shape == (1,), f"expected (1,) values for (1, N) weights, got {values.shape}"
    return float(values[0])


def plain(metric: TextMetric, items: Sequence[Answered]) -> float:
    """The metric with all weights one."""
    return weighted(metric, items, np.ones(len(items)))


def same(first: float, second: float, *, scale: float = 1.0) -> bool:
    """Equal up to rounding; two NaN are equal."""
    return bool(np.isclose(first, second, rtol=0.0, atol=TOLERANCE * scale, equal_nan=True))


class TextMetricContract:
    """Inherit, set `metric`, `cases` and `references`, run pytest.

    Attributes:
        references: two or more that can be read, from which random items are made.
        unreadable: references that leave an item unscored.
        scale_matters: True for a metric that halved weights may change.
    """

    metric: TextMetric
    cases: tuple[TextCase, ...] = ()
    references: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    scale_matters = False

    def perfect(self, reference: str) -> str:
        """The best answer to a reference."""
        return reference

    def check(self, reference: str) -> str:
        """What grades an answer to a reference, for metrics that need more than the reference."""
        return ""

    def verdicts(self, reference: str, answer: str) -> tuple[float, ...]:
        """What a judge says of an answer, for metrics that count verdicts."""
        return ()

    def item(self, reference: str, answer: str) -> Answered:
        return self._completed(answered(reference, answer))

    def _completed(self, item: Answered) -> Answered:
        said = self.verdicts(item.reference, item.answer)
        return item._replace(check=self.check(item.reference), verdicts=said)

    def items(self, seed: int) -> list[Answered]:
        """Random items: right answers, answers to other references, both in one, words, nothing, and among the
        references some that cannot be read."""
        rng = np.random.default_rng(seed)
        own = [*self.references, *self.unreadable]
        right = [self.perfect(one) for one in self.references]
        items = []
        for place in range(SIZE):
            # Each readable reference comes at least once, so that the metric is defined.
            chosen = place if place < len(self.references) else int(rng.integers(len(own)))
            other = right[int(rng.integers(len(right)))]
            mine = right[chosen] if chosen < len(right) else other
            mixed = f"{mine} {other}" if rng.random() < 0.5 else mine[: int(rng.integers(len(mine) + 1))]
            items.append(self.item(own[chosen], [mine, mine, other, mixed, "some words 7", ""][int(rng.integers(6))]))
        return items

    def everything(self) -> Iterator[tuple[int, list[Answered], NDArray[np.float64]]]:
        """Seed, items and their parts for the laws below."""
        assert len(set(self.references)) > 1, "give at least two references"
        for seed in SEEDS:
            items = self.items(seed)
            yield seed, items, self.metric.grade(items)

    def _same(self, first: float, second: float) -> bool:
        return same(first, second, scale=max(1.0, abs(self.metric.low), abs(self.metric.high)))

    def _readable(self, item: Answered) -> bool:
        return item.reference in self.references

    def test_hand_computed_cases(self) -> None:
        assert self.cases, "give at least one case that was computed by hand"
        for case in self.cases:
            weights = case.weights if case.weights is not None else (1.0,) * len(case.pairs)
            items = [self._completed(item) for item in case.items()]
            if case.verdicts is not None:
                items = [item._replace(verdicts=said) for item, said in zip(items, case.verdicts, strict=True)]
            got = weighted(self.metric, items, weights)
            assert self._same(got, case.value), f"{case}: got {got}"

    def test_grading_gives_one_row_an_item(self) -> None:
        for _, items, parts in self.everything():
            assert parts.dtype == np.float64
            assert parts.ndim == 2 and len(parts) == len(items)
            assert not np.isinf(parts).any()
            unscored = np.isnan(parts)
            assert (unscored.any(axis=1) == unscored.all(axis=1)).all(), "an unscored row is NaN as a whole"

    def test_values_stay_in_range(self) -> None:
        assert np.isfinite(self.metric.low) and np.isfinite(self.metric.high)
        assert self.metric.low < self.metric.high
        for seed, items, parts in self.everything():
            weights = np.random.default_rng(seed).exponential(size=(20, len(items)))
            values = self.metric.values(parts, weights)
            assert values.shape == (20,)
            assert not np.isnan(values).any()
            assert ((values >= self.metric.low) & (values <= self.metric.high)).all()

    def test_perfect_answers_are_the_best(self) -> None:
        items = [self.item(one, self.perfect(one)) for one in self.references]
        assert self._same(plain(self.metric, items), self.metric.high)
        for _, items, _ in self.everything():
            best = [self.item(one.reference, self.perfect(one.reference)) for one in items if self._readable(one)]
            assert self._same(plain(self.metric, best), self.metric.high)

    def test_a_weight_counts_repeats(self) -> None:
        for seed, items, parts in self.everything():
            repeats = np.random.default_rng(seed).integers(0, 4, len(items))
            by_weight = self.metric.values(parts, repeats[None, :].astype(np.float64))[0]
            repeated = [item for item, count in zip(items, repeats, strict=True) for _ in range(count)]
            assert self._same(float(by_weight), plain(self.metric, repeated))

    def test_the_scale_of_weights_does_not_matter(self) -> None:
        for _, items, _ in [] if self.scale_matters else self.everything():
            assert self._same(weighted(self.metric, items, np.full(len(items), 0.1)), plain(self.metric, items))

    def test_rows_of_weights_do_not_touch_each_other(self) -> None:
        for seed, items, parts in self.everything():
            weights = np.random.default_rng(seed).exponential(size=(5, len(items)))
            together = self.metric.values(parts, weights)
            alone = [self.metric.values(parts, weights[i : i + 1])[0] for i in range(5)]
            assert all(map(self._same, together, alone))

    def test_the_order_of_items_does_not_matter(self) -> None:
        for seed, items, _ in self.everything():
            order = np.random.default_rng(seed).permutation(len(items))
            assert self._same(plain(self.metric, [items[i] for i in order]), plain(self.metric, items))

    def test_parts_of_some_items_are_rows_of_the_parts(self) -> None:
        """A slice is taken from the parts; it has to be what grading the slice gives."""
        for _, items, parts in self.everything():
            half = self.metric.values(parts[::2], np.ones((1, len(items[::2]))))[0]
            assert self._same(float(half), plain(self.metric, items[::2]))

    def test_two_models_have_parts_of_one_shape(self) -> None:
        """What answers there are changes no column: two models are compared on the same items."""
        items = self.items(0)
        others = [self.item(item.reference, "something else") for item in items]
        assert self.metric.grade(items).shape == self.metric.grade(others).shape

    def test_nothing_to_score_is_unscored(self) -> None:
        items = self.items(0)
        assert np.isnan(weighted(self.metric, items, np.zeros(len(items))))
        assert np.isnan(plain(self.metric, []))

    def test_unreadable_references_leave_the_metric(self) -> None:
        scored = [self.item(one, self.perfect(one)) for one in self.references]
        for reference in self.unreadable:
            item = self.item(reference, self.perfect(self.references[0]))
            assert np.isnan(self.metric.grade([item])).all(), f"{reference!r} was scored"
            assert np.isnan(plain(self.metric, [item]))
            assert self._same(plain(self.metric, [*scored, item]), plain(self.metric, scored))

    def test_input_is_untouched(self) -> None:
        items = self.items(0)
        kept = list(items)
        parts, weights = self.metric.grade(items), np.ones((2, len(items)))
        before = parts.copy(), weights.copy()
        self.metric.values(parts, weights)
        assert items == kept
        assert np.array_equal(parts, before[0], equal_nan=True) and np.array_equal(weights, before[1])

    def test_the_same_twice(self) -> None:
        items, weights = self.items(0), np.random.default_rng(0).exponential(size=(3, SIZE))
        first, second = self.metric.grade(items), type(self.metric)().grade(items)
        assert np.array_equal(first, second, equal_nan=True)
        assert np.array_equal(self.metric.values(first, weights), self.metric.values(second, weights), equal_nan=True)

    def test_no_answer_makes_it_fail_or_wait(self) -> None:
        reference = self.references[0]
        for what, answer in HOSTILE.items():
            begun = process_time()
            parts = self.metric.grade([self.item(reference, answer)])
            value = self.metric.values(parts, np.ones((1, 1)))[0]
            assert process_time() - begun < SECONDS, f"{what}: took {process_time() - begun:.1f} s"
            assert np.isnan(value) or self.metric.low <= value <= self.metric.high, what

    def test_no_answer_takes_its_item_out(self) -> None:
        """Else a model could answer rubbish to the hard ones."""
        references = [*self.references, *self.unreadable]
        for answer in (text[:1_000] for text in HOSTILE.values()):
            unscored = np.isnan(self.metric.grade([self.item(one, answer) for one in references])).any(axis=1)
            expected = [place >= len(self.references) for place in range(len(references))]
            assert unscored.tolist() == expected, answer[:40]
