"""One run of `bench scale-loop`: the real loop, policy, referee and store over a simulated cluster, with what each part
of a step took of the controller's CPU time."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterator, NamedTuple

from postgrad import __version__
from postgrad.bench.landscapes import Landscape
from postgrad.bench.scale_cluster import Clock, Cluster, SimulatedExecutor, SimulatedStore, simulated_task
from postgrad.events import Event, RunResumed, RunStarted
from postgrad.loop import Control, Loop
from postgrad.records import Budget
from postgrad.runner import machine, packages
from postgrad.session import Session
from postgrad.store.sqlite import EVENTS

#: Simulated seconds that are granted beside the experiments: so many that they never run out, and are kept account of.
PLENTY_S = 1e9
LOOK_S = 0.02


@dataclass
class Timed(Loop):
    """The loop, and CPU seconds of each part of its steps, less what simulating took meanwhile."""

    own_s: Callable[[], float] = lambda: 0.0
    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def _timing(self, part: str) -> Iterator[None]:
        began = time.process_time() - self.own_s()
        try:
            yield
        finally:
            self.spent[part] = self.spent.get(part, 0.0) + time.process_time() - self.own_s() - began

    def _collect(self) -> None:
        with self._timing("collect"):
            super()._collect()

    def _close_in_order(self) -> None:
        with self._timing("analyse"):
            super()._close_in_order()

    def _propose(self) -> str | None:
        with self._timing("propose"):
            return super()._propose()

    def _start_owed(self) -> None:
        with self._timing("start"):
            super()._start_owed()


@dataclass(frozen=True)
class Case:
    """What is run.

    Attributes:
        experiments: the budget.
        seconds: mean of what a job lasts; None goes by the recipe.
        real: jobs end as real time passes; else a clock is simulated.
    """

    policy: str
    landscape: Landscape
    workers: int
    experiments: int
    seconds: float | None = None
    real: bool = False
    seed: int = 0


class Look(NamedTuple):
    """Where a run in real time stood: experiments that were proposed, and those of them that had ended."""

    at: float
    proposed: int
    ended: int


class Run:
    """A run in a folder, which is new or goes on."""

    def __init__(self, folder: Path, case: Case, listen: Callable[[Event], None]) -> None:
        self.case = case
        self.clock = Clock(case.real)
        self.store = _opened(folder, case, self.clock)
        if self.store.clock() > 0:
            self.store.append(RunResumed(note="the benchmark goes on"))
        self.cluster = Cluster(self.clock, case.workers)
        executor = SimulatedExecutor(
            self.cluster, self.store.artifacts, folder / "run" / "scratch", case.landscape, case.seconds
        )
        self.session = Session(self.store, executor, listen)
        pause = self.clock.pause if case.real else _at_once
        self.loop = Timed(self.session, Control(), self._tick, None, pause, own_s=lambda: self.cluster.own_s)
        self.looks: list[Look] = []

    def play(self) -> None:
        """Bring it to its end."""
        with self.store:
            self.loop.run()

    def _tick(self, phase: str, jobs: object) -> None:
        if self.case.real:
            self.looks.append(Look(self.clock.now, len(self.session.tree), self.session.tree.ended()))
        else:
            self.clock.pause(LOOK_S)

    def log_mb(self) -> float:
        """Size of the event log, with what SQLite keeps beside it."""
        return sum(path.stat().st_size for path in self.store.folder.glob(f"{EVENTS}*")) / 2**20


def _at_once(seconds: float) -> None:
    """A simulated clock goes on by itself."""


def _opened(folder: Path, case: Case, clock: Clock) -> SimulatedStore:
    place = folder / "run"
    if (place / EVENTS).is_file():
        store = SimulatedStore.open(place, write=True)
        store.simulated = clock
        return store
    budget = Budget(experiments=case.experiments, wall_s=PLENTY_S)
    task = simulated_task(folder, budget, case.policy, case.workers).model_copy(update={"seed": case.seed})
    store = SimulatedStore.create(place)
    store.simulated = clock
    store.append(RunStarted(run=place.name, task=task, postgrad=__version__, machine=machine(), packages=packages()))
    return store
