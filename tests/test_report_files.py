"""What is made of a view besides the page: the tree on a terminal, the model card, the files of a stored run."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from postgrad.errors import UserError
from postgrad.evaluate.splits import dump_rows
from postgrad.events import DataPrepared
from postgrad.records import Row
from postgrad.report import read_view, write_report
from postgrad.report.card import model_card
from postgrad.report.pictures import champion_sparkline, terminal_tree
from postgrad.report.summary import summary
from postgrad.report.terminal import sparkline
from postgrad.report.view import RunView
from postgrad.store.sqlite import SqliteStore
from report_builders import (
    LABELS,
    SECRET,
    TEXTS,
    Plan,
    RunWriter,
    a_card,
    a_plan,
    a_read,
    a_task,
    finished_run,
    references,
    run_under_way,
    view_of,
)


@pytest.fixture(scope="module")
def finished() -> RunView:
    return view_of(finished_run())


@pytest.fixture(scope="module")
def open_run() -> RunView:
    return view_of(run_under_way())


def just_started() -> RunWriter:
    writer = RunWriter()
    writer.start(a_task(), a_card())
    return writer


# --- the terminal ---------------------------------------------------------------------------------------------------


def test_the_tree_on_a_terminal(finished: RunView) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(terminal_tree(finished))
    text = console.export_text()
    assert all(node.id in text for node in finished.tree.all())
    assert "★ e0028  0.719  tie  tuned weights of the members" in text


def test_sparklines_rise_and_fit() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert len(sparkline(list(range(500)), 40)) == 40
    assert sparkline([]) == ""
    assert sparkline([0.5, 0.5]) == "██"
    assert champion_sparkline(view_of(just_started())) == ""


# --- the card -------------------------------------------------------------------------------------------------------


def test_the_card_has_front_matter_results_and_the_threshold(finished: RunView) -> None:
    text = model_card(finished, "from predict import load\nload('.')(['hi'])")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["pipeline_tag"] == "text-classification"
    assert "out-of-scope-detection" in front["tags"]
    metrics = front["model-index"][0]["results"][0]["metrics"]
    assert {"type": "matthews_correlation", "name": "MCC", "value": 0.694} in metrics
    for words in ("0.694 [0.649, 0.739]", "Below **0.41**", "from predict import load", "`return_item` as", "412 rows"):
        assert words in text, words
    assert not any(example in text for example in TEXTS.values()), "a card quotes no text of the data"


def test_the_card_names_a_base_model_of_the_hub() -> None:
    writer = just_started()
    for plan in references():
        writer.experiment(Plan(**{**plan.__dict__, "base_model": "hf:sentence-transformers/all-MiniLM-L6-v2@1a2b"}))
    writer.finish("e0001", "e0001")
    writer.seal(a_read("e0001", 0.6))
    front = yaml.safe_load(model_card(view_of(writer), "x").split("---\n")[1])
    assert front["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert front["library_name"] == "sklearn"


def test_an_unsealed_run_gets_no_card(open_run: RunView) -> None:
    with pytest.raises(UserError, match="postgrad resume maison-001"):
        model_card(open_run, "load()")


# --- from a store ---------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> SqliteStore:
    """The finished run in a real store, with its rows."""
    store = SqliteStore.create(tmp_path / "runs" / "maison-001")
    put = store.artifacts.put_bytes
    search = tuple(Row(name, text, LABELS[0]) for name, text in TEXTS.items())
    sealed = (Row("x1", SECRET, LABELS[1]),)
    rows = {"train": put(dump_rows(search)), "search": put(dump_rows(search)), "sealed": put(dump_rows(sealed))}
    plan = put(a_plan().model_copy(update={"rows": rows}).model_dump_json().encode())
    for event in finished_run().events:
        body = event.body
        store.append(body.model_copy(update={"plan": plan}) if isinstance(body, DataPrepared) else body)
    return store


def test_a_report_from_a_store(stored: SqliteStore) -> None:
    (stored.folder / "model").mkdir()
    view = read_view(stored)
    page = write_report(view, stored.folder)
    assert page == stored.folder / "report.html"
    source = page.read_text(encoding="utf-8")
    text = (stored.folder / "report.md").read_text(encoding="utf-8")
    assert TEXTS["r2"] in source
    assert TEXTS["r2"] in text
    assert SECRET not in source + text
    found = summary(view)
    assert found["report"] == str(page)
    assert found["model_dir"] == str(stored.folder / "model")
    assert sorted(path.name for path in stored.folder.iterdir() if "report" in path.name) == [
        "report.html",
        "report.md",
    ]


def test_only_search_rows_are_opened(stored: SqliteStore) -> None:
    """The rows of the sealed split could be gone, and the report would not notice."""
    rows = read_view(stored).plan
    assert rows is not None
    stored.artifacts.path(rows.rows["sealed"]).unlink()
    assert read_view(stored).bad_cases[0].texts
