"""The file that finished runs are remembered in: `postgrad/memory.jsonl` in the user's data folder, one line a run.

Written as a whole beside the old one and then renamed, under a lock: a kill leaves the old file or the new one, and two
runs that end at once are both in it. It is read as data from somebody else: a line that is no entry is left out and
counted, never believed. It only knows entries, so nothing else can get into the file.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Iterator, Mapping, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from postgrad.errors import PostgradError
from postgrad.memory.entries import FORMAT, RunEntry

FILE = "memory.jsonl"
SWITCH = "POSTGRAD_MEMORY"
OFF = ("off", "0", "no", "false")
MOST_RUNS = 400
MOST_BYTES = 16_000_000
LONGEST_LINE = 100_000
PATIENCE_S = 5.0


class Contents(NamedTuple):
    """What a file says: its entries, oldest first, the last of each run; lines of a later Postgrad, as they are; and
    how many lines are neither."""

    entries: tuple[RunEntry, ...] = ()
    later: tuple[bytes, ...] = ()
    ignored: int = 0


class _Later(BaseModel):
    version: Annotated[int, Field(gt=FORMAT)]


def is_switched_off(environment: Mapping[str, str] = os.environ) -> bool:
    """True when the person wants no memory, whatever a task says."""
    return environment.get(SWITCH, "").strip().lower() in OFF


def default_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """`$XDG_DATA_HOME/postgrad`, else `~/.local/share/postgrad`. By the XDG rules a relative path there is no path.

    Raises:
        PostgradError: nobody knows where the user's home is.
    """
    named = environment.get("XDG_DATA_HOME", "")
    if os.path.isabs(named):
        return Path(named) / "postgrad"
    try:
        return Path.home() / ".local" / "share" / "postgrad"
    except RuntimeError as nowhere:
        raise PostgradError(f"There is no home folder to remember runs in ({nowhere}). Set XDG_DATA_HOME.") from nowhere


class Book:
    """The file of remembered runs in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE
        self._unfinished = self.path.with_suffix(".new")

    def read(self) -> Contents:
        """Everything that is an entry. A file that is not there is empty.

        Raises:
            PostgradError: the file is there and cannot be read, or is larger than any memory.
        """
        try:
            lines = self._bytes().split(b"\n")
        except FileNotFoundError:
            return Contents()
        except OSError as refused:
            raise PostgradError(f"{self.path} cannot be read: {refused.strerror or refused}.") from refused
        found: dict[str, RunEntry] = {}
        later: list[bytes] = []
        ignored = 0
        for line in lines:
            if not line.strip():
                continue
            if (entry := _entry(line)) is not None:
                found.pop(entry.run, None)
                found[entry.run] = entry
            elif _is_later(line):
                later.append(line)
            else:
                ignored += 1
        return Contents(tuple(found.values()), tuple(later), ignored)

    def put(self, entry: RunEntry) -> None:
        """Add a run, in place of what was remembered of it before; the newest `MOST_RUNS` stay.

        Raises:
            PostgradError: the folder cannot be written, or somebody holds the lock for too long.
        """
        with self._explaining(), self._locked():
            known = self.read()
            if entry in known.entries:
                return
            kept = [*(one for one in known.entries if one.run != entry.run), entry][-MOST_RUNS:]
            lines = [*known.later[-MOST_RUNS:], *(one.line.encode() for one in kept)]
            descriptor = os.open(self._unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "wb") as file:
                file.writelines(line + b"\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
            os.replace(self._unfinished, self.path)

    def forget(self) -> None:
        """Remove the file, and what a killed run may have left of one.

        Raises:
            PostgradError: it cannot be removed.
        """
        if os.path.isdir(self.folder):
            with self._explaining(), self._locked():
                self.path.unlink(missing_ok=True)
                self._unfinished.unlink(missing_ok=True)

    def _bytes(self) -> bytes:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode) or about.st_size > MOST_BYTES:
                raise PostgradError(
                    f"{self.path} is no memory: expected a file of at most {MOST_BYTES:,} bytes. Look at it, or start "
                    "anew with: postgrad memory forget"
                )
            return file.read(MOST_BYTES)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The lock lies in a file of its own, because the other one is replaced. It goes when the process dies."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            until = time.monotonic() + PATIENCE_S
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.01)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except OSError as refused:
            raise PostgradError(f"{self.folder} cannot be written: {refused.strerror or refused}.") from refused


def _entry(line: bytes) -> RunEntry | None:
    if len(line) > LONGEST_LINE:
        return None
    try:
        return RunEntry.model_validate_json(line)
    except ValidationError:
        return None


def _is_later(line: bytes) -> bool:
    """True for a line of a later Postgrad: it is kept, and not read."""
    if len(line) > LONGEST_LINE:
        return False
    try:
        _Later.model_validate_json(line)
    except ValidationError:
        return False
    return True
