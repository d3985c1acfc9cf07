"""Near copies: trivially edited copies are found, honest different sentences stay, and ids are all that comes out."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postgrad.bench.overlaps import EDITS, planted
from postgrad.data.decontaminate import Match, by_matcher, cleared, find_neighbours, find_overlaps, near_groups
from postgrad.data.folding import Item, folded, words_of
from postgrad.data.sources import load_rows
from postgrad.data.text import row_ids
from postgrad.records import Row
from postgrad.testing.encoder import make_tiny_encoder

QUESTIONS = (
    "where is the parcel that I ordered last week",
    "please tell me how to return shoes that do not fit",
    "do your boutiques open on public holidays",
    "my gift card balance shows zero euros",
    "can somebody engrave initials inside a ring",
    "I was charged twice for the same handbag",
    "which sizes of the linen jacket are left",
    "change the delivery address of order 4711",
)
# Pairs that share words, and ask for something else or ask it in other words.
HONEST = (
    ("where is my order", "where is your shop"),
    ("I want to return my order", "I want to track my order"),
    ("can I pay in cash", "can I pay in instalments"),
    ("open my account", "close my account"),
    ("table for 2 tonight", "table for 4 tonight"),
    ("from 2 to 4 please", "from 4 to 2 please"),
    ("what is order 123456", "what is order 123457"),
    ("6*3", "63"),
    ("flights to the US", "flights to the UK"),
    ("refund", "refunds"),
    ("How do I change my PIN abroad?", "Is it possible to change my PIN while I travel?"),
    ("I lost my card in a shop yesterday evening and want it blocked", "I lost my card"),
    ("我的订单在哪里", "我的退款在哪里"),
)


def rows_of(texts: tuple[str, ...] | list[str], label: str = "A") -> tuple[Row, ...]:
    return tuple(Row(name, text, label) for name, text in zip(row_ids(texts), texts, strict=True))


def hows(train: list[str], protected: list[str]) -> dict[str, str]:
    """Train text -> matcher that found it."""
    rows = rows_of(train)
    texts = {row.id: row.text for row in rows}
    return {texts[match.row]: match.how for match in find_overlaps(rows, rows_of(protected))}


# --- copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edit", [name for name in EDITS if name != "another frame around each copy"])
@pytest.mark.parametrize("seed", range(3))
def test_trivially_edited_copies_are_found(edit: str, seed: int) -> None:
    protected = rows_of(QUESTIONS)
    copies = planted(protected, EDITS[edit], seed)
    found = find_overlaps([*rows_of(["something else entirely"]), *copies], protected)
    assert {match.row: match.item for match in found} == {
        copy.id: row.id for copy, row in zip(copies, protected, strict=True)
    }


@pytest.mark.parametrize(
    ("copy", "how"),
    [
        ("WHERE is the parcel, that I ordered... last week?!", "exact"),
        ("whеrе is thе pаrсеl thаt I оrdеrеd lаst wееk", "exact"),
        ("wh\u200bere is the par\u00adcel that I or\u2060dered last week", "exact"),
        ("where isthe par cel that I ordered last week", "exact"),
        ("last week where is the parcel that I ordered", "reordered"),
        ("where is the parcle that I ordered last week", "mistyped"),
        ("question from a customer: where is the parcel that I ordered last week (end)", "contained"),
        ("where is the parcel that I ordered just last week", "minhash"),
    ],
)
def test_the_cheapest_matcher_that_finds_a_copy_is_named(copy: str, how: str) -> None:
    assert hows([copy], list(QUESTIONS)) == {copy: how}


def test_long_texts_that_share_half_of_their_word_sequences() -> None:
    rng = Random(3)
    words = [f"w{number}" for number in range(3000)]
    document = [rng.choice(words) for _ in range(400)]
    paragraph = " ".join(document[100:160])
    half = " ".join([*document[:230], *(rng.choice(words) for _ in range(170))])
    other = " ".join([*document[:60], *(rng.choice(words) for _ in range(340))])
    assert hows([paragraph, half, other], [" ".join(document)]) == {paragraph: "ngrams", half: "ngrams"}


def test_a_template_around_everything_makes_no_two_texts_alike() -> None:
    frame = "You are the help desk of a fashion house. Read the message, name its intent and nothing else. {} Intent:"
    train = [frame.format(f"{verb} the {noun}") for verb in ("open", "find", "send") for noun in ("card", "box", "tin")]
    test = [frame.format(f"{verb} the {noun}") for verb in ("close", "lose") for noun in ("card", "box", "tin", "jar")]
    assert hows(train, test) == {}
    assert hows([*train, test[0].upper()], test) == {test[0].upper(): "exact"}


def test_a_template_around_copies_of_short_texts_is_seen_in_several_of_them() -> None:
    short = ["gift card", "store hours", "lost ring", "size help"]
    copies = [f"the customer says {text} please route" for text in short]
    assert hows([*copies, "where are you"], short) == dict.fromkeys(copies, "contained")
    assert hows([copies[0], "where are you"], short) == {}, "one alone may be honest"


# --- honest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), HONEST)
def test_honest_different_sentences_stay(first: str, second: str) -> None:
    assert hows([first], [second]) == {}
    assert hows([second], [first]) == {}


@pytest.mark.data
@pytest.mark.parametrize(("bot", "removed", "exact"), [("sofmattress", 2, 0), ("curekart", 17, 8)])
def test_few_rows_of_hint3_are_removed(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, bot: str, removed: int, exact: int
) -> None:
    """The published protocol removes none; docs/data.md has these counts."""
    monkeypatch.setenv("POSTGRAD_DATA", str(shared_data))
    train, test = (load_rows(f"hint3:{bot}/v2", input="sentence", target="label", part=p) for p in ("train", "test"))
    found = find_overlaps(train, test)
    labels = {row.id: row.label for row in (*train, *test)}
    assert len(found) == removed
    assert sum(match.how == "exact" for match in found) == exact
    assert all(labels[match.row] == labels[match.item] for match in found)


# --- what comes out -------------------------------------------------------------------------------------------------


def test_a_match_holds_ids_and_no_text() -> None:
    found = find_overlaps(rows_of(["Where is the parcel that I ordered last week!"]), rows_of(QUESTIONS))
    assert set(Match.model_fields) == {"row", "item", "how", "similarity"}
    assert "parcel" not in found[0].model_dump_json()
    assert by_matcher(found) == {"exact": (found[0].row,)}


def test_every_one_of_many_equal_rows_is_named() -> None:
    rows = rows_of(["Gift card balance?"] * 3)
    found = find_overlaps(rows, [("s2", "gift card balance"), ("s1", "gift card balance")])
    assert [(match.row, match.item) for match in found] == [(row.id, "s1") for row in rows]


def test_what_was_cleared_is_clear() -> None:
    """Rows that go can make a template of what is left: the same check again has to find nothing."""
    short = [f"thing {letter}" for letter in "abc"]
    rows = rows_of([*(f"see {text} now" for text in short), *(f"see {QUESTIONS[n]} now" for n in range(4))])
    protected = rows_of([*short, *QUESTIONS[:4]])
    kept, matches = cleared(rows, protected)
    assert not find_overlaps(kept, protected)
    assert {row.id for row in kept} | {match.row for match in matches} == {row.id for row in rows}


@pytest.mark.parametrize("texts", [[], ["", " "], ["?!", "..."], ["😀"], ["a\x00b"], ["\u200b"]])
def test_texts_without_words(texts: list[str]) -> None:
    rows = [(str(number), text) for number, text in enumerate(texts)]
    assert len(find_overlaps(rows, rows)) == len(texts)
    assert not find_overlaps(rows, [("s", "something with words in it")])
    assert set(near_groups(rows)) == {name for name, _ in rows}


# --- groups ---------------------------------------------------------------------------------------------------------


WORDS = st.sampled_from(["order", "refund", "where", "card", "lost", "my", "the", "7"])
TEXTS = st.lists(st.lists(WORDS, min_size=1, max_size=7).map(" ".join), min_size=2, max_size=25)


@settings(max_examples=40, deadline=None)
@given(TEXTS, st.randoms())
def test_groups_do_not_depend_on_the_order_of_the_rows(texts: list[str], chance: Random) -> None:
    rows = [(row.id, row.text) for row in rows_of(texts)]
    shuffled = chance.sample(rows, len(rows))
    assert near_groups(rows) == near_groups(shuffled)
    first, second = rows[::2], rows[1::2]
    found = find_overlaps(first, second)
    assert set(found) == set(find_overlaps(first[::-1], second[::-1]))


@settings(max_examples=40, deadline=None)
@given(TEXTS)
def test_a_copy_is_in_the_group_of_its_original(texts: list[str]) -> None:
    rows = [(row.id, row.text) for row in rows_of(texts)]
    copies = [(f"{name}+copy", text.upper() + "!") for name, text in rows]
    groups = near_groups([*rows, *copies])
    assert all(groups[name] == groups[f"{name}+copy"] for name, _ in rows)


# --- folding --------------------------------------------------------------------------------------------------------


def test_words_of_other_scripts_keep_their_letters() -> None:
    assert words_of("मेरा ऑर्डर कहाँ है?") == ("मेरा", "ऑर्डर", "कहाँ", "है")
    assert words_of("我的订单") == ("我", "的", "订", "单")
    assert words_of("Où est Çelik?") == ("ou", "est", "celik")
    assert folded(Item("1", "Где мой заказ")).words == ("где", "мои", "заказ")
    assert folded(Item("1", "ΝΕΑ ΕΛΛΑΔΑ")).words == folded(Item("1", "νεα Ελλαδα")).words


def test_look_alikes_become_latin_where_the_text_is() -> None:
    assert folded(Item("1", "Mу оrdеr ＩＳ 𝐥𝐚𝐭𝐞")).words == ("my", "order", "is", "late")
    assert folded(Item("1", "сору")).keys == ("сору", "copy")


# --- under an encoder -----------------------------------------------------------------------------------------------


def test_neighbours_under_an_encoder(tmp_path: Path) -> None:
    encoder = make_tiny_encoder(tmp_path, sorted({word for text in QUESTIONS for word in text.lower().split()}))
    found = find_neighbours([("t1", QUESTIONS[1].upper()), ("t2", "zzz")], rows_of(QUESTIONS), encoder)
    assert ("t1", rows_of(QUESTIONS)[1].id, "embedding") in [(m.row, m.item, m.how) for m in found]
    assert find_neighbours((), rows_of(QUESTIONS), encoder) == ()
