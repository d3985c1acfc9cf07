"""Where the programs of a job stand that does nothing: by py-spy, if it is installed.

It reads them from outside, so a script that sets no handler of its own, or waits inside a library, is seen as well.
What it says is text of the job: bounded, appended to the job's own log, and nothing is decided by it alone.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Sequence

import psutil

# Nothing else is looked at meanwhile.
ALL_S, MOST_BYTES, MOST_PROGRAMS = 3.0, 20_000, 4


def py_spy() -> str | None:
    """The program: beside the interpreter, or on the path."""
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("py-spy")


def stacks_of(processes: Sequence[psutil.Process]) -> str:
    """The stacks of the Python programs among some processes, the youngest programs first; "" where none is read."""
    program = py_spy()
    if program is None:
        return ""
    found: list[str] = []
    patience = time.monotonic() + ALL_S
    for process in reversed(processes):
        with suppress(psutil.Error, OSError, subprocess.TimeoutExpired):
            left = patience - time.monotonic()
            if "python" not in process.name() or len(found) >= MOST_PROGRAMS or left <= 0:
                continue
            command = [program, "dump", "--nonblocking", "--pid", str(process.pid)]
            done = subprocess.run(command, capture_output=True, timeout=left, check=False)
            if done.returncode == 0:
                found.append(done.stdout[:MOST_BYTES].decode("utf-8", errors="replace"))
    return "\n".join(found)


def note_stacks(processes: Sequence[psutil.Process], log: Path) -> None:
    """Append the stacks of a job that hangs to its log."""
    said = stacks_of(processes)
    if said:
        # What lies there may be the job's: neither a link nor a pipe that nobody reads is written to.
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        with suppress(OSError), os.fdopen(os.open(log, flags), "a") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return
            file.write(f"\nNothing was computed or said for too long. Where it stands, by py-spy:\n{said}\n")
