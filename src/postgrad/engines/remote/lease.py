"""Who may write a job's results, and whether it lives: files in the job's folder, seen by controller and node alike.

    remote/grant.json      which attempt counts, and its token; written by the controller alone
    remote/N/told.json     what attempt N is to do
    remote/N/lease.json    the node that took it: made once, so that a job that is delivered twice runs once
    remote/N/beat.json     a counter that moves while it lives, and what it has used
    remote/N/exit.json     how it ended; written once, at the end
    remote/N/work/JOB/     its own copy of the job: a node that comes back from the dead writes into no other's

A node whose token is not the granted one ends its job and writes nothing more (fencing tokens: M. Kleppmann, Designing
Data-Intensive Applications, 2017, chapter 8). Whether a beat is fresh the controller judges by its own clock that only
goes forward, from when it saw the counter move: clocks of two machines are never compared.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from postgrad.engines.base import Exit
from postgrad.records import EngineSpec, Limits, Record, Usage

REMOTE, WORK = "remote", "work"
GRANT, TOLD, LEASE, BEAT, EXIT = "grant.json", "told.json", "lease.json", "beat.json", "exit.json"
MOST_BYTES = 1 << 20
R = TypeVar("R", bound=Record)


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

    `gpus` and `nodes` are what the cluster was asked for: what the job holds while it runs.
    """

    job: str
    token: str
    command: tuple[str, ...]
    limits: Limits
    spec: EngineSpec
    lease_s: float
    gpus: float = 0.0
    nodes: int = 1


class Lease(Record):
    """The node that took an attempt."""

    node: str
    pid: int
    machine: dict[str, str] = {}


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

    @classmethod
    def of(cls, found: Exit, token: str) -> Ended:
        return cls(token=token, code=found.code, cause=found.cause, usage=found.usage, refused=found.refused)


def write(path: Path, record: Record) -> None:
    """Replace a file at once: a reader sees the old text or the new one. It is on the disk before it has its name.

    Raises:
        OSError: it cannot be written.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(record.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        with suppress(OSError):
            unfinished.unlink()


def take(path: Path, record: Record) -> bool:
    """Make a file that nobody has made yet; False where it is there. Holds on a shared folder: the name is a hard link,
    which exists once.

    Raises:
        OSError: it cannot be written.
    """
    own = path.with_name(f"{path.name}.{os.getpid()}.own")
    own.write_text(record.model_dump_json(), encoding="utf-8")
    try:
        os.link(own, path)
    except FileExistsError:
        return False
    finally:
        own.unlink()
    return True


def read(path: Path, kind: type[R]) -> R | None:
    """What a file says; None where it is missing, or is none of ours."""
    try:
        with path.open("rb") as file:
            data: Any = json.loads(file.read(MOST_BYTES))
        return kind.model_validate(data)
    except (OSError, ValueError):
        return None


def granted_in(folder: Path) -> Granted | None:
    """What is granted in the folder of a job's attempts; None where nothing is.

    Raises:
        OSError: nobody can tell now: the shared folder is away, or broken.
    """
    try:
        return Granted.model_validate_json((folder / GRANT).read_bytes())
    except FileNotFoundError:
        if folder.is_dir():
            return None
        raise
    except ValueError as wrong:
        raise OSError(errno.EIO, "what is granted cannot be read", str(folder / GRANT)) from wrong
