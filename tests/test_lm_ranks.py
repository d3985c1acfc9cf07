"""Several processes that train one language model together, by torchrun on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from postgrad.engines.handle import seconds_in
from postgrad.engines.local import LocalEngine
from postgrad.execute.boundary import classified
from postgrad.execute.executor import Executor
from postgrad.records import EngineSpec, Stage
from postgrad.store.artifacts import Artifacts
from postgrad.testing.backend import LABELS, WORDS, example_rows
from postgrad.testing.language import make_tiny_lm
from postgrad.train import lm_memory, lm_ranks
from postgrad.train.base import CheckFailed, FitJob, TrainingDiverged
from postgrad.train.causal_lm import CausalLM
from test_executor import inputs_of, make_spec

SLOW = pytest.mark.slow
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

FULL: dict[str, Any] = {"tune": "full", "lr": 3e-3, "epochs": 4, "batch_size": 4, "precision": "fp32"}
LORA: dict[str, Any] = {**FULL, "tune": "lora", "lr": 5e-3, "lora_alpha": 64}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    phrases = [phrase for phrases in WORDS.values() for phrase in phrases]
    return make_tiny_lm(tmp_path_factory.mktemp("tiny"), [*phrases, *LABELS * 3])


def job(tiny: Path, folder: Path, params: dict[str, Any], rows: int | None = None, **more: Any) -> FitJob:
    given: dict[str, Any] = {"labels": LABELS, "out_of_scope": None, "threads": 2, **more}
    checked = CausalLM.Params.model_validate(params)
    return FitJob(
        rows=example_rows()[:rows], params=checked, base_model=tiny, seed=3, checkpoint=folder / "checkpoint", **given
    )


def weights(found: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {name: weight.detach().float().numpy() for name, weight in found.model.named_parameters()}


def farthest(one: Any, two: Any) -> float:
    mine, theirs = weights(one), weights(two)
    assert mine.keys() == theirs.keys()
    return max(float(np.abs(mine[name] - theirs[name]).max()) for name in mine)


@pytest.mark.parametrize(
    ("params", "rows"),
    [({**FULL, "epochs": 1}, 9), pytest.param(FULL, 32, marks=SLOW), pytest.param(LORA, 32, marks=SLOW)],
    ids=["one row in the last batch", "full", "lora"],
)
def test_two_processes_end_where_one_does(tiny: Path, tmp_path: Path, params: dict[str, Any], rows: int) -> None:
    losses: dict[int, list[float]] = {1: [], 2: []}
    found = {
        ranks: CausalLM().fit(
            job(
                tiny,
                tmp_path / str(ranks),
                {**params, "ranks": ranks},
                rows,
                report=lambda step, loss, ranks=ranks: losses[ranks].append(loss),
            )
        )
        for ranks in (1, 2)
    }
    before = CausalLM().fit(job(tiny, tmp_path / "none", {"tune": "none", "precision": "fp32"}))
    moved, apart = farthest(found[1], before), farthest(found[1], found[2])
    assert moved > 0.005 and apart < 0.02 * moved, "rounding, and the last digits that Adam makes of it"
    assert len(losses[1]) == len(losses[2]) and losses[2] == pytest.approx(losses[1], rel=0.02)
    assert not list((tmp_path / "2" / "checkpoint").glob("ranks-*")), "what the processes needed is gone"


def test_processes_on_a_cpu_share_the_memory_of_their_job(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = lm_memory.memory_mb("cpu")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert lm_memory.memory_mb("cpu") == pytest.approx(alone / 2)


BUSY = """
import sys, time
from postgrad.train.lm_rank import counted
with counted(0.2):
    end = time.process_time() + 1.0
    while time.process_time() < end: sum(range(10**4))
    if sys.argv[1] == "go on": time.sleep(60)
