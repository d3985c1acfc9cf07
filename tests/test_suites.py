"""Tasks of lm-eval as suites and guards: a local task on a tiny language model, against our own likelihoods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from postgrad.audit.case import open_case
from postgrad.cli.suite import command
from postgrad.errors import UserError
from postgrad.evaluate.guards import kind_of, named
from postgrad.evaluate.guards.base import SavedModel, Unmeasured
from postgrad.evaluate.suites import language_model_in, side_by_side, suite_of
from postgrad.records import EngineSpec, Guard
from postgrad.runner import drive, opened, start_run
from postgrad.spec import load_task
from postgrad.store.sqlite import SqliteStore
from postgrad.testing.language import make_tiny_lm
from test_audit import rewrite, write_task

pytest.importorskip("lm_eval")

COLOURS, THINGS = ("red", "blue", "green"), ("car", "hat", "pen", "cup", "bag", "key")
TASK = """
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: colours.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{gold}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
ENGINE = EngineSpec(workers=1, threads=1)


def documents() -> list[dict[str, Any]]:
    return [
        {"text": f"the {colour} {thing} has the colour", "choices": list(COLOURS), "gold": number}
        for thing in THINGS
        for number, colour in enumerate(COLOURS)
    ]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "colours.yaml").write_text(TASK)
    (folder / "colours.jsonl").write_text("".join(json.dumps(each) + "\n" for each in documents()))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A champion's saved folder, and its base."""
    folder = tmp_path_factory.mktemp("models")
    texts = [each["text"] for each in documents()] * 3
    base = make_tiny_lm(folder / "base", texts)
    make_tiny_lm(folder / "champion" / "language_model", texts, seed=5)
    return folder / "champion", base


def by_hand(model: Path, count: int) -> list[float]:
    """Whether the likeliest choice is the right one, by the project's own likelihoods."""
    import torch

    from postgrad.train.lm_model import load_tokenizer, load_weights
    from postgrad.train.lm_score import log_likelihoods

    tokenizer, alive = load_tokenizer(model), load_weights(model, torch.float32)
    answers = [tokenizer(f" {colour}").input_ids for colour in COLOURS]
    prompts = [tokenizer(each["text"]).input_ids for each in documents()[:count]]
    found = log_likelihoods(alive, prompts, answers, ())
    return [float(line.argmax() == each["gold"]) for line, each in zip(found, documents(), strict=False)]


def test_numbers_are_those_of_our_own_likelihoods(models: tuple[Path, Path], tasks: Path, tmp_path: Path) -> None:
    champion, base = language_model_in(models[0]), models[1]
    mine, theirs = (suite_of(model, ("colours",), ENGINE, tmp_path / "x", include=tasks) for model in (champion, base))
    for scores, model in ((mine[0], champion), (theirs[0], base)):
        assert list(scores.values) == by_hand(model, 18) and (scores.task, scores.metric) == ("colours", "acc")
        assert scores.stderr == pytest.approx(float(np.std(scores.values, ddof=1)) / 18**0.5)
    assert not (tmp_path / "x").exists()
    (line,) = side_by_side(mine, theirs)
    gaps = np.array(mine[0].values) - np.array(theirs[0].values)
    assert gaps.any(), "two models that never differ would show nothing"
    assert line.difference.value == pytest.approx(gaps.mean()) and line.n == line.difference.n == 18
    assert line.difference.low < line.difference.value < line.difference.high
    assert side_by_side(mine, mine)[0].difference.p == 1.0
    with pytest.raises(Unmeasured, match="not asked the same"):
        side_by_side(mine, [theirs[0].model_copy(update={"ids": theirs[0].ids[::-1]})])


def test_a_guard_measures_a_task_of_the_saved_model(models: tuple[Path, Path], tasks: Path, tmp_path: Path) -> None:
    guard = Guard(measure="lm_eval:colours", data=str(tasks), min=0.2)
    kind: Any = kind_of(guard)
    found = kind.measured(guard, SavedModel(models[0], ("x",), ENGINE, tmp_path / "x"))
    assert found.value == pytest.approx(np.mean(by_hand(models[0] / "language_model", 18))) and found.n == 18
    assert found.low <= found.value <= found.high and list(named((guard,))) == ["lm_eval:colours"]


@pytest.mark.slow
def test_tasks_that_cannot_be_asked_say_why(models: tuple[Path, Path], tasks: Path, tmp_path: Path) -> None:
    for name, words in (("colors", "Did you mean 'colours'"), ("arc_easy", "read their rows from the Hub")):
        with pytest.raises(Unmeasured) as wrong:
            suite_of(models[1], (name,), ENGINE, tmp_path / "x", include=tasks, limit=2)
        assert words in str(wrong.value)


def test_a_model_of_labels_alone_is_refused(tmp_path: Path) -> None:
    guard = Guard(measure="lm_eval:colours", min=0.2)
    kind: Any = kind_of(guard)
    with pytest.raises(Unmeasured, match="holds no language model"):
        kind.measured(guard, SavedModel(tmp_path, ("x",), ENGINE, tmp_path / "x"))


def test_the_task_file_says_what_a_guard_needs(tmp_path: Path, tasks: Path) -> None:
    task = write_task(tmp_path)
    guard = {"measure": "lm_eval:colours", "data": str(tasks), "min": 0.2}
    assert load_task(task, {"guards": [guard]}).guards[0].data == str(tasks)
    for change, words in (
        ({"measure": "lm_eval"}, "a task was expected behind it"),
        ({"measure": "lm_evil:colours"}, "unknown measure 'lm_evil:colours'"),
        ({"data": "nowhere"}, "a folder with tasks of lm-eval"),
        ({"slice": {"column": "a", "equals": "b"}}, "takes no slice"),
    ):
        with pytest.raises(UserError) as wrong:
            load_task(task, {"guards": [{**guard, **change}]})
        assert words in str(wrong.value)


@pytest.mark.slow
def test_the_command_compares_champion_and_base(models: tuple[Path, Path], tasks: Path, tmp_path: Path) -> None:
    """A run whose champion is a classic model is refused; the same run with the language model put in its place."""
    store = start_run(load_task(write_task(tmp_path)), tmp_path / "runs")
    run = store.folder
    with opened(store) as session:
        drive(session)
    app = typer.Typer()
    app.command()(command)
    words = [str(run), "--tasks", "colours", "--include", str(tasks), "--limit", "9"]
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, UserError) and "holds no language model" in str(refused.exception)
    with SqliteStore.open(run, write=True) as store:
        champion = open_case(store).champion
        artefact = store.artifacts.put_folder(models[0])
    stage = {"backend": "causal_lm", "params": {"tune": "full"}}

    def other(body: dict[str, Any]) -> None:
        if body["experiment"] == champion:
            body["proposal"]["recipe"] |= {"base_model": f"path:{models[1]}", "stage": stage}

    rewrite(run, "proposed", other)
    rewrite(run, "job_finished", lambda body: body["result"].update(model=artefact))
    shown = CliRunner().invoke(app, [*words, "--json"])
    assert shown.exit_code == 0, shown.exception
    (line,) = json.loads(shown.stdout)["tasks"]
    assert (line["n"], line["champion"], line["base"]) == (
        9,
        pytest.approx(np.mean(by_hand(models[0] / "language_model", 9))),
        pytest.approx(np.mean(by_hand(models[1], 9))),
    )
