"""Postgrad as a contestant, against a local copy of the contract with a tiny base model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import pytest

from contest_folder import EVALUATOR, questions, write_contest, write_task
from postgrad.budget import parse_budget
from postgrad.contest import Entry, Order, State
from postgrad.contest.clock import timer_deadline
from postgrad.contest.folder import protected, read_contest, touched
from postgrad.contest.rows import checked_task
from postgrad.contest.verdict import Verdict
from postgrad.contest.weights import problems_of, put_base, put_champion, recover
from postgrad.errors import PostgradError, UserError
from postgrad.records import Choice, Proposal, Recipe, Stage, TaskSpec, Value
from postgrad.research.base import Context
from postgrad.runner import drive, opened
from postgrad.session import Session
from postgrad.spec import load_task
from postgrad.store.sqlite import SqliteStore
from postgrad.testing.language import make_tiny_lm
from postgrad.train.models import model_hash


class Teacher:
    """Proposes to tune all weights for long enough that a random model learns something."""

    def propose(self, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
        params: dict[str, Value] = {
            "tune": "full",
            "lr": 3e-3,
            "epochs": 6 + context.index,
            "batch_size": 4,
            "precision": "fp32",
        }
        return Proposal(
            recipe=Recipe(base_model=task.base_models[0], stage=Stage(backend="causal_lm", params=params)),
            kind="draft.lm_full",
            hypothesis="Long training teaches a random model.",
            change="all weights, for long",
            expected_effect=0.2,
            refuted_by="no better than the base",
            proposer="test",
            seed=task.seed,
        )


def drive_with(researcher: Teacher | None) -> Callable[[SqliteStore, Callable[[Session], Verdict], float], Verdict]:
    def driven(store: SqliteStore, then: Callable[[Session], Verdict], until: float) -> Verdict:
        with opened(store) as session:
            drive(session, researcher=researcher)
            return then(session)

    return driven


def order_of(folder: Path, contest: Path, budget: str = "1 experiment", limit: int | None = None) -> Order:
    task = folder / "task.yaml"
    return Order(folder=contest, task=load_task(task), task_file=task, budget=parse_budget(budget), limit=limit)


def postgrad(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "postgrad", "contest", str(folder), "--json", *words]


# --- the folder and its clock -----------------------------------------------------------------------------------------


def test_a_folder_that_is_no_contest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no evaluate\.py in it.*Expected a folder"):
        read_contest(tmp_path, ())
    (tmp_path / "evaluate.py").write_text("parser.add_argument('--model-path')\n")
    with pytest.raises(UserError, match="has no --json-output-file"):
        read_contest(tmp_path, ())


def test_what_is_touched_is_named(tmp_path: Path) -> None:
    contest = read_contest(write_contest(tmp_path), ())
    before = protected(contest)
    assert set(before) == {"evaluate.py", "timer.sh", "test_data.json", "templates/tiny.jinja"}
    (contest.root / "logs").mkdir()
    (contest.root / "logs" / "one.py").write_text("")
    (contest.root / "final_model").mkdir()
    (contest.root / "notes.txt").write_text("harmless")
    assert touched(before, contest) == []
    (contest.root / "templates" / "tiny.jinja").write_text("other")
    (contest.root / "timer.sh").unlink()
    (contest.root / "json.py").write_text("shadows a library")
    assert touched(before, contest) == [
        "templates/tiny.jinja was changed",
        "timer.sh was removed",
        "json.py was added",
    ]


def test_the_timer_is_read_and_else_run(tmp_path: Path) -> None:
    contest = read_contest(write_contest(tmp_path), ())
    now = time.time()
    found = timer_deadline(contest, now)
    assert found is not None and 3590 < found - now < 3601
    timer = contest.root / "timer.sh"
    timer.write_text("echo 'Remaining time (hours:minutes)':\necho 2:30\n")
    assert timer_deadline(contest, 100.0) == 100.0 + 9000.0
    timer.write_text("echo Timer expired!\n")
    assert timer_deadline(contest, 100.0) == 100.0
    timer.write_text("echo no idea\n")
    with pytest.raises(UserError, match="--budget 9h30m"):
        timer_deadline(contest, 100.0)
    timer.unlink()
    assert timer_deadline(contest, 100.0) is None


# --- rows -------------------------------------------------------------------------------------------------------------


def test_test_rows_in_the_training_data_are_refused_or_taken_out(tmp_path: Path) -> None:
    contest = read_contest(write_contest(tmp_path), ())
    stolen = questions(40, seed=9)[3]
    loud = (f"{stolen[0].upper()}!!", stolen[1])
    task = load_task(write_task(tmp_path, more=(stolen, loud)))
    with pytest.raises(UserError, match=r"2 of train.*test_data.json/3/question") as refused:
        checked_task(contest, task, clean=False)
    assert "--clean" in str(refused.value)
    cleaned, told = checked_task(contest, task, clean=True)
    assert told["removed"] == {"train": 2} and told["test_texts"] == 40
    texts = [json.loads(line)["text"] for line in Path(cleaned.data.train).read_text().splitlines()]
    before = Path(task.data.train).read_text().splitlines()
    assert stolen[0] not in texts and loud[0] not in texts and len(texts) == len(before) - 2
    assert cleaned.data.target == "label" and checked_task(contest, cleaned, clean=False)[0] == cleaned


def test_the_contests_test_data_is_no_training_data(tmp_path: Path) -> None:
    contest = read_contest(write_contest(tmp_path), ())
    task = load_task(write_task(tmp_path))
    asked = contest.root / "gold.jsonl"
    asked.write_text('{"text": "how many red pears", "answer": "red"}\n')
    stolen = task.model_copy(update={"data": task.data.model_copy(update={"test": str(asked)})})
    with pytest.raises(UserError, match="is test data of the contest"):
        checked_task(contest, stolen, clean=True)


# --- weights ----------------------------------------------------------------------------------------------------------


def test_weights_take_the_place_of_the_bases_and_nothing_else_does(tmp_path: Path) -> None:
    contest = read_contest(write_contest(tmp_path), ())
    base, final, other = tmp_path / "base", contest.root / "final_model", tmp_path / "other"
    contest.work.mkdir()
    put_base(base, final)
    assert model_hash(final) == model_hash(base)
    make_tiny_lm(other, ["quite other words"], seed=5)
    (base / "README.md").write_text("a base")
    put_champion(base, other, final)
    assert (final / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert (final / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert sorted(path.name for path in contest.root.iterdir() if "final" in path.name) == ["final_model"]
    found = problems_of(contest, base, final, 120.0)
    assert found and "embed_tokens" in found[0], "another vocabulary makes another embedding"


def test_a_model_that_was_moved_aside_comes_back(tmp_path: Path) -> None:
    final = tmp_path / "final_model"
    (tmp_path / ".final_model.aside").mkdir()
    (tmp_path / ".final_model.aside" / "config.json").write_text("whole")
    (tmp_path / ".final_model.part").mkdir()
    recover(final)
    assert (final / "config.json").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["final_model"]


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_where_nothing_is_better_the_base_stays_and_a_changed_evaluator_is_noticed(tmp_path: Path) -> None:
    contest = write_contest(tmp_path)
    write_task(tmp_path, rows=60)
    entry = Entry(order_of(tmp_path, contest), drive_with(None))
    state = entry.enter()
    assert state.done and state.final_is == "base" and "no champion" in state.why
    assert state.load_problems == () and state.touched == ()
    assert state.base_score is not None and state.base_score.value == 1.0 and state.final_score == state.base_score
    assert model_hash(contest / "final_model") == model_hash(tmp_path / "base")
    assert State.model_validate_json((contest / "contest.json").read_text()) == state
    (contest / "evaluate.py").write_text((contest / "evaluate.py").read_text() + "# a small help\n")
    with pytest.raises(UserError, match=r"evaluate\.py was changed"):
        Entry(order_of(tmp_path, contest), drive_with(None)).enter()


def test_an_evaluator_that_changes_while_it_goes_on_ends_in_an_error(tmp_path: Path) -> None:
    contest = write_contest(tmp_path)
    write_task(tmp_path, rows=60)

    def tampering(store: SqliteStore, then: Callable[[Session], Verdict], until: float) -> Verdict:
        store.close()
        (contest / "evaluate.py").write_text("print('all right')\n")
        return Verdict(take=False, why="nothing was trained")

    with pytest.raises(PostgradError, match=r"evaluate\.py was changed"):
        Entry(order_of(tmp_path, contest), tampering).enter()
    state = State.model_validate_json((contest / "contest.json").read_text())
    assert state.touched == ("evaluate.py was changed",) and state.final_is == "base"


def test_a_kill_leaves_a_valid_model_and_the_same_command_goes_on(tmp_path: Path) -> None:
    contest = write_contest(tmp_path)
    task = write_task(tmp_path, rows=60)
    command = postgrad(contest, "--task", str(task), "--budget", "1 experiment")
    secret = {**os.environ, "SOME_KEY": "secret"}
    process = subprocess.Popen(command, env=secret, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while not list(contest.glob("postgrad/runs/*/scratch/*")) and time.monotonic() < until:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    killed = State.model_validate_json((contest / "contest.json").read_text())
    assert not killed.done and model_hash(contest / "final_model") == model_hash(tmp_path / "base")
    done = subprocess.run(command, env=secret, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    state = State.model_validate(json.loads(done.stdout))
    assert state.done and state.deadline == killed.deadline and state.run == killed.run
    assert "keys: []" in (contest / "postgrad" / "base.log").read_text(), "no key reaches the evaluator"


@pytest.mark.slow
def test_a_tuned_champion_becomes_the_final_model(tmp_path: Path) -> None:
    contest = write_contest(tmp_path, evaluator=EVALUATOR)
    write_task(tmp_path, search="uct")
    order = order_of(tmp_path, contest, budget="5 experiments", limit=20)
    state = Entry(order, drive_with(Teacher())).enter()
    assert state.verdict is not None and state.verdict.take, state.why
    assert state.verdict.difference is not None and state.verdict.difference.low > 0
    assert state.final_is == "champion" and state.load_problems == () and state.touched == ()
    assert state.base_score is not None and state.final_score is not None
    assert state.base_score.value == 0.0 and (state.final_score.value or 0.0) > 0.0
    assert model_hash(contest / "final_model") != model_hash(tmp_path / "base")
    base, final = (json.loads((f / "config.json").read_text()) for f in (tmp_path / "base", contest / "final_model"))
    assert base["architectures"] == final["architectures"] and final["dtype"] == "bfloat16"
