"""What the jobs of a run measured: how fast this machine is against what was reckoned, backend by backend."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from statistics import median

from postgrad.records import JobResult

# Jobs that are looked back on.
LAST, MANY = 20, 500


@dataclass(frozen=True)
class Speed:
    """What a job took, and what was reckoned for it on a machine like the reference."""

    wall_s: float
    nominal_s: float


def _many() -> deque[float]:
    return deque(maxlen=MANY)


class Pace:
    """What was measured so far."""

    def __init__(self) -> None:
        self._reserved: dict[str, float] = {}
        self._all: deque[Speed] = deque(maxlen=LAST)
        self._of: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=LAST))
        self._measured: dict[str, dict[str, deque[float]]] = defaultdict(lambda: defaultdict(_many))

    def started(self, job: str, nominal_s: float) -> None:
        """A job has begun for which so much was reckoned."""
        self._reserved[job] = nominal_s

    def finished(self, job: str, backend: str, result: JobResult) -> None:
        """A job of this backend has ended. One that failed or was ended on its way says nothing of how
        long it would have taken."""
        nominal_s = self._reserved.pop(job, 0.0)
        if result.failure is None and result.race is None and nominal_s:
            found = Speed(result.usage.wall_s, nominal_s)
            self._all.append(found)
            self._of[backend].append(found.wall_s / found.nominal_s)
        for unit in result.units:
            for name, value in unit.measured.items():
                self._measured[backend][name].append(value)

    def overall(self) -> float:
        """Measured wall seconds for each nominal second, over the last jobs; 1 before the first. Dear jobs count for
        more: it is them that a budget is short for."""
        last = self._all
        return sum(each.wall_s for each in last) / sum(each.nominal_s for each in last) if last else 1.0

    def of(self, backend: str) -> float:
        """The same over the jobs of one backend, each alike; over all jobs before the first of those."""
        own = self._of.get(backend, ())
        return median(own) if own else self.overall()

    def calibration(self, backend: str) -> dict[str, float]:
        """What jobs of this backend measured for later ones: the median of each number, over many jobs."""
        found = self._measured.get(backend, {})
        return {name: median(values) for name, values in sorted(found.items())}
