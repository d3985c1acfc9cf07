"""What this machine is, as its system and its driver say: found out once, told with every job. Nothing is imported.

Nothing here decides anything: `prices.py` says what a job costs, and the referee which scores may be compared.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping, Sequence

import psutil

from postgrad.engines.devices import CARD, LIST_S, PART, VISIBLE, devices
from postgrad.records import Hardware
from postgrad.records.hardware import MOST_LETTERS

MB = 1 << 20
CPUINFO = Path("/proc/cpuinfo")
QUERY = ("--query-gpu=uuid,memory.total,driver_version", "--format=csv,noheader,nounits")
UNKNOWN_DEVICE = "a device of unknown kind"
# Compute slices of a card that is cut into instances (NVIDIA, MIG User Guide, "Supported MIG profiles").
SLICES, SLICES_OF = 7, {"A30": 4, "RTX PRO": 4}
_PROFILE = re.compile(r"MIG (?:(?P<compute>\d+)c\.)?(?P<slices>\d+)g\.(?P<gigabytes>\d+)gb")


@dataclass(frozen=True)
class Device:
    """One accelerator. `share` is its part of a whole card: below 1 for an instance of MIG."""

    kind: str
    memory_mb: int = 0
    share: float = 1.0


@dataclass(frozen=True)
class Machine:
    """What stays the same while an engine is open.

    Attributes:
        known: devices by the names that `CUDA_VISIBLE_DEVICES` takes: numbers and UUIDs.
        visible: names of those that this process may use. `granted`: somebody who grants devices said so.
    """

    host: str = ""
    cpu: str = ""
    cores: int = 0
    memory_mb: int = 0
    driver: str = ""
    known: Mapping[str, Device] = field(default_factory=dict)
    visible: tuple[str, ...] = ()
    granted: bool = False

    def job(self, threads: int, *, bound: bool = False, names: Sequence[str] | None = None) -> Hardware:
        """What a job with these threads runs on.

        Args:
            names: the devices that it has to itself; None where it sees what this process sees, and holds none.
        """
        seen = self.devices(self.visible if names is None else names)
        return Hardware(
            host=self.host,
            cpu=self.cpu,
            cores=self.cores,
            threads=threads,
            bound=bound,
            memory_mb=self.memory_mb,
            device="+".join(sorted({each.kind for each in seen})),
            devices=len(seen),
            held=0.0 if names is None else sum(each.share for each in seen),
            device_mb=seen[0].memory_mb if seen else 0,
            driver=self.driver if seen else "",
            load=round(_load(), 2),
        )

    def devices(self, names: Sequence[str]) -> list[Device]:
        """The devices of these names; a UUID may be shortened, as CUDA takes it."""
        return [self._device(name) for name in names]

    def _device(self, name: str) -> Device:
        found = self.known.get(name) or next((d for uuid, d in self.known.items() if uuid.startswith(name)), None)
        return found or Device(UNKNOWN_DEVICE)


def machine(cores: int, environment: Mapping[str, str] = os.environ) -> Machine:
    """This machine.

    Args:
        cores: those that may be used.
    """
    visible = devices(environment)
    listed, asked = ("", "") if not visible else (_said("-L"), _said(*QUERY))
    known, driver = described(listed, asked)
    return Machine(
        host=_plain(socket.gethostname()),
        cpu=cpu_kind(),
        cores=cores,
        memory_mb=psutil.virtual_memory().total // MB,
        driver=driver,
        known=known,
        visible=visible,
        granted=VISIBLE in environment,
    )


def described(listed: str, asked: str) -> tuple[dict[str, Device], str]:
    """(devices by number and UUID, version of the driver) from what `nvidia-smi` printed for `-L` and for `QUERY`."""
    memory, driver = {}, ""
    for line in asked.splitlines():
        fields = [part.strip() for part in line.split(",")]
        if len(fields) == 3:
            memory[fields[0]] = int(fields[1]) if fields[1].isdecimal() else 0
            driver = _plain(fields[2])
    known: dict[str, Device] = {}
    card, count = "", 0
    for line in listed.splitlines():
        if found := CARD.match(line):
            card = _plain(found["kind"])
            known[str(count)] = known[found["uuid"]] = Device(card, memory.get(found["uuid"], 0))
            count += 1
        elif (part := PART.match(line)) and card:
            known[part["uuid"]] = _instance(card, part["kind"])
    return known, driver


def _instance(card: str, said: str) -> Device:
    """An instance of MIG of a card, by its profile: `MIG 3g.40gb` has three compute slices and 40 GB."""
    kind = _plain(f"{card} {said}")
    found = _PROFILE.search(said)
    if found is None:
        return Device(kind)
    every = next((slices for name, slices in SLICES_OF.items() if name in card), SLICES)
    own = int(found["compute"] or found["slices"])
    return Device(kind, int(found["gigabytes"]) * 1024, min(1.0, own / every))


def cpu_kind() -> str:
    """The kind of processor in its maker's words; its architecture where nobody says more."""
    facts: dict[str, str] = {}
    with suppress(OSError):
        for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
    if facts.get("model name"):
        return _plain(facts["model name"])
    if "CPU part" in facts:  # Of Arm there are numbers only.
        maker = facts.get("CPU implementer", "")
        return _plain(f"{platform.machine()} {maker}/{facts['CPU part']}")
    if platform.system() == "Darwin" and (said := _of_program("sysctl", "-n", "machdep.cpu.brand_string")):
        return _plain(said)
    return _plain(platform.processor() or platform.machine())


def _said(*arguments: str) -> str:
    return _of_program("nvidia-smi", *arguments)


def _of_program(name: str, *arguments: str) -> str:
    """What a program of the system printed; "" where it is missing or fails."""
    program = shutil.which(name)
    if program is None:
        return ""
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=LIST_S, check=True, errors="replace"
        ).stdout
    return ""


def _load() -> float:
    with suppress(OSError):
        return os.getloadavg()[0]
    return 0.0


def _plain(text: str) -> str:
    """On one line, printable and short: it is printed on terminals and in reports."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())[:MOST_LETTERS]
