"""Bad input gets a clear message: what happened, where, what was expected, what to do. Never a traceback."""

from __future__ import annotations

import json
import os
import socket
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from postgrad.data.card import build_card, problems
from postgrad.data.sources import load_rows
from postgrad.errors import UserError
from postgrad.records import Row
from postgrad.spec import load_task

HEADER = "text,label\n"


def refused(path: Path, input: str = "text", target: str = "label") -> str:
    """The message for loading `path`; it names the file."""
    with pytest.raises(UserError) as caught:
        load_rows(str(path), input=input, target=target)
    message = str(caught.value)
    assert path.name in message or len(path.name) > 200
    return message


def put(folder: Path, content: str | bytes, name: str = "train.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    assert "is empty" in refused(put(tmp_path, b"", name))


def test_header_only(tmp_path: Path) -> None:
    assert "has no rows, only a header: text, label" in refused(put(tmp_path, HEADER))
    assert "has no rows, only blank lines" in refused(put(tmp_path, "\n\n"))
    assert "has no rows" in refused(put(tmp_path, "\n", "a.jsonl"))


def test_missing_column(tmp_path: Path) -> None:
    path = put(tmp_path, "txt,label\na,A\n")
    message = refused(path)
    assert "no column 'text'" in message and "Did you mean 'txt'?" in message and "Its columns: txt, label" in message
    both = refused(path, input="querry", target="intend")
    assert "'querry'" in both and "'intend'" in both


def test_other_separator(tmp_path: Path) -> None:
    assert "separated by ';'" in refused(put(tmp_path, "text;label\na;A\n"))


def test_no_header(tmp_path: Path) -> None:
    assert "add a header line" in refused(put(tmp_path, "hello,A\nbye,B\n"))


def test_column_given_twice(tmp_path: Path) -> None:
    assert "column 'text' more than once" in refused(put(tmp_path, "text,text,label\na,b,A\n"))


def test_wrong_encoding(tmp_path: Path) -> None:
    message = refused(put(tmp_path, HEADER.encode() + b"hi,A\ncaf\xe9,B\n"))
    assert "line 3, byte 4" in message and "0xe9 is not UTF-8" in message and "'é'" in message and "iconv" in message


def test_utf_16(tmp_path: Path) -> None:
    assert "is UTF-16" in refused(put(tmp_path, (HEADER + "a,A\n").encode("utf-16")))


def test_json_line_that_is_none(tmp_path: Path) -> None:
    good = '{"text": "a", "label": "A"}\n'
    assert "line 2 is not JSON" in refused(put(tmp_path, good + '{"text": \n', "a.jsonl"))
    assert "line 1 is a JSON list" in refused(put(tmp_path, "[1]\n", "a.jsonl"))
    assert "one JSON array" in refused(put(tmp_path, f"[\n{good}]", "a.jsonl"))
    assert "line 1 is not JSON" in refused(put(tmp_path, "[" * 200_000, "a.jsonl"))


def test_parquet_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    assert "is not a parquet file" in refused(put(tmp_path, b"PAR1 or not", "a.parquet"))


def test_quotation_mark_that_is_never_closed(tmp_path: Path) -> None:
    message = refused(put(tmp_path, HEADER + 'fine,A\n"not closed,B\n' + "more,C\n" * 5))
    assert "line 3" in message and "never closed" in message
    assert "line 3" in refused(put(tmp_path, HEADER + 'fine,A\n"not closed,B\n' + "more,C\n" * 50_000))


def test_comma_in_a_text_without_quotes(tmp_path: Path) -> None:
    message = refused(put(tmp_path, HEADER + "fine,A\nhello, you,B\n"))
    assert "line 3 has 3 fields, and the header has 2" in message


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_a_line_of_100_megabytes_does_not_fill_the_memory(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, HEADER + "a,A\n", name) if name != "a.jsonl" else put(tmp_path, "{}\n{}\n", name)
    with path.open("r+b") as file:
        file.truncate(100_000_000)
    tracemalloc.start()
    message = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "line 3 is longer than 1,000,000 bytes" in message
    assert peak < 20_000_000


def test_a_field_that_is_too_long(tmp_path: Path) -> None:
    assert "field larger than field limit" in refused(put(tmp_path, HEADER + "x" * 200_000 + ",A\n"))
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["x" * 1_000_001], "label": ["A"]}), path)
    assert "'text' is longer than 1,000,000 characters (row 1)" in refused(path)


def test_empty_cells_are_counted_and_not_dropped(tmp_path: Path) -> None:
    message = refused(put(tmp_path, HEADER + "a,A\n,B\nb,\n  ,C\nnan,D\nc,NaN\n"))
    assert "3 rows where 'text' is empty (first: line 3)" in message
    assert "2 rows where 'label' is empty (first: line 4)" in message
    assert "none is dropped for you" in message


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": None, "label": "A"}, "'text' is empty (line 1)"),
        ({"label": "A"}, "'text' is empty (line 1)"),
        ({"text": 12, "label": "A"}, "'text' is not a text"),
        ({"text": ["a"], "label": "A"}, "'text' is not a text"),
        ({"text": "a", "label": float("nan")}, "'label' is empty"),
        ({"text": "a", "label": float("inf")}, "'label' is empty"),
        ({"text": "a", "label": ["A", "B"]}, "'label' is not one label"),
        ({"text": "half \ud83d", "label": "A"}, "half a surrogate pair"),
    ],
)
def test_cells_that_are_no_text_or_label(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    good = json.dumps({"text": "a", "label": "A"})
    assert message in refused(put(tmp_path, json.dumps(record) + "\n" + good, "a.jsonl"))


def test_missing_file(tmp_path: Path) -> None:
    put(tmp_path, HEADER, "train.csv")
    assert "Did you mean 'train.csv'?" in refused(tmp_path / "trian.csv")
    assert "Data files in" in refused(tmp_path / "zzz.csv")
    assert "the folder" in refused(tmp_path / "no" / "a.csv")
    assert "cannot be read" in refused(tmp_path / ("a" * 5000 + ".csv"))


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "data.csv").mkdir()
    assert "is a folder" in refused(tmp_path / "data.csv")


