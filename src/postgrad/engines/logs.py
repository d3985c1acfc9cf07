"""The log of a job: a file in a folder where the job may put anything in its place."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from postgrad.removing import remove_tree


def added_to(log: Path) -> BinaryIO:
    """The log, to write at its end. What a job that has ended put in its place is removed first: nothing is written
    through a link, into a pipe, or into a file with a second name. So is a file that may not be written to.

    Raises:
        OSError: it cannot be made.
    """
    with suppress(FileNotFoundError):
        status = log.lstat()
        if stat.S_ISDIR(status.st_mode):
            remove_tree(log)
        elif not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or not status.st_mode & stat.S_IWUSR:
            log.unlink()
    return open(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "ab")
