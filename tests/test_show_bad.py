"""`postgrad show --bad` and the report's section on bad cases, over a run with stored answers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from postgrad.analyze.findings import Material, findings_of
from postgrad.cli.main import app
from postgrad.data.sources import load_rows
from postgrad.erring import read_findings
from postgrad.evaluate.splits import SplitPlan
from postgrad.evaluate.tags import dump_tags, load_tags, tags_of
from postgrad.events import Body, DataPrepared, Evaluated
from postgrad.metrics.base import Answers
from postgrad.metrics.items import Items, dump_items
from postgrad.records import DataSpec, TaskSpec
from postgrad.report.badcases import why_it_errs
from postgrad.store.sqlite import SqliteStore, new_run_folder
from recorded import LABELS, events, rows, write_run

WRONG = "gift card question number 3"
WORDS = [f"word{n % 7}" for n in range(90)]


def answered(store: SqliteStore, plan: SplitPlan) -> str:
    """Every search item answered right, but for one text that is taken for a refund."""
    known = {row.id: row for row in rows()}
    keys = [(f"{unit.name}/{name}", known[name]) for unit in plan.search for name in unit.items]
    names = sorted(LABELS)
    truth = np.array([names.index(row.label) for _, row in keys], dtype=np.int64)
    said = np.array([names.index("refund" if row.text == WRONG else row.label) for _, row in keys], dtype=np.int64)
    answers = Answers(truth, said, said, np.ones(len(keys)), len(names))
    items = Items(np.array([key for key, _ in keys]), np.array([row.id for _, row in keys]), answers)
    return store.artifacts.put_bytes(dump_items(items))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run whose three scored experiments all err on one text."""
    folder = new_run_folder(tmp_path / "runs", "shop")
    with SqliteStore.create(folder) as store:
        bodies = events(store, folder.name)
        prepared = next(body for body in bodies if isinstance(body, DataPrepared))
        artefact = answered(store, SplitPlan.model_validate_json(store.artifacts.read(prepared.plan)))
        for body in bodies:
            store.append(_with_items(body, artefact))
    return folder


def _with_items(body: Body, artefact: str) -> Body:
    if not isinstance(body, Evaluated):
        return body
    return body.model_copy(update={"evaluation": body.evaluation.model_copy(update={"items": artefact})})


def call(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.output


def test_show_bad_names_what_the_champion_gets_wrong(run: Path) -> None:
    code, said = call("show", run.name, "--bad", "--runs-dir", str(run.parent))
    assert code == 0
    assert "bad cases on the search split" in said
    assert "1 of" in said
    assert WRONG in said


def test_show_bad_is_one_json_document(run: Path) -> None:
    code, said = call("show", run.name, "e0001", "--bad", "--runs-dir", str(run.parent), "--json")
    document = json.loads(said)
    assert code == 0
    assert (document["experiment"], document["wrong"], document["experiments"]) == ("e0001", 1, 2)
    assert document["solved"]["open"] == document["items"]
    assert document["topics"][0]["texts"] == [WRONG]
    for cause in document["causes"]:
        assert {"kind", "where", "meaning", "moves", "otherwise", "keys", "words"} <= set(cause)


def test_the_report_says_why_it_errs(run: Path) -> None:
    assert call("report", run.name, "--runs-dir", str(run.parent))[0] == 0
    for page in ("report.md", "report.html"):
        assert "Why it errs" in (run / page).read_text(encoding="utf-8")


def test_only_train_and_search_rows_are_opened(run: Path) -> None:
    """The row files of select and sealed are gone, and nothing misses them."""
    with SqliteStore.open(run, write=False) as store:
        prepared = next(event.body for event in store.events() if isinstance(event.body, DataPrepared))
        plan = SplitPlan.model_validate_json(store.artifacts.read(prepared.plan))
        kept = {plan.rows["train"], plan.rows["search"]}
        for part in ("select", "sealed"):
            if plan.rows[part] not in kept:
                store.artifacts.path(plan.rows[part]).unlink()
        assert read_findings(store).wrong == 1


def test_a_run_without_scores_is_explained(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", upto=2)
    with SqliteStore.open(folder, write=False) as store:
        assert why_it_errs(store) == ()
    done = CliRunner().invoke(app, ["show", folder.name, "--bad", "--runs-dir", str(folder.parent)])
    assert "no scored experiment yet" in str(done.exception)


def test_a_lost_answer_file_does_not_stop_the_report(tmp_path: Path) -> None:
    with SqliteStore.open(write_run(tmp_path / "runs"), write=False) as store:
        (line,) = why_it_errs(store)
    assert "could not be analysed" in line


def test_columns_of_the_task_cut_bad_cases_into_slices(tmp_path: Path) -> None:
    """From the file to the finding: every text of one channel is answered wrong, and nothing else of it differs."""
    lines = [(f"{word} text number {n}", "ab"[n % 2], ["mail", "chat"][n % 3 == 0]) for n, word in enumerate(WORDS)]
    with (tmp_path / "train.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label", "channel"), *lines])
    data = DataSpec(train=str(tmp_path / "train.csv"), slices=("channel",))
    task = TaskSpec(name="shop", objective="", data=data, metric="accuracy")
    rows = load_rows(data.train, input="text", target="label")
    tags = load_tags(dump_tags(tags_of(task, rows)))
    assert tags == {row.id: {"channel": line[2]} for row, line in zip(rows, lines, strict=True)}
    truth = np.array(["ab".index(row.label) for row in rows], dtype=np.int64)
    chat = np.array([tags[row.id]["channel"] == "chat" for row in rows])
    said = np.where(chat, 1 - truth, truth)
    ids = np.array([row.id for row in rows])
    items = Items(np.char.add("s0/", ids), ids, Answers(truth, said, said, np.ones(len(rows)), 2))
    known = {row.id: row for row in rows}
    found = findings_of(Material("e1", {"e1": items}, known, {}, {"s0": ()}, tags=tags))
    assert [(each.kind, each.value) for each in found.slices] == [("channel", "chat")]


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    lines = "".join(f"{word} one {n},x,mail\n{word} two {n},y,chat\n" for n, word in enumerate(WORDS))
    (tmp_path / "train.csv").write_text(f"text,label,channel\n{lines}")
    (tmp_path / "task.yaml").write_text("objective: o\nbase_models: []\ndata: {train: train.csv, slices: chanel}\n")
    code, said = call("check", str(tmp_path / "task.yaml"))
    assert code == 2
    assert "no column 'chanel'" in " ".join(said.split()) and "Did you mean 'channel'" in " ".join(said.split())
