"""The store: nothing that was stored is lost or changed, whatever happens to the process, the disk or the folder."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Iterator

import pytest

from postgrad.errors import PostgradError, UserError
from postgrad.events import RunEnded, RunResumed
from postgrad.records import SCHEMA
from postgrad.store import migrations
from postgrad.store.base import Store
from postgrad.store.sqlite import EVENTS, SqliteStore, new_run_folder, run_folders
from postgrad.testing.events import a_start, proposed
from postgrad.testing.store import StoreContract

PRELUDE = """
import os, resource, sys
from pathlib import Path
from postgrad.errors import PostgradError, UserError
from postgrad.events import RunResumed
from postgrad.store.sqlite import SqliteStore, new_run_folder
folder = Path(sys.argv[1])
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with one event, closed."""
    folder = tmp_path / "runs" / "demo-001"
    with SqliteStore.create(folder) as store:
        store.append(a_start())
    return folder


def child(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", PRELUDE + code, *(str(argument) for argument in arguments)]


def finish(code: str, *arguments: object, bound: bool = False) -> str:
    """Run code in a process of its own; `bound` takes from root the right to overrule file modes."""
    done = subprocess.run(
        child(code, *arguments),
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=obey_file_modes if bound and os.geteuid() == 0 else None,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def obey_file_modes() -> None:
    """Drop CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH from what the next program may have."""
    drop_from_bounding_set = 24
    for capability in (1, 2):
        if ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0) != 0:
            os._exit(99)


def read_only(folder: Path) -> None:
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        path.chmod(0o555)


def writable(folder: Path) -> None:
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        path.chmod(0o755)


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        with SqliteStore.create(tmp_path / "contract-001") as store:
            yield store

    def reopen(self, store: Store) -> Store:
        assert isinstance(store, SqliteStore)
        return SqliteStore.open(store.folder, write=True)


# --- append-only -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE events SET body = '{}' WHERE seq = 1",
        "UPDATE events SET seq = 5",
        "DELETE FROM events",
        "INSERT INTO events VALUES (3, 0, 0, 'x', '{}')",
        "INSERT INTO events VALUES (NULL, 0, 0, 'x', '{}')",
        "INSERT OR REPLACE INTO events VALUES (1, 0, 0, 'x', '{}')",
    ],
)
def test_sqlite_itself_refuses_to_change_the_log(run: Path, change: str) -> None:
    with closing(sqlite3.connect(run / EVENTS)) as connection:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(change)
        connection.commit()
    with SqliteStore.open(run, write=False) as store:
        assert [event.body for event in store.events()] == [a_start()]


def test_every_event_is_synced_to_the_disk(run: Path) -> None:
    with SqliteStore.open(run, write=True) as store:
        settings_of = store._connection.execute
        assert settings_of("PRAGMA journal_mode").fetchone() == ("wal",)
        assert settings_of("PRAGMA synchronous").fetchone() == (2,)


# --- the clock -------------------------------------------------------------------------------------------------------


def test_the_clock_is_active_time_and_goes_on_from_the_last_event(run: Path) -> None:
    with SqliteStore.open(run, write=True) as store:
        store._clock_before = 1000.0
        left_at = store.append(RunResumed()).clock
    assert left_at >= 1000.0
    with SqliteStore.open(run, write=False) as reader:
        assert reader.clock() == left_at
    with SqliteStore.open(run, write=True) as store:
        assert left_at <= store.clock() < left_at + 60.0


def test_the_clock_does_not_follow_the_time_of_day(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SqliteStore.open(run, write=True) as store:
        before = store.append(RunResumed())
        monkeypatch.setattr(time, "time", lambda: before.at - 86400.0)
        after = store.append(RunResumed())
    assert after.at < before.at
    assert before.clock <= after.clock < before.clock + 60.0


# --- who may open what -----------------------------------------------------------------------------------------------


def test_two_writers_are_refused_and_the_first_is_named(run: Path) -> None:
    with SqliteStore.open(run, write=True):
        with pytest.raises(UserError, match=rf"pid {os.getpid()}\) is writing this run"):
            SqliteStore.open(run, write=True)
        other = "\ntry: SqliteStore.open(folder, write=True)\nexcept UserError as error: print(error)"
        assert f"Another postgrad (pid {os.getpid()}) is writing this run" in finish(other, run)
    with SqliteStore.open(run, write=True) as store:
        assert store.append(RunResumed()).seq == 2


def test_a_reader_in_another_process_sees_what_the_writer_appends(run: Path) -> None:
    code = """
