"""What each job of a machine has to itself: cores and devices, none of them given twice.

Threads that wander over cores disturb each other's caches, and two trainings on one device run out of its memory; so a
job is bound to its cores before it begins, and sees its own devices only.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Sequence

from postgrad.engines.devices import MPS_PIPE, MPS_SHARE, VISIBLE
from postgrad.errors import UserError
from postgrad.records import EngineSpec


@dataclass(frozen=True)
class Share:
    """A job's part of the machine.

    Attributes:
        cores: numbers of the cores it is bound to; () for any.
        devices: what it sees; None where nothing is said, and it sees what this process sees.
        part: of each device, where several jobs share one; 1.0 for all of it.
    """

    cores: tuple[int, ...] = ()
    devices: tuple[str, ...] | None = None
    part: float = 1.0

    def environment(self, mps: str | None) -> dict[str, str]:
        """What the job is told of its devices."""
        if self.devices is None:
            return {}
        told = {VISIBLE: ",".join(self.devices)}
        if self.part < 1.0 and mps is not None:
            told |= {MPS_PIPE: mps, MPS_SHARE: f"{max(1, round(100 * self.part))}"}
        return told


class Shares:
    """The parts of a machine, taken and given back. Not for several threads at once.

    Args:
        cores: numbers of the cores that are this engine's; fewer than its jobs need bind none of them.
        devices: names of the accelerators that are this engine's.
        slots, threads: jobs side by side, and cores of each.
        gpus: devices of each; a part of one below 1, and 0 where nothing is said.
    """

    def __init__(self, cores: Sequence[int], devices: Sequence[str], slots: int, threads: int, gpus: float) -> None:
        bound = slots * threads <= len(cores)
        self._cores = [tuple(cores[i * threads : (i + 1) * threads]) if bound else () for i in range(slots)]
        self._devices = [_devices_of(i, devices, gpus) for i in range(slots)]
        self._part = min(1.0, gpus) if gpus else 1.0
        self._free = list(range(slots))
        self._threads = threads

    def take(self, threads: int) -> tuple[int | None, Share]:
        """A free part and its number, for `give_back`. A job with more threads than usual, beside which hardly anything
        runs, is bound to no cores; so is one beyond the slots.

        Raises:
            BlockingIOError: every device is taken.
        """
        if not self._free:
            if self._devices and self._devices[0] is not None:
                raise BlockingIOError(errno.EAGAIN, "every device is taken by another job")
            return None, Share()
        number = self._free.pop(0)
        cores = self._cores[number] if threads <= self._threads else ()
        return number, Share(cores, self._devices[number], self._part)

    @property
    def usual(self) -> Share:
        """The first part, whoever has it."""
        return Share(self._cores[0], self._devices[0], self._part) if self._cores else Share()

    def give_back(self, number: int) -> None:
        """A job has ended."""
        self._free.append(number)
        self._free.sort()


def _devices_of(number: int, devices: Sequence[str], gpus: float) -> tuple[str, ...] | None:
    if not gpus:
        return None
    if gpus < 1:
        return (devices[number // int(1 / gpus + 1e-9)],)
    each = int(gpus)
    return tuple(devices[number * each : (number + 1) * each])


def fitting(devices: Sequence[str], spec: EngineSpec, mps: str | None) -> int | None:
    """How many jobs the devices hold side by side; None where the task says nothing of devices.

    Raises:
        UserError: a job needs more of them than there are, or part of one without whatever parts them.
    """
    gpus = spec.gpus
    if not gpus:
        return None
    if gpus > 1 and gpus != int(gpus):
        raise UserError(f"engine.gpus is {gpus:g}; expected a whole number, or a part of one device such as 0.5.")
    if gpus > len(devices):
        seen = f"this machine has {len(devices)}" if devices else "no device was found on this machine"
        raise UserError(f"engine.gpus is {gpus:g} for each job, and {seen}. Lower it, or remove it.")
    if gpus < 1 and mps is None:
        raise UserError(
            f"engine.gpus is {gpus:g}: jobs that share a device need MPS, and its control daemon does not run here. "
            "Start it (nvidia-cuda-mps-control -d), name MIG instances in CUDA_VISIBLE_DEVICES, or write gpus: 1."
        )
    each = int(1 / gpus + 1e-9) if gpus < 1 else 1
    most = len(devices) * each if gpus < 1 else len(devices) // int(gpus)
    if spec.workers is not None and spec.workers > most:
        raise UserError(
            f"engine.workers is {spec.workers} with {gpus:g} devices each, and {len(devices)} devices hold {most}: "
            f"none is given twice. Lower engine.workers to {most}, or engine.gpus."
        )
    return most