"""


@pytest.mark.parametrize("ends", ["by itself", "killed"])
def test_each_process_leaves_what_it_used_where_it_is_asked_for(tmp_path: Path, ends: str) -> None:
    told = os.environ | {"POSTGRAD_CPU": str(tmp_path), "LOCAL_RANK": "1"}
    with subprocess.Popen([sys.executable, "-c", BUSY, "go on" if ends == "killed" else ""], env=told) as process:
        patience = time.monotonic() + 60
        while ends == "killed" and time.monotonic() < patience:
            if any(float(place.read_text()) > 1.0 for place in tmp_path.glob("[!.]*")):
                process.kill()
                break
            time.sleep(0.1)
    assert process.returncode == (-signal.SIGKILL if ends == "killed" else 0)
    (said,) = [float(place.read_text()) for place in tmp_path.glob("[!.]*")]
    assert 1.0 < said < 30.0 and said == pytest.approx(seconds_in(tmp_path), abs=0.001)


def test_they_meet_inside_the_sandbox_of_a_job(tiny: Path, tmp_path: Path) -> None:
    """Without a network: over the loopback of the job alone."""
    engine = LocalEngine()
    engine.open(EngineSpec(workers=1, threads=2))
    executor = Executor(engine, Artifacts(tmp_path / "artifacts"), tmp_path / "scratch")
    stage = Stage(backend="causal_lm", params={**FULL, "epochs": 1, "ranks": 2})
    limits = {"wall_s": 240.0, "threads": 2, "memory_mb": 6000}
    job = executor.start(spec := make_spec(stage, base_model=tiny, limits=limits), inputs_of(spec))
    result = job.poll(240.0)
    engine.close()
    assert result is not None and result.failure is None and len(result.units[0].history) > 1, result


@pytest.mark.slow
def test_a_divergence_is_one_of_the_job(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged):
        CausalLM().fit(job(tiny, tmp_path, {**FULL, "lr": 1e30, "ranks": 2}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ranks": 4}, "needs as many threads, and this job has 2. Set ranks lower, or engine.threads higher"),
        ({"ranks": 2, "batch_size": 3}, "does not divide a batch of 3 rows"),
        ({"ranks": 2, "shard": True}, "this job has none"),
    ],
)
def test_what_cannot_be_had_is_refused(tiny: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckFailed, match=said) as refused:
        CausalLM().fit(job(tiny, tmp_path, {**FULL, **changes}))
    failure = classified("train", refused.value)
    assert (failure.boundary, failure.kind) == ("train", "ranks")


def test_of_several_failures_the_cause_is_raised_and_not_a_lost_connection(tmp_path: Path) -> None:
    (tmp_path / "failed-0").write_text(json.dumps(["RuntimeError", "", "Connection closed by peer"]))
    with pytest.raises(RuntimeError, match="closed by peer"):
        lm_ranks._raise(tmp_path, 1, ())
    (tmp_path / "failed-1").write_text(json.dumps(["MemoryError", "", "out of memory"]))
    with pytest.raises(MemoryError):
        lm_ranks._raise(tmp_path, 1, ())


def test_the_cause_is_what_failed_first_and_a_kill_is_told(tmp_path: Path) -> None:
    """A process that was killed says nothing, and all the others say that they lost it."""
    for name, kind, said in ((1, "OSError", "No space left"), (0, "RuntimeError", "Connection reset by peer")):
        (tmp_path / f"failed-{name}").write_text(json.dumps([kind, "", said]))
        os.utime(tmp_path / f"failed-{name}", ns=(10**9 - name, 10**9 - name))
    with pytest.raises(RuntimeError, match="OSError: No space left"):
        lm_ranks._raise(tmp_path, 1, ["  exitcode  : 1 (pid: 2)\n"])
    with pytest.raises(RuntimeError, match=r"was ended: Signal 9 \(SIGKILL\)$"):
        lm_ranks._raise(tmp_path, 1, ["  traceback : Signal 9 (SIGKILL) received by PID 7\n", "=====\n"])


def test_what_is_told_arrives_in_the_middle_of_what_others_write(tiny: Path, tmp_path: Path) -> None:
    """All processes write to one pipe, and each line in pieces."""
    told: list[tuple[Any, ...]] = []
    heard = job(
        tiny, tmp_path, FULL, report=lambda *found: told.append(found), measure=lambda *found: told.append(found)
    )
    for line in (
        "@postgrad [1, 2.5]\n",
        "a warning@postgrad [2, 1.5]\n",
        '@postgrad ["mb", 1.0]a warning\n',
        "@postgrad [3",
    ):
        lm_ranks._heard(heard, line)
    assert told == [(1, 2.5), (2, 1.5), ("mb", 1.0)]
    assert lm_ranks._heard(heard, "a warning@postgrad [4, 0.5] and more\n") == "a warning and more\n"


STARTED = """
import subprocess, sys
subprocess.run(sys.argv[1:])
"""
WAITING = """
import ctypes, os, time
ctypes.CDLL(None).prctl(1, 9)
open("began.part", "w").write(str(os.getppid()))
os.replace("began.part", "began")
time.sleep(120)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_torchrun_is_open_to_nobody_and_ends_with_its_job(tiny: Path, tmp_path: Path) -> None:
    """It unpickles its state: whoever could write that by a port would run code here."""
    from torch._C._distributed_c10d import TCPStore

    (tmp_path / "waits.py").write_text(WAITING)
    command = [*lm_ranks._command(job(tiny, tmp_path, FULL), 1, "name"), "waits.py"]
    with subprocess.Popen([sys.executable, "-c", STARTED, *command], cwd=tmp_path) as parent:
        deadline = time.monotonic() + 120
        while not (began := tmp_path / "began").exists():
            assert parent.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        torchrun = psutil.Process(int(began.read_text()))
        ports = [each.laddr.port for each in torchrun.net_connections("inet") if each.status == psutil.CONN_LISTEN]
        stores = [TCPStore("127.0.0.1", port, timeout=timedelta(seconds=60)) for port in ports]
        assert not [port for port, store in zip(ports, stores, strict=True) if store.check(["torch.rendezvous.none"])]
        parent.kill()
    gone, _ = psutil.wait_procs([torchrun], timeout=60)
    assert gone


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
import test_lm_ranks as t
from postgrad.train import lm_watch
from postgrad.train.causal_lm import CausalLM

def report(step, loss):
    print("step", step, flush=True)

CausalLM().fit(t.job(Path({tiny!r}), Path({folder!r}), {params!r}, report=report))
"""


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_and_ends_in_the_same_weights(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job and all its processes are gone at once, as when a node is lost; checkpoints are written each second."""
    params = {**FULL, "epochs": 24, "ranks": 2}
    text = KILLED.format(paths=sys.path, tiny=str(tiny), folder=str(tmp_path / "killed"), params=params)
    first = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, start_new_session=True)
    folder = tmp_path / "killed" / "checkpoint"
    deadline = time.monotonic() + 120
    while not list(folder.glob("ranks-*/checkpoint-*/whole.json")):
        assert first.poll() is None and time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    steps: list[int] = []
    again = job(tiny, tmp_path / "killed", params, report=lambda step, loss: steps.append(step))
    resumed = CausalLM().fit(again)
    assert steps[0] > 1, "it went on from a checkpoint"
    whole = CausalLM().fit(replace(again, checkpoint=tmp_path / "whole"))
    assert farthest(resumed, whole) == 0