with SqliteStore.open(folder, write=False) as store:
    for line in sys.stdin:
        print([event.seq for event in store.events(after=int(line))], flush=True)
"""
    with subprocess.Popen(child(code, run), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        with SqliteStore.open(run, write=True) as store:
            for seq in (2, 3, 4):
                store.append(RunResumed())
                print(seq - 1, file=reader.stdin, flush=True)
                assert reader.stdout.readline() == f"[{seq}]\n"
        reader.stdin.close()
    assert reader.returncode == 0


def test_a_reader_may_not_append(run: Path) -> None:
    with SqliteStore.open(run, write=False) as store, pytest.raises(PostgradError, match="opened to be read"):
        store.append(RunResumed())


READ = """
with SqliteStore.open(folder, write=False) as store:
    print([event.seq for event in store.events()])
    print(store.artifacts.read(sys.argv[2]))
try: SqliteStore.open(folder, write=True)
except UserError as error: print(error)
try: SqliteStore.create(folder / "inside")
except UserError as error: print(error)
try: new_run_folder(folder, "demo")
except UserError as error: print(error)
"""


@pytest.mark.parametrize("state", ["closed", "killed", "killed, index lost"])
def test_a_read_only_folder_can_be_read_and_not_written(run: Path, state: str) -> None:
    with SqliteStore.open(run, write=True) as store:
        name = store.artifacts.put_bytes(b"kept")
    if state != "closed":
        end = "\nSqliteStore.open(folder, write=True).append(RunResumed()); os.kill(os.getpid(), 9)"
        assert subprocess.run(child(end, run), timeout=60).returncode == -signal.SIGKILL
        assert (run / f"{EVENTS}-wal").stat().st_size > 0
    if state == "killed, index lost":
        (run / f"{EVENTS}-shm").unlink()
    names = sorted(path.name for path in run.iterdir())
    read_only(run)
    try:
        shown = finish(READ, run, name, bound=True).splitlines()
    finally:
        writable(run)
    assert shown[0] == ("[1]" if state == "closed" else "[1, 2]")
    assert shown[1] == "b'kept'"
    assert "Cannot write to the run folder" in shown[2]
    assert "Cannot make the run folder" in shown[3]
    assert "Cannot make a run folder" in shown[4]
    assert sorted(path.name for path in run.iterdir()) == names


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run.*postgrad list"):
        SqliteStore.open(tmp_path, write=True)
    with closing(sqlite3.connect(tmp_path / EVENTS)) as connection:
        connection.execute("CREATE TABLE other (x)")
    for write in (True, False):
        with pytest.raises(UserError, match="not written by Postgrad"):
            SqliteStore.open(tmp_path, write=write)


def test_a_folder_in_use_is_not_made_a_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="in use"):
        SqliteStore.create(run)
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UserError, match="in use"):
        SqliteStore.create(tmp_path)
    with pytest.raises(UserError, match="Cannot make the run folder"):
        SqliteStore.create(tmp_path / "mine" / "demo-001")
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("write", [True, False])
def test_a_newer_version_is_refused_and_left_alone(run: Path, write: bool) -> None:
    newer = len(migrations.MIGRATIONS) + 1
    with closing(sqlite3.connect(run / EVENTS)) as connection:
        connection.execute(f"PRAGMA user_version = {newer}")
    before = (run / EVENTS).read_bytes()
    with pytest.raises(UserError, match=f"newer Postgrad: its store has version {newer}.*Upgrade"):
        SqliteStore.open(run, write=write)
    assert (run / EVENTS).read_bytes() == before


def test_an_older_version_is_migrated_by_a_writer_and_read_from_a_copy(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def notes(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE events ADD COLUMN note TEXT")

    monkeypatch.setattr("postgrad.store.sqlite.MIGRATIONS", (*migrations.MIGRATIONS, notes))
    latest = len(migrations.MIGRATIONS) + 1
    before = (run / EVENTS).read_bytes()
    with SqliteStore.open(run, write=False) as store:
        assert [event.body for event in store.events()] == [a_start()]
    assert (run / EVENTS).read_bytes() == before
    with SqliteStore.open(run, write=True) as store:
        assert migrations.version_of(store._connection) == latest
        assert store.append(RunResumed()).seq == 2
    with SqliteStore.open(run, write=False) as store:
        assert len(store.events()) == 2


def test_a_migration_that_fails_changes_nothing(run: Path) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE events ADD COLUMN note TEXT")
        connection.execute("SELECT nothing FROM nowhere")

    with closing(sqlite3.connect(run / EVENTS, isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError):
            migrations.migrate(connection, (*migrations.MIGRATIONS, half))
        assert migrations.version_of(connection) == len(migrations.MIGRATIONS)
        assert len(connection.execute("SELECT * FROM events").fetchone()) == 5


def test_a_breaking_change_of_the_records_needs_a_migration() -> None:
    assert len(migrations.MIGRATIONS) >= SCHEMA


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [True, False])
@pytest.mark.parametrize("damage", ["noise", "cut", "page", "cells", "free list", "empty"])
def test_a_damaged_log_gets_a_message(run: Path, damage: str, write: bool) -> None:
    with SqliteStore.open(run, write=True) as store:
        for number in range(40):
            store.append(proposed(f"e{number}"))
    data = (run / EVENTS).read_bytes()
    half = len(data) // 2 // 4096 * 4096
    harmed = {
        "noise": random.Random(0).randbytes(len(data)),
        "cut": data[:half],
        "page": data[:half] + b"\xff" * 4096 + data[half + 4096 :],
        "cells": data[:half] + data[half : half + 8] + b"\xff" * 8 + data[half + 16 :],
        "free list": data[:32] + (2).to_bytes(4, "big") + (5).to_bytes(4, "big") + data[40:],
        "empty": b"",
    }
    (run / EVENTS).write_bytes(harmed[damage])
    with pytest.raises(UserError, match="is damaged|is no run"):
        SqliteStore.open(run, write=write)


def test_missing_events_and_unreadable_events_are_damage(run: Path) -> None:
    with SqliteStore.open(run, write=True) as store:
        store.append(RunResumed())
    with closing(sqlite3.connect(run / EVENTS, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER events_are_not_changed")
        connection.execute("""UPDATE events SET body = '{"type": "run_resumed", "nope": 1}' WHERE seq = 2""")
    with SqliteStore.open(run, write=False) as store, pytest.raises(UserError, match="event 2 cannot be read.*nope"):
        store.events()
    with closing(sqlite3.connect(run / EVENTS, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER events_are_not_deleted")
        connection.execute("DELETE FROM events WHERE seq = 1")
    with pytest.raises(UserError, match="1 of 2 events are missing"):
        SqliteStore.open(run, write=False)


# --- crashes ---------------------------------------------------------------------------------------------------------

LOOP = """
store = SqliteStore.open(folder, write=True)
while True:
    size = 1 + store._last * 7919 % 60000
    name = store.artifacts.put_bytes(os.urandom(size))
    print(store.append(RunResumed(note=name)).seq, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_was_acknowledged(run: Path) -> None:
    chance = random.Random(0)
    for _ in range(6):
        with subprocess.Popen(child(LOOP, run), stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            acknowledged = [int(writer.stdout.readline()) for _ in range(chance.randint(1, 25))]
            time.sleep(chance.random() * 0.01)  # Anywhere between two events, not only right after one.
            writer.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in writer.stdout.read().splitlines() if line]
        with SqliteStore.open(run, write=True) as store:
            events = store.events()
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            assert 0 <= len(events) - acknowledged[-1] <= 1
            assert events[0].body == a_start()
            clocks = [event.clock for event in events]
            assert clocks == sorted(clocks)
            named = [event.body.note for event in events if isinstance(event.body, RunResumed) and event.body.note]
            assert all(store.artifacts.verify(name) for name in named)
            there = {path.parent.name + path.name for path in store.artifacts.folder.glob("??/*")}
            assert set(named) <= there
            assert all(store.artifacts.verify(name) for name in there)
            assert not list((store.artifacts.folder / "unfinished").iterdir())
            assert store.append(RunResumed()).seq == len(events) + 1


FULL = """
store = SqliteStore.open(folder, write=True)
limit, hard = int(sys.argv[2]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
seq = 0
try:
    while True: seq = store.append(RunResumed(note="x" * 1000)).seq
except PostgradError as error: print(seq, error)
try: store.artifacts.put_bytes(bytes(limit + 1))
except PostgradError as error: print(seq, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
# There is space again, but what a failed sync left on the disk is known only after opening again.
try: store.append(RunResumed())
except PostgradError as error: print(seq, error)
store.close()
"""


@pytest.mark.parametrize("limit", [100_000, 300_000])
def test_a_full_disk_loses_nothing(run: Path, limit: int) -> None:
    lines = finish(FULL, run, limit).splitlines()
    assert len(lines) == 3
    for line in lines:
        assert "Nothing that was stored before is lost" in line
        assert "Free space" in line
        assert "postgrad resume demo-001" in line
    acknowledged = int(lines[0].split()[0])
    assert acknowledged > limit // 10_000
    with SqliteStore.open(run, write=True) as store:
        assert [event.seq for event in store.events()] == list(range(1, acknowledged + 1))
        assert store.append(RunResumed()).seq == acknowledged + 1
        assert not list(store.artifacts.folder.rglob("*/*"))


def test_a_full_disk_at_the_start_is_no_half_run(tmp_path: Path) -> None:
    code = """
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
try: SqliteStore.create(folder)
except PostgradError as error: print(error)
"""
    assert "Free space" in finish(code, tmp_path / "demo-001")
    assert run_folders(tmp_path) == ()
    with pytest.raises(UserError, match="is no run"):
        SqliteStore.open(tmp_path / "demo-001", write=True)


# --- the folders of runs ---------------------------------------------------------------------------------------------


def test_run_folders_are_numbered_and_listed_oldest_first(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "runs"
    assert run_folders(root) == ()
    for task in ("zebra", "ant", "zebra", "../odd name/ü"):
        with SqliteStore.create(new_run_folder(root, task)) as store:
            store.append(a_start())
    (root / "not-a-run").mkdir()
    (root / "ant-900").write_text("")
    assert [path.name for path in run_folders(root)] == ["zebra-001", "ant-001", "zebra-002", "odd-name-ü-001"]
    assert all(path.parent == root for path in run_folders(root))
    assert new_run_folder(root, "ant").name == "ant-901"
    assert new_run_folder(root, "///").name == "run-001"
    assert new_run_folder(root, "x" * 300).parent == root


def test_a_damaged_run_is_still_listed(run: Path) -> None:
    (run / EVENTS).write_bytes(b"noise" * 1000)
    assert run_folders(run.parent) == (run,)


def test_many_at_once_get_different_folders(tmp_path: Path) -> None:
    code = """
print("ready", flush=True)
sys.stdin.readline()
print(*(new_run_folder(folder, "demo").name for _ in range(60)))
"""
    pipe = subprocess.PIPE
    with ExitStack() as all_of_them:
        racers = [
            all_of_them.enter_context(subprocess.Popen(child(code, tmp_path), stdin=pipe, stdout=pipe, text=True))
            for _ in range(4)
        ]
        assert [racer.stdout.readline() for racer in racers if racer.stdout] == ["ready\n"] * 4
        for racer in racers:
            print(file=racer.stdin, flush=True)
        names = [name for racer in racers if racer.stdout for name in racer.stdout.read().split()]
    assert sorted(names) == [f"demo-{number:03d}" for number in range(1, 241)]


# --- the whole folder ------------------------------------------------------------------------------------------------


def test_only_the_writer_sweeps_what_was_left_half_written(run: Path) -> None:
    left = run / "artifacts" / "unfinished" / "tmp123"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    SqliteStore.open(run, write=False).close()
    assert left.exists()
    SqliteStore.open(run, write=True).close()
    assert not left.exists()


def test_a_run_can_be_moved(run: Path, tmp_path: Path) -> None:
    with SqliteStore.open(run, write=True) as store:
        name = store.artifacts.put_bytes(b"kept")
        store.append(RunEnded(reason=name, wall_s=1.0))
    moved = shutil.move(run, tmp_path / "else where?#%")
    with SqliteStore.open(Path(moved), write=True) as store:
        assert len(store.events()) == 2
        assert store.artifacts.read(name) == b"kept"
