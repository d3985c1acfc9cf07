"""The local engine: one process a job on this machine, in a session of its own.

Limits are looked at whenever `wait` is called, so a caller polls its handles several times a second. Memory is the
resident size of the whole process tree, because a limit on the address space would stop torch long before its memory
is used up; a generous RLIMIT_DATA stands behind it for a job that outruns the polling. A descendant that leaves the
session and loses its parent between two looks is not found again. There is no isolation of files or network here.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

import psutil

import postgrad
from postgrad.engines.base import Exit, Handle
from postgrad.errors import UserError
from postgrad.records import EngineSpec, Limits, Usage

WORKER = (sys.executable, "-P", "-m", "postgrad.execute.worker")
GRACE_S = 2.0
SLEEP_S = 0.02
LOOK_S = 0.25
MEMORY_A_WORKER_MB = 3000
MOST_WORKERS = 4
OPEN_FILES = 4096
# Under this share of one core, and with nothing written, a job counts as idle.
IDLE_SHARE = 0.01
IDLE_CPU_S = 0.05
MB = 1 << 20
PASSED_ON = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Activity:
    """What a job had done at a moment: CPU seconds, and the size and time of what it writes."""

    at: float
    cpu_s: float
    written: tuple[int, ...]


class LocalHandle:
    """One process with its descendants."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, limits: Limits) -> None:
        self._process = process
        self._folder = folder
        self._limits = limits
        self._started = time.monotonic()
        self._tree = {process.pid: psutil.Process(process.pid)}
        self._active = Activity(self._started, 0.0, ())
        self._looked = 0.0
        self._cpu_s = 0.0
        self._rss_mb = 0.0
        self._exit: Exit | None = None

    def wait(self, timeout: float) -> Exit | None:
        deadline = time.monotonic() + timeout
        while self._exit is None:
            now = time.monotonic()
            if self._ended():
                self._finish(None)
            elif now - self._looked >= LOOK_S and (cause := self._overrun(now)):
                self._end(cause)
            elif now >= deadline:
                break
            else:
                time.sleep(min(SLEEP_S, deadline - now))
        return self._exit

    def stop(self) -> None:
        if self._exit is None:
            if self._ended():
                self._finish(None)
            else:
                self._end("stopped")

    # --- limits -------------------------------------------------------------------------------------------------------

    def _ended(self) -> bool:
        """True when the process is dead. It is not reaped yet, so its number still belongs to its group."""
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _overrun(self, now: float) -> str | None:
        self._looked = now
        rss_mb, cpu_s = self._measure()
        self._rss_mb = max(self._rss_mb, rss_mb)
        self._cpu_s = max(self._cpu_s, cpu_s)
        if now - self._started > self._limits.wall_s:
            return "timeout"
        if rss_mb > self._limits.memory_mb:
            return "memory"
        latest = Activity(now, cpu_s, self._written())
        idle_cpu_s = IDLE_CPU_S + IDLE_SHARE * (now - self._active.at)
        if cpu_s - self._active.cpu_s > idle_cpu_s or latest.written != self._active.written:
            self._active = latest
        return "hung" if now - self._active.at > self._limits.hung_s else None

    def _measure(self) -> tuple[float, float]:
        """Resident megabytes of the living processes, and CPU seconds of all that were seen alive at this look."""
        with suppress(psutil.Error):
            for child in self._tree[self._process.pid].children(recursive=True):
                self._tree.setdefault(child.pid, child)
        rss, cpu_s = 0, 0.0
        for process in self._tree.values():
            with suppress(psutil.Error):
                rss += process.memory_info().rss
                times = process.cpu_times()
                cpu_s += times.user + times.system
        return rss / MB, cpu_s

    def _written(self) -> tuple[int, ...]:
        found: list[int] = []
        for name in ("log.txt", "progress.json"):
            with suppress(OSError):
                status = (self._folder / name).stat()
                found += [status.st_size, status.st_mtime_ns]
        return tuple(found)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _end(self, cause: str) -> None:
        """Ask the job to stop, then make it."""
        self._measure()
        self._signal(signal.SIGTERM)
        patience = time.monotonic() + GRACE_S
        while not self._ended() and time.monotonic() < patience:
            time.sleep(SLEEP_S)
        self._finish(cause)

    def _finish(self, cause: str | None) -> None:
        """Kill what is left of the tree, then reap the process: in this order its number cannot be somebody else's."""
        self._signal(signal.SIGKILL)
        _, status, used = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        unit = 1 if sys.platform == "darwin" else 1024
        usage = Usage(
            wall_s=time.monotonic() - self._started,
            cpu_s=max(self._cpu_s, used.ru_utime + used.ru_stime),
            max_rss_mb=max(self._rss_mb, used.ru_maxrss * unit / MB),
        )
        self._exit = Exit(code=self._process.returncode, cause=cause, usage=usage)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the group, and descendants that left it. psutil checks that a number is still the same process."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
        for process in self._tree.values():
            if process.pid != self._process.pid:
                with suppress(psutil.Error):
                    process.send_signal(number)


