"""One attempt at a job, as the controller sees it: its name at the cluster, its signs of life, what it leaves."""

from __future__ import annotations

import errno
import hashlib
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Sequence, TypeVar

from postgrad import __version__
from postgrad.engines.remote.exchange import Broken, Exchange
from postgrad.engines.remote.lease import (
    BEAT,
    EXIT,
    GRANT,
    LEASE,
    REMOTE,
    TOLD,
    Beat,
    Ended,
    Granted,
    Lease,
    Told,
    granted_in,
    read,
    write,
)
from postgrad.records import EngineSpec, Limits, Record, Usage

R = TypeVar("R", bound=Record)

BEGIN_AGAIN_S = 2.0
# What another look does not mend, and what says something of one job and not of where all of them lie.
LASTING = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)
OF_ONE_JOB = (*LASTING, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP)


class Grants:
    """Which attempt of a job counts. The controller alone writes it, and there is one controller."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def current(self) -> Granted | None:
        """The last one that was granted; None before the first.

        Raises:
            OSError: nobody can tell now. To begin with the first once more would take the ground from under its feet.
        """
        return granted_in(self._exchange) if self._exchange.begun else None

    def next(self, lost: int, preempted: int, before: Usage) -> Granted:
        """The one after it, not granted yet."""
        last = self.current()
        number = (last.attempt if last is not None else 0) + 1
        return Granted(attempt=number, token=uuid.uuid4().hex, lost=lost, preempted=preempted, before=before)

    def grant(self, granted: Granted) -> None:
        """From now on this one counts, and no other."""
        write(self._exchange, GRANT, granted)
        self._exchange.tidy(granted.attempt)

    def call_off(self) -> None:
        """From now on none counts."""
        if (last := self.current()) is not None:
            write(self._exchange, GRANT, last.model_copy(update={"token": ""}))

    def standing(self, job: Path) -> Attempt | None:
        """The attempt that counts now: of a controller before this one, or of a begin that was broken off.

        Raises:
            OSError: nobody can tell now.
        """
        granted = self.current()
        return Attempt(job, granted, self._exchange) if granted is not None and granted.token else None


class Beginnings:
    """Jobs that begin. Where one cannot, no other tries it for a moment: each would wait as long for an answer."""

    def __init__(self) -> None:
        self._problem: OSError | None = None
        self._at = 0.0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Begin a job.

        Raises:
            OSError: the shared folder or the store is away, or was for another one just now.
        """
        if self._problem is not None and time.monotonic() - self._at < BEGIN_AGAIN_S:
            raise self._problem.with_traceback(None)
        try:
            yield
        except OSError as problem:
            if not (isinstance(problem, Broken) or problem.errno in OF_ONE_JOB):
                self._problem, self._at = problem, time.monotonic()
            raise


def passes(problem: OSError) -> bool:
    """True for what may be over at the next look."""
    return not (isinstance(problem, Broken) or problem.errno in LASTING)


