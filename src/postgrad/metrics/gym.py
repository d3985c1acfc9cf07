"""Answers to puzzles of the library reasoning-gym, graded by the library's own scorers.

The scorers run in a process of their own with limits on processor time and memory, which is started at the first answer
and again whenever an answer was too much for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Sequence
from weakref import finalize

import numpy as np

from postgrad.errors import UserError
from postgrad.metrics.base import Answered
from postgrad.metrics.texts import Floats, MeanMetric

LONGEST = 100_000
RIGHT = 1.0 - 1e-9
PYTHON_SETTINGS = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}


class ReasoningGym(MeanMetric):
    """Mean of what reasoning-gym's own scorers give the answers, white space at both ends aside.

    Graded from the check that the source `reasoning-gym:NAME` makes: the generator and what its scorer needs. The
    library's number is kept: many scorers give up to 0.05 for any answer of the right form, some give parts of a point
    for nearly right ones. An answer of more than 100,000 characters, or one that takes the scorer more than two seconds
    of processor time, is worth 0. Unscored where there is no check, or one whose stored answer does not score 1.

    Source: Stojanovski et al. 2025, arXiv 2505.24760.
    """

    name = "reasoning_gym"
    dear = True

    def score(self, item: Answered) -> float | None:
        return _scores(os.getpid()).scored(item.check, item.answer.strip()) if item.check.strip() else None

    def grade(self, items: Sequence[Answered]) -> Floats:
        if any(item.check.strip() for item in items) and find_spec("reasoning_gym") is None:
            raise UserError(
                "The metric 'reasoning_gym' needs the library reasoning-gym, which is not installed. "
                "Install it with: pip install 'postgrad[gym]'."
            )
        return np.asarray(super().grade(items), dtype=np.float64)


@cache
def _scores(process: int) -> ScoringProcess:
    """The one of this process: it takes a second to start, and metrics are made anew for every few answers."""
    return ScoringProcess()


class ScoringProcess:
    """Asks the program that uses the library, one answer at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._program: subprocess.Popen[str] | None = None

    def scored(self, check: str, answer: str) -> float | None:
        """The library's score in [0, 1]; None where the check cannot be read or its stored answer is not right."""
        with self._lock:
            program = self._running()
            stored = self._asked(program, check, answer)
            if stored is None or stored < RIGHT:
                if stored is not None:
                    self._line(program)
                return None
            found = self._line(program)
            return found if found is not None and len(answer) <= LONGEST else 0.0

    def _running(self) -> subprocess.Popen[str]:
        if self._program is None or self._program.poll() is not None:
            self._program = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("gym_program.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, **PYTHON_SETTINGS},
            )
            finalize(self, _ended, self._program)
            if not self._program.stdout or not self._program.stdout.readline():
                raise UserError(
                    "The library reasoning-gym could not be used to grade answers: it does not start. "
                    "See why with: python -c 'import reasoning_gym'."
                )
        return self._program

    def _asked(self, program: subprocess.Popen[str], check: str, answer: str) -> float | None:
        """What the stored answer scores; None where the program did not survive it."""
        assert program.stdin is not None
        try:
            program.stdin.write(json.dumps([check, answer[:LONGEST]]) + "\n")
            program.stdin.flush()
        except BrokenPipeError:
            return None
        return self._line(program)

    def _line(self, program: subprocess.Popen[str]) -> float | None:
        """The next number that the program says; None where it ended instead."""
        assert program.stdout is not None
        if line := program.stdout.readline():
            return float(line)
        _ended(program)
        return None


def _ended(program: subprocess.Popen[str]) -> None:
    program.kill()
    program.wait()
    for pipe in (program.stdin, program.stdout):
        with suppress(OSError):
            if pipe is not None:
                pipe.close()
