"""`postgrad show --bad` and the report's section on bad cases, over a run with stored answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from postgrad.cli.main import app
from postgrad.evaluate.splits import SplitPlan
from postgrad.events import Body, DataPrepared, Evaluated
from postgrad.metrics.base import Answers
from postgrad.metrics.items import Items, dump_items
from postgrad.report.badcases import read_findings, why_it_errs
from postgrad.store.sqlite import SqliteStore, new_run_folder
from recorded import LABELS, events, rows, write_run

WRONG = "gift card question number 3"


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
