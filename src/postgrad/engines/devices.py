"""The accelerators of this machine, as their driver names them. Nothing is imported: a job does that, and not here.

An instance of MIG is a device like any other; of a card that is cut into instances only these can be used. Where the
control daemon of MPS runs, several jobs may share a device, each with its share of the threads.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Mapping

VISIBLE = "CUDA_VISIBLE_DEVICES"
MPS_PIPE, MPS_SHARE = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
MPS_DEFAULT = Path("/tmp/nvidia-mps")
LIST_S = 20.0
CARD = re.compile(r"^GPU \d+: (?P<kind>.*) \(UUID: (?P<uuid>GPU-[\w-]+)\)")
PART = re.compile(r"^\s+(?P<kind>MIG \S+).*\(UUID: (?P<uuid>MIG-[\w/-]+)\)")


def devices(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Names of the devices that this process may use, as `CUDA_VISIBLE_DEVICES` takes them; () where there are none.
    What somebody else granted us, such as a scheduler, comes first."""
    if VISIBLE in environment:
        names = (name.strip() for name in environment[VISIBLE].split(","))
        found: list[str] = []
        for name in names:
            if name in ("", "-1", "NoDevFiles"):  # CUDA reads no further than the first name that is none.
                break
            found.append(name)
        return tuple(found)
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=LIST_S, check=True)
        return listed(done.stdout)
    return ()


def listed(text: str) -> tuple[str, ...]:
    """The devices in what `nvidia-smi -L` printed: instances of MIG in place of the card that they are cut from."""
    cards: dict[str, list[str]] = {}
    last = ""
    for line in text.splitlines():
        if card := CARD.match(line):
            last = card["uuid"]
            cards[last] = []
        elif (part := PART.match(line)) and last:
            cards[last].append(part["uuid"])
    return tuple(name for card, parts in cards.items() for name in parts or [card])


def mps(environment: Mapping[str, str] = os.environ) -> str | None:
    """The folder of the control daemon of MPS; None where it does not run."""
    folder = Path(environment.get(MPS_PIPE, MPS_DEFAULT))
    return str(folder) if (folder / "control").exists() else None
