"""A real Slurm cluster whose jobs go through a store, which they find by the home of their user on the node."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Iterator

import pytest

from postgrad.engines.remote import engine as engine_module
from postgrad.engines.slurm import SlurmEngine
from postgrad.records import EngineSpec, Limits
from postgrad.testing.engine import until
from s3_server import KEY, SECRET, nodes_apart, serving
from slurm_nodes import Slurm, missing
from test_engine_remote import STEPS


@pytest.fixture(scope="module")
def nodes() -> Iterator[Slurm]:
    if why := missing():
        pytest.skip(f"no Slurm here: {why}")
    cluster = Slurm()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.mark.slow
def test_a_job_that_slurm_ends_goes_on_from_its_copy_in_the_store(
    tmp_path: Path, nodes: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(nodes.conf))
    monkeypatch.setattr(engine_module, "GRACE_S", 1.0)
    monkeypatch.setattr(engine_module, "ASK_S", 0.3)
    program = tmp_path / "program.py"
    program.write_text(STEPS.replace("< 20", "< 100"))
    with serving() as store:
        store.client.create_bucket(Bucket="runs")
        nodes_apart(tmp_path / "nodes", store)
        monkeypatch.setenv("HOME", str(tmp_path / "nodes" / "home"))  # Slurm's jobs get it.
        for name, value in (("ACCESS_KEY_ID", KEY), ("SECRET_ACCESS_KEY", SECRET), ("DEFAULT_REGION", "us-east-1")):
            monkeypatch.setenv(f"AWS_{name}", value)  # They do not get these.
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        engine = SlurmEngine((sys.executable, str(program)))
        told = {"workers": 1, "threads": 1, "memory_mb": 500, "lease_s": 6.0, "retries": 0}
        engine.open(EngineSpec.model_validate({"kind": "slurm", "storage": "s3://runs/slurm", **told}))
        job = tmp_path / "run" / "scratch" / "job"
        job.mkdir(parents=True)
        handle = engine.start(job, Limits(wall_s=100, memory_mb=500, threads=1))
        until(lambda: handle.wait(0.1) is not None or any(key.endswith("/tree.json") for key in store.keys("runs")))
        name = nodes.said("squeue", "--noheader", "--format=%j").strip()
        nodes.said("scancel", "--batch", "--signal=TERM", f"--name={name}")
        found = handle.wait(100)
        assert found is not None and (found.code, found.cause) == (0, None), "preempted, and not lost"
        assert json.loads((job / "state.json").read_text()) == {"starts": 2, "steps": 100}
        assert store.keys("runs") == []
        for log in Path("/tmp").glob("postgrad-job-*.log"):
            if log.stat().st_size == 0 or name.rpartition("-")[2] in log.name:
                log.unlink()
        engine.close()
