"""How long a contest lasts: what the person grants, or what the folder's timer says."""

from __future__ import annotations

import re
import subprocess

from postgrad.contest.evaluator import environment
from postgrad.contest.folder import TIMER, Contest
from postgrad.errors import UserError

WRITING_SHARE, WRITING_LEAST_S, WRITING_MOST_S = 0.03, 10.0, 900.0
LOOKING_S = 20.0
_NUMBER = r"=[\"']?([0-9]+(?:\.[0-9]+)?)[\"']?\s*$"
_HOURS = re.compile(rf"^(?:NUM_)?HOURS{_NUMBER}", re.MULTILINE)
_CREATED = re.compile(rf"^(?:CREATION_DATE|CREATED_AT|START(?:_TIME)?){_NUMBER}", re.MULTILINE)
_DEADLINE = re.compile(rf"^DEADLINE{_NUMBER}", re.MULTILINE)
_LEFT = re.compile(r"\b([0-9]{1,4}):([0-5][0-9])(?::([0-5][0-9]))?\b")


def timer_deadline(contest: Contest, now: float) -> float | None:
    """Unix time at which the folder's timer runs out; None where it has no timer.

    A timer that says when it was made, and for how many hours, is read; any other is run for its "hours:minutes".

    Raises:
        UserError: the timer can be read neither way.
    """
    timer = contest.root / TIMER
    if not timer.is_file():
        return None
    text = timer.read_text(encoding="utf-8", errors="replace")
    hours, created, deadline = (found.search(text) for found in (_HOURS, _CREATED, _DEADLINE))
    if deadline:
        return float(deadline[1])
    if hours and created:
        return float(created[1]) + 3600.0 * float(hours[1])
    return now + _asked(contest)


def _asked(contest: Contest) -> float:
    """Seconds that the timer says are left, when it is run."""
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", f'exec bash "./{TIMER}"'],
            cwd=contest.root,
            env=environment(contest.work),
            capture_output=True,
            text=True,
            timeout=LOOKING_S,
        )
        said = done.stdout
    except (OSError, subprocess.TimeoutExpired) as failed:
        raise UserError(f"{TIMER} cannot be run ({failed}). Say how long there is: --budget 9h30m") from failed
    if "expired" in said.lower():
        return 0.0
    left = _LEFT.search(said)
    if left is None:
        raise UserError(
            f"{TIMER} says {said.strip()[:100]!r}, and hours:minutes were expected. Say how long: --budget 9h30m"
        )
    return 3600.0 * int(left[1]) + 60.0 * int(left[2]) + float(left[3] or 0)


def writing_s(whole_s: float, copy_s: float) -> float:
    """Seconds to keep for writing and checking the final model; `copy_s` is what one copy of the base took."""
    return min(WRITING_MOST_S, max(WRITING_LEAST_S, WRITING_SHARE * whole_s)) + 3 * copy_s
