"""The audit: clean on a run as it was made, and each thing that is tampered with is a finding."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from postgrad.audit import Audit, audit_run
from postgrad.audit.case import Case, open_case
from postgrad.audit.data import data_checks
from postgrad.audit.weights import lineage_checks, weight_checks
from postgrad.cli.audit import command
from postgrad.errors import UserError
from postgrad.evaluate.splits import dump_rows, load_rows
from postgrad.records import Recipe, Row, Stage, Step
from postgrad.report import read_view, write_report
from postgrad.runner import drive, opened, start_run
from postgrad.spec import load_task
from postgrad.store.sqlite import SqliteStore
from postgrad.testing.encoder import make_tiny_encoder
from postgrad.testing.language import make_tiny_lm
from postgrad.train.lineage import differences, distance, encoders

VERBS, NOUNS = ("open", "close", "find", "send"), ("account", "card", "order", "parcel")
EXTRAS = ("in the morning", "with my phone", "without a password", "for somebody else", "while abroad")


def write_task(folder: Path) -> Path:
    """Four intents and a test file; no base model."""
    train = [(f"{verb} {noun} {extra}", verb.upper()) for verb in VERBS for noun in NOUNS for extra in EXTRAS]
    test = [(f"could you {verb} that {noun} now", verb.upper()) for verb in VERBS for noun in NOUNS]
    test += [(text, "none") for text in ("weather tomorrow", "tell a joke", "who won", "sing something")]
    train += [("Could you OPEN that card, now?", "OPEN"), ("hello could you send that parcel now", "SEND")]
    for name, part in (("train.csv", train), ("test.csv", test)):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *part])
    task = folder / "task.yaml"
    task.write_text(
        "name: audited\nobjective: tell verbs apart\nbase_models: []\nbudget: 2 experiments\n"
        "data: {train: train.csv, test: test.csv, out_of_scope: none}\nengine: {workers: 1, threads: 1}\n"
    )
    return task


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: the constant answer and a classic model, trained for real."""
    folder = tmp_path_factory.mktemp("audited")
    store = start_run(load_task(write_task(folder)), folder / "runs")
    run = store.folder
    with opened(store) as session:
        drive(session)
    with SqliteStore.open(run, write=False) as store:
        write_report(read_view(store), run)
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return Path(shutil.copytree(finished, tmp_path / finished.name))


def audited(folder: Path) -> Audit:
    with SqliteStore.open(folder, write=False) as store:
        return audit_run(store)


def states(found: Audit) -> dict[str, str]:
    return {check.name: check.state for check in found.checks}


def words(found: Audit, name: str) -> str:
    return next(check.words for check in found.checks if check.name == name)


