"""Makes one failure happen in processes of its own, and reads what it left as the executor reads it of a job."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Callable

import psutil

import postgrad
from postgrad.bench.failures.provocations import MAKE, SMALL, Confines, Provocation
from postgrad.engines.base import Exit
from postgrad.engines.local import LocalEngine, environment
from postgrad.errors import UserError
from postgrad.execute.collect import REFUSED, bad_end, isolation
from postgrad.execute.executor import Executor
from postgrad.execute.files import plain_text, read_tail
from postgrad.records import EngineSpec, Failure, JobSpec, Left, Limits, Recipe, Row, Stage, Unit, Usage
from postgrad.removing import remove_tree
from postgrad.store.artifacts import Artifacts

LOG_BYTES = 6_000
MB = 1 << 20
PATIENCE_S = 90.0
LOOK_S = 0.05
WORDS = {
    "weather": "rain snow storm wind cloud frost heat fog hail sun thunder mist",
    "travel": "train ticket airport border hotel luggage map visa cabin ferry coach pilot",
    "food": "bread soup apple cheese pepper rice onion butter noodle tomato garlic lemon",
}
NOBODY = 65534


def provoke(one: Provocation, folder: Path) -> Left:
    """Make a failure happen in a fresh folder, and return what it left without a path or name of this machine."""
    remove_tree(folder)
    folder.mkdir(parents=True)
    if "base" in one.job or "from small" in one.program:
        for made in _models(folder.parent).iterdir():
            shutil.copytree(made, folder / made.name)
        (folder / "small.py").write_text(SMALL, encoding="utf-8")
    if one.run == "worker":
        return _scrubbed(_worker(one, folder.resolve()), folder.resolve())
    name = "job.sh" if one.run == "shell" else "train.py"
    (folder / name).write_text(one.program, encoding="utf-8")
    run = _engine if one.run == "engine" else _alone
    return _scrubbed(run(one, folder.resolve()), folder.resolve())


def _models(folder: Path) -> Path:
    """The small models, made the first time."""
    made = folder / "models"
    if not made.exists():
        unfinished = folder / "models.part"
        remove_tree(unfinished)
        unfinished.mkdir()
        environ = environment(unfinished, 1) | {"PYTHONPATH": str(Path(postgrad.__file__).parents[1])}
        subprocess.run([sys.executable, "-c", MAKE], cwd=unfinished, env=environ, check=True, capture_output=True)
        unfinished.rename(made)
    return made


# --- by itself --------------------------------------------------------------------------------------------------------


def _alone(one: Provocation, folder: Path) -> Left:
    """A program by itself, under limits of the kernel."""
    line = ["bash", "job.sh"] if one.run == "shell" else [sys.executable, "train.py"]
    if one.foreign:
        line = [*_foreign(folder / one.foreign), *line]
    started = time.monotonic()
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            line,
            cwd=folder,
            env=_environment(one, folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: _confine(one.limits),
            start_new_session=True,
        )
    _interfere(one, folder, process.pid)
    try:
        code = process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        code = 0
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return Left(code=code, log=_log(folder), usage=Usage(wall_s=round(time.monotonic() - started, 1)))


def _environment(one: Provocation, folder: Path) -> dict[str, str]:
    given = environment(folder, 1) | {"PYTHONUNBUFFERED": "", "PYTHONPATH": str(Path(postgrad.__file__).parents[1])}
    return given | {"TRANSFORMERS_VERBOSITY": "warning"} | one.env


def _foreign(folder: Path) -> tuple[str, ...]:
    """Give a folder away, and return what takes root's right to write everywhere from a program."""
    folder.mkdir()
    folder.chmod(0o555)
    if os.getuid() != 0:
        return ()
    os.chown(folder, NOBODY, NOBODY)
    return "setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override"


def _confine(limits: Confines) -> None:
    wanted = {resource.RLIMIT_AS: limits.address_mb, resource.RLIMIT_FSIZE: limits.file_mb, resource.RLIMIT_CORE: 0}
    for kind, most in wanted.items():
        if most is not None:
            resource.setrlimit(kind, (most * MB, most * MB))


def _interfere(one: Provocation, folder: Path, pid: int) -> None:
    """Send the signal, or look at the stack and then kill, once the log says that it is time."""
    wanted = one.signal or one.probe
    if wanted is None or not _until(lambda: wanted.after in _log(folder)):
        return
    time.sleep(0.5)
    if one.probe is not None:
        tool = shutil.which(one.probe.tool) or Path(sys.executable).with_name(one.probe.tool)
        if not Path(tool).exists():
            os.kill(pid, signal.SIGKILL)
            raise UserError(f"{one.name} needs {one.probe.tool}: pip install {one.probe.tool}")
        dump = [str(tool), "dump", "--pid", str(pid)]
        said = subprocess.run(dump, capture_output=True, text=True, timeout=PATIENCE_S)
        with (folder / "log.txt").open("a", encoding="utf-8") as log:
            log.write(said.stdout)
    name = one.probe.signal if one.probe else one.signal.name if one.signal else ""
    os.kill(pid, signal.Signals[name])


