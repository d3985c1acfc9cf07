"""The store that runs use: a folder with a SQLite event log, the artefacts, and the writer's lock.

    runs/NAME/events.sqlite   the events; SQLite keeps `-wal` and `-shm` beside it while it is in use
    runs/NAME/artifacts/      see artifacts.py
    runs/NAME/lock            locked by the one process that writes; holds its id

Needs a local file system: neither the lock nor SQLite's write-ahead log can be trusted over a network.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from pydantic import TypeAdapter, ValidationError

from postgrad.errors import PostgradError, UserError
from postgrad.events import Body, Event
from postgrad.store.artifacts import Artifacts, sync_folder
from postgrad.store.migrations import APPLICATION_ID, MIGRATIONS, migrate, version_of

EVENTS = "events.sqlite"
BUSY_S = 30.0
# Events that are read at once where they are read one after the other.
PAGE = 500

_BODY: TypeAdapter[Body] = TypeAdapter(Body)
_DISK = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NO_WRITING = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


class SqliteStore:
    """One run's store. Made by `create` and `open`; a context manager that closes."""

    def __init__(
        self,
        folder: Path,
        connection: sqlite3.Connection,
        *,
        lock: int | None = None,
        copy: TemporaryDirectory[str] | None = None,
    ) -> None:
        self.folder = folder
        self.artifacts = Artifacts(folder / "artifacts")
        self._connection = connection
        self._lock = lock
        self._copy = copy
        self._refusal = None if lock is not None else f"The run '{folder.name}' was opened to be read, not continued."
        self._last, self._clock_before = self._newest()
        self._opened = time.monotonic()

    # --- making and opening -------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Make the store of a new run, for writing. `folder` may be there already if it is empty.

        Raises:
            UserError: the folder is in use, or cannot be made or written.
            PostgradError: the disk is full or fails.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if next(folder.iterdir(), None) is not None:
                raise UserError(f"The folder {folder} is in use. Give the new run a folder of its own.")
        except OSError as error:
            raise UserError(
                f"Cannot make the run folder {folder}: {error.strerror or error}. Choose a place that can be written "
                f"with --runs-dir."
            ) from error
        return cls._opened_for_writing(folder, new=True)

    @classmethod
    def open(cls, folder: Path, *, write: bool) -> Self:
        """Open a run. A reader needs no lock, writes nothing, and sees what a writer appends meanwhile.

        A run in a folder that cannot be written, or of an older version, is read from a copy as it is now.

        Raises:
            UserError: the folder is no run, the log is damaged or of a newer version, or someone else writes.
            PostgradError: the disk is full or fails.
        """
        if not (folder / EVENTS).is_file():
            raise UserError(f"{folder} is no run: it holds no {EVENTS}. See the runs there are with: postgrad list")
        return cls._opened_for_writing(folder, new=False) if write else cls._opened_for_reading(folder)

    @classmethod
    def _opened_for_writing(cls, folder: Path, *, new: bool) -> Self:
        with ExitStack() as undo, _explaining(folder):
            lock = _take_lock(folder)
            undo.callback(os.close, lock)
            if new:
                _build(folder)
            connection = _connect(folder / EVENTS)
            undo.callback(connection.close)
            _check(connection, folder)
            migrate(connection, MIGRATIONS)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            store = cls(folder, connection, lock=lock)
            store.artifacts.sweep()
            undo.pop_all()
            return store

    @classmethod
    def _opened_for_reading(cls, folder: Path) -> Self:
        with ExitStack() as undo, _explaining(folder):
            connection = _connect(folder / EVENTS, read_only=True)
            undo.callback(connection.close)
            copy = None
            if not _readable_in_place(connection):
                connection.close()
                copy = TemporaryDirectory(prefix="postgrad-")
                undo.callback(copy.cleanup)
                connection = _connect_copy(folder, Path(copy.name))
                undo.callback(connection.close)
            _check(connection, folder)
            if copy is not None:
                migrate(connection, MIGRATIONS)
            store = cls(folder, connection, copy=copy)
            undo.pop_all()
            return store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the run. Idempotent."""
        self._connection.close()
        self._refusal = f"The run '{self.folder.name}' is closed."
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None

    # --- events -------------------------------------------------------------------------------------------------------

    def append(self, body: Body) -> Event:
        """Store one event for good, in a transaction of its own; see `Store.append`.

        After a failure no more is taken: the run has to be opened again, which finds out what is on the disk.
        """
        if self._refusal is not None:
            raise PostgradError(self._refusal)
        event = Event(seq=self._last + 1, at=time.time(), clock=self.clock(), body=body)
        line = (event.seq, event.at, event.clock, body.type, body.model_dump_json())
        try:
            with _explaining(self.folder):
                self._connection.execute("INSERT INTO events (seq, at, clock, type, body) VALUES (?, ?, ?, ?, ?)", line)
        except (PostgradError, UserError) as failure:
            self._refusal = str(failure)
            raise
        self._last = event.seq
        return event

    def events(self, after: int = 0) -> tuple[Event, ...]:
        """Return every event whose number is greater than `after`, in order.

        Raises:
            UserError: the log is damaged.
        """
        question = "SELECT seq, at, clock, body FROM events WHERE seq > ? ORDER BY seq"
        with _explaining(self.folder):
            rows = self._connection.execute(question, (after,)).fetchall()
        return tuple(self._event(*row) for row in rows)

    def in_order(self, types: Collection[str] = ()) -> Iterator[Event]:
        """Every event, one after the other; see `Store.in_order`.

        Raises:
            UserError: the log is damaged.
        """
        wanted = f"AND type IN ({', '.join('?' * len(types))}) " if types else ""
        question = f"SELECT seq, at, clock, body FROM events WHERE seq > ? {wanted}ORDER BY seq LIMIT {PAGE}"
        after = 0
        while True:
            with _explaining(self.folder):
                rows = self._connection.execute(question, (after, *types)).fetchall()
            yield from (self._event(*row) for row in rows)
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    def _event(self, seq: int, at: float, clock: float, body: str) -> Event:
        try:
            return Event(seq=seq, at=at, clock=clock, body=_BODY.validate_json(body))
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise _damaged(self.folder, f"event {seq} cannot be read: {where}: {problem['msg']}") from error

    def clock(self) -> float:
        """Return the seconds of controller time spent in this run; see `Store.clock`."""
        if self._lock is None:
            return self._newest()[1]
        return self._clock_before + (time.monotonic() - self._opened)

    def _newest(self) -> tuple[int, float]:
        with _explaining(self.folder):
            row = self._connection.execute("SELECT seq, clock FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        return (0, 0.0) if row is None else (int(row[0]), float(row[1]))


# --- the folders of runs ---------------------------------------------------------------------------------------------


def run_folders(root: Path) -> tuple[Path, ...]:
    """Return the folders of the runs under `root`, oldest first; none when there is no such folder."""
    if not root.is_dir():
        return ()
    found = [path.parent for path in root.glob(f"*/{EVENTS}")]
    return tuple(sorted(found, key=lambda folder: (_started_at(folder), folder.name)))


def new_run_folder(root: Path, task_name: str) -> Path:
    """Make the next empty folder `root/TASK-NNN` and return it. Two processes at once get two folders.

    Raises:
        UserError: `root` cannot be written.
    """
    kept = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in task_name)
    task = kept.strip("-.")[:50] or "run"
    try:
        root.mkdir(parents=True, exist_ok=True)
        numbers = [path.name.removeprefix(f"{task}-") for path in root.glob(f"{task}-*")]
        number = max((int(text) for text in numbers if text.isascii() and text.isdigit()), default=0) + 1
        while True:
            folder = root / f"{task}-{number:03d}"
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
            number += 1
    except OSError as error:
        raise UserError(
            f"Cannot make a run folder in {root}: {error.strerror or error}. Choose a place that can be written with "
            f"--runs-dir."
        ) from error


def _started_at(folder: Path) -> float:
    """Return the time of a run's first event, or of its log's last change where there is none that can be read."""
    try:
        with SqliteStore.open(folder, write=False) as store:
            row = store._connection.execute("SELECT at FROM events WHERE seq = 1").fetchone()
    except (UserError, PostgradError):
        row = None
    return (folder / EVENTS).stat().st_mtime if row is None else float(row[0])


# --- SQLite and the lock ---------------------------------------------------------------------------------------------


def _connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    uri = f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rw'}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_S)


def _connect_copy(folder: Path, place: Path) -> sqlite3.Connection:
    """Copy the log with what is in its write-ahead log, and connect to the copy."""
    try:
        for path in (folder / EVENTS, folder / f"{EVENTS}-wal"):
            if path.exists():
                shutil.copyfile(path, place / path.name)
    except OSError as error:
        raise UserError(f"Cannot read the run {folder}: {error.strerror or error}.") from error
    return _connect(place / EVENTS)


def _build(folder: Path) -> None:
    """Make an empty log. It gets its name when it is complete, so that a folder is a run or is not."""
    unfinished = folder / f"{EVENTS}.new"
    try:
        with closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            migrate(connection, MIGRATIONS)
        unfinished.replace(folder / EVENTS)
        sync_folder(folder)
    finally:
        unfinished.unlink(missing_ok=True)


def _check(connection: sqlite3.Connection, folder: Path) -> None:
    """Refuse a log that this Postgrad cannot read."""
    version = version_of(connection)
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID or version == 0:
        raise UserError(f"{folder} is no run: its {EVENTS} was not written by Postgrad.")
    if version > len(MIGRATIONS):
        raise UserError(
            f"The run '{folder.name}' was written by a newer Postgrad: its store has version {version}, and this one "
            f"reads up to version {len(MIGRATIONS)}. Upgrade with: pip install --upgrade postgrad"
        )
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise _damaged(folder, str(verdict))
    count, last = connection.execute("SELECT count(*), coalesce(max(seq), 0) FROM events").fetchone()
    if count != last:
        raise _damaged(folder, f"{last - count} of {last} events are missing")


def _take_lock(folder: Path) -> int:
    """Return the open, locked file. The lock goes when it is closed, or when the process dies, however it dies."""
    try:
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "it is read-only")
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(
            f"Cannot write to the run folder {folder}: {error.strerror or error}. The run can be looked at there, not "
            f"continued; to continue it, copy the folder to a place that can be written."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = os.read(lock, 20).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise UserError(
            f"Another postgrad (pid {pid}) is writing this run ({folder}). Wait until it ends, or stop it."
        ) from error
    except OSError as error:
        os.close(lock)
        raise UserError(
            f"Cannot lock {folder}: {error.strerror or error}. Keep runs on a local disk; choose one with --runs-dir."
        ) from error
    with suppress(OSError):  # The id is only for the message above; a full disk shows at the first event.
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _readable_in_place(connection: sqlite3.Connection) -> bool:
    """False where SQLite cannot keep its files beside the log, and for a log that has to be migrated first."""
    try:
        return version_of(connection) not in range(1, len(MIGRATIONS))
    except sqlite3.Error as error:
        if _kind(error) in _NO_WRITING:
            return False
        raise


def _kind(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; 0 for an error of the Python module's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _damaged(folder: Path, how: str) -> UserError:
    return UserError(
        f"The event log of the run '{folder.name}' is damaged ({folder / EVENTS}): {how}. Bring back the folder from a "
        f"copy, or start a new run."
    )


@contextmanager
def _explaining(folder: Path) -> Iterator[None]:
    """Turn what SQLite and the disk say into something a person can act on."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise _explained(error, folder) from error


def _explained(error: sqlite3.Error | OSError, folder: Path) -> UserError | PostgradError:
    if isinstance(error, sqlite3.Error) and _kind(error) in _DAMAGE:
        return _damaged(folder, str(error))
    full = isinstance(error, OSError) or _kind(error) in _DISK
    what, cure = ("The disk is full or fails", "Free space") if full else (f"SQLite cannot use {EVENTS}", "Repair that")
    return PostgradError(
        f"{what}: {error} ({folder}). Nothing that was stored before is lost. {cure}, then go on with: "
        f"postgrad resume {folder.name}"
    )
