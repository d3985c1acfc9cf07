"""A file system that is really full: runs on a small one of their own, which says ENOSPC wherever a write meets it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from postgrad.bench.chaos import checks
from postgrad.store.sqlite import SqliteStore
from test_keeping import driven, fresh

KB = 1024
SIZE_MB = 20
# Plays a run that is there, with so many kB left on the disk in each of its lives, and says how each ended.
PLAY = """
import json, os, sys
from pathlib import Path
from postgrad.bench.overhead import SimulatedEngine
from postgrad.errors import PostgradError, UserError
from postgrad.runner import drive, opened, resume_event
from postgrad.store.sqlite import SqliteStore

def fill(path, left):
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass
        file.truncate(max(0, file.tell() - left))

def life(folder, again):
    try:
        if again:
            with SqliteStore.open(folder, write=True) as store:
                resume_event(store, None, "")
        with opened(SqliteStore.open(folder, write=True), engine=SimulatedEngine()) as session:
            drive(session)
    except (PostgradError, UserError) as stopped:
        return str(stopped)
    return "whole"

folder, filler = Path(sys.argv[1]), Path(sys.argv[2]) / "filler"
for number, left in enumerate(json.loads(sys.argv[3])):
    fill(filler, left)
    print(json.dumps([left, life(folder, number > 0)]), flush=True)
    filler.unlink()
"""
MOUNTED = 'mount -t tmpfs -o size={size}m tmpfs "$0" && cp -r "$1" "$0/run-001" && shift && exec "$@"'


@cache
def cannot_mount() -> str:
    """Why a file system of its own cannot be had here; "" where it can."""
    program = shutil.which("unshare")
    if program is None:
        return "there is no unshare"
    found = subprocess.run(
        [*apart(), "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"], capture_output=True, text=True, check=False
    )
    return found.stderr.strip() or "unshare fails" if found.returncode else ""


def apart() -> tuple[str, ...]:
    """A mount namespace of its own, as root of this machine or of a user namespace."""
    return ("unshare", "--map-root-user", "--mount")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    if why := cannot_mount():
        pytest.skip(f"no file system can be mounted here: {why}")
    (tmp_path / "small").mkdir()
    return tmp_path / "small"


def played(run: Path, place: Path, left: list[int], out: Path) -> list[tuple[int, str]]:
    """Lives of a run on a file system of 20 MB; afterwards the run is in `out`."""
    script = MOUNTED.format(size=SIZE_MB).replace("exec ", "") + f' && cp -r "$0/run-001" "{out}"'
    command = [sys.executable, "-c", PLAY, str(place / "run-001"), str(place), json.dumps(left)]
    done = subprocess.run(
        [*apart(), "sh", "-c", script, str(place), str(run), *command],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_a_run_on_a_full_disk_stops_with_words_and_goes_on_where_there_is_room(tmp_path: Path, place: Path) -> None:
    begun, folder = fresh(tmp_path), tmp_path / "undisturbed"
    shutil.copytree(begun, folder)
    driven(folder)
    steps = [kilobytes * KB for kilobytes in (0, 4, 24, 48, 96, 160, 256, 384, 512, 768)]
    lives = played(begun, place, [*steps, 8 << 20], tmp_path / "out")
    stops = [said for _, said in lives[:-1] if said != "whole"]
    assert len(stops) >= 5 and lives[-1][1] == "whole", lives
    for said in stops:
        assert "No space left" in said or "full" in said, said
        assert "postgrad resume" in said or "resume" in said, said
    assert len({said.split(":")[0] for said in stops}) > 1, "it was met in more than one place"
    with SqliteStore.open(tmp_path / "out", write=False) as store, SqliteStore.open(folder, write=False) as other:
        events, undisturbed = store.events(), other.events()
    assert checks.order(events) == [] and checks.repeated(events) == []
    assert checks.ended(tmp_path / "out", events, 5, []) == [] and checks.left(tmp_path / "out", 0.0) == []
    assert checks.outline(events) == checks.outline(undisturbed)