def test_something_else_in_place_of_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    assert "is not a regular file" in refused(tmp_path / "pipe.csv")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s.csv"))
        assert "is not a regular file" in refused(tmp_path / "s.csv")


def test_unknown_format(tmp_path: Path) -> None:
    assert "the format '.xlsx' is not known" in refused(put(tmp_path, "x", "a.xlsx"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_file_without_permission(tmp_path: Path) -> None:
    path = put(tmp_path, HEADER + "a,A\n")
    path.chmod(0)
    assert "cannot be read" in refused(path)


def test_unknown_built_in_name() -> None:
    with pytest.raises(UserError, match=r"Did you mean 'curekart/v1'.*Known: hint3:curekart/v1"):
        load_rows("hint3:curecart/v1", input="sentence", target="label")


# --- what the rows say ----------------------------------------------------------------------------------------------


def load(folder: Path, content: str, name: str) -> tuple[Row, ...]:
    return load_rows(str(put(folder, HEADER + content, name)), input="text", target="label")


def test_one_class(tmp_path: Path) -> None:
    found = problems({"train": load(tmp_path, "a,A\nb,A\n", "train.csv")}, None)
    assert len(found) == 1 and "one class, only 'A'" in found[0]


def test_a_label_only_in_test_and_rows_that_leak(tmp_path: Path) -> None:
    parts = {
        "train": load(tmp_path, "a,A\nb,B\nc,A\nd,B\nA!,A\n", "train.csv"),
        "test": load(tmp_path, "A.,A\nx,NEW\n", "test.csv"),
    }
    card = build_card(parts, None)
    assert not problems(parts, None)
    assert card.leaked == {"train/test": 1} and card.duplicates == 1
    assert any("in test and not in train (NEW" in warning for warning in card.warnings)


def test_classes_of_one_row(tmp_path: Path) -> None:
    card = build_card({"train": load(tmp_path, "a,A\nb,A\nc,A\nd,ONCE\n", "train.csv")}, None)
    assert any("fewer than 3 train rows (ONCE)" in warning for warning in card.warnings)
    found = problems({"train": load(tmp_path, "a,A\nb,B\nc,C\n", "each.csv")}, None)
    assert any("None of the 3 labels" in problem for problem in found)


# --- task files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds nothing"),
        (b"# only a comment\n", "holds nothing"),
        (b"just words\n", "holds no keys"),
        (b"- a\n- b\n", "holds no keys"),
        (b"seed: 1\nname: x\nseed: 2\n", "line 3 .*the key 'seed' is given twice"),
        (b"data:\n  train: a.csv\n  train: b.csv\n", "line 3 .*the key 'train' is given twice"),
        (b"objective: route: all\n", "line 1 cannot be read as YAML"),
        (b"objective: 'not closed\n", "cannot be read as YAML"),
        (b"name: 2026-13-45\n", "cannot be read as YAML"),
        (b"name: !!python/object/apply:os.getcwd []\n", "cannot be read as YAML"),
        (b"objective: caf\xe9\n", "is not UTF-8"),
        (b"x" * 1_000_001, "larger than 1,000,000 bytes"),
        (b"[" * 100_000, "cannot be read as YAML"),
        (b"? [a, b]\n: 1\n", "Unknown key|cannot be read"),
    ],
)
def test_task_files_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_task(put(tmp_path, content, "task.yaml"))
    assert "task.yaml" in str(caught.value)


def test_no_task_file(tmp_path: Path) -> None:
    put(tmp_path, b"", "task.yaml")
    with pytest.raises(UserError, match=r"no task file .*Did you mean 'task.yaml'.*postgrad init"):
        load_task(tmp_path / "taks.yaml")
    with pytest.raises(UserError, match="is a folder"):
        load_task(tmp_path)
    with pytest.raises(UserError, match="no task file"):
        load_task(tmp_path / "no" / "task.yaml")


def test_a_broken_value_does_not_flood_the_message(tmp_path: Path) -> None:
    put(tmp_path, HEADER + "a,A\n")
    bomb = "a: &a [x, x, x, x, x, x, x, x]\n"
    for i, name in enumerate("bcdefgh"):
        last = "abcdefgh"[i]
        bomb += f"{name}: &{name} [" + ", ".join([f"*{last}"] * 8) + "]\n"
    with pytest.raises(UserError) as caught:
        load_task(put(tmp_path, bomb + "objective: *h\ndata: {train: train.csv}\n", "task.yaml"))
    assert len(str(caught.value)) < 10_000
