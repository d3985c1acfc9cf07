"""What a job leaves is not believed by the controller, nor put in place of what is the controller's: on folders, and on
a store that lies in this process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from postgrad.engines.remote.exchange import Shared
from postgrad.engines.remote.laying import left_out, remove
from postgrad.engines.remote.lease import Ended, write
from postgrad.engines.remote.posted import FILES, Office, PostedJob
from postgrad.engines.remote.trees import Putting
from postgrad.records import EngineSpec, Usage


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(EngineSpec(kind="ray", storage=f"memory://{tmp_path.parent.name}-{tmp_path.name}/runs"))


def posted(office: Office, job: Path) -> PostedJob:
    """A job that was begun."""
    job.mkdir(parents=True)
    (job / "job.json").write_text("{}")
    exchange = office.exchange(job)
    exchange.give(job, 1, anew=True)
    exchange.write("grant.json", b"{}")
    return exchange


def test_what_a_job_left_names_no_other_job(office: Office, tmp_path: Path) -> None:
    other = posted(office, tmp_path / "other" / "scratch" / "e1")
    office.store.write("models/a/tree.json", b"{}")
    before = office.store.names("")
    job, script = tmp_path / "run" / "scratch" / "e7", tmp_path / "run" / "scratch" / "e8"
    posted(office, job)
    posted(office, script / "run")
    known = (tmp_path / "other" / "scratch" / "e1" / "remote" / "posted.json").read_text()
    left = [job / "run", job / "x", script / "kept", script / "run" / "checkout" / "x", script / "referee" / "checkout"]
    for place, text in zip(left, ['{"job": ""}', known, known, '{"job": "../models"}', known], strict=True):
        (place / "remote").mkdir(parents=True)
        (place / "remote" / "posted.json").write_text(text)
    (script / "link").symlink_to(tmp_path / "other" / "scratch" / "e1")
    office.forget(script)
    office.forget(tmp_path / "run" / "scratch")
    assert office.store.names("") == before and other.exists("grant.json"), "its own jobs alone are gone"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../models", "a/b-0123456789ab", "a-0123456789ab/..", "a-0123456789AB"]
)
def test_a_name_that_was_not_made_here_is_none(office: Office, tmp_path: Path, name: str) -> None:
    job = tmp_path / "scratch" / "e1"
    (job / "remote").mkdir(parents=True)
    (job / "remote" / "posted.json").write_text(json.dumps({"job": name}))
    office.store.write("jobs/another/grant.json", b"{}")
    office.store.write("models/a/tree.json", b"{}")
    before = office.store.names("")
    office.forget(job)
    assert office.store.names("") == before
    assert office.exchange(job).key.endswith(json.loads((job / "remote" / "posted.json").read_text())["job"])
    assert "-scratch-e1-" in office.exchange(job).key, "it has a name of its own now"


def test_a_folder_of_the_job_is_not_put_in_place_of_the_controllers_own(office: Office, tmp_path: Path) -> None:
    job, node = tmp_path / "scratch" / "e1", tmp_path / "node"
    exchange = posted(office, job)
    (node / "remote").mkdir(parents=True)
    (node / "remote" / "posted.json").write_text('{"job": ""}')
    (node / "job.json").write_text("{}")
    (node / "score").write_text("0.9")
    for skip in (left_out, lambda name: False):  # As a node puts it, and as one that is not ours would.
        tree = Putting(office.store, f"{exchange.key}/1/{FILES}").tree(node, skip)
        write(exchange, "1/tree.json", tree)
        write(exchange, "1/exit.json", Ended(token="t", code=0, cause=None, usage=Usage()))
        exchange.hand_over(job, 1)
        assert (job / "score").read_text() == "0.9"
        assert office.exchange(job).key == exchange.key
        (job / "score").unlink()


def test_a_folder_of_the_job_is_not_put_in_place_of_the_shared_one(tmp_path: Path) -> None:
    job = tmp_path / "e1"
    (job / "remote").mkdir(parents=True)
    shared = Shared(job / "remote")
    shared.give(job, 1, anew=False)
    shared.write("grant.json", b"{}")
    work = shared.work("e1", 1)
    (work / "remote").mkdir()
    (work / "remote" / "grant.json").write_text("its own")
    (work / "score").write_text("0.9")
    shared.hand_over(job, 1)
    assert (job / "score").read_text() == "0.9" and shared.read("grant.json") == b"{}"


def test_links_of_a_job_are_neither_read_nor_written_through_by_its_next_attempt(tmp_path: Path) -> None:
    secret, mine = tmp_path / "artifacts", tmp_path / "mine"
    secret.mkdir()
    (secret / "sealed").write_text("labels")
    mine.write_text("mine")
    job = tmp_path / "e1"
    (job / "remote").mkdir(parents=True)
    for name in ("rows", "state"):
        (job / name).write_text(name)
    (job / "inner").mkdir()
    (job / "inner" / "half.part").write_text("an input of this name")
    shared = Shared(job / "remote")
    shared.give(job, 1, anew=False)
    work = shared.work("e1", 1)
    assert (work / "inner" / "half.part").exists()
    for name in ("folder", "file", ".log.txt.part"):
        (work / name).symlink_to(secret if name == "folder" else secret / "sealed")
    os.mkfifo(work / "inner" / "pipe")
    shared.hand_over(job, 1)
    assert not (job / ".log.txt.part").is_symlink(), "it would be written when the log is shown"
    shared.give(job, 2, anew=False)  # It was stopped, and goes on.
    work = shared.work("e1", 2)
    assert (work / "folder").is_symlink() and (work / "file").is_symlink(), "not what they lead to"
    for name in ("rows", "state", "inner"):
        remove(work / name)
        (work / name).symlink_to(mine if name != "inner" else tmp_path)
    shared.give(job, 3, anew=False)  # Its node was lost.
    work = shared.work("e1", 3)
    assert mine.read_text() == "mine" and sorted(path.name for path in tmp_path.iterdir()) == [
        "artifacts",
        "e1",
        "mine",
    ]
    assert (work / "rows").read_text() == "rows" and (work / "inner").is_dir() and not (work / "inner").is_symlink()


def test_what_a_job_left_as_a_folder_takes_the_place_of_a_file(tmp_path: Path) -> None:
    job = tmp_path / "e1"
    (job / "remote").mkdir(parents=True)
    (job / "rows").write_text("rows")
    shared = Shared(job / "remote")
    shared.give(job, 1, anew=False)
    work = shared.work("e1", 1)
    (work / "rows").unlink()
    (work / "rows").mkdir()
    shared.hand_over(job, 1)
    assert (job / "rows").is_dir(), "so that it is seen that an input was changed"
