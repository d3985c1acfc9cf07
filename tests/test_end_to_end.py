"""The commands of the README on a tiny real task: run, list, show, report, export, predict, replay, resume."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

import pytest

SUMMARY = {
    "run", "task", "experiments", "failures", "champion", "sealed", "optimism_gap", "looks", "spent", "granted",
    "model_dir", "report",
}  # fmt: skip


def postgrad(*words: str, cwd: Path, code: int = 0) -> Any:
    """Run the command line with --json; return its document."""
    done = subprocess.run(
        [sys.executable, "-m", "postgrad", *words, "--json"], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout)


def write_task(folder: Path, budget: str = "4 experiments") -> None:
    """Three intents, and a test file with a fourth kind of question that none covers."""
    extras = ("now", "today", "please", "again", "quickly", "for me", "tonight", "if possible")
    rows = [(f"{verb} my {noun} {e}", verb.upper()) for verb in ("open", "close", "find", "send")
            for noun in ("account", "card", "order") for e in extras]  # fmt: skip
    test = [(f"pls {verb} the {noun}", verb.upper()) for verb in ("open", "close", "find", "send")
            for noun in ("box", "card", "order")]  # fmt: skip
    test += [(text, "none") for text in ("weather tomorrow", "hello", "tell a joke", "who won", "42", "la la la")]
    for name, part in (("train.csv", rows), ("test.csv", test)):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *part])
    (folder / "task.yaml").write_text(
        f"name: tiny\nobjective: tell verbs apart\nbase_models: []\nbudget: {budget}\n"
        "data: {train: train.csv, test: test.csv, out_of_scope: none}\nengine: {workers: 2, threads: 1}\n"
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with a finished run, and what `run --json` said."""
    folder = tmp_path_factory.mktemp("tiny")
    write_task(folder)
    return folder, postgrad("run", "task.yaml", cwd=folder)


def test_run_prints_one_summary(finished: tuple[Path, dict[str, Any]]) -> None:
    _, found = finished
    assert set(found) >= SUMMARY
    assert found["experiments"] == 4 and found["failures"] == 0
    assert set(found["sealed"]) >= {"metric", "baseline", "champion", "difference", "ci95", "p"}
    assert found["looks"]["sealed"] == 1
    assert found["sealed"]["metric"] == "mcc"
    assert found["spent"]["cpu_s"] > 0


def test_list_show_and_report(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, found = finished
    listed = postgrad("list", cwd=folder)
    assert [(line["run"], line["task"], line["state"]) for line in listed] == [("tiny-001", "tiny", "finished")]
    assert postgrad("show", "last", found["champion"]["experiment"], cwd=folder)
    postgrad("report", "last", cwd=folder)
    page = (folder / "runs" / "tiny-001" / "report.html").read_text()
    assert "tiny-001" in page and "<script" not in page


def test_the_exported_folder_answers_as_the_run_did_without_postgrad(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, found = finished
    postgrad("export", "last", "model", cwd=folder)
    with (folder / "test.csv").open() as file:
        rows = list(csv.DictReader(file))
    program = (
        "import sys, json; sys.modules['postgrad'] = None; sys.path.insert(0, 'model')\n"
        "from predict import load\nprint(json.dumps(load()(json.load(sys.stdin))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        input=json.dumps([row["text"] for row in rows]),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [found["label"] for found in json.loads(done.stdout)]
    right = sum(answer == row["label"] for answer, row in zip(answers, rows, strict=True))
    shown = postgrad("replay", "last", cwd=folder)
    assert shown["reproduced"] is True
    from sklearn.metrics import matthews_corrcoef

    by_hand = matthews_corrcoef([row["label"] for row in rows], answers)
    assert found["sealed"]["champion"] == pytest.approx(by_hand, abs=1e-6), right


def test_export_refuses_a_folder_that_holds_something(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    (folder / "taken").mkdir(exist_ok=True)
    (folder / "taken" / "mine.txt").write_text("mine")
    found = postgrad("export", "last", "taken", cwd=folder, code=2)
    assert "not empty" in found["error"]["message"]
    assert (folder / "taken" / "mine.txt").read_text() == "mine"


def test_a_killed_run_is_resumed_by_command(tmp_path: Path) -> None:
    write_task(tmp_path, "6 experiments")
    started = subprocess.Popen([sys.executable, "-m", "postgrad", "run", "task.yaml", "--json"], cwd=tmp_path)
    events = tmp_path / "runs" / "tiny-001" / "events.sqlite"
    _wait(lambda: events.exists() and _analysed(events) >= 2)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    assert postgrad("list", cwd=tmp_path)[0]["state"] == "interrupted"
    assert postgrad("resume", "last", cwd=tmp_path)["experiments"] == 6
    assert postgrad("list", cwd=tmp_path)[0]["state"] == "finished"


def started_run(folder: Path, experiments: int) -> tuple[subprocess.Popen[str], Path]:
    """A run in a process of its own that has ended a few experiments."""
    write_task(folder, "200 experiments")
    command = [sys.executable, "-m", "postgrad", "run", "task.yaml", "--json"]
    running = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    events = folder / "runs" / "tiny-001" / "events.sqlite"
    _wait(lambda: events.exists() and _analysed(events) >= experiments)
    return running, events


def _wait(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 180
    while not true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)


def interrupted(process: subprocess.Popen[str]) -> None:
    """Ctrl-C, heard: two that come before it is are one."""
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert any("Finishing" in line for line in process.stderr), "it ended without a word"


def test_ctrl_c_once_certifies_what_there_is(tmp_path: Path) -> None:
    running, _ = started_run(tmp_path, 3)
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=240)
    assert running.returncode == 0
    assert json.loads(out)["sealed"] is not None


def test_ctrl_c_twice_stops_at_once_and_says_how_to_go_on(tmp_path: Path) -> None:
    running, events = started_run(tmp_path, 1)
    interrupted(running)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=240)
    assert running.returncode == 130, err
    assert "postgrad resume tiny-001" in json.loads(out)["error"]["message"]
    assert _analysed(events) >= 1
    assert postgrad("list", cwd=tmp_path)[0]["state"] == "interrupted"


def _analysed(events: Path) -> int:
    import sqlite3

    with sqlite3.connect(f"file:{events}?mode=ro", uri=True) as base:
        found: int = base.execute("select count(*) from events where type = 'analysed'").fetchone()[0]
    return found


def test_an_edited_task_file_is_named_and_the_run_goes_on_with_the_old_one(tmp_path: Path) -> None:
    running, _ = started_run(tmp_path, 1)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    edited = (tmp_path / "task.yaml").read_text().replace("tell verbs apart", "something else")
    (tmp_path / "task.yaml").write_text(edited)
    command = [sys.executable, "-m", "postgrad", "resume", "last", "--budget", "5 experiments", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "edited since" in done.stderr and "objective" in done.stderr
    assert json.loads(done.stdout)["sealed"] is not None
