"""What an engine adds to a job: empty jobs, one after the other and side by side, on this machine and on an engine.

An empty job is a Python that ends at once, so whatever passes between its start and the moment when its end is known is
the engine's: on a cluster the submission, the wait for a place, the node's own start, and looks at files and status.
"""

from __future__ import annotations

import statistics
import sys
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any, Callable

import yaml
from pydantic import ValidationError

from postgrad.bench.base import BenchSpec, whole_number
from postgrad.engines import ENGINES
from postgrad.engines.base import Engine, Exit, Handle
from postgrad.engines.local import LocalEngine
from postgrad.engines.remote.engine import RemoteEngine
from postgrad.errors import PostgradError, UserError
from postgrad.records import EngineSpec, Limits

PATIENCE_S = 600.0
MEMORY_MB = 1000
EMPTY = "import sys\n"
EXAMPLE = "--engine '{kind: ray, address: http://127.0.0.1:8265}'"


class Engines:
    """The benchmark."""

    options = {
        "engine": ("local", "the engine beside this machine, as in a task file"),
        "jobs": ("8", "how many empty jobs"),
    }

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        jobs = 2 if spec.quick else whole_number(spec.options, "jobs")
        wanted = _engine(spec.options["engine"])
        folder = (spec.folder / uuid.uuid4().hex[:8]).resolve()  # A job starts in a folder of its own.
        folder.mkdir(parents=True)
        program = folder / "empty.py"
        program.write_text(EMPTY)
        specs = [EngineSpec(workers=2, threads=1)]
        specs += [wanted.model_copy(update={"workers": 2, "threads": 1})] if wanted.kind != "local" else []
        table = []
        for each in specs:
            say(f"{jobs} empty jobs on {each.kind}")
            table.append(measured(_made(each, program), each, folder, jobs))
        return {"table": table}


def _engine(text: str) -> EngineSpec:
    try:
        found = yaml.safe_load(text)
        return EngineSpec.model_validate({"kind": found} if isinstance(found, str) else found)
    except (yaml.YAMLError, ValidationError):
        raise UserError(f"--engine is '{text}'; expected an engine as in a task file: {EXAMPLE}.") from None


def _made(spec: EngineSpec, program: Path) -> Engine:
    """The engine, with the empty job in place of the worker."""
    command = (sys.executable, "-P", str(program))
    if spec.kind == "local":
        return LocalEngine(command)
    engine = ENGINES.get(spec.kind)
    if not isinstance(engine, RemoteEngine):
        raise UserError(f"The engine '{spec.kind}' runs no other program than the worker. Take local, or a cluster.")
    engine.command = command
    return engine


def measured(engine: Engine, spec: EngineSpec, folder: Path, jobs: int) -> dict[str, Any]:
    """Wall seconds that the engine takes for empty jobs.

    Raises:
        PostgradError: a job did not work.
    """
    with closing(engine):
        engine.open(spec)
        alone = [_ended([_started(engine, folder)]) for _ in range(jobs)]
        begun = time.monotonic()
        for _ in range(jobs // 2):
            _ended([_started(engine, folder) for _ in range(2)])
        pairs = time.monotonic() - begun
    return {
        "engine": spec.kind,
        "jobs": jobs,
        "median_s": round(statistics.median(alone), 2),
        "least_s": round(min(alone), 2),
        "most_s": round(max(alone), 2),
        "two_at_a_time_s": round(pairs / max(1, jobs // 2), 2),
    }


def _started(engine: Engine, folder: Path) -> tuple[float, Handle]:
    job = folder / f"job-{uuid.uuid4().hex[:8]}"
    job.mkdir()
    begun = time.monotonic()
    return begun, engine.start(job, Limits(wall_s=60.0, memory_mb=MEMORY_MB, threads=1))


def _ended(running: list[tuple[float, Handle]]) -> float:
    """Wall seconds of these jobs, which were started together."""
    for _, handle in running:
        found: Exit | None = handle.wait(PATIENCE_S)
        if found is None or found.code != 0:
            raise PostgradError(f"An empty job did not work: {found or f'no end within {PATIENCE_S:.0f} s'}.")
    return time.monotonic() - running[0][0]
