"""What a job left is copied, moved and logged to whatever it is: links, locked folders, folders as deep as it liked."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path

import pytest

from postgrad.engines.logs import added_to
from postgrad.engines.remote.attempt import Beginnings, passes
from postgrad.engines.remote.exchange import Broken, Shared
from postgrad.engines.remote.laying import DEEPEST, copied, lay_over, move_over
from postgrad.removing import remove_tree


def deep(folder: Path, levels: int) -> None:
    """Folders inside each other, deeper than a path can say."""
    folder.mkdir()
    at = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)


def test_what_is_shown_is_written_through_no_link(tmp_path: Path) -> None:
    """A link that could not become the log once does not stand in for it later."""
    job, shared = tmp_path / "job", Shared(tmp_path / "job" / "remote")
    work, victim = shared.work("job", 1), tmp_path / "victim"
    work.mkdir(parents=True)
    victim.write_text("mine")
    (job / "log.txt").mkdir()
    (work / "log.txt").symlink_to(victim)
    shared.show(job, 1)
    assert victim.read_text() == "mine" and not (job / ".log.txt.part").is_symlink()
    (job / ".log.txt.part").symlink_to(victim)
    (work / "log.txt").unlink()
    (work / "log.txt").write_text("evil")
    shared.show(job, 1)
    assert victim.read_text() == "mine" and not os.path.lexists(job / ".log.txt.part")
    assert (job / "log.txt").read_text() == "evil" and not (job / "log.txt").is_symlink()


@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_only_plain_files_are_copied(tmp_path: Path, what: str) -> None:
    path = tmp_path / "left"
    if what == "link":
        path.symlink_to(tmp_path / "secret")
        (tmp_path / "secret").write_text("secret")
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(OSError):
        copied(path, tmp_path / "copy")
    assert not os.path.lexists(tmp_path / "copy")


def test_a_log_is_a_file_again_whatever_a_job_put_in_its_place(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    deep(log, 1100)
    with added_to(log) as file:
        file.write(b"said")
    assert log.read_bytes() == b"said"
    log.chmod(0)
    with added_to(log) as file:
        file.write(b"again")
    assert log.stat().st_mode & stat.S_IWUSR and log.read_bytes() == b"again"


def test_an_attempt_begins_with_what_the_last_one_left_however_deep_or_locked(tmp_path: Path) -> None:
    job, shared = tmp_path / "job", Shared(tmp_path / "job" / "remote")
    job.mkdir()
    (job / "job.json").write_text("{}")
    first = shared.work("job", 1)
    first.mkdir(parents=True)
    deep(first / "deep", 1100)
    (first / "locked").mkdir()
    (first / "locked" / "kept").write_text("kept")
    (first / "locked").chmod(0o555)
    for number in (2, 3):
        shared.give(job, number, anew=False)
        locked = shared.work("job", number) / "locked"
        assert (locked / "kept").read_text() == "kept" and stat.S_IMODE(locked.stat().st_mode) == 0o755
        assert (shared.work("job", number) / "job.json").read_text() == "{}"
    (shared.work("job", 3) / "locked").chmod(0o555)
    shared.hand_over(job, 3)
    assert (job / "locked" / "kept").read_text() == "kept"
    shared.tidy(3)
    assert not shared.work("job", 1).exists()
    remove_tree(job)
    assert not job.exists()


def test_what_lies_too_deep_is_left_out_and_the_rest_is_there(tmp_path: Path) -> None:
    source, place = tmp_path / "source", tmp_path / "place"
    inner = source / Path(*["d"] * (DEEPEST + 5))
    inner.mkdir(parents=True)
    (inner / "lost").touch()
    (source / "z").write_text("there")
    place.mkdir()
    lay_over(source, place, lambda name: False)
    depth = sum(1 for _ in place.rglob("d"))
    assert (place / "z").read_text() == "there" and depth == DEEPEST


def test_files_and_folders_take_each_others_place(tmp_path: Path) -> None:
    work, job = tmp_path / "work", tmp_path / "job"
    for folder, one, other in ((work, "a", "b"), (job, "b", "a")):
        (folder / one).mkdir(parents=True)
        (folder / one / "in").write_text(folder.name)
        (folder / other).write_text(folder.name)
    move_over(work, job)
    assert (job / "a" / "in").read_text() == "work" and (job / "b").read_text() == "work"


def test_one_jobs_own_trouble_keeps_no_other_from_beginning() -> None:
    beginnings, begun = Beginnings(), []

    def begin(problem: OSError | None) -> None:
        with beginnings.one():
            if problem is not None:
                raise problem
            begun.append(time.monotonic())

    for own in (PermissionError(errno.EACCES, "locked"), Broken("not whole"), OSError(errno.ENAMETOOLONG, "long")):
        with pytest.raises(OSError):
            begin(own)
        begin(None)
        assert not passes(own)
    away = TimeoutError("no answer")
    with pytest.raises(TimeoutError):
        begin(away)
    with pytest.raises(TimeoutError):
        begin(None)
    assert len(begun) == 3 and passes(away) and passes(OSError(errno.ESTALE, "away"))
