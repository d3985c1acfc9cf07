"""Where rows come from: data files, data sets of the Hub, and the built-in names.

Refuses what it cannot read as text and label, with the line and what to do; drops no row silently.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any, Sequence

from postgrad.data.files import MAX_LINE, SUFFIXES, Table, check_file, read_file
from postgrad.data.named import HUB, SOURCES, NamedSource
from postgrad.data.text import row_ids
from postgrad.errors import UserError, near_miss
from postgrad.records import Row

# What spreadsheets, data frames and databases write for "no value". No customer writes these as a whole message.
MISSING = frozenset({"nan", "NaN", "NAN", "<NA>", "NULL"})


def resolve_source(source: str, root: Path, part: str = "train") -> str:
    """Return the source with its path absolute (taken from `root`); names of data sets stay as they are.

    Raises:
        UserError: the file is missing or of an unknown format, or the name or its part is not known. Nothing is read.
    """
    named = _named(source, root)
    if named is not None:
        return named.check(source, root, part)
    path = _absolute(source, root)
    check_file(path)
    return str(path)


def load_rows(
    source: str,
    *,
    input: str,
    target: str,
    check: str | None = None,
    root: Path | None = None,
    part: str = "train",
    words: bool = False,
) -> tuple[Row, ...]:
    """Read the rows of a source, in file order.

    Args:
        source: a csv, tsv, jsonl or parquet file; `ORG/NAME` or `hub:ORG/NAME[@REV][:CONFIG]`; `hub:FOLDER`; or
            another name of the table in `named.py`, such as `hint3:BOT/VERSION`.
        input: column of the text.
        target: column of the label. Numbers become strings.
        check: column of what answers are graded with, where that is more than the target.
        root: where relative paths start; the current folder by default.
        part: "train", "dev" or "test": which file or split of a named data set.
        words: the target is an answer in words; lists and objects are taken as JSON.

    Raises:
        UserError: the source cannot be read, a column is missing, or a row has no usable text or label.
    """
    columns = (input, target) if check is None else (input, target, check)
    table = _read(source, root or Path(), part, columns)
    return to_rows(table, input=input, target=target, check=check, words=words)


def read_source(source: str, *, root: Path | None = None, part: str = "train") -> Table:
    """Read a source with all its columns. Raises as `load_rows` does."""
    return _read(source, root or Path(), part, None)


def _read(source: str, root: Path, part: str, columns: Sequence[str] | None) -> Table:
    named = _named(source, root)
    if named is not None:
        return named.read(source, root, part, columns)
    return read_file(_absolute(source, root), columns)


def _absolute(source: str, root: Path) -> Path:
    return (root / Path(source).expanduser()).absolute()


def _named(source: str, root: Path) -> NamedSource | None:
    """The kind of name that `source` is, by its prefix; None for a path.

    A Hub id may go without its prefix. A name with the suffix of a data file, or of something that exists, is a path.
    """
    for prefix, named in SOURCES.items():
        if source.startswith(prefix):
            return named
    if Path(source).suffix.lower() in SUFFIXES or _exists(_absolute(source, root)):
        return None
    return HUB if HUB.is_one(source, root) else None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def to_rows(table: Table, *, input: str, target: str, check: str | None = None, words: bool = False) -> tuple[Row, ...]:
    """Turn a table into rows: outer spaces go, labels become strings, ids are `row_ids`. Every row has its check where
    there is a column of them, a text or an object, which becomes JSON.

    Raises:
        UserError: a column is missing, or rows have no usable text or label: how many, and the first line.
    """
    _need_columns(table, input, target, check)
    texts: list[str] = []
    labels: list[str] = []
    checks: list[str] = []
    wrong: dict[str, list[int]] = defaultdict(list)
    for line, cells in table.records:
        text, text_problem = _text(cells.get(input))
        label, label_problem = (_answer if words else _label)(cells.get(target))
        if text_problem:
            wrong[f"'{input}' {text_problem}"].append(line)
        if label_problem:
            wrong[f"'{target}' {label_problem}"].append(line)
        texts.append(text)
        labels.append(label)
        if check is not None:
            found, problem = _answer(cells.get(check))
            checks.append(found)
            if problem:
                wrong[f"'{check}' {problem}"].append(line)
    if wrong:
        raise UserError(_wrong_cells(table, wrong))
    every = checks or [""] * len(texts)
    return tuple(Row(*each) for each in zip(row_ids(texts), texts, labels, every, strict=True))


def _need_columns(table: Table, input: str, target: str, check: str | None) -> None:
    if input == target:
        raise UserError(f"{table.name}: input and target are both '{input}'. Name two different columns.")
    problems = [
        f"there is no column '{name}' (the task's {key}).{near_miss(name, table.columns)}"
        for key, name in (("input", input), ("target", target), ("check", check))
        if name is not None and name not in table.columns
    ]
    if not problems:
        return
    other = next((mark for mark in (";", "\t", "|", ",") if len(table.columns) == 1 and mark in table.columns[0]), None)
    if other is not None:
        advice = f"The fields seem to be separated by {other!r}: save the file with commas (csv) or tabs (tsv)."
    else:
        advice = "Set data.input and data.target in the task, or add a header line such as text,label."
    raise UserError(f"{table.name}: {' '.join(problems)} Its columns: {', '.join(table.columns)}. {advice}")


def _text(value: Any) -> tuple[str, str]:
    """(text, "") or ("", what is wrong with it)."""
    if _is_missing(value):
        return "", "is empty"
    if not isinstance(value, str):
        return "", "is not a text (quote it)"
    return _checked(value.strip())


def _answer(value: Any) -> tuple[str, str]:
    """An answer in words; lists and objects as JSON, their keys in the order they have."""
    return _checked(json.dumps(value, ensure_ascii=False)) if isinstance(value, list | dict) else _label(value)


def _label(value: Any) -> tuple[str, str]:
    """(label, "") or ("", what is wrong with it). 3 and 3.0 are the label "3"; true is "true"."""
    if _is_missing(value):
        return "", "is empty"
    if isinstance(value, bool):
        return str(value).lower(), ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value)), ""
    if isinstance(value, int | float):
        return str(value), ""
    if not isinstance(value, str):
        return "", "is not one label (a list or an object; one row takes one label)"
    return _checked(value.strip())


def _checked(text: str) -> tuple[str, str]:
    if len(text) > MAX_LINE:
        return "", f"is longer than {MAX_LINE:,} characters"
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return "", "has half a surrogate pair, which is not Unicode text"
    return text, ""


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip() or value.strip() in MISSING
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _wrong_cells(table: Table, wrong: dict[str, list[int]]) -> str:
    kinds = []
    for what, lines in wrong.items():
        rows = f"1 row where {what}" if len(lines) == 1 else f"{len(lines)} rows where {what}"
        first = f"{table.unit} {lines[0]}" if len(lines) == 1 else f"first: {table.unit} {lines[0]}"
        kinds.append(f"{rows} ({first})")
    return (
        f"{table.name}: {'; '.join(kinds)}. Every row needs a text and a label, and none is dropped for you: "
        f"fill in or remove these rows."
    )
