"""The self-test: sentinels that attack the system's own honesty, each with parts that are all real. One line each."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Callable, Iterator, Sequence

from postgrad.errors import PostgradError, UserError, near_miss
from postgrad.selftest import gain, leak, repeats, rule, sealed, shuffled, small, workers
from postgrad.selftest.base import Finding, Observation, Sentinel
from postgrad.selftest.place import Place

SENTINELS: dict[str, Sentinel] = {
    sentinel.name: sentinel
    for sentinel in (
        shuffled.SENTINEL,
        repeats.SENTINEL,
        gain.SENTINEL,
        leak.SENTINEL,
        workers.SENTINEL,
        small.SENTINEL,
        rule.SENTINEL,
        sealed.SENTINEL,
    )
}
NEEDED = ("sklearn", "torch", "sentence_transformers")


@dataclass(frozen=True)
class Progress:
    """How far the self-test is: `sentinel` is under way, `done` of `total` have ended."""

    sentinel: Sentinel
    done: int
    total: int
    phase: str
    left_s: float


def chosen(names: Sequence[str]) -> tuple[Sentinel, ...]:
    """The sentinels of these names, in the order of the table; all for no name.

    Raises:
        UserError: there is no such sentinel, or a library that they train with is missing.
    """
    for name in names:
        if name not in SENTINELS:
            hint = near_miss(name, SENTINELS)
            raise UserError(f"There is no sentinel '{name}'.{hint} There are: {', '.join(SENTINELS)}.")
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(
            f"The self-test trains models, and {', '.join(missing)} cannot be imported. Install what is missing: "
            "pip install 'postgrad[train]'"
        )
    return tuple(sentinel for sentinel in SENTINELS.values() if not names or sentinel.name in names)


def play_all(
    sentinels: Sequence[Sentinel], folder: Path, tell: Callable[[Progress], None] = lambda progress: None
) -> Iterator[Finding]:
    """Play sentinels one after the other, with all their work in `folder`.

    Args:
        tell: called often, with how far it is.
    """
    started = time.monotonic()
    played_s = 0.0

    def say(phase: str) -> None:
        spent = time.monotonic() - started
        left = sum(later.nominal_s for later in sentinels[done:])
        # Until the first has ended, this machine is taken for as fast as the one that the nominal times are from.
        speed = before_s / played_s if played_s else 1.0
        tell(Progress(sentinel, done, len(sentinels), phase, max(0.0, left * speed - (spent - before_s))))

    place = Place(folder, say)
    for done, sentinel in enumerate(sentinels):  # noqa: B007 - `say` reads both
        before_s = time.monotonic() - started
        say("starting")
        finding = played(sentinel, place)
        played_s += sentinel.nominal_s
        yield finding


def played(sentinel: Sentinel, place: Place) -> Finding:
    """Play one sentinel. One that cannot be played is red: what it stands for is not shown."""
    started = time.monotonic()
    seen: list[Observation] = []
    try:
        seen += sentinel.play(place)
    except (UserError, PostgradError) as problem:
        seen.append(Observation(ok=False, words=f"it could not be played: {problem}"))
    return Finding(
        sentinel=sentinel.name,
        checks=sentinel.checks,
        green=bool(seen) and all(each.ok for each in seen),
        seen=tuple(seen),
        wall_s=time.monotonic() - started,
    )
