"""Planted wrong labels are found, in made-up texts and in the rows of the demo task."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from postgrad.data.labels import conflicts, suspects
from postgrad.records import Row

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SHARE = 0.05


def made(count: int, labels: int = 6) -> list[Row]:
    """Texts of eight words: three of the label's own dozen, the rest of what all labels share."""
    random = np.random.default_rng(5)
    rows = []
    for n in range(count):
        label = n % labels
        own = [f"w{label}x{word}" for word in random.integers(12, size=3)]
        shared = [f"common{word}" for word in random.integers(60, size=5)]
        rows.append(Row(f"r{n:03d}", " ".join(random.permutation(own + shared)), f"label {label}"))
    return rows


def demo() -> list[Row]:
    with (EXAMPLES / "maison" / "train.csv").open(encoding="utf-8") as file:
        return [Row(f"r{n:03d}", line["text"], line["label"]) for n, line in enumerate(csv.DictReader(file))]


def planted(rows: list[Row], seed: int) -> tuple[list[Row], set[str]]:
    """A twentieth of the rows under another label, and their ids."""
    random = np.random.default_rng(seed)
    labels = sorted({row.label for row in rows})
    chosen = {int(i) for i in random.choice(len(rows), round(SHARE * len(rows)), replace=False)}
    wrong = [
        row._replace(label=str(random.choice([label for label in labels if label != row.label])))
        if n in chosen
        else row
        for n, row in enumerate(rows)
    ]
    return wrong, {rows[n].id for n in chosen}


@pytest.mark.parametrize(
    ("name", "rows", "least_precision", "least_recall"),
    [("made-up", made(300), 0.9, 0.85), ("demo", demo(), 0.5, 0.65)],
)
def test_planted_wrong_labels_are_found(
    name: str, rows: list[Row], least_precision: float, least_recall: float
) -> None:
    """The rule was chosen on plantings 0 and 1. The demo has 20 labels, 67 % of which the model gets right."""
    found, ids = set(), set()
    for seed in (2, 3):
        wrong, there = planted(rows, seed)
        found |= {(seed, suspect.id) for suspect in suspects(wrong)}
        ids |= {(seed, name) for name in there}
    precision, recall = len(found & ids) / max(1, len(found)), len(found & ids) / len(ids)
    print(f"{name}, two plantings: {len(ids)} planted, {len(found)} suspected: {precision=:.2f} {recall=:.2f}")
    assert precision >= least_precision
    assert recall >= least_recall


def test_right_labels_are_not_suspected() -> None:
    assert len(suspects(made(300))) <= 3


def test_a_suspect_says_which_label_is_likelier() -> None:
    rows = made(120)
    rows[0] = rows[0]._replace(label="label 3")
    first = suspects(rows)[0]
    assert (first.id, first.text, first.label, first.suggested) == ("r000", rows[0].text, "label 3", "label 0")
    assert first.own < first.other


def test_where_labels_cannot_be_judged_none_is_suspected() -> None:
    assert suspects([]) == ()
    assert suspects([Row("a", "one text", "one"), Row("b", "another text", "two")]) == ()
    assert suspects([Row(f"r{n}", "the same text", "one" if n % 2 else "two") for n in range(20)]) == ()


def test_near_copies_under_two_labels_are_conflicts() -> None:
    rows = [
        Row("a", "Where is my order?", "order"),
        Row("b", "where is my order", "delivery"),
        Row("c", "I forgot my password", "login"),
        Row("d", "I forgot my password!", "login"),
    ]
    assert conflicts(rows) == {"a": ("b",), "b": ("a",)}