class LocalEngine:
    """Subprocesses of this process. `start` is called from a thread that lives as long as the jobs: they die with it.

    Args:
        command: what is run with the job folder as last argument; the worker if not given.
    """

    def __init__(self, command: Sequence[str] = WORKER) -> None:
        self._command = tuple(command)
        self._spec = EngineSpec()
        self._slots = 1
        self._threads = 1
        self._handles: list[LocalHandle] = []

    def open(self, spec: EngineSpec) -> None:
        if os.name != "posix":
            raise UserError("The local engine needs Linux or macOS. On Windows, run Postgrad inside WSL.")
        for name in ("workers", "threads", "memory_mb", "job_wall_s"):
            value = getattr(spec, name)
            if value is not None and value <= 0:
                raise UserError(f"engine.{name} is {value}; expected a number above 0. Change it in the task file.")
        self._spec = spec
        self._slots, self._threads = divided(available_cores(), psutil.virtual_memory().total // MB, spec)

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def threads(self) -> int:
        return self._threads

    def start(self, folder: Path, limits: Limits) -> Handle:
        self._handles = [handle for handle in self._handles if handle.wait(0) is None]
        private = folder / "private"
        private.mkdir(exist_ok=True)
        with (folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [*self._command, str(folder)],
                cwd=folder,
                env=environment(private, limits.threads),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        with suppress(ProcessLookupError):
            _limit(process.pid, limits)
        handle = LocalHandle(process, folder, limits)
        self._handles.append(handle)
        return handle

    def close(self) -> None:
        for handle in self._handles:
            handle.stop()
        self._handles.clear()


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def divided(cores: int, memory_mb: int, spec: EngineSpec) -> tuple[int, int]:
    """(workers, threads of each). What the task leaves open: at most four workers, as many as memory holds, and every
    core used once."""
    if spec.workers is not None:
        return spec.workers, spec.threads or max(1, cores // spec.workers)
    room = max(1, memory_mb // MEMORY_A_WORKER_MB)
    if spec.threads is not None:
        return max(1, min(cores // spec.threads, room)), spec.threads
    workers = max(1, min(cores, room, MOST_WORKERS))
    return workers, max(1, cores // workers)


def environment(private: Path, threads: int) -> dict[str, str]:
    """The whole environment of a job, made from nothing: no key or token of the user gets in, and no hub is reached.

    Idle OpenMP threads sleep (PASSIVE): on cores that are shared, spinning ones are many times slower.
    """
    count = str(threads)
    counts = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM", "RAYON")
    names = {f"{name}_THREADS" if name.endswith("MAXIMUM") else f"{name}_NUM_THREADS": count for name in counts}
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str(private),
        "TMPDIR": str(private),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(Path(postgrad.__file__).parents[1]),
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "POSTGRAD_PARENT": str(os.getpid()),
        **names,
        **passed_on,
    }


def _limit(pid: int, limits: Limits) -> None:
    """Set the kernel's limits from outside: code between fork and exec is not safe in a process with threads."""
    if not hasattr(resource, "prlimit"):
        return
    data = (2 * limits.memory_mb + 1024) * MB
    wanted = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: OPEN_FILES, resource.RLIMIT_DATA: data}
    for kind, value in wanted.items():
        _, hard = resource.prlimit(pid, kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.prlimit(pid, kind, (value, value))
