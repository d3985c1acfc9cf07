"""One round: a run by the command line, struck until its faults are used up, resumed until it ends, and looked at."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Sequence

from postgrad.bench.chaos import checks
from postgrad.bench.chaos.faults import Fault
from postgrad.bench.chaos.scene import LEASE_S, NAME, WORKERS, Scene
from postgrad.bench.chaos.scripted import in_step
from postgrad.bench.chaos.strikes import Strikes
from postgrad.bench.chaos.watch import Watch
from postgrad.errors import UserError
from postgrad.events import Event
from postgrad.store.sqlite import EVENTS, SqliteStore

LOOK_S, WHOLE = 0.1, "whole"
# Seconds of an undisturbed run, where there was none to measure.
PACE_S = 20.0
# What finds nothing to strike is given up after this share of an undisturbed run.
GIVE_UP = 0.5
# A run that nothing strikes any more has so long to end.
PATIENCE_S = 400.0
# So often in a row it may stop with a message and no fault, before that is what it ends with.
MOST_STOPS = 4
# What is left over of nodes that were frozen or lost has so long to go.
GONE_S = 4 * LEASE_S + 20.0


@dataclass
class Played:
    """What became of it.

    Attributes:
        struck: kind of a fault -> how often it was done.
        said: the messages that controllers stopped with; each of them is typed.
        end: "whole", or the message that no resume got beyond.
        same: whether it ended as one that nothing struck; None where a job failed, so that it may be another one.
        wrong: what does not hold.
    """

    remote: bool
    seed: str
    script: bool = False
    struck: Counter[str] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    resumes: int = 0
    experiments: int = 0
    failed_jobs: int = 0
    seconds: float = 0.0
    end: str = ""
    same: bool | None = None


@dataclass(frozen=True)
class Alone:
    """A run that nothing struck: `checks.outline` of it, and how long it took here."""

    outline: str
    seconds: float


class Play:
    """A run under its faults.

    Args:
        alone: how the same task ended where nothing struck; None where there is nothing to compare with.
    """

    def __init__(self, scene: Scene, faults: Sequence[Fault], seed: str = "", alone: Alone | None = None) -> None:
        self._scene, self._faults, self._alone = scene, list(faults), alone
        self._pace_s = alone.seconds if alone is not None else PACE_S
        self._strikes, self._watch = Strikes(scene), Watch(scene.run)
        self.found = Played(scene.remote, seed, scene.script)
        self._alive_s = self._due = 0.0
        self._out = self._err = ""
        self._stops = 0
        self._summary: dict[str, Any] | None = None

    def run(self) -> Played:
        """Play it to its end."""
        began = time.monotonic()
        self._scene.write()
        self._due = began + self._gap_s()
        try:
            while not self.found.end:
                self._live()
            self._strikes.undo(all_of_them=True)
            self._judge(time.monotonic() - began)
        finally:
            self._strikes.undo(all_of_them=True)
            self.found.seconds = time.monotonic() - began
        return self.found

    # --- a controller's life --------------------------------------------------------------------------------------

    def _start(self) -> subprocess.Popen[bytes]:
        begun = (self._scene.run / EVENTS).exists() and self._watch.look() > 0
        if not begun:
            self._clear()
        words = ["resume", NAME + "-001"] if begun else ["run", "task.yaml"]
        self.found.resumes += begun
        return subprocess.Popen(
            self._scene.command(*words),
            cwd=self._scene.folder,
            env=self._scene.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # A file could not be written either while the disk is full.
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def _clear(self) -> None:
        """A run that was stopped before its first event is begun anew."""
        shutil.rmtree(self._scene.run, ignore_errors=True)

    def _live(self) -> None:
        began = time.monotonic()
        process = self._start()
        try:
            killed = self._watched(process)
        finally:
            if process.poll() is None:
                _kill(process)
            self._out, self._err = (text.decode(errors="replace") for text in process.communicate())
            self._alive_s += time.monotonic() - began
        if killed is not None:
            self._down(killed)
        elif process.returncode == 0:
            self._summary = self._document()
            self.found.end = WHOLE
        else:
            self._stopped(process.returncode)
        self._watch.compare()
        self._look()

    def _watched(self, process: subprocess.Popen[bytes]) -> Fault | None:
        """Strike while it lives; the fault that killed it, or None where it ended by itself."""
        patience = time.monotonic() + PATIENCE_S
        while process.poll() is None:
            self._watch.look()
            self._strikes.undo()
            fault = self._next()
            if fault is not None and fault.kind == "controller_killed":
                _kill(process)
                self.found.struck[fault.kind] += 1
                self._due = time.monotonic() + self._gap_s()
                return fault
            if fault is not None:
                patience = time.monotonic() + PATIENCE_S
                self._strike(fault, process)
            if time.monotonic() > patience:
                self.found.wrong.append(f"it did not end within {PATIENCE_S:.0f} s")
                self.found.end = "hung"
                return Fault("hung", 0.0, 0.0, 0.0)
            time.sleep(LOOK_S)
        return None

    def _next(self) -> Fault | None:
        if not self._faults or time.monotonic() < self._due:
            return None
        return self._faults.pop(0)

    def _gap_s(self) -> float:
        return self._faults[0].after * self._pace_s if self._faults else 0.0

    def _strike(self, fault: Fault, process: subprocess.Popen[bytes] | None) -> None:
        """Do it; what finds nothing to strike is tried again for a while."""
        now = time.monotonic()
        if self._strikes.strike(fault, process):
            self.found.struck[fault.kind] += 1
            self._stops = 0
        elif now - self._due < GIVE_UP * self._pace_s:
            self._faults.insert(0, fault)
            return
        self._due = now + self._gap_s()

    def _down(self, fault: Fault) -> None:
        """No controller lives for a while, and other things go wrong meanwhile."""
        self._stops = 0
        until = time.monotonic() + fault.for_s / 2
        while time.monotonic() < until:
            self._strikes.undo()
            if self._faults and self._faults[0].kind != "controller_killed" and (more := self._next()) is not None:
                self._strike(more, None)
            time.sleep(LOOK_S)

    def _stopped(self, code: int) -> None:
        """It stopped by itself: with a message that says why, or that is what is wrong."""
        said = self._document().get("error", {})
        message = str(said.get("message", ""))
        if said.get("kind") not in ("failed", "error") or not message:
            self.found.wrong.append(f"it ended with {code}: {message or self._err[-2000:]}")
        self.found.said.append(message)
        self._stops += 1
        if self._stops > MOST_STOPS and not self._faults:
            self.found.end = message or f"exit code {code}"
        time.sleep(LOOK_S)

    def _document(self) -> dict[str, Any]:
        with suppress(ValueError):
            found = json.loads(self._out)
            if isinstance(found, dict):
                return found
        return {}

    # --- what has to hold -----------------------------------------------------------------------------------------

    def _events(self) -> tuple[Event, ...]:
        if not (self._scene.run / EVENTS).exists():
            return ()
        try:
            with SqliteStore.open(self._scene.run, write=False) as store:
                return store.events()
        except UserError as problem:
            self.found.wrong.append(f"the log cannot be read: {problem}")
            return ()

    def _look(self) -> None:
        """After each life of a controller."""
        self.found.wrong += [each for each in checks.order(self._events()) if each not in self.found.wrong]

    def _judge(self, real_s: float) -> None:
        found, events, run = self.found, self._events(), self._scene.run
        found.experiments = sum(event.body.type == "proposed" for event in events)
        jobs = [event.body.result for event in events if event.body.type == "job_finished"]
        found.failed_jobs = sum(result.failure is not None for result in jobs)
        found.wrong += self._watch.wrong + checks.repeated(events)
        said = self._summary.get("spent") if self._summary else None
        if events:
            found.wrong += checks.ledger(events, said, self._alive_s, WORKERS, real_s)
        if found.end == WHOLE:
            found.wrong += checks.ended(run, events, self._scene.experiments, self._strikes.lost)
            found.wrong += checks.left(run, GONE_S)
            found.wrong += in_step(run, events) if self._scene.script else []
        else:
            found.wrong += checks.dead_end(events, found.end)
        if found.end == WHOLE and not found.failed_jobs and self._alone is not None:
            found.same = checks.outline(events) == self._alone.outline
            if not found.same:
                found.wrong.append("no job failed, and it did not end as a run that nothing struck")


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
