"""What the saved model itself is: how large, and how fast with one input at a time, on this machine.

The trainer is not asked: a fresh process of the referee loads what was saved and is timed by `timing.py`. Times are of
this machine, with as many threads as one job has, and of nothing but the model: no network, no queue.
"""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Sequence

from postgrad.engines.local import LocalEngine
from postgrad.evaluate.guards.base import ModelKind, SavedModel, Unmeasured
from postgrad.evaluate.timing import COMMAND, INPUTS, MODEL, TIMES
from postgrad.records import EngineSpec, Estimate, Guard, Limits

MB = 1e6
QUANTILE = 0.95
WALL_S = 600.0
ATTEMPTS = 2


class ModelSize(ModelKind):
    """Megabytes (10^6 bytes) of all files of the saved model."""

    unit = "MB"

    def measured(self, guard: Guard, model: SavedModel) -> Estimate:
        size = sum(path.stat().st_size for path in model.folder.rglob("*") if path.is_file()) / MB
        return Estimate(value=size, low=size, high=size, n=1)


class Latency(ModelKind):
    """Milliseconds of one input that 95 of 100 inputs stay under."""

    unit = "ms"

    def measured(self, guard: Guard, model: SavedModel) -> Estimate:
        said = ""
        for _ in range(ATTEMPTS):
            try:
                return quantile_estimate(timed(model))
            except Unmeasured as wrong:
                said = str(wrong)
        raise Unmeasured(said)


def timed(model: SavedModel) -> list[float]:
    """Load the model in a process of its own, ask it the texts one by one, and return milliseconds.

    Raises:
        Unmeasured: the process failed or reached a limit.
    """
    folder = model.scratch
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model.folder, folder / MODEL)
    (folder / INPUTS).write_text(json.dumps(model.texts), encoding="utf-8")
    try:
        ran(folder, model.engine, COMMAND, WALL_S)
        return _read_times(folder / TIMES)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ran(folder: Path, spec: EngineSpec, command: Sequence[str], wall_s: float) -> None:
    """Run a program of the referee on a folder, alone, in the sandbox and under the limits of a job.

    Raises:
        Unmeasured: the process failed or reached a limit.
    """
    with closing(LocalEngine(command)) as engine:
        engine.open(spec.model_copy(update={"workers": 1}))
        limits = Limits(wall_s=wall_s, memory_mb=spec.memory_mb, threads=engine.threads)
        ended = engine.start(folder.resolve(), limits).wait(wall_s + 60.0)
    if ended is None or ended.cause is not None or ended.code != 0:
        why = (ended.cause if ended else None) or f"exit code {ended.code if ended else '-'}"
        raise Unmeasured(f"the process that loads the model ended badly ({why}): {_last_line(folder)}")


def _last_line(folder: Path) -> str:
    log = folder / "log.txt"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1][:300] if lines else "it said nothing"


def _read_times(path: Path) -> list[float]:
    try:
        found = [float(each) for each in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as wrong:
        raise Unmeasured(f"the process that loads the model left no times: {wrong}") from wrong
    if not found:
        raise Unmeasured("the process that loads the model timed nothing")
    return found


def quantile_estimate(times: Sequence[float]) -> Estimate:
    """The 95th percentile with a 95 % interval that assumes no shape of the distribution.

    The interval is between two order statistics, whose ranks are binomial (David and Nagaraja, Order Statistics, 2003,
    section 7.1).
    """
    import numpy as np
    from scipy.stats import binom

    ordered = np.sort(np.asarray(times, dtype=np.float64))
    n = len(ordered)
    low, high = (int(binom.ppf(share, n, QUANTILE)) for share in (0.025, 0.975))
    return Estimate(
        value=float(np.quantile(ordered, QUANTILE)),
        low=float(ordered[max(0, low - 1)]),
        high=float(ordered[min(n - 1, high)]),
        n=n,
    )