def _until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_S)
    return True


# --- on the engine ----------------------------------------------------------------------------------------------------


def _engine(one: Provocation, folder: Path) -> Left:
    """A program as a job of the local engine, with its sandbox and its limits."""
    engine = LocalEngine(command=(sys.executable, str(folder / "train.py")))
    engine.open(EngineSpec(workers=1, threads=1))
    limits = _limits(one.limits)
    try:
        handle = engine.start(folder, limits)
        if one.signal is not None and _until(lambda: one.signal is not None and one.signal.after in _log(folder)):
            _innermost(folder).send_signal(signal.Signals[one.signal.name])
        ended = handle.wait(PATIENCE_S)
    finally:
        engine.close()
    assert ended is not None, f"{one.name} did not end"
    tail = _log(folder)
    return Left(failure=_failure(ended, limits), code=ended.code, log=tail, usage=ended.usage, limits=limits)


def _innermost(folder: Path) -> psutil.Process:
    """The process of the job that has no child."""
    name = str(folder / "train.py")
    found = [each for each in psutil.process_iter(["cmdline"]) if name in (each.info["cmdline"] or ())]
    return next(each for each in found if not each.children())


def _failure(ended: Exit, limits: Limits) -> Failure | None:
    for kind, what in ended.refused:
        return isolation(kind, REFUSED[kind].format(plain_text(what, 400)))
    return bad_end(ended, limits)


def _limits(confines: Confines) -> Limits:
    told = confines.model_dump(include={"wall_s", "memory_mb", "hung_s", "disk_mb"})
    return Limits(threads=1, **told)


def _worker(one: Provocation, folder: Path) -> Left:
    """A recipe as a job of Postgrad's own worker."""
    job = one.job
    base = folder / str(job["base"]) if "base" in job else None
    rows, asked = _rows(0), _rows(1)
    if "labels_of_rows" in job:
        rows = tuple(row._replace(label=str(job["labels_of_rows"])) for row in rows)
    spec = JobSpec(
        job="e0001-search-u0-7",
        experiment="e0001",
        recipe=Recipe(stage=Stage(backend=job["backend"], params=job.get("params", {}))),
        labels=tuple(WORDS),
        out_of_scope="elsewhere",
        base_model=str(base) if base else None,
        units=(Unit(name="u0", train="u0.t", predict="u0.p", seed=7),),
        limits=_limits(one.limits),
    )
    engine = LocalEngine()
    engine.open(EngineSpec(workers=1, threads=1))
    executor = Executor(engine, Artifacts(folder / "artifacts"), folder / "scratch")
    try:
        running = executor.start(spec, {"u0": (rows, asked)})
        result = running.poll(one.limits.wall_s + PATIENCE_S)
    finally:
        engine.close()
    assert result is not None, f"{one.name} did not end"
    return Left(failure=result.failure, log=result.log_tail, usage=result.usage, limits=spec.limits)


def _rows(start: int) -> tuple[Row, ...]:
    """Short texts of three kinds, every second of them."""
    found = []
    for label, text in WORDS.items():
        words = text.split()
        pairs = [(words[i], words[j]) for i in range(len(words)) for j in range(i)][start::2]
        found += [Row(f"{label}{i}", f"{first} or {second}", label) for i, (first, second) in enumerate(pairs)]
    return tuple(found)


# --- what it left -----------------------------------------------------------------------------------------------------


def _log(folder: Path) -> str:
    return read_tail(folder / "log.txt", LOG_BYTES)


def _scrubbed(left: Left, folder: Path) -> Left:
    """The same without paths and names of this machine."""
    names = {
        str(folder): "/job",
        str(Path(postgrad.__file__).parents[1]): "/src",
        sys.prefix: "/venv",
        sys.base_prefix: "/python",
        socket.gethostname(): "node",
    }

    def clean(text: str) -> str:
        for name, stands in names.items():
            text = text.replace(name, stands)
        return text

    failure = left.failure
    if failure is not None:
        told = {"message": clean(failure.message), "evidence": clean(failure.evidence)}
        failure = failure.model_copy(update=told)
    return left.model_copy(update={"failure": failure, "log": clean(left.log)})
