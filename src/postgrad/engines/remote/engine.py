"""An engine over a cluster: every job is leased, and started again where its node is lost.

The run's folder lies where the nodes see it under the same path, or both see a store below a URL. A controller that was
killed and comes back, on this machine or on another, finds its jobs by their leases and goes on waiting for them:
nothing is started twice.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Mapping, Sequence

import postgrad
from postgrad.engines.base import Exit, Handle
from postgrad.engines.local import WORKER
from postgrad.engines.logs import added_to
from postgrad.engines.remote.attempt import Attempt, Beginnings, Grants, passes
from postgrad.engines.remote.cluster import Capacity, Cluster, Request, Resources, Status, Unreachable
from postgrad.engines.remote.exchange import Broken, Exchange, Shared
from postgrad.engines.remote.lease import REMOTE, Ended, Granted
from postgrad.engines.remote.posted import Office
from postgrad.errors import UserError
from postgrad.records import EngineSpec, Limits, Usage

LOOK_S, ASK_S = 0.1, 2.0
# A node may see the folder late, and a cluster may say late what became of a job.
GRACE_S = 10.0
# Wall seconds beyond the job's own limit before the cluster ends it: the node is to do that itself.
SPARE_S = 120.0
# A cluster that does not answer for so long, with no sign of life of a job, is as good as gone.
CUT_S = 900.0
# A shared folder or a store that is away for so long stops the run: `resume` goes on.
AWAY_S = 60.0
# A node that runs the job has so long to take it: the first start of Python from a shared folder is slow.
START_S = 120.0
# A job that was stopped has so long to be gone.
STOP_S, UNTIL_GONE_S = 20.0, 0.25
MOST_PREEMPTIONS = 20
# What begins anew each time gets no further by it: its attempts together may take so many times what one may.
MOST_ANEW = 3.0
# A cluster has noticed by then that a node is gone, or it is back.
AVOID_S = 900.0
# Slurm's word for a job whose node was lost.
NODE_FAIL = "NODE_FAIL"
# A node that was heard of within this share of its lease is not asked about: it says ten times a lease that it lives.
QUIET = 0.2
MOST_WORKERS = 256
NODE = ("-P", "-m", "postgrad.engines.remote.node")


class RemoteHandle:
    """One job on a cluster, through all its attempts."""

    def __init__(self, engine: RemoteEngine, folder: Path, limits: Limits) -> None:
        self._engine, self._folder, self._limits = engine, folder, limits
        self._exchange = engine.exchange(folder)
        self._grants = Grants(self._exchange)
        closed = self._exchange.closed()
        self._exit: Exit | None = closed.exit if closed is not None else None
        self._node = ""
        self._looked = 0.0
        self._away_since: float | None = None
        self._attempt = Attempt(folder, Granted(attempt=0, token=""), self._exchange)  # None so far.
        self.begun = closed is not None
        if not self.begun:
            self._look_patiently(time.monotonic())

    @property
    def name(self) -> str:
        """Its name at the cluster."""
        return self._attempt.name

    def wait(self, timeout: float) -> Exit | None:
        deadline = time.monotonic() + timeout
        while self._exit is None:
            now = time.monotonic()
            if now - self._looked >= self._exchange.poll_s:
                self._look_patiently(now)
                self._looked = time.monotonic()
            elif now >= deadline:
                break
            else:
                time.sleep(min(LOOK_S, deadline - now))
        return self._exit

    def stop(self) -> None:
        if self._exit is None and not self.begun:
            standing = self._grants.standing(self._folder)
            self._attempt, self.begun = standing or self._attempt, True
            self._exit = Exit(code=-15, cause="stopped", usage=Usage()) if standing is None else None
        if self._exit is None and self._look(time.monotonic()) is None:
            self._grants.call_off()
            self._cancel()
            self._until_gone()
            self._exchange.refresh()
            used = self._attempt.granted.before.plus(self._attempt.used())
            with suppress(Broken):  # It begins anew.
                self._attempt.hand_over(self._folder)
            self._exchange.close(None)
            self._exit = Exit(code=-15, cause="stopped", usage=used)

    def _until_gone(self) -> None:
        """Wait until the cluster says that it has ended, where it says anything. A node that it lost ends the job by
        itself: its token does not count any more."""
        patience = time.monotonic() + STOP_S
        while time.monotonic() < patience:
            status = self._engine.status(self._attempt.name, time.monotonic(), at_once=True)
            if status is None or status.state in ("ended", "gone"):
                return
            if status.state == "waiting" and not self._attempt.taken:
                return  # Some clusters cannot end a job that waits. It finds that it is called off when its turn comes.
            time.sleep(UNTIL_GONE_S)

    # --- attempts -------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Take up the attempt that was granted already, submitted again where that may not have got so far; else ask
        for the first one. What was broken off is done once more: nothing is granted before all of it is there."""
        with self._engine.beginnings.one():
            attempt = self._grants.standing(self._folder)
            if attempt is None:
                attempt = self._next(0, 0, Usage())
            elif not attempt.taken:
                self._submit(attempt)
        self._attempt, self.begun = attempt, True

    def _next(self, lost: int, preempted: int, before: Usage) -> Attempt:
        """Grant the next attempt, which goes on from what the last one left, and ask the cluster for it."""
        granted = self._grants.next(lost, preempted, before)
        attempt = Attempt(self._folder, granted, self._exchange)
        attempt.prepare(self._engine.command, self._limits, self._engine.spec)
        self._grants.grant(granted)
        self._submit(attempt)
        return attempt

    def _submit(self, attempt: Attempt) -> None:
        request = self._engine.request(attempt, self._limits)
        with suppress(Unreachable):  # Asked again when its status is not known.
            try:
                self._engine.cluster.submit(request)
            except UserError:
                if not request.avoid:
                    raise
                # The nodes that are left cannot run it. Those that were lost may be back.
                self._engine.cluster.submit(replace(request, avoid=()))
        attempt.submitted()

    def _cancel(self) -> None:
        with suppress(Unreachable):  # The token is gone: the node ends it by itself.
            self._engine.cluster.cancel(self._attempt.name)

    def _again(self, cause: str, said: str, gone: str = "") -> None:
        """After an attempt that came to nothing: another one, or the end.

        Args:
            gone: the node, where it is the node that is lost and not the job alone.
        """
        self._cancel()
        granted = self._attempt.granted
        if gone:
            self._engine.avoid(gone)
        self._node = ""
        lost, preempted = granted.lost + (cause == "lost"), granted.preempted + (cause == "preempted")
        before = granted.before.plus(self._attempt.used())
        in_vain = self._limits.anew and before.wall_s > MOST_ANEW * self._limits.wall_s
        if in_vain:
            said = f"{said} It would begin anew, and has taken {before.wall_s:.0f} s of {self._limits.wall_s:.0f} s."
        if lost <= self._engine.spec.retries and preempted <= MOST_PREEMPTIONS and not in_vain:
            self._attempt = self._next(lost, preempted, before)
            return
        self._grants.call_off()
        with suppress(Broken):  # What it said is told all the same.
            self._attempt.hand_over(self._folder)
        self._tell(said)
        self._end(Exit(code=-1, cause=cause, usage=before))

    def _end(self, found: Exit) -> None:
        self._exchange.close(Ended.of(found, self._attempt.granted.token))
        self._exit = found

    def _tell(self, said: str) -> None:
        """Put what the cluster said at the end of the job's log, where a person and the analysis look."""
        more = ""
        with suppress(Unreachable):
            more = self._engine.cluster.logs(self._attempt.name)
        with added_to(self._folder / "log.txt") as log:
            log.write(f"\n{more.strip()}\n{said}\n".lstrip("\n").encode(errors="replace"))

    # --- looking --------------------------------------------------------------------------------------------------

    def _look_patiently(self, now: float) -> None:
        """Look; where the shared folder or the store is away, the next look does what this one could not.

        Raises:
            OSError: it is not back, or full.
        """
        try:
            self._look(now)
            self._away_since = None
        except OSError as problem:
            self._away_since = now if self._away_since is None else self._away_since
            if now - self._away_since > AWAY_S or not (self.begun or passes(problem)):
                raise

    def _look(self, now: float) -> Exit | None:
        if not self.begun:
            self._begin()
            return None
        attempt = self._attempt
        if (ended := attempt.ended()) is not None:
            self._ended(ended)
            return self._exit
        heard = attempt.beats(now)
        attempt.show(self._folder)  # Not before: where nobody answers, each job would wait for that.
        if not heard and not (attempt.taken and attempt.silent_s(now) < self._engine.quiet_s):
            self._doubt(now)
        return self._exit

    def _ended(self, ended: Ended) -> None:
        if ended.cause == "preempted":
            self._again("preempted", "The cluster took the node away.")
            return
        try:
            self._attempt.hand_over(self._folder)
        except Broken as problem:
            self._again("lost", f"What the job left is not whole: {problem}")
            return
        usage = self._attempt.granted.before.plus(ended.usage)
        self._end(Exit(ended.code, ended.cause, usage, ended.refused, ended.usage.hardware))

    def _doubt(self, now: float) -> None:
        """What the cluster says of a job that gives no sign of life. Where it does, the cluster is not even asked."""
        attempt = self._attempt
        status = self._engine.status(attempt.name, now)
        self._node = status.node or self._node if status is not None else self._node
        if status is None:
            if attempt.silent_s(now) > CUT_S:
                self._again("lost", f"The cluster has not answered for {CUT_S:.0f} s.")
        elif status.state == "waiting":
            attempt.hear(now)
        elif status.state == "gone" and not attempt.taken:
            if attempt.due(now, self._engine.grace_s):
                self._submit(attempt)
            if attempt.silent_s(now) > self._engine.spec.lease_s + self._engine.grace_s:
                self._again("lost", "The cluster does not know the job.")
        elif status.state in ("ended", "gone"):
            attempt.seen_ended(now)
            if attempt.ended_s(now) > self._engine.grace_s:
                cause = "preempted" if status.preempted else "lost"
                gone = self._node if NODE_FAIL in status.said else ""
                self._again(cause, f"The cluster ended the job, and it left no result. {status.said}".strip(), gone)
        elif attempt.silent_s(now) > (self._engine.spec.lease_s if attempt.taken else START_S):
            said = f"Nothing was heard of {status.node or 'its node'} for {attempt.silent_s(now):.0f} s."
            self._again("lost", said, self._node)


