"""What a job runs on: found out, recorded with it, priced by the person's table, and compared where that is sound."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from postgrad.engines import local as local_module
from postgrad.engines.hardware import Machine, cpu_kind, described, machine
from postgrad.engines.local import LocalEngine
from postgrad.engines.prices import Meter, device_price, priced, rate, unpriced
from postgrad.engines.remote.engine import RemoteEngine
from postgrad.evaluate.hardware import kinds, time_bound, unlike
from postgrad.execute.collect import bad_end
from postgrad.records import Allowed, EngineSpec, Hardware, Limits, ScriptSpec, Usage
from postgrad.records.job import sum_of
from postgrad.testing.engine import until
from postgrad.testing.events import a_task
from postgrad.testing.nodes import Processes

# What the driver of a server prints: a whole card, and one that is cut into instances.
CARDS = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5a1b2c3d-0000-1111-2222-333344445555)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-6a1b2c3d-0000-1111-2222-333344445555)
  MIG 3g.40gb     Device  0: (UUID: MIG-41111111-aaaa-5bbb-8ccc-dddddddddddd)
  MIG 1c.2g.20gb  Device  1: (UUID: MIG-42222222-aaaa-5bbb-8ccc-dddddddddddd)
GPU 2: NVIDIA A30 (UUID: GPU-7a1b2c3d-0000-1111-2222-333344445555)
  MIG 1g.6gb      Device  0: (UUID: MIG-43333333-aaaa-5bbb-8ccc-dddddddddddd)
"""
MEMORY = """\
GPU-5a1b2c3d-0000-1111-2222-333344445555, 81559, 550.54.15
GPU-6a1b2c3d-0000-1111-2222-333344445555, 81559, 550.54.15
GPU-7a1b2c3d-0000-1111-2222-333344445555, 24576, 550.54.15
"""
H100 = "NVIDIA H100 80GB HBM3"
PRICES = {"cpu_core_hour": 0.04, "NVIDIA H100": 2.5, "NVIDIA H100 80GB": 3.0, "default_gpu": 1.2}
WORK = "import sys, time; end = time.monotonic() + float(1.0)\nwhile time.monotonic() < end: sum(range(10**5))"
LIMITS = Limits(wall_s=60, memory_mb=1000, threads=1)


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims of these tests are no claims on the machine."""
    monkeypatch.setattr(local_module, "claims_folder", lambda: tmp_path / "claims")


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that answers as NVIDIA's does on a server with three cards."""
    place = tmp_path / "bin"
    place.mkdir()
    (place / "cards").write_text(CARDS)
    (place / "memory").write_text(MEMORY)
    program = place / "nvidia-smi"
    program.write_text(f'#!/bin/sh\nif [ "$1" = -L ]; then cat {place}/cards; else cat {place}/memory; fi\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


# --- what there is ----------------------------------------------------------------------------------------------------


def test_devices_are_told_with_their_memory_and_instances_with_their_share() -> None:
    known, driver = described(CARDS, MEMORY)
    assert driver == "550.54.15"
    whole = known["0"]
    assert whole == known["GPU-5a1b2c3d-0000-1111-2222-333344445555"] and whole.kind == H100
    assert (whole.memory_mb, whole.share) == (81559, 1.0)
    three = known["MIG-41111111-aaaa-5bbb-8ccc-dddddddddddd"]
    assert three.kind == f"{H100} MIG 3g.40gb" and three.share == pytest.approx(3 / 7) and three.memory_mb == 40960
    assert known["MIG-42222222-aaaa-5bbb-8ccc-dddddddddddd"].share == pytest.approx(1 / 7), "one of its two slices"
    assert known["MIG-43333333-aaaa-5bbb-8ccc-dddddddddddd"].share == 0.25, "an A30 has four slices"
    assert described("what no driver prints\n", "not, three\n") == ({}, "")


def test_a_machine_without_a_driver_is_its_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = machine(2).job(1)
    assert found.cpu == cpu_kind() != "" and found.cores == 2 and found.memory_mb > 100 and found.host
    assert (found.device, found.devices, found.held, found.driver) == ("", 0, 0.0, "")
    assert found.kind == f"{found.cpu}, 1 thread"


@pytest.mark.usefixtures("driver")
def test_a_job_sees_what_this_process_sees_and_holds_what_it_has_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    there = machine(8)
    seen = there.job(2)
    assert seen.devices == 4 and seen.held == 0.0 and seen.driver == "550.54.15"
    assert there.job(2, names=("GPU-5a1b2c3d-0000-1111-2222-333344445555",)).held == 1.0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    granted = machine(8)
    assert granted.granted and granted.job(2).kind == f"{granted.cpu}, 2 threads, 1 x {H100}"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-7a1b")
    assert machine(8).job(1).device == "NVIDIA A30", "a UUID may be shortened"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "9")
    assert machine(8).job(1).device == "a device of unknown kind"


