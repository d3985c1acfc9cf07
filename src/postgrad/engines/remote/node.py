"""What runs on a node: `python -m postgrad.engines.remote.node FOLDER/remote/N`, or `STORAGE/jobs/JOB/N` for a URL.

It takes the lease, runs the job on the node's own local engine, with the sandbox and the limits of any local job, and
says that it lives. It ends the job when it is told to (SIGTERM: preemption, cancel), when another attempt was granted,
and when it could not say that it lives for as long as the lease: then somebody else may have been told to begin.
The job dies with it. It needs no controller: one that was killed finds what was done when it is back.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Callable, TypeVar

from postgrad import __version__
from postgrad.engines.base import Exit
from postgrad.engines.handle import ELSEWHERE, LocalHandle
from postgrad.engines.local import LocalEngine, available_cores
from postgrad.engines.remote.exchange import Broken
from postgrad.engines.remote.lease import (
    BEAT,
    EXIT,
    GRANT,
    LEASE,
    Beat,
    Ended,
    Granted,
    Lease,
    Told,
    granted_in,
    read,
    take,
    write,
)
from postgrad.engines.remote.outpost import Background, Desk, desk_at
from postgrad.errors import UserError
from postgrad.records import Usage

LOOK_S, BEATS_A_LEASE = 0.25, 10.0
# Some clusters signal every process of a job, one after the other: the job may be gone before this program hears of it.
SIGNAL_S = 0.3
# A job that the cluster wants to end may take so long to keep what it has. Clusters grant about 30 s.
KEEP_S = 20.0
TAKEN, FENCED, NOTHING_TOLD, NOT_READY = 0, 3, 4, 5
# How many nodes a job has, itself on the first of them; only told where there are several.
NODES, SRUN, CPU = "POSTGRAD_NODES", "POSTGRAD_SRUN", "POSTGRAD_CPU"
T = TypeVar("T")


class Node:
    """One attempt on this node."""

    def __init__(self, desk: Desk, told: Told) -> None:
        self._desk, self._files, self._told = desk, desk.files, told
        self._folder = Path()
        self._handle: LocalHandle | None = None
        self._asked_to_end = self._ending = False
        self._count = 0
        self._began = self._beaten = time.monotonic()

    def ask_to_end(self, number: int, frame: FrameType | None) -> None:
        """A signal: the cluster wants the node back, or the job was called off."""
        self._asked_to_end = True

    def is_called_off(self) -> bool:
        """True where a later attempt counts, or none. A folder that is shown late does not say so."""
        granted, own = read(self._files, GRANT, Granted), self._desk.number
        return granted is not None and (granted.attempt > own or (granted.attempt == own and not granted.token))

    def run(self) -> int:
        """Run the job to its end; the exit code of this program.

        Raises:
            OSError: the job's files cannot be had, or nobody can be told how it ended.
        """
        try:
            return self._run()
        finally:
            self._desk.close()

    def _run(self) -> int:
        if not self._beside(lambda: self.patiently(self._fetch)):
            return FENCED
        elsewhere = self._folder / ELSEWHERE
        shutil.rmtree(elsewhere, ignore_errors=True)  # What earlier attempts used is on the account.
        told = beyond(self._told.nodes, elsewhere)
        engine = LocalEngine(self._told.command, (self._told.gpus, self._told.nodes), told)
        try:
            engine.open(self._told.spec)
            found = self._ran(engine)
        finally:
            engine.close()
        if found is None:
            return FENCED
        self._ending = True
        if self._handle is not None and not self._beside(lambda: self.patiently(self._desk.finish)):
            return FENCED
        ended = Ended.of(found, self._told.token)
        self.patiently(lambda: write(self._files, f"{self._desk.number}/{EXIT}", ended))
        return 0

    def _fetch(self) -> None:
        self._folder = self._desk.begin(self._told)

    def _ran(self, engine: LocalEngine) -> Exit | None:
        """How the job ended; None where this attempt does not count any more."""
        if self._asked_to_end:  # Before it began.
            return self._judged(Exit(code=-signal.SIGTERM, cause="stopped", usage=Usage()))
        handle = engine.start(self._folder, self._told.limits)
        assert isinstance(handle, LocalHandle)
        self._handle = handle
        return self._watched(handle)

    def _beside(self, do: Callable[[], None]) -> bool:
        """Do what may take long, and say meanwhile that it lives; False where it may not go on. Of a job that has not
        begun when the cluster wants it to end the rest is left."""
        if not self._desk.afar:
            do()
            return True
        beside = Background(do)
        while not beside.wait(LOOK_S):
            if not self._beat():
                return False
            if self._asked_to_end and self._handle is None:
                return True
        beside.check()
        return True

    def patiently(self, ask: Callable[[], T]) -> T:
        """Ask again while the shared folder is away, for as long as the lease: what was trained is not thrown away.

        Raises:
            OSError: it is not back.
        """
        patience = time.monotonic() + self._told.lease_s
        while True:
            try:
                return ask()
            except OSError as problem:
                if isinstance(problem, Broken) or time.monotonic() > patience:
                    raise
                time.sleep(LOOK_S)

    def _watched(self, handle: LocalHandle) -> Exit | None:
        """How the job ended; None where this attempt does not count any more."""
        while True:
            found = handle.wait(LOOK_S)
            if found is not None:
                return self._judged(found)
            if self._asked_to_end:
                if self.patiently(self._counts):
                    handle.stop(min(KEEP_S, self._told.lease_s / 2))
                else:
                    handle.stop()
                found = handle.wait(0)
                assert found is not None, "a job that was stopped has ended"
                return self._judged(found)
            if not self._beat():
                handle.stop()
                return None
            self._desk.tend(self._surely_counts)

    def _judged(self, found: Exit) -> Exit | None:
        """How the job ended: one that came to nothing when the cluster wanted it to end was preempted."""
        if found.cause is None and found.code != 0 and not self._asked_to_end:
            time.sleep(SIGNAL_S)
        if self._asked_to_end and (found.cause == "stopped" or (found.cause is None and found.code != 0)):
            counts = self.patiently(lambda: self._counts(called_off=True))
            return replace(found, cause="preempted") if counts else None
        return found if self.patiently(self._counts) else None

    def _beat(self) -> bool:
        """Say that it lives; False where it may not go on."""
        now = time.monotonic()
        if now - self._beaten < self._told.lease_s / BEATS_A_LEASE:
            return True
        try:
            if not self._counts(called_off=self._ending):
                return False
            self._count += 1
            used = self._handle.used() if self._handle is not None else Usage()
            write(self._files, f"{self._desk.number}/{BEAT}", Beat(count=self._count, usage=used))
        except OSError:  # The shared folder is away. Its return within the lease is nobody's concern.
            return now - self._beaten < self._told.lease_s
        self._beaten = now
        return True

    def _counts(self, *, called_off: bool = False) -> bool:
        """True while this attempt is the granted one.

        Args:
            called_off: so is the last one, of a job that was called off.

        Raises:
            OSError: nobody can tell now.
        """
        granted = granted_in(self._files)
        if granted is None:
            return False
        last = called_off and not granted.token and granted.attempt == self._desk.number
        return granted.token == self._told.token or last

    def _surely_counts(self) -> bool:
        """False also where nobody can tell now."""
        try:
            return self._counts()
        except OSError:
            return False


def beyond(nodes: int, elsewhere: Path) -> dict[str, str]:
    """What a job of several nodes needs, to start its parts on the others by the cluster's own command, and to say what
    they use.

    Args:
        elsewhere: a folder of the job, in which each part has a file with its CPU seconds so far.
    """
    if nodes == 1:
        return {}
    elsewhere.mkdir(parents=True, exist_ok=True)
    given = {name: value for name, value in os.environ.items() if name.startswith("SLURM")}
    return given | {NODES: str(nodes), SRUN: shutil.which("srun") or "srun", CPU: str(elsewhere)}


def main(arguments: list[str]) -> int:
    """Run the attempt at the address that is named."""
    address = arguments[0]
    try:
        desk = desk_at(address)
        told = desk.told()
    except (OSError, UserError) as problem:
        print(f"This node cannot read {address}: {problem}")
        return NOT_READY
    if told is None:
        print(f"There is no job in {address}: this node does not see the folder of the run, or it was removed.")
        return NOTHING_TOLD
    if desk.afar and told.postgrad != __version__:
        print(f"This node has Postgrad {__version__}, and the controller {told.postgrad}. Install the same.")
        return NOT_READY
    node = Node(desk, told)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, node.ask_to_end)
    try:
        return run(node, desk)
    except OSError as problem:
        if not desk.afar:
            raise
        print(f"This node cannot do the job: {problem.strerror or problem}", flush=True)
        return NOT_READY


def run(node: Node, desk: Desk) -> int:
    """Take the lease, and run the job where that was not taken; the exit code of this program.

    Raises:
        OSError: what controller and node see alike is away.
    """
    if node.is_called_off():
        print("This attempt does not count any more: it was called off while it waited.")
        return FENCED
    here = {"system": platform.system(), "machine": platform.machine(), "cores": str(available_cores())}
    lease = Lease(node=socket.gethostname(), pid=os.getpid(), machine=here, mark=uuid.uuid4().hex)
    if not node.patiently(lambda: take(desk.files, f"{desk.number}/{LEASE}", lease)):
        print("This attempt was taken already: it was delivered twice, and runs once.")
        return TAKEN
    node.patiently(lambda: write(desk.files, f"{desk.number}/{BEAT}", Beat(count=0, usage=Usage())))
    return node.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