class RemoteEngine:
    """Jobs of a run on a cluster.

    Args:
        cluster: the scheduler.
        command: what a job is; the folder of the job follows.
    """

    def __init__(self, cluster: Cluster, command: Sequence[str] = WORKER) -> None:
        self.cluster = cluster
        self.command = tuple(command)
        self.spec = EngineSpec()
        self._capacity = Capacity()
        self._handles: list[RemoteHandle] = []
        self._statuses: Mapping[str, Status] = {}
        self._asked = 0.0
        self.grace_s, self.ask_s = GRACE_S, ASK_S
        self._lost: dict[str, float] = {}
        self._office: Office | None = None
        self.beginnings = Beginnings()

    def open(self, spec: EngineSpec) -> None:
        for name in ("workers", "threads", "memory_mb", "job_wall_s", "lease_s", "nodes"):
            value = getattr(spec, name)
            if value is not None and value <= 0:
                raise UserError(f"engine.{name} is {value}; expected a number above 0. Change it in the task file.")
        if spec.python is not None and self.command[0] == sys.executable:
            self.command = (spec.python, *self.command[1:])
        self.spec = spec
        self._capacity = self.cluster.open(spec)
        self._office = Office(spec) if spec.storage is not None else None

    @property
    def sandbox(self) -> str:
        """What the task asks of the nodes: each finds out for itself which sandbox holds there."""
        return "none" if self.spec.sandbox == "none" else f"{self.spec.sandbox} (on the node)"

    @property
    def slots(self) -> int:
        if self.spec.workers is not None:
            return self.spec.workers
        cores, memory, gpus = self._capacity.cores, self._capacity.memory_mb, self._capacity.gpus
        rooms = [MOST_WORKERS]
        rooms += [cores // self.threads] if cores else []
        rooms += [memory // self.spec.memory_mb] if memory else []
        rooms += [int(gpus / self.spec.gpus)] if gpus and self.spec.gpus else []
        return max(1, min(rooms) // self.spec.nodes)

    @property
    def threads(self) -> int:
        return self.spec.threads or 1

    @property
    def threads_alone(self) -> int:
        return self.threads

    @property
    def memory_mb(self) -> float | None:
        """Nothing to look after: the cluster packs its nodes by what each job asks for."""
        return None

    def start(self, folder: Path, limits: Limits) -> Handle:
        if not folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
        self._handles = [handle for handle in self._handles if not _over(handle)]
        handle = RemoteHandle(self, folder, limits)
        self._handles.append(handle)
        return handle

    def close(self) -> None:
        for handle in self._handles:
            with suppress(OSError):  # The shared folder is away: the job goes on, and is found by the next controller.
                handle.stop()
        self._handles.clear()
        self.cluster.close()

    def forget(self, folder: Path) -> None:
        """Without its grant a node ends its job by itself, as where its folder is gone."""
        if self._office is not None:
            self._office.forget(folder)

    @property
    def quiet_s(self) -> float:
        """Seconds for which a job may be silent before the cluster is asked."""
        return QUIET * self.spec.lease_s

    # --- for the handles ------------------------------------------------------------------------------------------

    def exchange(self, folder: Path) -> Exchange:
        """Where controller and nodes lay down what they say about the job in this folder."""
        return Shared(folder / REMOTE) if self._office is None else self._office.exchange(folder)

    def request(self, attempt: Attempt, limits: Limits) -> Request:
        """What the cluster is asked for."""
        python, start = self.spec.python or sys.executable, attempt.start_folder
        return Request(
            name=attempt.name,
            command=(python, *NODE, attempt.address),
            environment={"PYTHONPATH": str(Path(postgrad.__file__).parents[1]), "OMP_WAIT_POLICY": "PASSIVE"},
            folder=start,
            log=f"{start}/{attempt.name if self._office is not None else 'node'}.log",
            resources=Resources(limits.threads, limits.memory_mb, self.spec.gpus, self.spec.nodes),
            limit_s=limits.wall_s + SPARE_S,
            avoid=self.avoided(time.monotonic()),
        )

    def avoid(self, node: str) -> None:
        """A node was lost now."""
        self._lost.pop(node, None)
        self._lost[node] = time.monotonic()

    def avoided(self, now: float) -> tuple[str, ...]:
        """The nodes that were lost lately, the last ones first: never all that there are. None for jobs of several
        nodes: which of them was lost is not known."""
        if self.spec.nodes > 1:
            return ()
        lately = [node for node, at in reversed(self._lost.items()) if now - at < AVOID_S]
        return tuple(lately[: self._capacity.nodes - 1] if self._capacity.nodes is not None else lately)

    def status(self, name: str, now: float, *, at_once: bool = False) -> Status | None:
        """What the cluster says of a job; None where it does not answer. One question for all jobs, now and then."""
        if at_once or now - self._asked >= self.ask_s:
            self._asked = now
            names = [handle.name for handle in self._handles if handle.begun]
            try:
                self._statuses = self.cluster.statuses(names if name in names else [*names, name])
            except Unreachable:
                self._statuses = {}
        return self._statuses.get(name)


def _over(handle: RemoteHandle) -> bool:
    """True for a job that has ended. What stands in the way of another one is for whoever asks for that one."""
    try:
        return handle.wait(0) is not None
    except OSError:
        return False
