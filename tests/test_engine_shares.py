"""What each job of a machine has to itself: cores, devices, memory; nothing is given twice, also between runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from postgrad.engines import local as local_module
from postgrad.engines.claims import Claims
from postgrad.engines.devices import devices, listed, mps
from postgrad.engines.local import LocalEngine, divided
from postgrad.engines.shares import Shares, fitting
from postgrad.errors import UserError
from postgrad.packing import MORE, UNSEEN_MB, Packing
from postgrad.records import EngineSpec, JobResult, Limits, Recipe, Stage, Usage
from postgrad.testing.trees import Node, tree_of

# What the driver of a server with three cards prints, the second cut into two instances.
CARDS = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5a1b2c3d-0000-1111-2222-333344445555)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-6a1b2c3d-0000-1111-2222-333344445555)
  MIG 3g.40gb     Device  0: (UUID: MIG-41111111-aaaa-5bbb-8ccc-dddddddddddd)
  MIG 3g.40gb     Device  1: (UUID: MIG-42222222-aaaa-5bbb-8ccc-dddddddddddd)
GPU 2: NVIDIA H100 80GB HBM3 (UUID: GPU-7a1b2c3d-0000-1111-2222-333344445555)
"""
TOLD = """
import json, os, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
seen = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE")}
(folder / "told.part").write_text(json.dumps({"cores": cores, **seen}))
(folder / "told.part").rename(folder / "told.json")
while not (folder / "go").exists():
    time.sleep(0.02)
"""
LIMITS = Limits(wall_s=60, memory_mb=500, threads=1)


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims of these tests are no claims on the machine."""
    monkeypatch.setattr(local_module, "claims_folder", lambda: tmp_path / "claims")


def told_by(engine: LocalEngine, tmp_path: Path, count: int) -> list[dict[str, object]]:
    """What so many jobs side by side saw."""
    folders = [tmp_path / f"job{number}" for number in range(count)]
    handles = []
    for folder in folders:
        folder.mkdir()
        handles.append(engine.start(folder, LIMITS))
    found = []
    for folder, handle in zip(folders, handles, strict=True):
        while not (folder / "told.json").exists():
            assert handle.wait(0.05) is None, (folder / "log.txt").read_text()
        found.append(json.loads((folder / "told.json").read_text()))
        (folder / "go").touch()
    for handle in handles:
        assert handle.wait(120) is not None
    return found


def engine_for(tmp_path: Path) -> LocalEngine:
    (tmp_path / "told.py").write_text(TOLD)
    return LocalEngine((sys.executable, str(tmp_path / "told.py")))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system binds no process to cores")
def test_jobs_side_by_side_have_cores_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = sorted(os.sched_getaffinity(0))
    slots = min(2, len(own))
    engine = engine_for(tmp_path)
    engine.open(EngineSpec(workers=slots, threads=1))
    found = [one["cores"] for one in told_by(engine, tmp_path, slots)]
    assert found == [[core] for core in own[:slots]]
    (tmp_path / "second").mkdir()
    other = engine_for(tmp_path / "second")
    other.open(EngineSpec(workers=len(own), threads=1))
    assert told_by(other, tmp_path / "second", 1)[0]["cores"] == own, (
        "cores of another run are not taken: bound to none"
    )
    other.close()
    engine.close()
    (tmp_path / "third").mkdir()
    third = engine_for(tmp_path / "third")
    third.open(EngineSpec(workers=1, threads=1))
    assert told_by(third, tmp_path / "third", 1)[0]["cores"] == own[:1], "what was given back is free"
    third.close()


def test_devices_are_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,GPU-c")
    engine = engine_for(tmp_path)
    engine.open(EngineSpec(workers=2, threads=1, gpus=1))
    seen = [one["CUDA_VISIBLE_DEVICES"] for one in told_by(engine, tmp_path, 2)]
    assert seen == ["GPU-a", "GPU-b"]
    second = engine_for(tmp_path)
    with pytest.raises(UserError, match="no device was found|this machine has 0"):
        second.open(EngineSpec(workers=1, threads=1, gpus=1))
    engine.close()
    second.open(EngineSpec(threads=1, gpus=2))
    assert second.slots == 1, "three devices hold one job of two"
    (tmp_path / "more").mkdir()
    assert told_by(second, tmp_path / "more", 1)[0]["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    second.close()


def test_a_device_is_shared_where_mps_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    engine = engine_for(tmp_path)
    with pytest.raises(UserError, match="nvidia-cuda-mps-control"):
        engine.open(EngineSpec(workers=2, threads=1, gpus=0.5))
    (tmp_path / "mps").mkdir()
    (tmp_path / "mps" / "control").touch()
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path / "mps"))
    assert mps() == str(tmp_path / "mps")
    engine.open(EngineSpec(workers=2, threads=1, gpus=0.5))
    found = told_by(engine, tmp_path, 2)
    assert [one["CUDA_VISIBLE_DEVICES"] for one in found] == ["0", "0"]
    assert [one["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] for one in found] == ["50", "50"]
    engine.close()


def test_what_the_driver_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    names = listed(CARDS)
    assert [name[:12] for name in names] == ["GPU-5a1b2c3d", "MIG-41111111", "MIG-42222222", "GPU-7a1b2c3d"]
    assert listed("") == () == listed("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
    assert devices({"CUDA_VISIBLE_DEVICES": "1, MIG-x,-1,3"}) == ("1", "MIG-x"), "as CUDA reads it"
    assert devices({"CUDA_VISIBLE_DEVICES": ""}) == ()
    monkeypatch.setattr("postgrad.engines.devices.shutil.which", lambda name: None)
    assert devices({}) == ()


@pytest.mark.parametrize(
    ("count", "spec", "said"),
    [
        (2, EngineSpec(gpus=1.5), "whole number"),
        (0, EngineSpec(gpus=1), "no device was found"),
        (1, EngineSpec(gpus=2), "this machine has 1"),
        (2, EngineSpec(gpus=1, workers=3), "hold 2"),
    ],
)
def test_more_than_there_is_is_refused_in_words(count: int, spec: EngineSpec, said: str) -> None:
    with pytest.raises(UserError, match=said):
        fitting([str(number) for number in range(count)], spec, "mps")


def test_how_many_jobs_the_devices_hold() -> None:
    cards = ["0", "1", "2"]
    assert fitting(cards, EngineSpec(), None) is None
    assert fitting(cards, EngineSpec(gpus=1), None) == 3 and fitting(cards, EngineSpec(gpus=2), None) == 1
    assert fitting(cards, EngineSpec(gpus=0.25), "mps") == 12
    assert divided(64, 512_000, EngineSpec(), 2) == (2, 32) and divided(64, 512_000, EngineSpec()) == (4, 16)


def test_parts_are_taken_and_given_back() -> None:
    shares = Shares((0, 1, 2, 3), ("a", "b"), 2, 2, 1)
    first, one = shares.take(2)
    second, two = shares.take(4)
    assert (one.cores, one.devices) == ((0, 1), ("a",))
    assert (two.cores, two.devices) == ((), ("b",)), "a job that runs alone has all cores"
    with pytest.raises(BlockingIOError):
        shares.take(2)
    assert first is not None and second is not None
    shares.give_back(first)
    assert shares.take(2)[1] == one
    plain = Shares((0,), (), 1, 1, 0)
    plain.take(1)
    assert plain.take(1) == (None, plain.take(1)[1]), "without devices, what is beyond the slots is bound to nothing"


CLAIMER = """
import sys, time
from pathlib import Path
from postgrad.engines.claims import Claims
held = Claims(Path(sys.argv[1]))
print(held.take(["a", "b"], 2), flush=True)
time.sleep(1000)
"""


def test_a_claim_ends_with_the_process(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIMER, str(tmp_path / "claims")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline().strip() == "('a', 'b')"
    mine = Claims(tmp_path / "claims")
    assert mine.take(["a", "b", "c"], 2) == ("c",)
    process.kill()
    process.wait()
    assert mine.take(["a", "b", "d"], 2) == ("a", "b")
    mine.close()
    process.stdout.close()


def test_claims_in_a_folder_of_somebody_else_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postgrad.engines.claims.os.getuid", lambda: -1)
    assert Claims(tmp_path / "claims").take(["a"], 1) == ()


# --- memory -----------------------------------------------------------------------------------------------------------

SMALL, LARGE = Recipe(stage=Stage(backend="classic")), Recipe(stage=Stage(backend="embedder"), base_model="m")


def test_a_job_waits_until_it_fits() -> None:
    packing = Packing()
    assert packing.fits(LARGE, [], 100, 6000), "one job always starts"
    assert not packing.fits(SMALL, [SMALL], 2 * UNSEEN_MB - 1, 6000) and packing.fits(SMALL, [SMALL], None, 6000)
    tree = tree_of((Node("e0000", recipe=SMALL),))
    packing.finished(tree["e0000"], JobResult(job="j", usage=Usage(max_rss_mb=400)))
    packing.finished(tree["e0000"], JobResult(job="k", usage=Usage(max_rss_mb=300)))
    packing.finished(None, JobResult(job="l", usage=Usage(max_rss_mb=9000)))
    assert packing.needs_mb(SMALL, 6000) == pytest.approx(MORE * 400) and packing.needs_mb(SMALL, 410) == 410
    assert packing.needs_mb(LARGE, 6000) == UNSEEN_MB
    assert packing.fits(LARGE, [SMALL, SMALL], UNSEEN_MB + 2 * MORE * 400 + 1, 6000)
    assert not packing.fits(LARGE, [SMALL, SMALL], UNSEEN_MB + 2 * MORE * 400 - 1, 6000)
