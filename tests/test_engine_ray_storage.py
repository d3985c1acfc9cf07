"""A real Ray cluster on loopback whose jobs go through a store: a node is lost, and the job goes on from its copy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Iterator

import pytest

from postgrad.engines.ray import RayEngine
from postgrad.records import EngineSpec, Limits
from postgrad.testing.engine import until
from ray_place import RayNodes, python_with_ray, ray_nodes
from s3_server import KEY, SECRET, Store, serving
from test_engine_remote import STEPS

PYTHON = python_with_ray()
PATIENCE_S = 300.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        PYTHON is None,
        reason="Ray is not installed beside this Python: pip install 'postgrad[ray]', or set POSTGRAD_RAY",
    ),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The server, and variables by which the cluster that is started next finds it."""
    with serving() as found, pytest.MonkeyPatch.context() as patch:
        for name, value in (("ACCESS_KEY_ID", KEY), ("SECRET_ACCESS_KEY", SECRET), ("DEFAULT_REGION", "us-east-1")):
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("AWS_ENDPOINT_URL", found.url)
        patch.setenv("POSTGRAD_SCRATCH", str(tmp_path_factory.mktemp("scratch")))
        found.client.create_bucket(Bucket="runs")
        yield found


@pytest.fixture(scope="module")
def nodes(store: Store) -> Iterator[RayNodes]:
    assert PYTHON is not None
    with ray_nodes(PYTHON, workers=2, cores=2) as found:
        yield found


def kept(store: Store) -> list[str]:
    """Steps of the copies that are in the store."""
    return [key for key in store.keys("runs") if key.endswith("/tree.json")]


def test_a_lost_ray_node_costs_no_more_than_what_was_not_yet_copied(
    tmp_path: Path, store: Store, nodes: RayNodes
) -> None:
    program = tmp_path / "program.py"
    program.write_text(STEPS.replace("< 20", "< 200"))
    engine = RayEngine((sys.executable, str(program)))
    told = {"address": nodes.address, "workers": 1, "threads": 1, "memory_mb": 500, "lease_s": 6.0}
    engine.open(EngineSpec.model_validate({"kind": "ray", "storage": "s3://runs/ray", **told}))
    job = tmp_path / "run" / "scratch" / "job"
    job.mkdir(parents=True)
    handle = engine.start(job, Limits(wall_s=200, memory_mb=500, threads=1))
    until(lambda: handle.wait(0.1) is not None or bool(kept(store)), PATIENCE_S)
    lease = next(key for key in store.keys("runs") if key.endswith("/1/lease.json"))
    nodes.lose_node_of(json.loads(store.read("runs", lease))["pid"])
    found = handle.wait(PATIENCE_S)
    assert found is not None and found.code == 0, (found, (job / "log.txt").read_text())
    assert json.loads((job / "state.json").read_text()) == {"starts": 2, "steps": 200}
    assert store.keys("runs") == []
    engine.close()
