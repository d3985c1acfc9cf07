"""A Ray cluster of `ray_nodes.py` for tests, or the reason why there is none."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

import psutil

# A lost node is known after seconds.
QUICK = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",
}
NODES = Path(__file__).with_name("ray_nodes.py")
START_S, STARTS = 180.0, 3
MARK = "POSTGRAD_TEST_CLUSTER"


def python_with_ray() -> str | None:
    """POSTGRAD_RAY, an interpreter; else this one, where Ray is installed beside it."""
    if named := os.environ.get("POSTGRAD_RAY"):
        return named
    return sys.executable if shutil.which("ray", path=str(Path(sys.executable).parent)) else None


@dataclass
class RayNodes:
    """A cluster on loopback: a head that takes no jobs, and workers."""

    process: subprocess.Popen[str]
    address: str
    raylets: list[int]

    def lose_node_of(self, pid: int) -> None:
        """Kill the raylet that a job belongs to, and the job: SIGKILL, as when a node loses power."""
        job = psutil.Process(pid)
        (raylet,) = [each for each in job.parents() if each.pid in self.raylets]
        for process in (raylet, *raylet.children(recursive=True)):
            with suppress(psutil.Error):
                process.kill()


@contextmanager
def ray_nodes(python: str, workers: int, cores: int) -> Iterator[RayNodes]:
    """Start it, and end all of its processes. On a busy machine Ray's own half minute for a start may be too short."""
    for _ in range(STARTS):
        mark = uuid.uuid4().hex
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | QUICK | {MARK: mark}
        words = [python, str(NODES), str(workers), str(cores)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            told = _first_line(process)
            if told is not None:
                yield RayNodes(process, told["address"], told["raylets"])
                return
        finally:
            process.communicate()
            _end_marked(mark)
    raise AssertionError(f"Ray did not start, {STARTS} times")


def _first_line(process: subprocess.Popen[str]) -> dict[str, Any] | None:
    assert process.stdout is not None
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        if select.select([process.stdout], [], [], 1.0)[0] and (line := process.stdout.readline()).startswith("{"):
            told: dict[str, Any] = json.loads(line)
            return told
    return None


def _end_marked(mark: str) -> None:
    """Kill what a cluster left: its processes are daemons, known by what they were started with."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                process.kill()
