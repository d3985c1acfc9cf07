"""A run on a real Ray cluster on loopback: the same champion as on this machine, also where a node is lost on the way.

Ray comes from the extra `ray`, or from the interpreter that POSTGRAD_RAY names.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from postgrad.engines.base import Engine
from postgrad.engines.ray import RayEngine
from postgrad.records import EngineSpec
from postgrad.testing.engine import EngineContract, until
from ray_place import RayNodes, python_with_ray, ray_nodes
from test_end_to_end import write_task
from test_engine_remote import work_of

PYTHON = python_with_ray()
LIMITS = "workers: 2, threads: 1, memory_mb: 1500"
PATIENCE_S = 600.0

pytestmark = pytest.mark.skipif(
    PYTHON is None, reason="Ray is not installed beside this Python: pip install 'postgrad[ray]', or set POSTGRAD_RAY"
)


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    assert PYTHON is not None
    with ray_nodes(PYTHON, workers=2, cores=2) as found:
        yield found


def begin(folder: Path, engine: str) -> subprocess.Popen[str]:
    """A run of the tiny task in a process of its own."""
    folder.mkdir()
    write_task(folder, "2 experiments")
    task = folder / "task.yaml"
    head, _, _ = task.read_text().partition("engine:")
    task.write_text(f"{head}engine: {{{engine}, {LIMITS}}}\n")
    words = [sys.executable, "-m", "postgrad", "run", "task.yaml", "--json"]
    return subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(running: subprocess.Popen[str]) -> dict[str, Any]:
    """What it said at its end."""
    out, errors = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 0, out + errors
    found: dict[str, Any] = json.loads(out)
    return found


def first_lease(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The first attempt that a node takes, as soon as its job has begun."""
    patience = time.monotonic() + PATIENCE_S
    while time.monotonic() < patience:
        for lease in folder.glob("runs/*/scratch/*/remote/*/lease.json"):
            if list(lease.parent.glob("work/*/log.txt")):
                found: dict[str, Any] = json.loads(lease.read_text())
                return lease.parent, found
        time.sleep(0.05)
    raise AssertionError("no node took a job")


def test_a_run_that_loses_a_node_ends_as_it_does_on_this_machine(tmp_path: Path, nodes: RayNodes) -> None:
    local = ended(begin(tmp_path / "local", "kind: local"))
    running = begin(tmp_path / "ray", f'kind: ray, address: "{nodes.address}", lease_s: 20')
    attempt, lease = first_lease(tmp_path / "ray")
    nodes.lose_node_of(lease["pid"])
    until(lambda: (attempt.with_name("2") / "lease.json").exists(), PATIENCE_S)
    assert not (attempt / "exit.json").exists(), "the first attempt came to nothing"
    found = ended(running)
    for key in ("champion", "sealed", "experiments", "failures", "looks"):
        assert found[key] == local[key], key
    assert found["spent"]["jobs"] == local["spent"]["jobs"] and found["failures"] == 0
    assert found["spent"]["wall_s"] > local["spent"]["wall_s"]
    print({name: round(each["spent"]["wall_s"], 1) for name, each in (("local", local), ("ray", found))})


@pytest.mark.slow
class TestRayEngine(EngineContract):
    @pytest.fixture(autouse=True)
    def cluster(self, nodes: RayNodes) -> None:
        self.nodes = nodes

    def make(self, program: Path) -> Engine:
        return RayEngine((sys.executable, str(program)))

    def spec(self) -> EngineSpec:
        return EngineSpec(kind="ray", address=self.nodes.address, workers=2, threads=1, memory_mb=1000)

    def inside(self, folder: Path) -> Path:
        return work_of(folder)