class Attempt:
    """One attempt."""

    def __init__(self, job: Path, granted: Granted, exchange: Exchange) -> None:
        self._job, self.granted, self._exchange = job, granted, exchange
        self.folder = job / REMOTE / str(granted.attempt)
        self._count, self._was_taken = -1, False
        self._heard = self._submitted = time.monotonic()
        self._ended_at: float | None = None
        self._shown = 0.0

    @property
    def name(self) -> str:
        """Its name at the cluster: nobody else's, and the same for ever. The token is not in it."""
        digest = hashlib.sha256(f"{self._job}/{self.granted.token}".encode()).hexdigest()[:10]
        return f"postgrad-{self._job.name[:40]}-{self.granted.attempt}-{digest}"

    @property
    def address(self) -> str:
        """How its node finds it."""
        return self._exchange.address(self.granted.attempt)

    @property
    def start_folder(self) -> str:
        """Where its node starts."""
        return self._exchange.start_folder(self.granted.attempt)

    @property
    def taken(self) -> bool:
        """True once a node has taken it."""
        return self._exchange.exists(self._named(LEASE))

    def _named(self, name: str) -> str:
        return f"{self.granted.attempt}/{name}"

    def prepare(self, command: Sequence[str], limits: Limits, spec: EngineSpec) -> None:
        """Lay down what it begins with, and what it is told.

        Raises:
            OSError: the machine refuses.
        """
        self._exchange.give(self._job, self.granted.attempt, anew=limits.anew)
        here = {"workers": 1, "threads": limits.threads, "memory_mb": limits.memory_mb, "sandbox": spec.sandbox}
        if limits.allowed is not None:
            limits = limits.model_copy(update={"allowed": limits.allowed.less(self.granted.before)})
        told = Told(
            job=self._job.name,
            token=self.granted.token,
            command=tuple(command),
            limits=limits,
            spec=EngineSpec.model_validate({**here, "prices": spec.prices}),
            lease_s=spec.lease_s,
            gpus=spec.gpus,
            nodes=spec.nodes,
            postgrad=__version__,
        )
        write(self._exchange, self._named(TOLD), told)

    # --- signs of life --------------------------------------------------------------------------------------------

    def submitted(self) -> None:
        """It was asked for now."""
        self._submitted = time.monotonic()

    def due(self, now: float, after_s: float) -> bool:
        """True where it was asked for so long ago that it may be asked for again."""
        return now - self._submitted > after_s

    def hear(self, now: float) -> None:
        """It waits, and is not expected to say anything."""
        self._heard = now

    def beats(self, now: float) -> bool:
        """True where its counter moved since the last look, or where a node was first seen to have taken it: until then
        it was waited for, and its first beat comes a moment later.

        Raises:
            OSError: nobody can tell now. That is no silence.
        """
        beat = self._said(BEAT, Beat)
        count = beat.count if beat is not None else self._count
        if count == self._count and (self._was_taken or not self.taken):
            return False
        self._count, self._was_taken, self._heard, self._ended_at = count, True, now, None
        return True

    def silent_s(self, now: float) -> float:
        """Seconds since the last sign of life."""
        return now - self._heard

    def seen_ended(self, now: float) -> None:
        """The cluster says that it has ended."""
        self._ended_at = self._ended_at or now

    def ended_s(self, now: float) -> float:
        """Seconds for which the cluster has said so, and nothing was heard."""
        return now - max(self._ended_at, self._heard) if self._ended_at is not None else 0.0

    def used(self) -> Usage:
        """What it used, as far as it said."""
        if (ended := self._own(read(self._exchange, self._named(EXIT), Ended))) is not None:
            return ended.usage
        beat = read(self._exchange, self._named(BEAT), Beat)
        return beat.usage if beat is not None else Usage()

    def where(self) -> Lease | None:
        """The node that took it."""
        return read(self._exchange, self._named(LEASE), Lease)

    def ended(self) -> Ended | None:
        """How it ended; None while it has not, and for an end that does not count.

        Raises:
            OSError: nobody can tell now.
        """
        return self._own(self._said(EXIT, Ended))

    def _own(self, found: Ended | None) -> Ended | None:
        return found if found is not None and found.token == self.granted.token else None

    def _said(self, name: str, kind: type[R]) -> R | None:
        """What its node says; None where it says nothing, or nothing that can be read.

        Raises:
            OSError: the shared folder or the store is away.
        """
        try:
            return kind.model_validate_json(self._exchange.read(self._named(name)))
        except ValueError:
            return None
        except OSError as problem:
            if problem.errno in OF_ONE_JOB or isinstance(problem, FileNotFoundError):
                return None
            raise

    # --- files ----------------------------------------------------------------------------------------------------

    def show(self, job: Path) -> None:
        """Copy what a person looks at to the job's folder, now and then."""
        now = time.monotonic()
        if now - self._shown < self._exchange.show_s:
            return
        self._shown = now
        self._exchange.show(job, self.granted.attempt)

    def hand_over(self, job: Path) -> None:
        """Put what it left in the job's folder.

        Raises:
            Broken: it is not there whole.
            OSError: the machine refuses.
        """
        self._exchange.hand_over(job, self.granted.attempt)
