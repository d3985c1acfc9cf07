"""What a data file probably is: its columns of text and of label or answer, and which label means out of scope.

Guesses are shown to a person before anything is run on them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Sequence

from postgrad.data.answers import Answers, describe
from postgrad.data.files import Table
from postgrad.data.sources import read_source
from postgrad.errors import UserError, near_miss
from postgrad.records import Record

INPUT_NAMES = ("text", "sentence", "utterance", "query", "message", "question", "input", "content", "body", "comment")
TARGET_NAMES = ("label", "intent", "target", "category", "class", "tag", "topic", "output", "y")
ANSWER_NAMES = ("answer", "response", "completion", "reference", "summary", "solution", "output", "target")
PROMPT_NAMES = ("prompt", "instruction", "problem", "document", "article", "context")
# Compared without case, spaces, '-' and '_'.
REJECT_LABELS = frozenset(
    {"oos", "outofscope", "ood", "outofdomain", "nonodesdetected", "noneoftheabove", "nointent", "nointentdetected"}
)
PERHAPS_REJECT = frozenset({"other", "others", "unknown", "none", "misc", "miscellaneous", "fallback", "irrelevant"})


class InitGuess(Record):
    """What a file looks like.

    Attributes:
        columns: column names in file order.
        rows: how many rows.
        input: the column that is probably the text.
        target: the column that is probably the label, or the answer.
        labels: label -> rows, the most frequent first; empty where answers are words.
        answers: what the answers are like where they are words; None for labels.
        out_of_scope: a label that can only mean out of scope, of this file or the others.
        maybe_out_of_scope: a label that may mean it: ask.
        note: why, where the names of the columns did not tell.
    """

    columns: tuple[str, ...]
    rows: int
    input: str
    target: str
    labels: dict[str, int]
    out_of_scope: str | None
    maybe_out_of_scope: str | None
    note: str = ""
    answers: Answers | None = None

    @property
    def kind(self) -> str:
        return "classification" if self.answers is None else "generation"


def guess_columns(
    path: Path,
    others: Sequence[Path] = (),
    *,
    input: str | None = None,
    target: str | None = None,
    kind: str | None = None,
) -> InitGuess:
    """Look at a data file.

    Args:
        path: the train file, or the name of a data set.
        others: dev and test files with the same columns: the out-of-scope label is often only in them.
        input, target: columns that the person has named; they are not guessed.
        kind: "classification" or "generation"; None: generation where the answers can hardly be labels.

    Raises:
        UserError: the file cannot be read, or it has no column of a given name, or no two that could be text and label.
    """
    table = read_source(str(path))
    input, target, note = _columns(table, input, target, kind)
    answers = _answers(table, target, kind)
    if answers is not None:
        return InitGuess(
            columns=table.columns,
            rows=len(table.records),
            input=input,
            target=target,
            labels={},
            out_of_scope=None,
            maybe_out_of_scope=None,
            note=note,
            answers=answers,
        )
    labels = _labels(table, target)
    every = dict(labels)
    for other in others:
        every.update(_labels(read_source(str(other), part="test"), target))
    return InitGuess(
        columns=table.columns,
        rows=len(table.records),
        input=input,
        target=target,
        labels=labels,
        out_of_scope=next((label for label in every if _plain(label) in REJECT_LABELS), None),
        maybe_out_of_scope=next((label for label in every if _plain(label) in PERHAPS_REJECT), None),
        note=note,
    )


def _answers(table: Table, target: str, kind: str | None) -> Answers | None:
    """What the answers are like; None where they are labels."""
    if kind == "classification":
        return None
    cells = [cells[target] for _, cells in table.records if cells.get(target) not in (None, "")]
    if not cells and kind == "generation":
        raise UserError(f"{table.name}: the column '{target}' holds no answer. Name another with --target.")
    found = describe(cells) if cells else None
    return found if found is not None and (found.clear or kind == "generation") else None


def _columns(table: Table, input: str | None, target: str | None, kind: str | None) -> tuple[str, str, str]:
    if len(table.columns) < 2:
        raise UserError(
            f"{table.name} has one column, {table.columns[0]!r}, and a text and a label were expected. Is it separated "
            f"by commas (csv) or tabs (tsv), and does it have a header line?"
        )
    for name in (input, target):
        if name is not None and name not in table.columns:
            hint = near_miss(name, table.columns)
            raise UserError(f"{table.name} has no column '{name}'.{hint} Its columns: {', '.join(table.columns)}.")
    in_words = kind == "generation"
    targets = (*ANSWER_NAMES, *TARGET_NAMES) if in_words else TARGET_NAMES
    target = target or _named([column for column in table.columns if column != input], targets)
    if target is None:
        target = next((name for name in table.columns if name != input and _plain(name) in ANSWER_NAMES), None)
    input = input or _named([column for column in table.columns if column != target], (*INPUT_NAMES, *PROMPT_NAMES))
    if input and target:
        return input, target, ""
    if in_words:
        first, *_, last = table.columns
        input = input or (first if first != target else last)
        return input, target or (last if last != input else first), "the order of the columns, not their names"
    words = {column: _mean_words(table, column) for column in table.columns}
    rest = [column for column in table.columns if column not in (input, target)]
    input = input or max(rest, key=lambda column: words[column])
    repeated = {column: len(set(_values(table, column))) for column in rest if column != input}
    usable = [column for column, distinct in repeated.items() if 2 <= distinct <= max(2, len(table.records) // 2)]
    target = target or min(usable, key=lambda column: (words[column], repeated[column]), default=None)
    if target is None:
        raise UserError(
            f"{table.name}: none of its columns ({', '.join(table.columns)}) looks like a label: each has too many "
            f"different values or only one. Name them with --input and --target; for answers in words say "
            f"--kind generation."
        )
    return input, target, "chosen by what the columns hold, not by their names"


def _named(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The column whose name is the first of `names` that occurs, ignoring case; then one that contains it."""
    plain = {_plain(column): column for column in reversed(columns)}
    exact = next((plain[name] for name in names if name in plain), None)
    if exact is not None:
        return exact
    return next((column for name in names[:-1] for key, column in plain.items() if name in key), None)


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _values(table: Table, column: str) -> list[str]:
    return [str(cells[column]) for _, cells in table.records if cells.get(column) is not None]


def _mean_words(table: Table, column: str) -> float:
    values = _values(table, column)
    return sum(len(value.split()) for value in values) / max(1, len(values))


def _labels(table: Table, target: str) -> dict[str, int]:
    if target not in table.columns:
        hint = near_miss(target, table.columns)
        raise UserError(
            f"{table.name} has no column '{target}', which holds the label in the train file.{hint} "
            f"Its columns: {', '.join(table.columns)}."
        )
    counts: Counter[Any] = Counter(value.strip() for value in _values(table, target))
    return {label: count for label, count in counts.most_common() if label}
