"""Which faults strike a run, and when. Drawn from a seed, so that a bad round can be played again."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Mapping

# Kind -> how often, beside the others.
ANYWHERE = {"controller_killed": 4, "disk_full": 1, "clock_jump": 1, "artefact_lost": 1, "worker_slow": 1}
LOCAL: Mapping[str, int] = {**ANYWHERE, "worker_killed": 1}
REMOTE: Mapping[str, int] = {
    **ANYWHERE,
    "worker_killed": 1,
    "node_lost": 2,
    "node_frozen": 1,
    "preempted": 1,
    "cluster_away": 1,
    "cluster_restarted": 1,
    "network_cut": 1,
    "delivered_twice": 2,
}
# What a script had stored is not made again.
OF_LABELS_ONLY = ("artefact_lost",)
# Hours that the clock of the wall jumps, forwards or backwards.
MOST_HOURS = 1000.0


@dataclass(frozen=True)
class Fault:
    """One of them.

    Attributes:
        after: since the one before it, in lengths of an undisturbed run.
        for_s: how long it lasts, where it passes.
        pick: in [0, 1): which of those that it may strike.
    """

    kind: str
    after: float
    for_s: float
    pick: float

    def of(self, count: int) -> int:
        """Which of so many."""
        return int(self.pick * count)

    @property
    def jump_s(self) -> float:
        """How far the clock jumps."""
        return (2.0 * self.pick - 1.0) * MOST_HOURS * 3600.0


def kinds_of(*, remote: bool, script: bool) -> Mapping[str, int]:
    """What may strike a run."""
    every = REMOTE if remote else LOCAL
    return {kind: weight for kind, weight in every.items() if not (script and kind in OF_LABELS_ONLY)}


def drawn(seed: str, kinds: Mapping[str, int], count: int) -> tuple[Fault, ...]:
    """So many faults, which are over when an undisturbed run would have ended, give or take what they cost. Half of
    them follow on the heels of another."""
    rng = Random(seed)
    names, weights = list(kinds), list(kinds.values())
    found = []
    for _ in range(count):
        (kind,) = rng.choices(names, weights)
        most = 0.2 if rng.random() < 0.5 else 2.2
        found.append(Fault(kind, rng.uniform(0.0, most) / count, rng.uniform(0.3, 4.0), rng.random()))
    return tuple(found)