# --- what it costs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "dollars"),
    [
        (H100, 3.0),
        ("NVIDIA H100 PCIe", 2.5),
        (f"{H100} MIG 3g.40gb", 3.0),
        ("NVIDIA A30", 1.2),
        (f"NVIDIA A30+{H100}", 3.0),
        ("", 1.2),
    ],
)
def test_the_longest_name_that_fits_is_the_price(kind: str, dollars: float) -> None:
    assert device_price(kind, PRICES) == dollars


def test_what_has_no_price_is_in_no_sum_and_is_counted() -> None:
    where = (Hardware(device="NVIDIA A30", devices=1, held=1.0),)
    used = Usage(wall_s=3600.0, cpu_s=7200.0, gpu_s=3600.0, hardware=where)
    assert priced(used, PRICES).usd == pytest.approx(2 * 0.04 + 1.2) and priced(used, PRICES).unpriced_gpu_s == 0.0
    without = priced(used, {"cpu_core_hour": 0.04, "H100": 2.5})
    assert without.usd == pytest.approx(0.08) and without.unpriced_gpu_s == 3600.0
    assert priced(used, {}).unpriced_gpu_s == 0.0, "who prices nothing is told of nothing"


def test_a_meter_counts_held_devices_of_all_nodes() -> None:
    half = Hardware(device=H100, devices=1, held=0.5, threads=4)
    assert Meter(half, PRICES).used(100.0, 10.0, 5.0).gpu_s == 50.0
    instance = Hardware(device=f"{H100} MIG 3g.40gb", devices=1, held=3 / 7)
    two = Meter(instance).holding(2.0, 3, granted=True)
    assert two.used(7.0, 0.0, 0.0).gpu_s == pytest.approx(18.0), "two instances of 3/7 on each of three nodes"
    said_nothing = Meter(instance).holding(0.0, 1, granted=False)
    assert said_nothing.used(7.0, 0.0, 0.0).gpu_s == 0.0
    assert rate(half, PRICES) == pytest.approx((4 * 0.04 + 0.5 * 3.0) / 3600)


@pytest.mark.parametrize(
    ("spec", "kinds", "said"),
    [
        (EngineSpec(prices={"cpu_core_hour": 0.04}), (), []),
        (EngineSpec(), (), ["an hour of a core (cpu_core_hour)"]),
        (EngineSpec(gpus=1, prices={"default_gpu": 1.2}), ("NVIDIA A30",), []),
        (EngineSpec(gpus=1, prices={"H100": 2.5}), ("NVIDIA A30", H100), ["an hour of 'NVIDIA A30'"]),
        (EngineSpec(gpus=1, prices={"H100": 2.5}), (), []),
        (EngineSpec(kind="slurm", gpus=1, prices={"H100": 2.5}), (), ["an hour of whatever devices its jobs get"]),
    ],
)
def test_what_has_no_price_is_named(spec: EngineSpec, kinds: tuple[str, ...], said: list[str]) -> None:
    found = list(unpriced(spec, kinds))
    assert len(found) == len(said) and all(one.startswith(two) for one, two in zip(found, said, strict=True))


