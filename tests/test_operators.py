"""The data operators: the contract for each of them, properties over random rows, and what each is for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from postgrad.data import OPERATORS
from postgrad.data.negatives import background_texts, word_weights
from postgrad.data.similarity import encoder_similarity, ngram_similarity
from postgrad.data.sources import load_rows
from postgrad.data.text import AddedIds, normalise_text, row_ids, stable_unit, text_id
from postgrad.records import Row, StepReport
from postgrad.testing.operator import OUT_OF_SCOPE, OperatorContract, example_rows

ROOT = Path(__file__).resolve().parent.parent


class TestNormalise(OperatorContract):
    operator = "normalise"
    params = {"unaccent": True}


class TestDedup(OperatorContract):
    operator = "dedup"


class TestCleanLabels(OperatorContract):
    operator = "clean_labels"
    params = {"likelier": 1.01}


class TestBalance(OperatorContract):
    operator = "balance"
    params = {"ratio": 1.0, "cap": 3}
    adds = False


class TestBalanceByCopies(OperatorContract):
    operator = "balance"
    params = {"ratio": 1.0}
    adds = True


class TestTypos(OperatorContract):
    operator = "typos"
    params = {"share": 1.5, "rate": 0.1}
    adds = True


class TestWordDropout(OperatorContract):
    operator = "word_dropout"
    params = {"share": 1.0, "keep": 0.5}
    adds = True


class TestNearMisses(OperatorContract):
    operator = "near_misses"
    params = {"share": 1.0}
    adds = True
    needs_out_of_scope = True


class TestBackground(OperatorContract):
    operator = "background"
    params = {"share": 2.0}
    adds = True
    needs_out_of_scope = True


class TestHeldOutIntents(OperatorContract):
    operator = "held_out_intents"
    params = {"share": 0.3}
    needs_out_of_scope = True


def test_every_operator_has_a_contract_test() -> None:
    tested = {kind.operator for kind in OperatorContract.__subclasses__()}
    assert tested == set(OPERATORS.names())


def run(
    name: str, rows: tuple[Row, ...], seed: int = 0, out_of_scope: str | None = OUT_OF_SCOPE, **params: Any
) -> tuple[tuple[Row, ...], StepReport]:
    operator = OPERATORS.get(name)
    checked = operator.Params.model_validate(params)
    return operator.apply(rows, checked, Random(seed), out_of_scope=out_of_scope, base_model=None)


def rows_of(*pairs: tuple[str, str]) -> tuple[Row, ...]:
    return tuple(Row(id, *pair) for id, pair in zip(row_ids(text for text, _ in pairs), pairs, strict=True))


# --- any rows -------------------------------------------------------------------------------------------------------

texts = st.text(min_size=1, max_size=60).filter(lambda text: bool(text.strip()))
any_rows = st.lists(st.tuples(texts, st.sampled_from(["A", "B", "C", OUT_OF_SCOPE])), max_size=12).map(
    lambda pairs: rows_of(*pairs)
)


@pytest.mark.parametrize("name", OPERATORS.names())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=any_rows, seed=st.integers(0, 5))
def test_any_rows_give_legal_rows(name: str, rows: tuple[Row, ...], seed: int) -> None:
    done, report = run(name, rows, seed)
    assert done == run(name, rows, seed)[0]
    assert report.rows_in + report.added - report.dropped == report.rows_out == len(done)
    assert len({row.id for row in done}) == len(done)
    assert {row.label for row in done} <= {row.label for row in rows} | {OUT_OF_SCOPE}
    assert all(row.text.strip() for row in done)


@settings(max_examples=300, deadline=None)
@given(text=st.text())
def test_normalised_text_stays_normalised(text: str) -> None:
    once = normalise_text(text)
    assert normalise_text(once) == once
    assert text_id(once) == text_id(text)


@given(words=st.lists(st.sampled_from(["a", "b", "A", "b!", " a "]), max_size=20))
def test_row_ids_are_unique_and_follow_the_text(words: list[str]) -> None:
    ids = row_ids(words)
    assert len(set(ids)) == len(ids)
    assert [id.split("#")[0] for id in ids] == [text_id(word) for word in words]


def test_stable_unit_is_uniform_and_fixed() -> None:
    values = [stable_unit(str(i), "s") for i in range(4000)]
    assert all(0 <= value < 1 for value in values)
    assert abs(sum(values) / 4000 - 0.5) < 0.02
    assert stable_unit("a", "s") != stable_unit("a", "t")
    # Splits of stored runs rest on this number: it must never change.
    assert stable_unit("0123456789abcdef", "search") == 0.4186305158006076


def test_added_ids_count_up() -> None:
    ids = AddedIds("typos", ["x", "x+typos"])
    assert [ids.new("x"), ids.new("x"), ids.new("y")] == ["x+typos2", "x+typos3", "y+typos"]


# --- one by one -----------------------------------------------------------------------------------------------------


def test_normalise_does_what_its_parameters_say() -> None:
    row = rows_of(("  Où  Est\tMON Colis? ", "A"))
    off: dict[str, Any] = {"lower": False, "strip": False, "collapse": False}
    assert run("normalise", row)[0][0].text == "où est mon colis?"
    assert run("normalise", row, **{**off, "strip": True})[0][0].text == "Où  Est\tMON Colis?"
    assert run("normalise", row, **{**off, "collapse": True})[0][0].text == " Où Est MON Colis? "
    assert run("normalise", row, **{**off, "unaccent": True})[0][0].text == "  Ou  Est\tMON Colis? "
    assert run("normalise", row, **off)[0] == row


def test_dedup_keeps_or_drops_texts_with_two_labels() -> None:
    rows = rows_of(("Hi!", "A"), ("hi", "B"), ("bye", "A"), ("Bye.", "A"))
    kept, report = run("dedup", rows)
    assert [(row.text, row.label) for row in kept] == [("Hi!", "A"), ("bye", "A")]
    assert (report.dropped, "1 texts" in report.note) == (2, True)
    kept, report = run("dedup", rows, conflicts="drop")
    assert [row.text for row in kept] == ["bye"]
    assert report.dropped == 3


def test_balance_reaches_its_ratio_and_its_cap() -> None:
    rows = rows_of(*((f"a{i}", "A") for i in range(20)), *((f"b{i}", "B") for i in range(3)), ("n", OUT_OF_SCOPE))
    counts = Counter(row.label for row in run("balance", rows, ratio=0.5)[0])
    assert counts == {"A": 20, "B": 10, OUT_OF_SCOPE: 1}
    done, report = run("balance", rows, ratio=1.0, cap=8)
    assert Counter(row.label for row in done) == {"A": 8, "B": 8, OUT_OF_SCOPE: 1}
    assert (report.dropped, report.added) == (12, 5)
    copies = Counter(row.id.split("+")[0] for row in done if row.label == "B")
    assert max(copies.values()) - min(copies.values()) <= 1


def test_typos_change_every_copy_a_little() -> None:
    rows = example_rows()
    done, report = run("typos", rows, share=2.0, rate=0.05)
    assert report.added == 2 * len(rows)
    source = {row.id: row for row in rows}
    for row in done[len(rows) :]:
        before = source[row.id.split("+")[0]]
        assert row.text != before.text and row.label == before.label
        assert abs(len(row.text) - len(before.text)) <= 6


def test_typos_at_a_low_rate_are_of_every_kind() -> None:
    rows = rows_of(("please cancel the order", "A"))
    made = {row.text for seed in range(10) for row in run("typos", rows, seed, share=4.0, rate=0.001)[0][1:]}
    assert {len(text) - len(rows[0].text) for text in made} == {-1, 0, 1}
    assert len(made) > 20


def test_typos_skip_texts_without_letters() -> None:
    done, report = run("typos", rows_of(("12345", "A"), ("hello there", "B")), share=1.0)
    assert (len(done), report.added) == (3, 1)
    assert "too short" in report.note


def test_word_dropout_keeps_words_of_the_source_only() -> None:
    rows = rows_of(
        ("please cancel the order i made an hour ago", "A"),
    )
    done, _ = run("word_dropout", rows, share=4.0, keep=0.5, fragments=False)
    words = rows[0].text.split()
    for row in done[1:]:
        kept = row.text.split()
        positions = [words.index(word) for word in kept]
        assert len(kept) == round(0.5 * len(words)) and positions == sorted(positions)


def test_word_weights_find_the_words_that_mark_a_label() -> None:
    weights = word_weights([row for row in example_rows() if row.label != OUT_OF_SCOPE])
    assert max(weights["REFUND"], key=lambda word: weights["REFUND"][word]) == "refund"
    assert weights["GIFT_CARD"]["gift"] > 0 > weights["OPENING_HOURS"]["do"] - weights["OPENING_HOURS"]["open"]


def test_near_misses_lose_the_words_that_bear_the_intent() -> None:
    rows = rows_of(
        *((f"i want a refund for order {i}", "REFUND") for i in range(6)),
        *((f"i want a voucher for order {i}", "VOUCHER") for i in range(6)),
    )
    done, report = run("near_misses", rows, share=0.5, words=1, mode="delete")
    made = done[len(rows) :]
    assert report.added == 6 and all(row.label == OUT_OF_SCOPE for row in made)
    assert all("refund" not in row.text and "voucher" not in row.text for row in made)
    assert not {normalise_text(row.text) for row in made} & {normalise_text(row.text) for row in rows}


def test_near_misses_make_no_text_twice_and_say_when_they_run_out() -> None:
    rows = rows_of(("refund now", "A"), ("open now", "B"))
    done, report = run("near_misses", rows, share=3.0, words=1, mode="delete")
    assert [row.text for row in done[2:]] == ["now"]
    assert "fewer than asked" in report.note


def test_background_leaves_out_what_is_close_to_train() -> None:
    close = background_texts()[0]
    rows = rows_of((close + " please", "A"), ("where is my order", "B"))
    done, report = run("background", rows, share=5.0)
    assert report.added == 10 and close not in {row.text for row in done}
    strict = run("background", rows, share=5.0, max_similarity=0.01)[1]
    assert int(strict.note.split()[0]) > int(report.note.split()[0])


def test_background_list_has_no_repeats() -> None:
    found = background_texts()
    assert len({normalise_text(text) for text in found}) == len(found) >= 900
    assert not any(text.startswith("#") for text in found)


def test_background_without_a_base_model_says_which_filter_it_took() -> None:
    assert "n-grams used" in run("background", example_rows(), filter="encoder")[1].note


def test_encoder_finds_paraphrases_that_ngrams_miss(minilm: Path) -> None:
    texts, others = ["give me my money back", "football results"], ["i would like a refund"]
    by_encoder, by_ngrams = encoder_similarity(texts, others, minilm), ngram_similarity(texts, others)
    assert by_encoder[0] > 0.5 > by_encoder[1]
    assert by_ngrams[0] < 0.2


def test_background_with_the_encoder(minilm: Path) -> None:
    operator = OPERATORS.get("background")
    params = operator.Params.model_validate({"filter": "encoder", "share": 3.0})
    rows, report = operator.apply(example_rows(), params, Random(0), out_of_scope=OUT_OF_SCOPE, base_model=minilm)
    added = [row.text for row in rows[len(example_rows()) :]]
    train = [row.text for row in example_rows() if row.label != OUT_OF_SCOPE]
    assert report.added == 3 * len(example_rows())
    assert max(encoder_similarity(added, train, minilm)) <= 0.5


def test_held_out_intents_leave_two_labels() -> None:
    done, report = run("held_out_intents", example_rows(), share=0.4)
    gone = {row.label for row in example_rows()} - {row.label for row in done}
    assert len(gone) == 2 and all(label in report.note for label in gone)
    assert [(row.id, row.text) for row in done] == [(row.id, row.text) for row in example_rows()]
    two = rows_of(("a", "A"), ("b", "B"))
    assert run("held_out_intents", two)[0] == two


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("typos", {"rate": 0.9}),
        ("typos", {"share": 0}),
        ("word_dropout", {"keep": 1.5}),
        ("near_misses", {"mode": "swap"}),
        ("near_misses", {"words": 0}),
        ("background", {"share": -1}),
        ("balance", {"ratio": 2}),
        ("balance", {"cap": 0}),
        ("held_out_intents", {"share": 0.9}),
        ("dedup", {"conflicts": "both"}),
        ("normalise", {"upper": True}),
    ],
)
def test_parameters_out_of_range_are_refused(name: str, params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OPERATORS.get(name).Params.model_validate(params)


def test_on_the_example_task() -> None:
    rows = load_rows("examples/maison/train.csv", input="text", target="label", root=ROOT)
    for name in OPERATORS.names():
        done, report = run(name, rows, out_of_scope="out_of_scope")
        assert report.rows_out == len(done) >= 0.9 * len(rows)
