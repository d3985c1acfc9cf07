"""Loading rows from files, the Hub's format and the built-in names; the data card; what a file is guessed to be."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from postgrad.data import hint3
from postgrad.data.card import build_card, problems
from postgrad.data.guess import guess_columns
from postgrad.data.sources import load_rows, resolve_source
from postgrad.data.text import row_ids
from postgrad.errors import UserError
from postgrad.records import DataCard, Row

PAIRS = (("Where is my order?", "TRACK"), ('He said "hi", then left', "OTHER"), ("deux\nlignes é", "TRACK"))


def load(path: Path, input: str = "text", target: str = "label") -> list[tuple[str, str]]:
    return [(row.text, row.label) for row in load_rows(str(path), input=input, target=target)]


def write_csv(path: Path, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows([("text", "label"), *PAIRS])
    return path


# --- formats --------------------------------------------------------------------------------------------------------


def test_csv_and_tsv_with_quotes_and_lines_in_fields(tmp_path: Path) -> None:
    assert load(write_csv(tmp_path / "a.csv")) == list(PAIRS)
    assert load(write_csv(tmp_path / "a.tsv", "\t")) == list(PAIRS)


def test_byte_order_mark_and_upper_case_suffix(tmp_path: Path) -> None:
    assert load(write_csv(tmp_path / "A.CSV", encoding="utf-8-sig")) == list(PAIRS)


def test_tsv_with_bare_quotation_marks(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\n"good" film\t1\n"never closed\t0\n')
    assert load(path) == [('"good" film', "1"), ('"never closed', "0")]


def test_jsonl_with_numbers_as_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    labels: list[Any] = ["x", 3, 3.0, True, 2.5]
    path.write_text("".join(json.dumps({"text": f"t{i}", "label": y}) + "\n\n" for i, y in enumerate(labels)))
    assert [label for _, label in load(path)] == ["x", "3", "3", "true", "2.5"]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    texts, labels = [text for text, _ in PAIRS], [label for _, label in PAIRS]
    parquet.write_table(pyarrow.table({"label": labels, "n": [1, 2, 3], "text": texts}), tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet") == list(PAIRS)


def test_other_columns_and_blank_lines_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,intent, query \n\n1,A, hello \n,,\n2,B,bye,\n")
    assert load(path, "query", "intent") == [("hello", "A"), ("bye", "B")]


def test_relative_paths_start_at_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "a.csv")
    monkeypatch.chdir("/")
    assert len(load_rows("a.csv", input="text", target="label", root=tmp_path)) == 3
    assert resolve_source("a.csv", tmp_path) == str(tmp_path / "a.csv")


# --- the Hub's format -----------------------------------------------------------------------------------------------


def hub_folder(folder: Path) -> Path:
    """A data set as it lies in a Hub repository: class labels in the card, one file for each split."""
    pytest.importorskip("datasets")
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: plain\n  default: true\n  data_files:\n"
        "  - {split: train, path: train.jsonl}\n  - {split: validation, path: val.jsonl}\n"
        "- config_name: other\n  data_files:\n  - {split: train, path: other.jsonl}\n"
        "dataset_info:\n- config_name: plain\n  features:\n  - {name: text, dtype: string}\n"
        "  - name: label\n    dtype:\n      class_label:\n        names: {'0': BUY, '1': SELL}\n---\n"
    )
    for name, labels in (("train", [0, 1, 1]), ("val", [1, 0])):
        lines = (json.dumps({"text": f"{name} {i}", "label": label}) for i, label in enumerate(labels))
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    (folder / "other.jsonl").write_text('{"text": "x", "label": "Y"}\n')
    return folder


def test_hub_folder_gives_class_names_and_splits(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "set")
    train = load_rows(f"hub:{folder}", input="text", target="label")
    assert [(row.text, row.label) for row in train] == [("train 0", "BUY"), ("train 1", "SELL"), ("train 2", "SELL")]
    dev = load_rows("hub:set", input="text", target="label", root=tmp_path, part="dev")
    assert [row.label for row in dev] == ["SELL", "BUY"]
    other = load_rows("hub:set:other", input="text", target="label", root=tmp_path)
    assert [row.label for row in other] == ["Y"]
    with pytest.raises(UserError, match=r"no test split.*splits: train, validation"):
        load_rows("hub:set", input="text", target="label", root=tmp_path, part="test")


def test_hub_id_from_the_cache_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "datasets--org--intents"
    hub_folder(repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for source in ("org/intents", "hub:org/intents@main", f"hub:org/intents@{'a' * 40}:plain"):
        assert [row.label for row in load_rows(source, input="text", target="label")] == ["BUY", "SELL", "SELL"]
    with pytest.raises(UserError, match="cannot be reached.*download"):
        load_rows("org/something-else", input="text", target="label")


def test_hub_ids_stay_as_they_are_in_a_task(tmp_path: Path) -> None:
    assert resolve_source("org/intents", tmp_path) == "hub:org/intents"
    assert resolve_source("hub:org/intents@v1:plain", tmp_path) == "hub:org/intents@v1:plain"
    assert resolve_source("hint3:curekart/v1", tmp_path) == "hint3:curekart/v1"
    (tmp_path / "folder").mkdir()
    assert resolve_source("hub:folder:c", tmp_path) == f"hub:{tmp_path / 'folder'}:c"
    with pytest.raises(UserError, match="neither a data set of the Hub nor a folder"):
        resolve_source("hub:no-such-folder", tmp_path)


# --- HINT3 ----------------------------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "train", "test", "rejected"),
    [
        ("sofmattress/v1", 328, 397, 166),
        ("sofmattress/v2", 328, 397, 144),
        ("curekart/v1", 600, 991, 539),
        ("curekart/v2", 599, 991, 532),
    ],
)
def test_hint3_counts(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, name: str, train: int, test: int, rejected: int
) -> None:
    monkeypatch.setenv("POSTGRAD_DATA", str(shared_data))
    parts = {
        part: load_rows(f"hint3:{name}", input=hint3.HINT3_INPUT, target=hint3.HINT3_TARGET, part=part)
        for part in ("train", "test")
    }
    card = build_card(parts, hint3.HINT3_OUT_OF_SCOPE)
    assert card.rows == {"train": train, "test": test}
    assert card.out_of_scope == {"train": 0, "test": rejected}
    assert not problems(parts, hint3.HINT3_OUT_OF_SCOPE)


@pytest.mark.data
def test_every_known_hash_is_that_of_its_file(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRAD_DATA", str(shared_data))
    for name, part in hint3.HASHES:
        assert hint3.hint3_file(f"hint3:{name}", part).is_relative_to(shared_data)
    for system, bot in hint3.PUBLISHED:
        assert hint3.published_file(system, bot).is_relative_to(shared_data)


def test_download_verifies_and_keeps(tmp_path: Path) -> None:
    remote, target = tmp_path / "remote.csv", tmp_path / "cache" / "v1" / "a.csv"
    remote.write_bytes(b"sentence,label\nhi,A\n")
    right = hashlib.sha256(remote.read_bytes()).hexdigest()
    with pytest.raises(UserError, match="not the published file"):
        hint3.download(remote.as_uri(), target, "0" * 64)
    assert not list(tmp_path.rglob("*.partial")) and not target.exists()
    assert hint3.download(remote.as_uri(), target, right) == target
    assert target.read_bytes() == remote.read_bytes()
    with pytest.raises(UserError, match=r"cannot be downloaded.*POSTGRAD_DATA"):
        hint3.download((tmp_path / "gone.csv").as_uri(), target, right)


def test_changed_hint3_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "hint3" / "v1" / "train" / "curekart_train.csv"
    path.parent.mkdir(parents=True)
    path.write_text("sentence,label\nhi,A\n")
    monkeypatch.setenv("POSTGRAD_DATA", str(tmp_path))
    with pytest.raises(UserError, match="not the published file"):
        load_rows("hint3:curekart/v1", input="sentence", target="label")


# --- the card -------------------------------------------------------------------------------------------------------


def rows(*pairs: tuple[str, str]) -> tuple[Row, ...]:
    return tuple(Row(id, *pair) for id, pair in zip(row_ids(text for text, _ in pairs), pairs, strict=True))


TRAIN = rows(*((f"a b c {i}", "A") for i in range(4)), *((f"d e {i}", "B") for i in range(4)))


def test_card_counts() -> None:
    test = rows(("A b C 1!", "A"), ("new", "A"), ("New?", "B"), ("x", "OOS"), ("y", "ONLY_HERE"))
    card = build_card({"train": TRAIN, "dev": (), "test": test}, "OOS")
    assert card.rows == {"train": 8, "test": 5}
    assert card.labels == {"A": 4, "B": 4, "ONLY_HERE": 0}
    assert card.out_of_scope == {"train": 0, "test": 1}
    assert card.leaked == {"train/test": 1}
    assert (card.duplicates, card.words_median) == (1, 3.5)
    assert DataCard.model_validate_json(card.model_dump_json()) == card


@pytest.mark.parametrize(
    ("extra", "test", "out_of_scope", "warning"),
    [
        ((("rare", "C"),), (), None, "1 of 3 labels have fewer than 3 train rows (C)"),
        (tuple((f"m {i}", "A") for i in range(76)), (), None, "'A' has 80 train rows and 'B' has 4"),
        ((), (("n", "NEW"),), None, "1 labels are in test and not in train (NEW; 1 rows)"),
        ((), (("n", "A"),), None, "test has 1 rows: only large differences"),
        ((("A B C 1", "A"),), (), None, "train has 1 rows that repeat another row's text"),
        ((("a b c 1", "B"),), (), None, "1 texts of train carry more than one label, such as 'a b c 1' (A, B)"),
        ((), (("a b c 1", "A"),), None, "1 rows of test have the text of a train row"),
        ((), (("n", "OOS"), ("m", "A")), "OOS", "train has no row with the out-of-scope label 'OOS'. That is normal"),
        ((), (("n", "A"),), "OOS", "No row has the out-of-scope label 'OOS'"),
        ((), (("n", "OOS"),), "OOS", "Every row of test is out of scope"),
    ],
)
def test_card_warnings(
    extra: tuple[tuple[str, str], ...], test: tuple[tuple[str, str], ...], out_of_scope: str | None, warning: str
) -> None:
    plain = build_card({"train": TRAIN}, None)
    assert plain.warnings == ()
    train = rows(*((row.text, row.label) for row in TRAIN), *extra)
    card = build_card({"train": train, "test": rows(*test)}, out_of_scope)
    assert any(warning in given for given in card.warnings), card.warnings


@pytest.mark.parametrize(
    ("train", "test", "problem"),
    [
        ((), (), "no rows"),
        ((("a", "A"), ("b", "A")), (), "only 'A'"),
        ((("a", "OOS"), ("b", "OOS")), (), "only the out-of-scope label 'OOS'"),
        ((("a", "A"), ("b", "B"), ("B!", "B")), (), "has two different texts"),
        ((("a", "A"), ("b", "A"), ("c", "B")), (("n", "0"), ("m", "1")), "No label of test is a label of train"),
    ],
)
def test_problems_that_make_a_run_pointless(
    train: tuple[tuple[str, str], ...], test: tuple[tuple[str, str], ...], problem: str
) -> None:
    found = problems({"train": rows(*train), "test": rows(*test)}, "OOS")
    assert any(problem in each for each in found), found
    assert not problems({"train": TRAIN, "test": TRAIN[:1]}, "OOS")


# --- guessing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "line", "expected"),
    [
        ("text,label", "hello there,{}", ("text", "label")),
        ("Intent,User Query", "{},hello there", ("User Query", "Intent")),
        ("id,sentence,category", "7,hello there,{}", ("sentence", "category")),
        ("a,b", "{},hello there you {}", ("b", "a")),
    ],
)
def test_guess_finds_the_columns(tmp_path: Path, header: str, line: str, expected: tuple[str, str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join([header, *(line.replace("{}", label) for label in "AABB")]))
    guess = guess_columns(path)
    assert (guess.input, guess.target) == expected
    assert (guess.rows, guess.labels) == (4, {"A": 2, "B": 2})
    assert guess.out_of_scope is None and guess.maybe_out_of_scope is None


def test_guess_takes_the_columns_that_were_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label,team\nhello there,A,x\nhello you,A,y\nbye you,B,x\n")
    guess = guess_columns(path, target="team")
    assert (guess.input, guess.target, guess.labels) == ("text", "team", {"x": 2, "y": 1})
    with pytest.raises(UserError, match=r"no column 'teem'\. Did you mean 'team'"):
        guess_columns(path, target="teem")


def test_guess_finds_the_out_of_scope_label(tmp_path: Path) -> None:
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("text,label\na,A\nb,B\nc,other\n")
    test.write_text("text,label\na,A\nb,Out-of-Scope\n")
    assert guess_columns(train).out_of_scope is None
    assert guess_columns(train).maybe_out_of_scope == "other"
    assert guess_columns(train, [test]).out_of_scope == "Out-of-Scope"


def test_guess_refuses_what_has_no_label(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("alpha;beta\n1;2\n")
    with pytest.raises(UserError, match="has one column"):
        guess_columns(path)
    path.write_text("p,q\n" + "\n".join(f"word {i},other {i}" for i in range(9)))
    with pytest.raises(UserError, match="--target"):
        guess_columns(path)
