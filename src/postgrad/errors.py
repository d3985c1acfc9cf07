"""What can go wrong, and who has to act.

`UserError` is for the person at the keyboard: a message, never a traceback, exit code 2. `PostgradError` is ours: exit
code 1. Everything that happens inside an experiment is neither: it is a `Failure` value (see `records/job.py`), and the
loop goes on.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Iterable


class UserError(Exception):
    """The input is at fault. The text says what happened, what was expected and what to do next."""

    exit_code = 2


class PostgradError(Exception):
    """Postgrad is at fault, or its machine. The text says what happened and how to go on."""

    exit_code = 1


class Interrupted(BaseException):
    """The person asked to stop. Nothing is lost; `postgrad resume` goes on.

    A signal handler raises it in the middle of anything, as Python does KeyboardInterrupt. Libraries that take every
    Exception for a failed connection, and ask again, have to let it through.
    """

    exit_code = 130


def near_miss(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the closest known word, whatever its case, or an empty string."""
    plain = {each.lower(): each for each in known}
    close = get_close_matches(word.lower(), plain, n=1, cutoff=0.6)
    return f" Did you mean '{plain[close[0]]}'?" if close else ""
