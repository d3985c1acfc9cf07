"""The local engine keeps the contract, divides the machine, and its jobs die with their controller."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread

import psutil
import pytest

from postgrad.engines import ENGINES, stacks
from postgrad.engines.base import Engine
from postgrad.engines.local import LocalEngine, divided, environment
from postgrad.engines.stacks import py_spy
from postgrad.errors import UserError
from postgrad.records import EngineSpec, Limits
from postgrad.testing.engine import EngineContract, until


class TestLocalEngine(EngineContract):
    def make(self, program: Path) -> Engine:
        return LocalEngine(command=(sys.executable, str(program)))

    def test_a_missing_program_is_an_os_error(self, tmp_path: Path) -> None:
        engine = LocalEngine(command=(str(tmp_path / "no-such-program"),))
        engine.open(EngineSpec())
        own = psutil.Process()
        before = own.num_fds(), len(own.children())
        with pytest.raises(FileNotFoundError):
            engine.start(tmp_path, Limits(wall_s=5, memory_mb=500, threads=1))
        assert (own.num_fds(), len(own.children())) == before

    @pytest.mark.skipif(py_spy() is None, reason="py-spy is not installed")
    def test_a_hung_job_says_where_it_stands(self, tmp_path: Path) -> None:
        program = """
            def waiting_for_nobody():
                time.sleep(1000)

            waiting_for_nobody()
        """
        engine = self.opened(tmp_path, program)
        assert self.ended(self.started(engine, tmp_path, hung_s=4.0)).cause == "hung"
        engine.close()
        assert "waiting_for_nobody (program.py" in (tmp_path / "job" / "log.txt").read_text()

    def test_kernel_limits(self, tmp_path: Path) -> None:
        program = """
            import resource
            while resource.getrlimit(resource.RLIMIT_DATA)[0] < 0:
                time.sleep(0.01)
            names = ("RLIMIT_CORE", "RLIMIT_DATA", "RLIMIT_NOFILE")
            write("limits", " ".join(str(resource.getrlimit(getattr(resource, name))[0]) for name in names))
        """
        engine = self.opened(tmp_path, program)
        assert self.ended(self.started(engine, tmp_path, memory_mb=500)).code == 0
        core, data, files = map(int, (tmp_path / "job" / "limits").read_text().split())
        hard_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        assert (core, data) == (0, 2024 << 20)
        assert files == (4096 if hard_files == resource.RLIM_INFINITY else min(4096, hard_files))


def test_a_pipe_in_place_of_a_log_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "stacks_of", lambda processes: "Thread 1")
    os.mkfifo(tmp_path / "log.txt")
    noting = Thread(target=stacks.note_stacks, args=([], tmp_path / "log.txt"), daemon=True)
    noting.start()
    noting.join(60)
    assert not noting.is_alive(), "it waits for a reader"
    (tmp_path / "own.txt").write_text("")
    stacks.note_stacks([], tmp_path / "own.txt")
    assert "Thread 1" in (tmp_path / "own.txt").read_text()


def test_it_is_registered() -> None:
    assert isinstance(ENGINES.get("local"), LocalEngine)


@pytest.mark.parametrize(
    ("cores", "memory_mb", "workers", "threads", "expected"),
    [
        (2, 24_000, None, None, (2, 1)),
        (1, 24_000, None, None, (1, 1)),
        (2, 4_000, None, None, (1, 2)),
        (16, 128_000, None, None, (4, 4)),
        (16, 7_000, None, None, (2, 8)),
        (2, 1_000, None, None, (1, 2)),
        (8, 64_000, None, 2, (4, 2)),
        (2, 64_000, None, 4, (1, 4)),
        (8, 64_000, 2, None, (2, 4)),
        (2, 64_000, 4, None, (4, 1)),
        (2, 1_000, 3, 5, (3, 5)),
    ],
)
def test_division_of_the_machine(
    cores: int, memory_mb: int, workers: int | None, threads: int | None, expected: tuple[int, int]
) -> None:
    assert divided(cores, memory_mb, EngineSpec(workers=workers, threads=threads)) == expected


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"threads": -1}, {"memory_mb": 0}, {"job_wall_s": 0.0}])
def test_settings_that_cannot_be_used(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        LocalEngine().open(EngineSpec.model_validate(wrong))


def test_the_environment_is_made_from_nothing(tmp_path: Path) -> None:
    threads = {name: value for name, value in environment(tmp_path, 3).items() if name.endswith("_THREADS")}
    assert set(threads) >= {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
    assert set(threads.values()) == {"3"}


CONTROLLER = """
import sys, time
from pathlib import Path
from postgrad.engines.local import LocalEngine
from postgrad.records import EngineSpec, Limits
folder = Path(sys.argv[1])
engine = LocalEngine(command=(sys.executable, str(folder / "worker.py")))
engine.open(EngineSpec())
handle = engine.start(folder, Limits(wall_s=600, memory_mb=2000, threads=1))
while True:
    handle.wait(1.0)
"""
WORKER = """
import os, sys, time
from pathlib import Path
from postgrad.execute.worker import die_with_parent
die_with_parent()
folder = Path(sys.argv[1])
(folder / "ready").touch()
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_a_worker_dies_with_its_controller(tmp_path: Path) -> None:
    (tmp_path / "controller.py").write_text(CONTROLLER)
    (tmp_path / "worker.py").write_text(WORKER)
    env = environment(tmp_path, 1)
    controller = subprocess.Popen([sys.executable, str(tmp_path / "controller.py"), str(tmp_path)], env=env)
    try:
        until((tmp_path / "ready").exists)
        started = psutil.Process(controller.pid).children(recursive=True)
        assert any("worker.py" in " ".join(process.cmdline()[-2:-1]) for process in started)
        controller.send_signal(signal.SIGKILL)
        controller.wait()
        until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in started))
    finally:
        controller.kill()
        controller.wait()
