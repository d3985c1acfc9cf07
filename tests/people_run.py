"""Runs of simulated jobs in processes of their own, and orders to them as a person at another terminal gives them."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Callable

from postgrad.bench.overhead import SimulatedEngine, simulated_task
from postgrad.cli.main import main
from postgrad.events import Body, Decided, Event, Proposed
from postgrad.pace import Pace
from postgrad.records import ApproveSpec, Order
from postgrad.runner import drive, opened, start_run
from postgrad.store.sqlite import SqliteStore
from postgrad.tree import Tree


class Steady(Pace):
    """A machine that takes as long as was reckoned."""

    def overall(self) -> float:
        return 1.0

    def of(self, backend: str) -> float:
        return 1.0


def _control(folder: Path, die: str, slots: int) -> None:
    """Drive a run in this process, which kills itself where `die` says so, and does not outlive its parent."""
    parent = os.getppid()
    name, _, side = die.partition(":")
    engine = SimulatedEngine()
    engine.slots = slots

    class Dying(SqliteStore):
        def append(self, body: Body) -> Event:
            if body.type == name and side == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            event = super().append(body)
            if body.type == name and side == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return event

    with opened(Dying.open(folder, write=True), engine=engine) as session:
        session.pace = Steady()
        drive(session, tick=lambda phase, jobs: None if os.getppid() == parent else os._exit(1))


@dataclass
class Run:
    """A run in `folder`, and the process that drives it."""

    folder: Path
    pid: int = 0
    status: int | None = None

    def drive(self, die: str = "", slots: int = 1) -> Run:
        """Start a controller in a process of its own; `die` is "TYPE:before" or "TYPE:after" an event."""
        self.status = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                _control(self.folder, die, slots)
                code = 0
            finally:
                os._exit(code)
        return self

    def going(self) -> bool:
        """True while the controller lives."""
        if self.pid and self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return bool(self.pid) and self.status is None

    def ended(self, timeout: float = 180.0) -> int:
        """The exit code of the controller, once it has ended."""
        end = time.monotonic() + timeout
        while self.going():
            assert time.monotonic() < end, "the controller did not end"
            time.sleep(0.02)
        assert self.status is not None
        return self.status

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        assert self.ended() == -signal.SIGKILL

    def events(self) -> tuple[Event, ...]:
        with SqliteStore.open(self.folder, write=False) as store:
            return store.events()

    @property
    def tree(self) -> Tree:
        return Tree.from_events(self.events())

    def decisions(self) -> list[Decided]:
        return [event.body for event in self.events() if isinstance(event.body, Decided)]

    def proposed(self) -> list[Proposed]:
        return [event.body for event in self.events() if isinstance(event.body, Proposed)]

    def until(self, holds: Callable[[Run], Any], timeout: float = 120.0) -> Any:
        """Wait until something holds of the run, and return it."""
        end = time.monotonic() + timeout
        while not (found := holds(self)):
            assert time.monotonic() < end, "it never came to that"
            assert self.going() or self.status in (None, 0), "the controller died"
            time.sleep(0.02)
        return found

    def waiting(self, count: int = 1) -> list[str]:
        """The experiments that wait, once there are so many and the run waits for them."""

        def found(run: Run) -> list[str] | None:
            events = run.events()
            names = [node.id for node in Tree.from_events(events).waiting()]
            return names if len(names) >= count and events[-1].body.type == "waiting" else None

        return list(self.until(found))

    def say(self, *words: str, code: int = 0) -> Any:
        """`postgrad inbox RUN WORDS...` in this process, which is not the controller's; its JSON document."""
        out, argv = StringIO(), sys.argv
        sys.argv = ["postgrad", "inbox", str(self.folder), *words, "--json"]
        hook = sys.excepthook
        try:
            with redirect_stdout(out):
                main()
        except SystemExit as ended:
            assert (ended.code or 0) == code, out.getvalue()
        finally:
            sys.argv, sys.excepthook = argv, hook
        return json.loads(out.getvalue())

    def line(self, order: Order) -> bytes:
        return order.model_dump_json().encode() + b"\n"


def new_run(folder: Path, experiments: int = 6, when: str = "all", **changes: Any) -> Run:
    """A run that was started and not driven yet."""
    approve = ApproveSpec.model_validate({"when": when})
    task = simulated_task(folder, experiments).model_copy(update={"approve": approve, **changes})
    with start_run(task, folder / "runs") as store:
        return Run(store.folder)
