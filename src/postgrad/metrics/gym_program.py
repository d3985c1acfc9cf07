"""Scores answers with the scorers of the library reasoning-gym: `python gym_program.py`, a JSON line [check, answer]
in; two lines out, what the stored answer scores and what this one does, between 0 and 1.

A program of its own, started by `gym.py` as a file and without Postgrad, because some answers make a scorer calculate
without end: after `SECONDS` of processor time, or `PATIENCE` on the clock, the kernel ends this process. A check that
cannot be read gives -1. While a scorer is at work, whatever would run code, start a program, open a file or a
connection is refused.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import types
from functools import lru_cache
from typing import Any

SECONDS = 2.0
PATIENCE = 60.0
MEMORY = 4 << 30
UNREADABLE = -1.0
READY = "ready"
# What a scorer may raise over an answer, which then is not right. Anything else ends the process, to the same end.
STUMBLES = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, NameError, OSError, RuntimeError,
    StopIteration, SyntaxError, TypeError, ValueError,
)  # fmt: skip
REFUSED = (
    "compile", "exec", "open", "import", "os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pty.", "urllib.",
    "marshal.", "pickle.", "code.__new__", "function.__new__",
)  # fmt: skip


class Guard:
    """An audit hook that refuses what no scorer needs, while it is on."""

    def __init__(self) -> None:
        self.on = False
        sys.addaudithook(self)

    def __call__(self, event: str, details: tuple[Any, ...]) -> None:
        if self.on and event.startswith(REFUSED):
            raise PermissionError(f"a scorer may not do this: {event}")


def unpacked(value: Any) -> Any:
    """What the program that makes questions packed: {"()": [...]} is a tuple, {"{}": ...} a set, {"{:}": ...} pairs."""
    if isinstance(value, list):
        return [unpacked(one) for one in value]
    if not isinstance(value, dict):
        return value
    for mark, make in (("()", tuple), ("{}", set), ("{:}", dict)):
        if set(value) == {mark}:
            return make(unpacked(one) for one in value[mark])
    return {key: unpacked(one) for key, one in value.items()}


@lru_cache(maxsize=64)
def scorer(generator: str, options: str) -> Any:
    """The generator, from which the library takes its scorer."""
    from reasoning_gym.factory import DATASETS

    made, config = DATASETS[generator]
    return made(config(**unpacked(json.loads(options)), seed=0))


def score(guard: Guard, check: str, answer: str | None) -> float:
    """The library's score of an answer, of the stored one for None."""
    try:
        read = json.loads(check)
        own, entry = scorer(read["generator"], json.dumps(read["options"])), unpacked(read["entry"])
        expected = entry["answer"].strip()
    except (AssertionError, AttributeError, KeyError, LookupError, RecursionError, TypeError, ValueError):
        return UNREADABLE
    guard.on = True
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        return min(1.0, max(0.0, float(own.score_answer(expected if answer is None else answer, entry))))
    except STUMBLES:
        return 0.0
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        guard.on = False


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    # Only needed to make one kind of question, and it brings a plotting library that writes into the home folder.
    sys.modules["cellpylib"] = types.ModuleType("cellpylib")
    import reasoning_gym  # noqa: F401  (registers the generators)

    print(READY, file=replies, flush=True)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)  # scorers print, and libraries warn
    os.dup2(1, 2)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    guard = Guard()
    for line in sys.stdin:
        check, answer = json.loads(line)
        # The first line is out before the answer is looked at: whether it comes never depends on the answer.
        print(score(guard, check, None), file=replies, flush=True)
        print(score(guard, check, answer), file=replies, flush=True)


if __name__ == "__main__":
    main()
