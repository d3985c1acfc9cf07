"""Cores and devices of this machine that a process has to itself, among all runs of this person.

A claim is a lock on a file, which the system takes back when the process dies, however it dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Iterable


def claims_folder() -> Path:
    """Where the locks lie: of this person, on this machine."""
    return Path(tempfile.gettempdir()) / f"postgrad-{os.getuid()}" / "claims"


class Claims:
    """What one engine holds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, IO[bytes]] = {}

    def take(self, names: Iterable[str], most: int) -> tuple[str, ...]:
        """Claim as many of these as are free, in their order, at most so many. What cannot be locked at all, such as in
        a folder that somebody else owns, is nobody's."""
        found: list[str] = []
        for name in names:
            if len(found) == most:
                break
            if self._lock(name):
                found.append(name)
        return tuple(found)

    def _lock(self, name: str) -> bool:
        place = self._folder / hashlib.sha256(name.encode()).hexdigest()[:32]
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._folder.stat().st_uid != os.getuid():
                return False
            file = place.open("ab")
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        self._held[name] = file
        return True

    def close(self) -> None:
        """Give everything back. Idempotent."""
        for file in self._held.values():
            with suppress(OSError):
                file.close()
        self._held.clear()
