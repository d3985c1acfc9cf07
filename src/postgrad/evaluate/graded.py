"""Answers in words -> items: what a worker answered, joined with what was to be answered, and graded by every metric.

Runs in the controller, on files that the workers left. What an answer says is data: a metric that would follow it, run
it or choke on it is refused by its contract suite.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Iterable, Mapping, Protocol, Sequence

from postgrad.evaluate.splits import group_of
from postgrad.metrics import reads_verdicts
from postgrad.metrics.base import Answered
from postgrad.metrics.items import Items, grade
from postgrad.records import Row


class Judge(Protocol):
    """Compares answers with references, for metrics that count verdicts."""

    def verdicts(self, answered: Sequence[Answered]) -> list[tuple[float, ...]]:
        """For each item what `Answered.verdicts` says. The same question gets the same verdict, whenever it is asked.

        Raises:
            PostgradError: the judge could not be asked.
        """
        ...


@dataclass(frozen=True)
class UnitTexts:
    """What a worker answered in one unit in words: N ids, texts, and tokens that each answer took."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    tokens: tuple[int, ...]

    def only(self, index: Sequence[int]) -> UnitTexts:
        """The answers at these places."""
        return UnitTexts(
            tuple(self.ids[i] for i in index),
            tuple(self.texts[i] for i in index),
            tuple(self.tokens[i] for i in index),
        )


def read_texts(data: bytes) -> UnitTexts:
    """Read stored answers in words: a JSON line each, with id, text and tokens."""
    lines = [json.loads(line) for line in data.decode().split("\n") if line]
    return UnitTexts(
        tuple(line["id"] for line in lines),
        tuple(line["text"] for line in lines),
        tuple(line["tokens"] for line in lines),
    )


def graded_items(
    unit: str, outputs: UnitTexts, rows: Mapping[str, Row], metrics: Sequence[str], judge: Judge | None = None
) -> Items:
    """Join a unit's answers with what was to be answered, have them judged, and let metrics grade them.

    Args:
        rows: row id -> row; its label is what was to be answered, and its check what grades it where that is more.
        judge: needed where one of the metrics counts verdicts, and asked nothing where none does.
    """
    import numpy as np

    answered = _answered(outputs, rows)
    if any(map(reads_verdicts, metrics)):
        assert judge is not None, f"{', '.join(metrics)}: without a judge, answers would be left unscored unnoticed"
        found = judge.verdicts(answered)
        answered = [item._replace(verdicts=said) for item, said in zip(answered, found, strict=True)]
    keys = np.array([f"{unit}/{name}" for name in outputs.ids])
    groups = np.array([group_of(name) for name in outputs.ids])
    return Items(keys, groups, grade(answered, metrics))


def judge_ahead(judge: Judge | None, units: Iterable[tuple[object, Mapping[str, Row]]]) -> None:
    """Have several units judged together: each asking of its own loads the judge once more."""
    if judge is not None:
        judge.verdicts([item for out, rows in units if isinstance(out, UnitTexts) for item in _answered(out, rows)])


def _answered(outputs: UnitTexts, rows: Mapping[str, Row]) -> list[Answered]:
    return [
        Answered(rows[name].text, rows[name].label, text, tokens, rows[name].check)
        for name, text, tokens in zip(outputs.ids, outputs.texts, outputs.tokens, strict=True)
    ]