# --- recorded with a job ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("driver")
def test_a_local_job_is_charged_for_the_device_that_it_holds(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(WORK)
    engine = LocalEngine((sys.executable, str(program)))
    engine.open(EngineSpec(workers=1, threads=1, gpus=1, prices=PRICES))
    folder = tmp_path / "job"
    folder.mkdir()
    found = engine.start(folder, LIMITS).wait(60)
    assert found is not None and found.code == 0
    used, where = found.usage, found.usage.hardware[0]
    assert where.device == H100 and where.held == 1.0 and where.driver == "550.54.15" and where.device_mb == 81559
    assert where.kind == engine.usual.kind
    assert used.gpu_s == used.wall_s > 1.0
    assert used.usd == pytest.approx((0.04 * used.cpu_s + 3.0 * used.gpu_s) / 3600)
    engine.close()


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("amount", ["wall_s", "cpu_s", "gpu_s", "usd"])
def test_a_job_over_what_its_budget_leaves_is_ended_and_told(tmp_path: Path, amount: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(WORK.replace("1.0", "60.0"))
    engine = LocalEngine((sys.executable, str(program)))
    engine.open(EngineSpec(workers=1, threads=1, gpus=1, prices={"H100": 3600.0}))
    folder = tmp_path / "job"
    folder.mkdir()
    limits = LIMITS.model_copy(update={"allowed": Allowed.model_validate({amount: 1.0})})
    found = engine.start(folder, limits).wait(60)
    assert found is not None and found.cause == "budget"
    assert 1.0 < getattr(found.usage, amount) < 50.0, "it would have gone on for a minute"
    failure = bad_end(found, limits)
    assert failure is not None and (failure.boundary, failure.kind) == ("resource", "budget")
    key = {"wall_s": "wall", "cpu_s": "cpu_hours", "gpu_s": "gpu_hours", "usd": "usd"}[amount]
    assert f"Raise experiment.{key} in the task file" in failure.message
    of_run = limits.model_copy(update={"allowed": Allowed.model_validate({amount: 1.0, "of_run": (amount,)})})
    again = bad_end(found, of_run)
    assert again is not None and f"budget.{key}" in again.message
    engine.close()


@pytest.mark.usefixtures("driver")
def test_all_attempts_on_a_cluster_are_charged_with_the_devices_that_they_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postgrad.engines.remote.engine.GRACE_S", 1.0)
    monkeypatch.setattr("postgrad.engines.remote.engine.ASK_S", 0.2)
    (tmp_path / "bin" / "cards").write_text(CARDS.splitlines()[0] + "\n")
    program = tmp_path / "program.py"
    # The first attempt goes on until it is lost; the second one finds what it left.
    last = "import sys, pathlib\nbegun = pathlib.Path(sys.argv[1]) / 'begun'\nlast = begun.exists()\nbegun.touch()\n"
    program.write_text(last + WORK.replace("float(1.0)", "(3.0 if last else 1000.0)"))
    cluster = Processes(tmp_path / "cluster")
    engine = RemoteEngine(cluster, (sys.executable, str(program)))
    engine.open(EngineSpec(workers=1, threads=1, gpus=0.5, nodes=2, lease_s=8.0, prices={"default_gpu": 3600.0}))
    folder = tmp_path / "job"
    folder.mkdir()
    handle = engine.start(folder, LIMITS.model_copy(update={"allowed": Allowed(gpu_s=600.0)}))
    first = folder / "remote" / "1" / "beat.json"
    until(lambda: handle.wait(0.1) is not None or (first.exists() and '"gpu_s":0.0' not in first.read_text()))
    cluster.lose(cluster.submitted[0])
    found = handle.wait(60)
    assert found is not None and (found.code, found.cause) == (0, None) and len(cluster.submitted) == 2
    used = found.usage
    assert used.wall_s > 3.0, "the attempt that was lost counts as far as it said that it lived"
    assert used.gpu_s == pytest.approx(used.wall_s), "half a device on each of two nodes"
    assert used.usd == pytest.approx(used.gpu_s)
    # Whether it was bound differs where somebody else claimed the cores of this machine meanwhile.
    assert len({each.alike.model_copy(update={"bound": True}) for each in used.hardware}) == 1, "the same node"
    assert used.hardware[0].nodes == 2 and used.hardware[0].held == 0.5
    told = (folder / "remote" / "2" / "told.json").read_text()
    assert '"gpu_s":5' in told, "what the first attempt used is not there for the second"
    engine.close()


# A part of the job on another node, which is nobody's child here, says what it has used.
ELSEWHERE = """
import os, pathlib, sys, time
place, folder = pathlib.Path(os.environ["POSTGRAD_CPU"]), pathlib.Path(sys.argv[1])
(place / "there-1").write_text("700.5"); (place / "there-2").write_text("300")
(place / "none").write_text("a word"); (place / "back").write_text("-50")
(place / "endless").write_text("inf"); (place / ".half.part").write_text("9")
while not (folder / "go").exists():
    time.sleep(0.1)
"""


def test_cpu_time_of_other_nodes_is_charged_once_for_each_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postgrad.engines.remote.engine.GRACE_S", 1.0)
    monkeypatch.setattr("postgrad.engines.remote.engine.ASK_S", 0.2)
    program = tmp_path / "program.py"
    program.write_text(ELSEWHERE)
    cluster = Processes(tmp_path / "cluster")
    engine = RemoteEngine(cluster, (sys.executable, str(program)))
    engine.open(EngineSpec(workers=1, threads=1, nodes=2, lease_s=8.0, prices={"cpu_core_hour": 3.6}))
    folder = tmp_path / "job"
    folder.mkdir()
    handle = engine.start(folder, LIMITS)
    first = folder / "remote" / "1" / "beat.json"
    until(lambda: handle.wait(0.1) is not None or (first.exists() and '"cpu_s":100' in first.read_text()))
    cluster.lose(cluster.submitted[0])
    until(lambda: handle.wait(0.1) is not None or len(cluster.submitted) == 2)
    (folder / "remote" / "2" / "work" / "job" / "go").touch()
    found = handle.wait(60)
    engine.close()
    assert found is not None and (found.code, found.cause) == (0, None)
    assert 2001.0 < found.usage.cpu_s < 2021.0, "what the lost attempt had said, and what the other one said"
    assert found.usage.usd == pytest.approx(found.usage.cpu_s * 3.6 / 3600)


# It waits for the others, or is done with a part of itself that had computed for long.
QUIET = {
    "others compute": """
for second in range(1, 25):
    (folder / "elsewhere" / "there-1").write_text(str(second))
    time.sleep(0.25)
""",
    "nobody computes": "(folder / 'elsewhere' / 'there-1').write_text('9'); time.sleep(30)",
    "a process ended": """
import subprocess
busy = "import time; [sum(range(10**5)) for _ in iter(lambda: time.process_time() < 3, False)]"
subprocess.run([sys.executable, "-c", busy], check=True)
while time.process_time() < 3: sum(range(10**5))
""",
}


@pytest.mark.parametrize("told", QUIET)
def test_a_job_hangs_where_nothing_of_it_computes_on_any_node(tmp_path: Path, told: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"import pathlib, sys, time\nfolder = pathlib.Path(sys.argv[1])\n{QUIET[told]}")
    (tmp_path / "job" / "elsewhere").mkdir(parents=True)
    engine = LocalEngine((sys.executable, str(program)), (0.0, 2))
    engine.open(EngineSpec(workers=1, threads=1, sandbox="none"))
    found = engine.start(tmp_path / "job", LIMITS.model_copy(update={"hung_s": 3.0})).wait(60)
    engine.close()
    assert found is not None and found.cause == ("hung" if told == "nobody computes" else None)
    assert found.cause is not None or found.code == 0


# --- the rule ---------------------------------------------------------------------------------------------------------

OLD = Hardware(host="a", cpu="old", threads=2, load=0.3)
SCRIPT = ScriptSpec(source="x", editable=("train.py",), run=("python", "train.py"), metric="loss")


def used_on(*hardware: Hardware) -> tuple[Hardware, ...]:
    return sum_of(Usage(wall_s=1.0, hardware=(each,)) for each in hardware).hardware


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (OLD.model_copy(update={"host": "b", "load": 9.0, "driver": "1", "memory_mb": 5, "bound": True}), True),
        (OLD.model_copy(update={"cpu": "new"}), False),
        (OLD.model_copy(update={"threads": 4}), False),
        (OLD.model_copy(update={"device": H100, "devices": 1, "held": 1.0}), False),
        (OLD.model_copy(update={"nodes": 2}), False),
    ],
)
def test_what_stops_by_the_clock_is_compared_on_one_kind_only(other: Hardware, same: bool) -> None:
    task = a_task().model_copy(update={"kind": "script", "script": SCRIPT})
    found = unlike(task, used_on(other), used_on(OLD), "e0000")
    assert (found is None) == same
    if found is not None:
        assert (found.boundary, found.kind) == ("evaluate", "other_hardware")
        assert OLD.kind in found.message and other.kind in found.message and "e0000" in found.message
    mixed = unlike(task, used_on(OLD, other), used_on(OLD), "e0000")
    assert (mixed is None) == same, "a training that went through both kinds is of neither"
    steps = SCRIPT.model_copy(update={"fixed": "steps"})
    assert unlike(task.model_copy(update={"script": steps}), used_on(other), used_on(OLD), "e0000") is None
    assert unlike(a_task(), used_on(other), used_on(OLD), "e0000") is None, "other trainings have fixed steps"


def test_what_was_not_recorded_forbids_nothing() -> None:
    task = a_task().model_copy(update={"kind": "script", "script": SCRIPT})
    assert time_bound(task) and not time_bound(a_task())
    assert unlike(task, (), used_on(OLD), "e0000") is None and kinds(()) == frozenset()
    assert kinds(used_on(OLD, OLD.model_copy(update={"load": 5.0}))) == {"old, 2 threads"}
    assert Machine().job(1).kind == "a processor of unknown kind, 1 thread"
