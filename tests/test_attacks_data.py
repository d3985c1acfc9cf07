"""Hostile data and task files through the real command line: refused with exit code 2 and a message that says what to
do, or used as plain text. Never a traceback, never code that is run, never a terminal that is written to."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pickle
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest

from postgrad.bench.overlaps import EDITS, planted
from postgrad.cli.main import main
from postgrad.data.text import row_ids
from postgrad.records import Row

VERBS, NOUNS = ("open", "close", "find", "send"), ("card", "order", "box")
TRAIN = [(f"{v} my {n} {e}", v.upper()) for v in VERBS for n in NOUNS for e in ("now", "please", "today", "again")]
TEST = [(f"would you kindly {v} that {n} for my sister", v.upper()) for v in VERBS for n in ("account", "parcel")]
TEST += [("tell a joke about cats", "none"), ("who won the match yesterday", "none")]
HEADER = b"text,label\n"
LINES = "".join(f"{text},{label}\n" for text, label in TRAIN).encode()
ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m"
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>[bold red]{{7*7}}[/] =HYPERLINK(1)"


@dataclass(frozen=True)
class Said:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return " ".join(f"{self.out} {self.err}".split())


Call = Callable[..., Said]


@pytest.fixture
def postgrad(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """`postgrad(*arguments)` in an empty folder; a traceback fails the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def call(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["postgrad", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said, code = capsys.readouterr(), ended.value.code
        assert "Traceback" not in said.out + said.err
        return Said(code if isinstance(code, int) else 0, said.out, said.err)

    return call


def as_csv(rows: list[tuple[str, str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([("text", "label"), *rows])
    return text.getvalue().encode("utf-8", "surrogatepass")


def put(folder: Path, train: bytes | None = None, name: str = "train.csv", head: str = "name: hostile\n") -> None:
    """A task in `folder`: the given train file, an honest test file."""
    (folder / "test.csv").write_bytes(as_csv(TEST))
    if train is not None:
        (folder / name).write_bytes(train)
    (folder / "task.yaml").write_text(
        f"{head}objective: tell verbs apart\nbase_models: []\nbudget: 2 experiments\n"
        f"data: {{train: {name}, test: test.csv, out_of_scope: none}}\nengine: {{workers: 1, threads: 1}}\n"
    )


def deep_json() -> bytes:
    return b'{"text": ' + b"[" * 400_000 + b"]" * 400_000 + b', "label": "A"}\n'


def nested_parquet() -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"text": [{"a": {"b": [1, 2]}}] * 20, "label": [["A"]] * 20})
    made = io.BytesIO()
    parquet.write_table(table, made)
    return made.getvalue()


class Boom:
    """Unpickled, it would write a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


# --- files that are no data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "name", "message"),
    [
        (lambda: gzip.compress(HEADER + LINES), "train.csv", "is gzip-compressed, and its name says .csv"),
        (lambda: pickle.dumps(Boom(), protocol=4), "train.csv", "a Python pickle, which is never opened"),
        (lambda: b"PK\x03\x04" + bytes(range(256)) * 9, "train.csv", "is a zip archive or a spreadsheet"),
        (lambda: b"PK\x03\x04" + bytes(range(256)) * 9, "train.parquet", "is not a parquet file"),
        (nested_parquet, "train.parquet", "'text' is not a text"),
        (deep_json, "train.jsonl", "line 1 is not JSON"),
        (lambda: b'{"text": "a", "label": ' + b"9" * 5000 + b"}\n", "train.jsonl", "line 1 is not JSON"),
        (lambda: HEADER + LINES + b"x" * 10_000_000 + b",OPEN\n", "train.csv", "longer than 1,000,000 bytes"),
        (lambda: HEADER + LINES + b"caf\xe9,OPEN\n", "train.csv", "0xe9 is not UTF-8"),
        (lambda: HEADER + LINES + b"\xed\xa0\x80 half,OPEN\n", "train.csv", "is not UTF-8"),
        (lambda: b"\x00" * 5000, "train.csv", "has no rows"),
        (lambda: HEADER + LINES + b'"never closed,OPEN\n' + LINES, "train.csv", "never closed"),
        (lambda: HEADER + b",".join([b"x"] * 100_000) + b"\n", "train.csv", "has 100000 fields"),
    ],
)
def test_files_that_are_no_data_are_refused(
    postgrad: Call, tmp_path: Path, train: Callable[[], bytes], name: str, message: str
) -> None:
    put(tmp_path, train(), name)
    started = time.monotonic()
    said = postgrad("check", "task.yaml")
    assert said.code == 2 and message in said.all
    assert len(said.out) < 10_000 and time.monotonic() - started < 60
    assert not (tmp_path / "pwned").exists()
    assert postgrad("run", "task.yaml").code == 2


@pytest.mark.parametrize(
    ("target", "message"),
    [("/dev/zero", "is not a regular file"), ("train.csv", "There is no file"), ("/etc", "is a folder")],
)
def test_links_to_what_is_no_file_are_refused(postgrad: Call, tmp_path: Path, target: str, message: str) -> None:
    put(tmp_path)
    os.symlink(target, tmp_path / "train.csv")
    said = postgrad("check", "task.yaml")
    assert said.code == 2 and message in said.all


def test_a_link_to_another_text_file_shows_at_most_a_line_of_it(postgrad: Call, tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "secret.txt").write_text("first: " + "x" * 5000 + "\nsecond,secret,line\n")
    os.symlink("secret.txt", tmp_path / "train.csv")
    said = postgrad("check", "task.yaml")
    assert said.code == 2 and "secret,line" not in said.all and len(said.all) < 2000


# --- task files -----------------------------------------------------------------------------------------------------


BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 8)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (BOMB, "aliases"),
        ('name: !!python/object/apply:os.system ["touch pwned"]\n', "cannot be read as YAML"),
        ("name: !!python/name:os.system\n", "cannot be read as YAML"),
        ("name: ../../evil\n", "names folders"),
        ("name: /etc/evil\n", "names folders"),
        ("name: a\x1b[31mb\n", "task.yaml"),
        ("name: {a: " * 3000 + "\n", "task.yaml"),
        ("name: 'x' # \u202e txt\nruns: /etc\n", "runs"),
    ],
)
def test_hostile_task_files_are_refused(postgrad: Call, tmp_path: Path, head: str, message: str) -> None:
    put(tmp_path, HEADER + LINES, head=head)
    said = postgrad("run", "task.yaml")
    assert said.code == 2 and message in said.all and len(said.all) < 10_000
    assert "\x1b" not in said.out + said.err
    assert not (tmp_path / "pwned").exists() and not (tmp_path / "runs").exists()


def test_a_path_out_of_the_folder_reads_data_files_only(postgrad: Call, tmp_path: Path) -> None:
    put(tmp_path, name="../" * 30 + "etc/passwd")
    said = postgrad("check", "task.yaml")
    assert said.code == 2 and "the format 'passwd' is not known" in said.all and "root:" not in said.all


# --- rows -----------------------------------------------------------------------------------------------------------


def checked(postgrad: Call, rows: list[tuple[str, str]]) -> tuple[Said, dict[str, Any]]:
    put(Path.cwd(), as_csv(rows))
    said = postgrad("check", "task.yaml", "--json")
    return said, json.loads(said.out)


def test_nul_and_control_characters_in_texts_are_texts(postgrad: Call) -> None:
    said, found = checked(postgrad, [(f"{text}\x00{ESCAPES}", label) for text, label in TRAIN])
    assert said.code == 0 and found["ok"]
    assert not set("\x00\x1b\x07\x9b") & set(said.out)


def test_a_label_that_looks_like_the_out_of_scope_label(postgrad: Call) -> None:
    _, found = checked(postgrad, [*TRAIN, ("hello there friend", "  none ")])
    assert found["card"]["out_of_scope"]["train"] == 1, "outer spaces are nothing"
    for label in ("NONE", "no\u200bne", "nоne"):
        _, found = checked(postgrad, [*TRAIN, ("hello there friend", label)])
        assert any("looks like the out-of-scope label" in warning for warning in found["warnings"]), label


def test_duplicated_ids_and_columns(postgrad: Call, tmp_path: Path) -> None:
    """Ids come from the texts: a column that says otherwise is not read, and repeats are told apart."""
    rows = "".join(
        json.dumps({"id": "same", "text": text, "label": label}) + "\n" for text, label in [*TRAIN, TRAIN[0]]
    )
    put(tmp_path, rows.encode(), "train.jsonl")
    said = postgrad("check", "task.yaml", "--json")
    assert said.code == 0 and json.loads(said.out)["card"]["duplicates"] == 1


def leaks() -> list[Row]:
    """A copy of each in-scope test row, disguised in another way each, and all rows once in one template."""
    rows = [Row(name, text, label) for name, (text, label) in zip(row_ids(t for t, _ in TEST), TEST, strict=True)]
    inside = [row for row in rows if row.label != "none"]
    edits = ("look-alike letters", "zero-width characters", "spaces lost", "one typing error", "full-width letters",
             "end moved to the front", "typing error, look-alikes and zero-width", "a word in front")  # fmt: skip
    copies = [planted([row], EDITS[edit], 1)[0] for row, edit in zip(inside, edits, strict=True)]
    return [*copies, *planted(inside, EDITS["a template around all copies"], 2)]


def test_disguised_test_rows_in_the_train_file_are_not_trained_on(postgrad: Call, tmp_path: Path) -> None:
    copies = leaks()
    put(tmp_path, as_csv([*TRAIN, *((row.text, row.label) for row in copies)]))
    said = postgrad("run", "task.yaml", "--json")
    assert said.code == 0, said.all
    report = (tmp_path / "runs" / "hostile-001" / "report.md").read_text()
    assert f"{len(copies)} rows of train had the text of a held-out row or nearly that" in report
    assert "for my sister" not in report and "for my sister" not in said.all, "no sealed text is shown"
    audit = postgrad("audit", "last", "--json")
    found = json.loads(audit.out)
    assert audit.code == 0 and found["verdict"] == "clean"
    assert len(found["removed"]) == len(copies) and "for my sister" not in audit.out


def test_texts_and_labels_move_no_terminal_and_are_no_markup(postgrad: Call, tmp_path: Path) -> None:
    evil = [(f"{ESCAPES}{MARKUP} {text}", f"{label} {ESCAPES}{MARKUP}") for text, label in TRAIN]
    put(tmp_path, as_csv(evil))
    test = [(text, label if label == "none" else f"{label} {ESCAPES}{MARKUP}") for text, label in TEST]
    (tmp_path / "test.csv").write_bytes(as_csv(test))
    assert postgrad("run", "task.yaml").code == 0
    for words in (("check", "task.yaml"), ("show", "last"), ("show", "last", "1"), ("list",), ("audit", "last")):
        for said in (postgrad(*words), postgrad(*words, "--json")):
            assert said.code == 0 and not set("\x1b\x07\x9b") & set(said.out + said.err), words
    shown = postgrad("show", "last", "1").out
    assert "[bold red]{{7*7}}[/]" in shown and "<script>" in shown, "shown as it is"
    folder = tmp_path / "runs" / "hostile-001"
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    assert "<script" not in page and "<img" not in page and "{{7*7}}" in page
    assert "<script" not in text and not set("\x1b\x07\x9b") & set(page + text)
    assert postgrad("export", "last", "model").code == 0
    assert not set("\x1b\x07\x9b") & set((tmp_path / "model" / "README.md").read_text())
