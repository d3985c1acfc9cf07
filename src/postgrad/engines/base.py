"""The contract of an engine: a place where job folders are run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from postgrad.records import EngineSpec, Hardware, Limits, Usage


@dataclass(frozen=True)
class Exit:
    """How a job's process ended. `cause` is None when it ended by itself; else what ended it.

    `refused` lists what the job tried and may not do, as (kind, what); none where the engine does not see it. `made_on`
    is where the last attempt ran, of an engine that starts a job again: `usage` is that of all attempts.
    """

    code: int
    cause: str | None  # "timeout" | "memory" | "stopped" | "hung" | "disk" | "processes" | "budget" | None
    usage: Usage
    refused: tuple[tuple[str, str], ...] = ()
    made_on: tuple[Hardware, ...] = ()


class Handle(Protocol):
    """One job under way."""

    def wait(self, timeout: float) -> Exit | None:
        """Return the exit, or None when the job still runs after `timeout` seconds. 0 polls."""
        ...

    def stop(self) -> None:
        """End the job and all its children. Idempotent; returns when they are gone."""
        ...


class Engine(Protocol):
    """Runs job folders. A job folder holds `job.json` and its input files; the job writes `result.json`, output files
    and `log.txt` into it."""

    def open(self, spec: EngineSpec) -> None:
        """Check that the engine can be used with these settings, and take its resources.

        Raises:
            UserError: it cannot.
        """
        ...

    @property
    def slots(self) -> int:
        """How many jobs may run side by side."""
        ...

    @property
    def threads(self) -> int:
        """CPU threads of one job."""
        ...

    @property
    def threads_alone(self) -> int:
        """CPU threads of a job that others hardly run beside: all cores of a machine, if the user said nothing else."""
        ...

    @property
    def memory_mb(self) -> float | None:
        """What jobs may use together, of one machine; None where each has its own, or nobody knows."""
        ...

    @property
    def sandbox(self) -> str:
        """The name of what keeps jobs away from the rest of the machine; "none" where nothing does."""
        ...

    def start(self, folder: Path, limits: Limits) -> Handle:
        """Start the job in `folder`. Raises OSError when the machine refuses."""
        ...

    def close(self) -> None:
        """Stop what still runs and give the resources back. Idempotent."""
        ...


@runtime_checkable
class Demanding(Protocol):
    """An engine that says what is wrong with its settings before a run, without reaching its cluster."""

    def complaints(self, spec: EngineSpec) -> list[str]:
        """One sentence for each fault: what was found, what was expected, what to do."""
        ...


@runtime_checkable
class Placed(Protocol):
    """An engine whose jobs all run on machines that it knows before they do."""

    @property
    def usual(self) -> Hardware:
        """What a job of usual size runs on. Known once the engine is open."""
        ...


@runtime_checkable
class Outlying(Protocol):
    """An engine that keeps something of its jobs outside of their folders."""

    def forget(self, folder: Path) -> None:
        """Jobs in this folder, or below it, will not go on, and it is about to be removed: end what still runs of them,
        and remove what is kept elsewhere."""
        ...
