"""Runs an answer's code against tests: two sandboxed processes with a line between them, watched from here."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import psutil

from postgrad.metrics.code_box import OUTSIDE, PROGRAM, chosen

TEST_S = 5.0
ANSWER_S = 30.0


@dataclass(frozen=True)
class Tests:
    """What an answer's code is run against.

    Attributes:
        tests: Python code each; a test passes where it ends without an exception.
        entry: the function that is handed to a `check(candidate)` which a test defines; "" where there is none.
        setup: code that runs before the tests.
    """

    tests: tuple[str, ...]
    entry: str = ""
    setup: str = ""


def passed(code: str, tests: Tests) -> int:
    """How many tests the code passes. One that takes more than `TEST_S` seconds, or ends the answer's process, is not
    passed, and the next one gets a new process; after `ANSWER_S` seconds all that are left are not passed.

    Raises:
        UserError: no sandbox works on this machine.
    """
    right = begun = 0
    end = time.monotonic() + ANSWER_S
    while begun < len(tests.tests) and time.monotonic() < end:
        verdicts = _verdicts(code, Tests(tests.tests[begun:], tests.entry, tests.setup), end)
        right += verdicts.count("+")
        if not verdicts and not begun:
            # Nothing came of the very first one. If the code cannot even be loaded, no other test will do better.
            begun = 1 if _loads(code, tests, end) else len(tests.tests)
            continue
        # What came last is followed by the test that did not come to an end.
        begun += len(verdicts) + 1
    return right


def _loads(code: str, tests: Tests, end: float) -> bool:
    return _verdicts(code, Tests(("pass",), tests.entry), end) == "+"


def _verdicts(code: str, tests: Tests, end: float) -> str:
    """A + or - for each test that came to an end, in order."""
    with tempfile.TemporaryDirectory(prefix="postgrad-code-") as name:
        folder = Path(name)
        asked = {"tests": tests.tests, "entry": tests.entry, "setup": tests.setup}
        (folder / "answer").write_text(json.dumps({"code": code}))
        (folder / "tests").write_text(json.dumps(asked))
        said, wrote = os.pipe()
        with _line(folder, wrote):
            found = ""
            with open(said, "rb", buffering=0) as verdicts:
                while len(found) < len(tests.tests):
                    patience = min(TEST_S, end - time.monotonic())
                    if patience <= 0 or not select.select([verdicts], [], [], patience)[0]:
                        break
                    byte = verdicts.read(1)
                    if not byte:
                        break
                    found += byte.decode("ascii", "replace")
            return found


@contextmanager
def _line(folder: Path, wrote: int) -> Iterator[None]:
    """Both processes, joined by pipes; ended when the block is left."""
    to_answer, to_tests = os.pipe(), os.pipe()
    ends = {"answer": (to_answer[0], to_tests[1], subprocess.DEVNULL), "tests": (to_tests[0], to_answer[1], wrote)}
    processes = []
    try:
        for role, (incoming, outgoing, verdicts) in ends.items():
            command = chosen().wrapped(folder / role, [str(PROGRAM), role, str(folder / role)])
            processes.append(
                subprocess.Popen(
                    command, env=OUTSIDE, stdin=incoming, stdout=outgoing, stderr=verdicts, start_new_session=True
                )
            )
        for number in (*to_answer, *to_tests, wrote):
            os.close(number)
        yield
    finally:
        for process in processes:
            _ended(process)


def _ended(process: subprocess.Popen[bytes]) -> None:
    """End a process and all below it. None of those can start another one, so nothing is missed."""
    with suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
