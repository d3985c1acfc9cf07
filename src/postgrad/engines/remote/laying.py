"""Copying and moving what a job left: a link may lead anywhere, a folder be locked, a name be taken."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path
from typing import Callable

from postgrad.engines.remote.lease import REMOTE
from postgrad.removing import remove_tree

# Of the job's own folder, and of no attempt.
PRIVATE = "private"
# Folders inside each other; what lies deeper is left out.
DEEPEST = 100


def left_out(name: str) -> bool:
    """True for what no attempt leaves to anybody: what is private or half written, and what has the name of the
    controller's own folder there."""
    return name in (PRIVATE, REMOTE) or name.endswith(".part")


def stays_here(name: str) -> bool:
    """True for what is no input of an attempt. In folders of the job names are its own."""
    return "/" not in name and left_out(name)


def move_over(work: Path, job: Path) -> None:
    """Move everything in `work` to the job's folder, in place of what has the same name there."""
    for path in sorted(work.iterdir()) if work.is_dir() else []:
        if not left_out(path.name):
            move(path, job / path.name)


def move(path: Path, place: Path) -> None:
    """Move a file, link or folder, in place of whatever is there.

    Raises:
        OSError: what is there cannot be removed, or the machine refuses.
    """
    if _is_folder(path):
        os.chmod(path, stat.S_IMODE(path.stat().st_mode) | 0o700)  # A folder that nobody may write to cannot be moved.
    if _is_folder(path) or _is_folder(place):
        remove(place)
    path.replace(place)


def lay_over(source: Path, place: Path, skip: Callable[[str], bool], inside: str = "") -> None:
    """Copy what is in a folder over what is in another. Links of a job, which may lead anywhere, are neither read nor
    written through. What is no file, may not be read or lies too deep stays where it is.

    Args:
        skip: says of a name, relative to the first folder, that it is left out.
    """
    for path in _inside(source):
        name, to = f"{inside}{path.name}", place / path.name
        if skip(name):
            continue
        if _is_folder(path):
            if name.count("/") < DEEPEST:
                _lay_folder(path, to, skip, name)
        elif path.is_symlink():
            remove(to)
            to.symlink_to(os.readlink(path))
        elif path.is_file():
            _copied_if_readable(path, to)


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except PermissionError:
        return []


def _lay_folder(path: Path, to: Path, skip: Callable[[str], bool], name: str) -> None:
    mode = stat.S_IMODE(path.lstat().st_mode)
    if not _is_folder(to):
        remove(to)
        to.mkdir()
    lay_over(path, to, skip, f"{name}/")
    os.chmod(to, mode | 0o700)  # The next attempt lays files into it.


def _copied_if_readable(path: Path, to: Path) -> None:
    try:
        number = _opened(path)
    except PermissionError:
        return
    _copied(number, path, to)


def copied(path: Path, place: Path) -> None:
    """Copy a plain file in place of whatever is there. Nothing is read or written through a link, and it never waits.

    Raises:
        OSError: it is no plain file, cannot be read, or the machine refuses.
    """
    _copied(_opened(path), path, place)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _copied(number: int, path: Path, place: Path) -> None:
    with open(number, "rb") as reading:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "no plain file", str(path))
        remove(place)
        # Made anew: whoever puts a link there in between has it refused.
        made = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(made, "wb") as writing:
            shutil.copyfileobj(reading, writing)
            writing.flush()
            os.fchmod(made, stat.S_IMODE(status.st_mode) & 0o777 | 0o600)
            os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))


def remove(path: Path) -> None:
    """Remove whatever it is, if it is there; a link and not what it leads to."""
    if _is_folder(path):
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
