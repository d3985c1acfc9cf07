"""What an experiment may edit, and proof that everything else stayed as it was.

Patterns are those of .gitignore: `train.py` in any folder, `/train.py` only at the top, `models/**/*.py`; `!` takes
out.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Iterable, Mapping, Sequence

from pathspec import GitIgnoreSpec

from postgrad.errors import UserError
from postgrad.scripts.paths import fault

MISSING, NOT_A_FILE, A_LINK = "missing", "not a file", "a link"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without waiting for the other end of a pipe.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Rules:
    """Which files an experiment may change.

    Attributes:
        editable: patterns of what may be changed. Nothing else may.
        protected: patterns of what has to be the same after the script has run; none stands for every other file.
            Where both match, a plain path goes before a pattern, and else the protection holds.
    """

    editable: tuple[str, ...]
    protected: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for patterns in (self.editable, self.protected):
            spec(patterns)
        if not self.editable:
            raise UserError("No file is editable, so there is nothing to try. Name one: editable: [train.py]")

    def allowed(self, path: str) -> bool:
        """True where an experiment may add, change or delete the file."""
        if fault(path) is not None or not self._editable.match_file(path):
            return False
        by_name = path in _plain(self.editable) and path not in _plain(self.protected)
        return by_name or not self._protected.match_file(path)

    def guarded(self, path: str) -> bool:
        """True where the script may not change the file while it runs."""
        return not self.allowed(path) and (not self.protected or self._protected.match_file(path))

    def refused(self, paths: Iterable[str]) -> list[str]:
        """Those that an experiment may not change, in order."""
        return sorted(path for path in paths if not self.allowed(path))

    @cached_property
    def _editable(self) -> GitIgnoreSpec:
        return spec(self.editable)

    @cached_property
    def _protected(self) -> GitIgnoreSpec:
        return spec(self.protected)


def spec(patterns: Sequence[str]) -> GitIgnoreSpec:
    """Patterns as .gitignore has them.

    Raises:
        UserError: one cannot be read.
    """
    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise UserError(f"A pattern of files cannot be read: {error}. Patterns are those of .gitignore.") from error


def _plain(patterns: Iterable[str]) -> set[str]:
    return {pattern.removeprefix("/") for pattern in patterns}


def hashes(folder: Path, paths: Iterable[str]) -> dict[str, str]:
    """Path -> what is there: "file SHA-256", "program SHA-256" (executable), "a link to X", "missing", "not a file".

    No link is followed, not even one in place of a folder.
    """
    return {path: _state(folder, path) for path in sorted(paths)}


def tampered(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Files that are not what they were: changed, replaced by a link, made executable or missing."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def _state(folder: Path, path: str) -> str:
    *above, name = path.split("/")
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in above:
            inner = os.open(part, _FOLDER, dir_fd=held)
            os.close(held)
            held = inner
        status = os.stat(name, dir_fd=held, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return f"{A_LINK} to {os.readlink(name, dir_fd=held)}"
        if not stat.S_ISREG(status.st_mode):
            return NOT_A_FILE
        with open(os.open(name, _FILE, dir_fd=held), "rb") as file:
            # What was opened is asked again: it may be another one by now.
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                return NOT_A_FILE
            kind = "program" if mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH) else "file"
            return f"{kind} {hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return MISSING
        if error.errno == errno.ELOOP:
            return A_LINK
        return f"unreadable: {error.strerror}"
    finally:
        os.close(held)
