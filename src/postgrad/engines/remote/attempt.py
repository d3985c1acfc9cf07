"""One attempt at a job, as the controller sees it: its folder, its name at the cluster, its signs of life."""

from __future__ import annotations

import hashlib
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Sequence

from postgrad.engines.remote.lease import (
    BEAT,
    EXIT,
    GRANT,
    LEASE,
    REMOTE,
    TOLD,
    WORK,
    Beat,
    Ended,
    Granted,
    Lease,
    Told,
    granted_in,
    read,
    write,
)
from postgrad.records import EngineSpec, Limits, Usage

# What a person looks at while a job runs.
SHOWN = ("progress.json", "log.txt")
SHOW_S = 1.0
# Of the job's own folder, and of no attempt.
PRIVATE = "private"


class Grants:
    """Which attempt of a job counts. The controller alone writes it, and there is one controller."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / REMOTE / GRANT

    def current(self) -> Granted | None:
        """The last one that was granted; None before the first.

        Raises:
            OSError: nobody can tell now. To begin with the first once more would take the ground from under its feet.
        """
        return granted_in(self._path.parent) if self._path.parent.is_dir() else None

    def next(self, lost: int, preempted: int, before: Usage) -> Granted:
        """The one after it, not granted yet."""
        last = self.current()
        number = (last.attempt if last is not None else 0) + 1
        return Granted(attempt=number, token=uuid.uuid4().hex, lost=lost, preempted=preempted, before=before)

    def grant(self, granted: Granted) -> None:
        """From now on this one counts, and no other."""
        write(self._path, granted)

    def call_off(self) -> None:
        """From now on none counts."""
        if (last := self.current()) is not None:
            write(self._path, last.model_copy(update={"token": ""}))


class Attempt:
    """One attempt."""

    def __init__(self, job: Path, granted: Granted) -> None:
        self._job, self.granted = job, granted
        self.folder = job / REMOTE / str(granted.attempt)
        self.work = self.folder / WORK / job.name
        self._count = -1
        self._heard = self._submitted = time.monotonic()
        self._ended_at: float | None = None
        self._shown = 0.0

    @property
    def name(self) -> str:
        """Its name at the cluster: nobody else's, and the same for ever. The token is not in it."""
        digest = hashlib.sha256(f"{self._job}/{self.granted.token}".encode()).hexdigest()[:10]
        return f"postgrad-{self._job.name[:40]}-{self.granted.attempt}-{digest}"

    @property
    def taken(self) -> bool:
        """True once a node has taken it."""
        return (self.folder / LEASE).exists()

    def prepare(self, command: Sequence[str], limits: Limits, spec: EngineSpec) -> None:
        """Make its folder: what the last attempt left, unless it is to begin anew, under the inputs as they were handed
        out.

        Raises:
            OSError: the machine refuses.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        work, before = self.work, self._job / REMOTE / str(self.granted.attempt - 1) / WORK / self._job.name
        if before.is_dir() and not limits.anew:
            shutil.copytree(before, work, symlinks=True, ignore=shutil.ignore_patterns(PRIVATE, "*.part"))
        work.mkdir(parents=True, exist_ok=True)
        for path in self._job.iterdir():
            if path.is_dir() and path.name not in (REMOTE, PRIVATE):
                shutil.copytree(path, work / path.name, symlinks=True, dirs_exist_ok=True)
            elif path.is_file() and not (path.name in SHOWN and (limits.anew or (work / path.name).exists())):
                shutil.copy2(path, work / path.name)
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
        )
        write(self.folder / TOLD, told)
        # Two copies of a checkpoint are enough: this one and that of the last attempt, in case this one is lost early.
        shutil.rmtree(self._job / REMOTE / str(self.granted.attempt - 2) / WORK, ignore_errors=True)

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
        """True where its counter moved since the last look."""
        beat = read(self.folder / BEAT, Beat)
        if beat is None or beat.count == self._count:
            return False
        self._count, self._heard, self._ended_at = beat.count, now, None
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
        if (ended := self.ended()) is not None:
            return ended.usage
        beat = read(self.folder / BEAT, Beat)
        return beat.usage if beat is not None else Usage()

    def where(self) -> Lease | None:
        """The node that took it."""
        return read(self.folder / LEASE, Lease)

    def ended(self) -> Ended | None:
        """How it ended; None while it has not, and for an end that does not count."""
        found = read(self.folder / EXIT, Ended)
        return found if found is not None and found.token == self.granted.token else None

    # --- files ----------------------------------------------------------------------------------------------------

    def show(self, job: Path) -> None:
        """Copy what a person looks at to the job's folder, now and then."""
        now = time.monotonic()
        if now - self._shown < SHOW_S:
            return
        self._shown = now
        for name in SHOWN:
            with suppress(OSError):
                shutil.copyfile(self.work / name, job / f".{name}.part", follow_symlinks=False)
                (job / f".{name}.part").replace(job / name)

    def hand_over(self, job: Path) -> None:
        """Put what it left in the job's folder, over what lies there: also its inputs, so that changed ones are seen.

        Raises:
            OSError: the machine refuses.
        """
        work = self.work
        for path in sorted(work.iterdir()) if work.is_dir() else []:
            if path.name == PRIVATE:
                continue
            place = job / path.name
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            path.replace(place)
