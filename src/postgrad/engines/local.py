"""The local engine: one process a job on this machine, in a sandbox and in a session of its own.

Which sandbox, `sandbox.py` finds out; what a job may see, `places.py` says; `handle.py` watches one job.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Mapping, Sequence

import psutil

import postgrad
from postgrad.engines.base import Handle
from postgrad.engines.claims import Claims, claims_folder
from postgrad.engines.devices import devices, mps
from postgrad.engines.handle import Line, LocalHandle
from postgrad.engines.hardware import Machine, machine
from postgrad.engines.logs import added_to
from postgrad.engines.places import Places, Reach, job_reach, machine_places
from postgrad.engines.prices import Meter
from postgrad.engines.sandbox import Sandbox, Unsandboxed, chosen
from postgrad.engines.shares import Share, Shares, fitting
from postgrad.errors import UserError
from postgrad.records import EngineSpec, Hardware, Limits

WORKER = (sys.executable, "-P", "-m", "postgrad.execute.worker")
# The job begins when its limits are set: code between fork and exec is not safe in a process with threads. A job whose
# controller is gone before that does not begin.
GATE = ("/bin/sh", "-c", 'read -r go || exit 143; exec "$@"', "sh")
# A cluster asks everything of a job to end at once, and a process that watches over a sandbox would take the job down
# with it, before it could clean up. The job's Python listens again: `tripwire/sitecustomize.py`.
DEAF_GATE = (*GATE[:2], 'read -r go || exit 143; trap "" TERM; exec "$@"', "sh")
MEMORY_A_WORKER_MB = 3000
MOST_WORKERS = 4
OPEN_FILES = 4096
# What the system and the run itself need.
SPARE_MB = 1500
MANY = 1024
MB = 1 << 20
PASSED_ON = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")


class LocalEngine:
    """Subprocesses of this process. `start` is called from a thread that lives as long as the jobs: they die with it.

    Args:
        command: what is run with the job folder as last argument; the worker if not given.
        granted: (devices, nodes) that a scheduler gave to the one job of this engine, on each of its nodes; None where
            the engine gives out devices itself.
        told: variables that its job is told besides.
    """

    def __init__(
        self,
        command: Sequence[str] = WORKER,
        granted: tuple[float, int] | None = None,
        told: Mapping[str, str] | None = None,
    ) -> None:
        self._command, self._granted, self._told = tuple(command), granted, dict(told or {})
        self._machine = Machine()
        self._spec = EngineSpec()
        self._slots = 1
        self._threads = 1
        self._sandbox: Sandbox = Unsandboxed()
        self._places = Places()
        self._handles: list[LocalHandle] = []
        self._claims = Claims(claims_folder())
        self._shares = Shares((), (), 1, 1, 0.0)
        self._mps: str | None = None
        self._taken: dict[int, LocalHandle] = {}
        self._free_mb = 0.0

    def open(self, spec: EngineSpec) -> None:
        if os.name != "posix":
            raise UserError("The local engine needs Linux or macOS. On Windows, run Postgrad inside WSL.")
        for name in ("workers", "threads", "memory_mb", "job_wall_s"):
            value = getattr(spec, name)
            if value is not None and value <= 0:
                raise UserError(f"engine.{name} is {value}; expected a number above 0. Change it in the task file.")
        self._spec = spec
        self._mps = mps()
        self._claims.close()
        own = self._claims.take(devices(), MANY) if spec.gpus else ()
        most = fitting(own, spec, self._mps)
        self._slots, self._threads = divided(available_cores(), psutil.virtual_memory().total // MB, spec, most)
        cores = self._claims.take(map(str, core_numbers()), self._slots * self._threads)
        self._shares = Shares(tuple(map(int, cores)), own, self._slots, self._threads, spec.gpus)
        self._taken.clear()
        self._free_mb = psutil.virtual_memory().available / MB - SPARE_MB
        self._machine = machine(available_cores())
        bare = environment(Path(os.devnull), 1)
        self._places = machine_places(bare)
        self._sandbox = chosen(spec.sandbox, self._places, bare)

    @property
    def sandbox(self) -> str:
        """The rung that holds here: "bubblewrap", "sandlock" or "none". Known once the engine is open."""
        return self._sandbox.name

    @property
    def reads(self) -> tuple[Path, ...]:
        """What every job may read of this machine. Known once the engine is open."""
        return self._places.reads

    @property
    def usual(self) -> Hardware:
        """What a job of usual size runs on. Known once the engine is open."""
        return self._meter(self._shares.usual, self._threads).hardware

    def _meter(self, share: Share, threads: int) -> Meter:
        """What measures a job with this part of the machine."""
        given = self._granted
        seen = share.devices if given is None else self._machine.visible
        found = self._machine.job(threads, bound=bool(share.cores), names=seen)
        if share.part < 1.0:
            found = found.model_copy(update={"held": found.held * share.part})
        meter = Meter(found, self._spec.prices)
        return meter if given is None else meter.holding(*given, granted=self._machine.granted)

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def threads(self) -> int:
        return self._threads

    @property
    def threads_alone(self) -> int:
        return self._spec.threads or max(self._threads, available_cores())

    @property
    def memory_mb(self) -> float:
        """What was free when the engine was opened, less what the system and the run itself need."""
        return self._free_mb

    def start(self, folder: Path, limits: Limits) -> Handle:
        self._handles = [handle for handle in self._handles if handle.wait(0) is None]
        for ended in [number for number, handle in self._taken.items() if handle.wait(0) is not None]:
            del self._taken[ended]
            self._shares.give_back(ended)
        private = folder / "private"
        if private.is_symlink() or not private.is_dir():  # Also where a job before this one put something in its place.
            private.unlink(missing_ok=True)
            private.mkdir()
        if shutil.which(self._command[0]) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._command[0])
        number, share = self._shares.take(limits.threads)
        command = [*self._command, str(folder)]
        reach = job_reach(self._places, folder, command)
        ours, theirs = socket.socketpair()
        with theirs, added_to(folder / "log.txt") as log:
            try:
                process = subprocess.Popen(
                    [*(DEAF_GATE if self._sandbox.watched else GATE), *self._sandbox.wrapped(command, reach, limits)],
                    cwd=folder,
                    env=environment(private, limits.threads)
                    | self._told
                    | share.environment(self._mps)
                    | tripwire(reach, theirs),
                    stdin=theirs.fileno(),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                if number is not None:
                    self._shares.give_back(number)
                raise
        with suppress(ProcessLookupError):
            _limit(process.pid, limits)
            _bind(process.pid, share.cores)
        line = Line(ours)
        line.go()
        meter = self._meter(share, limits.threads)
        handle = LocalHandle(process, folder, limits, self._sandbox, line, meter)
        self._handles.append(handle)
        if number is not None:
            self._taken[number] = handle
        return handle

    def close(self) -> None:
        for handle in self._handles:
            handle.stop()
        self._handles.clear()
        self._claims.close()


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def core_numbers() -> tuple[int, ...]:
    """Numbers of these cores; () where the system does not say."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def divided(cores: int, memory_mb: int, spec: EngineSpec, most: int | None = None) -> tuple[int, int]:
    """(workers, threads of each). What the task leaves open: at most four workers, as many as memory and devices hold,
    and every core used once.

    Args:
        most: how many jobs the devices hold.
    """
    if spec.workers is not None:
        return spec.workers, spec.threads or max(1, cores // spec.workers)
    room = max(1, min(memory_mb // MEMORY_A_WORKER_MB, MOST_WORKERS if most is None else most))
    if spec.threads is not None:
        return max(1, min(cores // spec.threads, room)), spec.threads
    workers = max(1, min(cores, room, MOST_WORKERS))
    return workers, max(1, cores // workers)


def environment(private: Path, threads: int) -> dict[str, str]:
    """The whole environment of a job, made from nothing: no key or token of the user gets in, and no hub is reached.

    Idle OpenMP threads sleep (PASSIVE): on cores that are shared, spinning ones are many times slower. No byte code is
    written: a job writes into its own folder only.
    """
    count = str(threads)
    counts = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM", "RAYON")
    names = {f"{name}_THREADS" if name.endswith("MAXIMUM") else f"{name}_NUM_THREADS": count for name in counts}
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str(private),
        "TMPDIR": str(private),
        "USER": "postgrad",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(Path(postgrad.__file__).parents[1]),
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        **names,
        **passed_on,
    }


def tripwire(reach: Reach, line: socket.socket) -> dict[str, str]:
    """What makes every Python process of a job load `tripwire/sitecustomize.py`, and what that is to let pass."""
    hook = Path(__file__).with_name("tripwire")
    reads = [hook, *reach.reads, *(Path(name) for _, name in reach.links)]
    return {
        "PYTHONPATH": os.pathsep.join([str(hook), str(Path(postgrad.__file__).parents[1])]),
        "POSTGRAD_READS": os.pathsep.join(map(str, reads)),
        "POSTGRAD_LISTS": os.pathsep.join(map(str, reach.lists)),
        "POSTGRAD_WRITES": str(reach.folder),
        "POSTGRAD_LINE": str(os.fstat(line.fileno()).st_ino),
    }


def _bind(pid: int, cores: Sequence[int]) -> None:
    """Bind a job to its cores from outside, before it begins; whatever it starts is bound with it."""
    if cores and hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(pid, cores)


def _limit(pid: int, limits: Limits) -> None:
    """Set the kernel's limits from outside, before the job begins."""
    if not hasattr(resource, "prlimit"):
        return
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_DATA: (2 * limits.memory_mb + 1024) * MB,
        resource.RLIMIT_FSIZE: limits.disk_mb * MB,
    }
    for kind, value in wanted.items():
        _, hard = resource.prlimit(pid, kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.prlimit(pid, kind, (value, value))
