"""Who may write a job's results, and whether it lives: files that controller and node see alike, in the job's folder or
below a URL (`exchange.py`).

    grant.json      which attempt counts, and its token; written by the controller alone
    N/told.json     what attempt N is to do
    N/lease.json    the node that took it: made once, so that a job that is delivered twice runs once
    N/beat.json     a counter that moves while it lives, and what it has used
    N/exit.json     how it ended; written once, at the end
    N/work/JOB/     its own copy of the job: a node that comes back from the dead writes into no other's

A node whose token is not the granted one ends its job and writes nothing more (fencing tokens: M. Kleppmann, Designing
Data-Intensive Applications, 2017, chapter 8). Whether a beat is fresh the controller judges by its own clock that only
goes forward, from when it saw the counter move: clocks of two machines are never compared.
"""

from __future__ import annotations

import errno
from typing import Protocol, TypeVar

from postgrad.engines.base import Exit
from postgrad.records import EngineSpec, Hardware, Limits, Record, Usage

REMOTE, WORK = "remote", "work"
GRANT, TOLD, LEASE, BEAT, EXIT = "grant.json", "told.json", "lease.json", "beat.json", "exit.json"
R = TypeVar("R", bound=Record)


class Files(Protocol):
    """Where these files lie. Each call raises OSError where nobody can tell now."""

    def read(self, name: str) -> bytes:
        """What a file holds.

        Raises:
            FileNotFoundError: there is none.
        """
        ...

    def write(self, name: str, data: bytes) -> None:
        """Replace a file at once."""
        ...

    def take(self, name: str, data: bytes) -> bool:
        """Make a file that nobody has made yet; False where it is there. `data` is of this caller alone."""
        ...

    def exists(self, name: str) -> bool:
        """True where a file is there."""
        ...


class Granted(Record):
    """The attempt whose results count. An empty token: none; the job was called off.

    `lost` and `preempted` count the attempts before it that ended so.
    """

    attempt: int
    token: str
    lost: int = 0
    preempted: int = 0
    before: Usage = Usage()


class Told(Record):
    """What a node is to do: `job` names the folder in `work`, `spec` is that of the node's own local engine.

    `gpus` and `nodes` are what the cluster was asked for: what the job holds while it runs. `postgrad` is the version
    of the controller.
    """

    job: str
    token: str
    command: tuple[str, ...]
    limits: Limits
    spec: EngineSpec
    lease_s: float
    gpus: float = 0.0
    nodes: int = 1
    postgrad: str = ""


class Lease(Record):
    """The node that took an attempt; `mark` is of this one process."""

    node: str
    pid: int
    machine: dict[str, str] = {}
    mark: str = ""


class Beat(Record):
    """A sign of life: `count` is another number each time."""

    count: int
    usage: Usage = Usage()


class Ended(Record):
    """How an attempt ended."""

    token: str
    code: int
    cause: str | None
    usage: Usage
    refused: tuple[tuple[str, str], ...] = ()
    said: str = ""
    made_on: tuple[Hardware, ...] = ()

    @classmethod
    def of(cls, found: Exit, token: str) -> Ended:
        facts = {"cause": found.cause, "usage": found.usage, "refused": found.refused, "made_on": found.made_on}
        return cls.model_validate({"token": token, "code": found.code, **facts})

    @property
    def exit(self) -> Exit:
        return Exit(self.code, self.cause, self.usage, self.refused, self.made_on)


def write(files: Files, name: str, record: Record) -> None:
    """Replace a file at once: a reader sees the old text or the new one.

    Raises:
        OSError: it cannot be written.
    """
    files.write(name, record.model_dump_json().encode())


def take(files: Files, name: str, record: Record) -> bool:
    """Make a file that nobody has made yet; False where it is there.

    Raises:
        OSError: it cannot be written.
    """
    return files.take(name, record.model_dump_json().encode())


def read(files: Files, name: str, kind: type[R]) -> R | None:
    """What a file says; None where it is missing, cannot be read now, or is none of ours."""
    try:
        return kind.model_validate_json(files.read(name))
    except (OSError, ValueError):
        return None


def granted_in(files: Files) -> Granted | None:
    """Which attempt is granted; None where nothing is.

    Raises:
        OSError: nobody can tell now: the shared folder or the store is away, or broken.
    """
    try:
        return Granted.model_validate_json(files.read(GRANT))
    except FileNotFoundError:
        return None
    except ValueError as wrong:
        raise OSError(errno.EIO, "what is granted cannot be read", GRANT) from wrong