def rewrite(folder: Path, kind: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Forge the log: every event of a kind."""
    with closing(sqlite3.connect(folder / "events.sqlite")) as base:
        base.execute("DROP TRIGGER IF EXISTS events_are_not_changed")
        for seq, text in base.execute("SELECT seq, body FROM events WHERE type = ?", (kind,)).fetchall():
            body = json.loads(text)
            change(body)
            base.execute("UPDATE events SET body = ? WHERE seq = ?", (json.dumps(body), seq))
        base.commit()


def with_trained(folder: Path, change: Callable[[tuple[Row, ...]], tuple[Row, ...]]) -> None:
    """Forge the rows that the final job says it trained on."""
    with SqliteStore.open(folder, write=True) as store:

        def forge(body: dict[str, Any]) -> None:
            if known := body["result"].get("trained"):
                rows = load_rows(store.artifacts.read(known))
                body["result"]["trained"] = store.artifacts.put_bytes(dump_rows(change(rows)))

        rewrite(folder, "job_finished", forge)


# --- clean ----------------------------------------------------------------------------------------------------------


def test_a_run_as_it_was_made_is_clean(finished: Path) -> None:
    found = audited(finished)
    assert found.verdict == "clean", [check for check in found.checks if check.state != "clean"]
    assert set(states(found).values()) <= {"clean", "skipped"}
    assert "makes" not in words(found, "rows follow from the recipe")
    assert "No base model" in words(found, "the base model is known by its content")
    assert {(one.part, one.near, one.match.how) for one in found.removed} == {
        ("train", "sealed", "exact"),
        ("train", "sealed", "contained"),
    }


def test_the_report_says_what_the_audit_says_and_lists_ids(finished: Path) -> None:
    text, page = ((finished / name).read_text() for name in ("report.md", "report.html"))
    found = audited(finished)
    assert "2 rows of train had the text of a held-out row or nearly that" in text
    assert words(found, "what the report says of contamination").startswith("2 rows of train had")
    for one in found.removed:
        assert one.match.row in text and one.match.item in text and one.match.row in page
    assert "that card" not in text and "that card" not in found.model_dump_json(), "no sealed text"


def test_the_command(finished: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(command)
    shown = CliRunner().invoke(app, [str(finished)])
    assert shown.exit_code == 0 and shown.output.startswith("Clean.")
    document = json.loads(CliRunner().invoke(app, [str(finished), "--json"]).output)
    assert document["verdict"] == "clean" and document["run"] == finished.name


# --- data -----------------------------------------------------------------------------------------------------------


def test_a_sealed_row_among_the_rows_trained_on(run: Path) -> None:
    with SqliteStore.open(run, write=False) as store:
        sealed = open_case(store).rows["sealed"]
    with_trained(run, lambda rows: (*rows, Row("leak+step", f"Hello, {sealed[3].text.upper()}", sealed[3].label)))
    found = audited(run)
    assert found.verdict == "findings"
    assert states(found)["sealed and guard rows are not trained on"] == "finding"
    assert states(found)["rows follow from the recipe"] == "finding", "and the recipe makes no such row"
    assert ("leak+step", sealed[3].id) in [(match.row, match.item) for match in found.matches]
    assert sealed[3].text not in found.model_dump_json()


def test_a_row_left_out_of_the_record(run: Path) -> None:
    with_trained(run, lambda rows: rows[1:])
    found = audited(run)
    assert states(found)["rows follow from the recipe"] == "finding" and found.verdict == "findings"


def test_a_record_that_cannot_be_read(run: Path) -> None:
    with SqliteStore.open(run, write=True) as store:
        broken = store.artifacts.put_bytes(b'{"id": 1\n')
        rewrite(run, "job_finished", lambda body: body["result"].update(trained=broken))
    assert states(audited(run))["training rows on record"] == "finding"


def test_an_older_run_says_what_is_missing(run: Path) -> None:
    rewrite(run, "job_finished", lambda body: body["result"].pop("trained"))
    rewrite(run, "job_started", lambda body: body.pop("base_hash"))
    found = audited(run)
    assert found.verdict == "incomplete"
    assert states(found)["training rows on record"] == "unknown"
    assert "given rows alone" in words(found, "training rows on record")


def test_a_plan_whose_folds_share_near_copies(run: Path) -> None:
    with SqliteStore.open(run, write=True) as store:

        def forge(body: dict[str, Any]) -> None:
            plan = json.loads(store.artifacts.read(body["plan"]))
            unit = plan["search"][0]
            unit["train"] = [*unit["train"], next(name for name in unit["items"] if "+" not in name)]
            body["plan"] = store.artifacts.put_bytes(json.dumps(plan).encode())

        rewrite(run, "data_prepared", forge)
    assert states(audited(run))["search and select, apart from training"] == "finding"


def test_a_given_row_that_is_near_a_test_row(run: Path) -> None:
    """As a run that looked for equal texts only would have it."""
    with SqliteStore.open(run, write=True) as store:

        def forge(body: dict[str, Any]) -> None:
            plan = json.loads(store.artifacts.read(body["plan"]))
            rows = load_rows(store.artifacts.read(plan["rows"]["train"]))
            near = Row("near", "could you opne that account now", "OPEN")
            plan["rows"]["train"] = store.artifacts.put_bytes(dump_rows((*rows, near)))
            body["plan"] = store.artifacts.put_bytes(json.dumps(plan).encode())

        rewrite(run, "data_prepared", forge)
    found = audited(run)
    assert states(found)["given rows and rows of other files"] == "finding"
    assert [(match.row, match.how) for match in found.matches] == [("near", "mistyped")]


# --- lineage --------------------------------------------------------------------------------------------------------


def test_a_published_model_that_somebody_changed(run: Path) -> None:
    path = run / "model" / "classic.safetensors"
    tensors = load_file(path)
    path.chmod(0o644)
    save_file({**tensors, "weight": tensors["weight"] + 1}, path)
    found = audited(run)
    assert states(found)["the model folder holds these weights"] == "finding"
    assert "classic.safetensors" in words(found, "the model folder holds these weights")


def test_weights_of_another_recipe(run: Path) -> None:
    def forge(body: dict[str, Any]) -> None:
        body["proposal"]["recipe"]["stage"]["params"] = {"C": 9.0}

    rewrite(run, "proposed", forge)
    assert states(audited(run))["the weights name that recipe and seed"] == "finding"


def test_weights_that_are_not_there(run: Path) -> None:
    with SqliteStore.open(run, write=False) as store:
        model = open_case(store).model
    assert model is not None
    (run / "artifacts" / model[:2] / model[2:]).unlink()
    assert states(audited(run))["the final weights are stored"] == "finding"
    rewrite(run, "job_finished", lambda body: body["result"].update(model=None))
    found = audited(run)
    assert found.verdict == "findings" and found.model is None


def test_a_job_that_nobody_started(run: Path) -> None:
    rewrite(run, "job_started", lambda body: body.update(job="other"))
    assert states(audited(run))["a logged job made the weights"] == "finding"


def test_a_report_that_says_something_else(run: Path) -> None:
    text = (run / "report.md").read_text()
    (run / "report.md").write_text(text.replace("2 rows of train had", "No row had"))
    found = audited(run)
    assert states(found)["what the report says of contamination"] == "flagged" and found.verdict == "clean"


def test_a_run_without_a_champion(tmp_path: Path) -> None:
    with (
        start_run(load_task(write_task(tmp_path)), tmp_path / "runs") as store,
        pytest.raises(UserError, match="resume"),
    ):
        audit_run(store)


# --- encoders -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder(tmp_path_factory.mktemp("base"), VERBS)


@pytest.fixture
def saved(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "model" / "encoder"))


def moved(folder: Path, amount: float, part: str) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({name: t + amount * (part in name) for name, t in tensors.items()}, path, {"format": "pt"})


def test_distance_of_a_copy_is_exactly_zero(base: Path, saved: Path) -> None:
    away = distance(base, saved, "frozen")
    assert away.total == 0.0 and away.moved == 0 and away.tensors > 10 and not away.problems("frozen")
    assert "was trained" in away.problems("full")[0]


def test_a_tuned_copy_is_near_and_a_stranger_far(base: Path, saved: Path, tmp_path: Path) -> None:
    moved(saved, 0.001, "layer.1")
    away = distance(base, saved, "full")
    assert 0 < away.total < 0.1 and not away.problems("full")
    assert "layer.1" in away.farthest[0][0]
    assert "never trains" in distance(base, saved, "frozen").problems("frozen")[0]
    moved(saved, 0.001, "embeddings")
    assert "never trains" in distance(base, saved, "full").problems("full")[0]
    stranger = make_tiny_encoder(tmp_path / "stranger", VERBS, seed=1)
    assert any("not a tuned copy" in problem for problem in distance(base, stranger, "full").problems("full"))


def test_tensors_that_are_missing_new_or_reshaped(base: Path, saved: Path) -> None:
    path = saved / "model.safetensors"
    tensors = load_file(path)
    first, second, *_ = sorted(tensors)
    tensors |= {"new": tensors.pop(first), second: tensors[second].reshape(-1)[:3]}
    save_file(tensors, path, {"format": "pt"})
    away = distance(base, saved, "full")
    assert (away.missing, away.added, away.reshaped) == ((first,), ("new",), (second,))
    assert len(away.problems("full")) >= 3


def test_half_precision_is_read(base: Path, saved: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file as load
    from safetensors.torch import save_file as save

    save(
        {name: t.to(torch.bfloat16) for name, t in load(saved / "model.safetensors").items()},
        saved / "model.safetensors",
    )
    away = distance(base, saved, "frozen")
    assert 0 < away.total < 0.01 and not away.problems("frozen"), "rounding alone is no training"


def test_a_file_that_is_no_safetensors(base: Path, saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ValueError, match="no safetensors"):
        distance(base, saved, "full")


def test_another_architecture_or_tokenizer(base: Path, saved: Path) -> None:
    assert differences(base, saved) == ()
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "num_attention_heads": 4, "transformers_version": "0"}))
    tokenizer = json.loads((saved / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["extra"] = 9999
    (saved / "tokenizer.json").write_text(json.dumps({**tokenizer, "padding": None}))
    found = differences(base, saved)
    assert len(found) == 2 and "num_attention_heads is 4" in found[0] and "another model" in found[1]


def embedder_case(case: Case, base: Path, tune: str) -> Case:
    """The case with a champion that tuned `base`."""
    recipe = Recipe(base_model=f"path:{base}", stage=Stage(backend="embedder", params={"tune": tune}))
    proposal = case.proposed.proposal.model_copy(update={"recipe": recipe})
    return replace(case, proposed=case.proposed.model_copy(update={"proposal": proposal}))


@pytest.fixture
def case(finished: Path) -> Iterator[Case]:
    with SqliteStore.open(finished, write=False) as store:
        yield open_case(store)


def test_encoders_are_compared_with_the_base(case: Case, base: Path, saved: Path) -> None:
    tuned, frozen = embedder_case(case, base, "full"), embedder_case(case, base, "frozen")
    assert [check.state for check, _ in weight_checks(frozen, saved.parent)] == ["clean", "clean"]
    assert [check.state for check, _ in weight_checks(tuned, saved.parent)] == ["clean", "finding"]
    moved(saved, 0.001, "layer.0")
    assert [check.state for check, _ in weight_checks(tuned, saved.parent)] == ["clean", "clean"]
    assert [check.state for check, _ in weight_checks(frozen, saved.parent)] == ["clean", "finding"]


def test_a_base_model_that_the_log_does_not_know(case: Case, base: Path, saved: Path) -> None:
    known = {
        check.name: check for check in lineage_checks(embedder_case(case, base, "full"), saved.parent, saved.parent)
    }
    assert known["the base model is known by its content"].state == "unknown"


def test_encoders_inside_an_ensemble(tmp_path: Path) -> None:
    members = [{"stage": {"backend": "classic"}}, {"stage": {"backend": "embedder", "params": {"tune": "lora"}}}]
    stage = Stage.model_validate({"backend": "ensemble", "params": {"members": members}})
    assert [(e.name, e.tune) for e in encoders(stage, tmp_path)] == [("member-1/encoder", "lora")]
    assert not list(encoders(Stage(backend="classic"), tmp_path))


def test_rows_of_data_steps_are_worked_out_again(case: Case) -> None:
    """A champion with data steps whose record holds the given rows alone."""
    recipe = case.recipe.model_copy(update={"data": (Step(op="typos", params={"share": 1.0}),)})
    proposal = case.proposed.proposal.model_copy(update={"recipe": recipe})
    changed = replace(case, proposed=case.proposed.model_copy(update={"proposal": proposal}))
    found = {check.name: check.state for check, _ in data_checks(changed, encoder=False)}
    assert found["rows follow from the recipe"] == "finding"


def test_no_neighbours_are_looked_for_under_a_language_model(case: Case, tmp_path: Path) -> None:
    base = make_tiny_lm(tmp_path / "lm", VERBS)
    recipe = Recipe(base_model=f"path:{base}", stage=Stage(backend="causal_lm"))
    proposal = case.proposed.proposal.model_copy(update={"recipe": recipe})
    changed = replace(case, proposed=case.proposed.model_copy(update={"proposal": proposal}))
    (found,) = [check for check, _ in data_checks(changed, encoder=True) if "neighbours" in check.name]
    assert found.state == "skipped" and "language model" in found.words


def test_data_steps_of_other_packages_are_not_run_here(case: Case) -> None:
    recipe = case.recipe.model_copy(update={"data": (Step(op="theirs"),)})
    proposal = case.proposed.proposal.model_copy(update={"recipe": recipe})
    changed = replace(case, proposed=case.proposed.model_copy(update={"proposal": proposal}))
    found = {check.name: check.state for check, _ in data_checks(changed, encoder=False)}
    assert found["rows follow from the recipe"] == "unknown"
