"""The contract of a cluster that takes whole jobs: submit, status, logs, cancel. No task graphs, no objects.

A training job lasts minutes to hours, owns its devices and talks through files, so nothing more is needed, and every
scheduler has it. Clusters are trusted to start a job and to say roughly how it stands, and with nothing else: whether
it lives, and who may write its results, is for the lease to say (`lease.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Mapping, Protocol, Sequence

from postgrad.records import EngineSpec

#: How a cluster says that a job stands. "gone": it knows no such job, or has forgotten it.
State = Literal["waiting", "running", "ended", "gone"]


@dataclass(frozen=True)
class Resources:
    """What one job needs, on each of its nodes.

    Attributes:
        gpus: of each node; a fraction where the cluster shares devices.
    """

    cores: int = 1
    memory_mb: int = 1000
    gpus: float = 0.0
    nodes: int = 1


@dataclass(frozen=True)
class Request:
    """One job as a cluster is asked for it.

    Attributes:
        name: asks for the same job however often it is submitted: letters, digits, '-', '_' and '.'.
        command: absolute, as the node sees it; without a shell.
        environment: all that is told beside what the cluster sets itself.
        folder: where it starts, as the node sees it; what it prints goes to `log` in it.
        limit_s: wall seconds after which the cluster may end it.
        avoid: nodes, by the names that statuses give them, that were lost lately: a cluster may not have noticed yet.
            One that cannot leave nodes out, or has no others, takes no notice.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str
    log: str
    resources: Resources
    limit_s: float
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True)
class Status:
    """How a job stands.

    Attributes:
        node: where it runs, as far as the cluster says.
        said: the cluster's own words, for a person.
        preempted: it ended because the cluster wanted the node back, or gives no more time: no fault of the node.
    """

    state: State
    node: str = ""
    said: str = ""
    preempted: bool = False


@dataclass(frozen=True)
class Capacity:
    """What the cluster has for jobs, busy or not; None where it does not say."""

    nodes: int | None = None
    cores: int | None = None
    memory_mb: int | None = None
    gpus: float | None = None
    said: tuple[str, ...] = field(default=())


class Unreachable(Exception):
    """The cluster did not answer. Jobs may well go on; asked again later, it may answer."""


class Cluster(Protocol):
    """A scheduler. Nothing of it is kept between two processes but the names of jobs."""

    def open(self, spec: EngineSpec) -> Capacity:
        """Reach it.

        Raises:
            UserError: it is not there, or refuses.
        """
        ...

    def submit(self, request: Request) -> None:
        """Ask for a job. A name that is known already is no second job.

        Raises:
            Unreachable: perhaps it was submitted, perhaps not.
            UserError: the cluster can never run it; in its words.
        """
        ...

    def statuses(self, names: Sequence[str]) -> Mapping[str, Status]:
        """How jobs stand, all in one question where the cluster can.

        Raises:
            Unreachable: nothing is known now.
        """
        ...

    def logs(self, name: str) -> str:
        """The last lines that a job printed; "" where there are none.

        Raises:
            Unreachable: nothing is known now.
        """
        ...

    def cancel(self, name: str) -> None:
        """End a job; one that has ended or is not known is none of an error.

        Raises:
            Unreachable: perhaps it was ended, perhaps not.
        """
        ...

    def close(self) -> None:
        """Give back what the connection holds. Jobs go on."""
        ...
