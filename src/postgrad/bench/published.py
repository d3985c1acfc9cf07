"""The five published HINT3 systems, read from their own prediction files, and paired tests against them.

The files give each system's answer and score for every test row of v1, in the order of the test file. As published,
each system gets the threshold with the best MCC on the test labels (0.01 grid): test-tuned, which favours them.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

from postgrad.data.hint3 import published_file
from postgrad.evaluate.sealed import Questions
from postgrad.evaluate.statistics import difference, mcnemar, point
from postgrad.evaluate.threshold import rejected
from postgrad.metrics.base import Answers
from postgrad.metrics.classification import MCC
from postgrad.metrics.items import Items

if TYPE_CHECKING:
    from pathlib import Path

SYSTEMS = ("dialogflow", "luis", "rasa", "haptik", "bert")
GRID = tuple(i / 100 for i in range(1, 100))


def read_published(path: Path, questions: Questions, like: Items) -> Items:
    """One system's answers as items with the keys and truth of `like`, nothing rejected.

    An answer that is no train label (a node the bot had, or an out-of-scope answer) becomes a class of its own.
    """
    import numpy as np

    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    if len(lines) != len(like):
        raise ValueError(f"{path.name} has {len(lines)} rows, the test file {len(like)}")
    index = {label: i for i, label in enumerate(questions.labels)}
    other = like.labelled.labels
    argmax = np.array([index.get(line["predicted_node"], other) for line in lines], dtype=np.int64)
    argmax[[line["predicted_node"] == questions.out_of_scope for line in lines]] = -1
    score = np.array([float(line["predicted_node_score"] or 0.0) for line in lines])
    answers = Answers(like.labelled.truth, argmax, argmax, score, other + 1)
    return Items(like.keys, like.groups, answers)


def test_tuned(items: Items) -> tuple[float, Items]:
    """The grid threshold with the best MCC on these very items, and the answers under it."""
    metric = MCC()
    best = max(GRID, key=lambda t: point(metric, rejected(items.labelled, t)))
    return best, Items(items.keys, items.groups, rejected(items.labelled, best))


def compare_with_published(bot: str, questions: Questions, ours: Items) -> list[dict[str, Any]]:
    """Ours (train-only threshold, first frozen seed) against every published system (test-tuned threshold)."""
    rows: list[dict[str, Any]] = []
    widened = Answers(
        ours.labelled.truth,
        ours.labelled.predicted,
        ours.labelled.argmax,
        ours.labelled.score,
        ours.labelled.labels + 1,
    )
    mine = Items(ours.keys, ours.groups, widened)
    for system in SYSTEMS:
        threshold, theirs = test_tuned(read_published(published_file(system, bot), questions, ours))
        gap = difference(MCC(), mine, theirs)
        rows.append(
            {
                "system": system,
                "threshold": threshold,
                "mcc": round(point(MCC(), theirs.answers), 4),
                "difference": round(gap.value, 4),
                "low": round(gap.low, 4),
                "high": round(gap.high, 4),
                "p_bootstrap": gap.p,
                "p_mcnemar": mcnemar(mine, theirs),
            }
        )
    return rows


def holm(rows: list[dict[str, Any]]) -> None:
    """Add Holm-corrected McNemar p values (Holm 1979) over one search's family: every bot, version and system.

    Each search is one attempt at the whole table, so the families of different searches are corrected apart.
    """
    for position in range(max((len(row["published"]) for row in rows), default=0)):
        family = [entry for row in rows if position < len(row["published"]) for entry in row["published"][position]]
        ranked = sorted(family, key=lambda entry: float(entry["p_mcnemar"]))
        running = 0.0
        for rank, entry in enumerate(ranked):
            running = max(running, min(1.0, (len(ranked) - rank) * float(entry["p_mcnemar"])))
            entry["p_mcnemar_holm"] = running
