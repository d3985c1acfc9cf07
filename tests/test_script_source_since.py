"""The source of a script changes, or goes, while its run is stopped or after it has ended: the run's own repository is
what counts, and the person is told."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest

from postgrad.events import JobFinished
from postgrad.runner import drive, opened
from postgrad.scripts.history import source_since
from postgrad.store.sqlite import SqliteStore
from test_scripts import REFEREE, TRAIN, driven, events_of, outline, run_of, task_of

LYING = REFEREE.replace("sum(items.values()) / len(items)", "0.0").replace('"items": items', '"items": {}')


def edited(source: Path) -> None:
    (source / "train.py").write_text("raise SystemExit('another program')\n")
    (source / "referee.py").write_text(LYING)
    (source / "sealed.txt").write_text("other words\n")


def deleted(source: Path) -> None:
    for name in ("train.py", "prepare.py", "val.txt"):
        (source / name).unlink()


CHANGES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "edited": (edited, ('"referee.py" was changed', '"sealed.txt" was changed', '"train.py" was changed')),
    "deleted": (deleted, ('"prepare.py" is gone', '"train.py" is gone', '"val.txt" is gone')),
    "gone": (shutil.rmtree, ("is gone", "keeps to the files that it began with")),
}


def command(folder: Path, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "postgrad", *words], cwd=folder, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout, " ".join(done.stderr.split())


class Stopped(Exception):
    """The person pressed Ctrl-C twice."""


def stopped(folder: Path, after: int) -> None:
    """Drive a run until so many trainings have ended."""

    def tick(phase: str, jobs: object) -> None:
        if sum(isinstance(event.body, JobFinished) for event in events_of(folder)) >= after:
            raise Stopped

    with opened(SqliteStore.open(folder, write=True)) as session, pytest.raises(Stopped):
        drive(session, tick=tick)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("whole")
    run = run_of(folder, task_of(folder, budget="4 experiments"))
    driven(run)
    return outline(run)


@pytest.mark.parametrize("name", CHANGES)
def test_a_run_goes_on_and_is_replayed_without_its_source(tmp_path: Path, name: str, expected: str) -> None:
    change, words = CHANGES[name]
    run = run_of(tmp_path, task_of(tmp_path, budget="4 experiments"))
    stopped(run, 2)
    change(tmp_path / "src")
    code, out, said = command(tmp_path, "resume", run.name, "--json")
    assert code == 0, out + said
    assert json.loads(out)["experiments"] == 4
    assert all(word in said for word in words), said
    assert "task file was edited" not in said
    assert outline(run) == expected, "the experiments are those of the files that it began with"
    assert "another program" not in (run / "model" / "train.py").read_text()
    code, out, said = command(tmp_path, "replay", run.name, "--json")
    assert code == 0 and json.loads(out)["reproduced"], out + said
    assert all(word in said for word in words), said
    code, out, _ = command(tmp_path, "show", run.name, "e0001", "--json")
    assert code == 0 and "LEARNING_RATE" in json.loads(out)["diff"]


def test_what_is_as_it_was_is_not_spoken_of(tmp_path: Path) -> None:
    task = task_of(tmp_path, budget="1 experiments", more={"hidden/a.txt": "words"})
    (tmp_path / "src" / "latest").symlink_to("train.py")
    run = run_of(tmp_path, task)
    assert task.script is not None and source_since(run, run.name, task.script) == "", "nothing was imported yet"
    driven(run)
    (tmp_path / "src" / "notes.txt").write_text("new")
    assert source_since(run, run.name, task.script) == ""
    (tmp_path / "src" / "latest").unlink()
    (tmp_path / "src" / "latest").symlink_to("prepare.py")
    assert '"latest" was changed' in source_since(run, run.name, task.script)
    (tmp_path / "src" / "train.py").write_text(TRAIN + "\n")
    assert '"train.py" was changed' in source_since(run, run.name, task.script)


def test_a_source_that_goes_before_it_was_imported_is_said(tmp_path: Path) -> None:
    run = run_of(tmp_path, task_of(tmp_path, budget="2 experiments"))
    shutil.rmtree(tmp_path / "src")
    code, _, said = command(tmp_path, "resume", run.name, "--json")
    assert code == 2 and "src" in said and "Traceback" not in said, said


def test_a_run_whose_repository_is_gone_says_so(tmp_path: Path) -> None:
    run = run_of(tmp_path, task_of(tmp_path, budget="2 experiments"))
    driven(run)
    shutil.rmtree(run / "repo")
    for words in (("replay", run.name), ("resume", run.name), ("show", run.name, "e0001")):
        code, _, said = command(tmp_path, *words, "--json")
        assert code == 2 and "has no repository" in said, (words, said)
