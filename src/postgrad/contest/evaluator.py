"""Runs programs of a contest: its evaluator as it is, in a process of its own, with an environment made new."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Sequence

from postgrad.contest.folder import EVALUATOR, Contest
from postgrad.records import Record

# Where programs, models and devices are. No key, no token, no home folder.
PASSED_ON = (
    "PATH", "LANG", "LC_ALL", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "CUDA_HOME", "HF_HUB_CACHE",
    "HF_DATASETS_CACHE", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "NUM_GPUS",
)  # fmt: skip
HEADLINE = ("accuracy", "score", "mean", "pass@1", "pass_at_1")
LOG_TAIL = 400


class Score(Record):
    """What an evaluator said of a model.

    Attributes:
        value: the number it is known by; None where there is none, and `error` says why.
        metrics: all numbers of its JSON.
        limit: how many examples it was asked to take; None for its own choice.
        seconds: what that took.
    """

    value: float | None
    metrics: dict[str, float] = {}
    limit: int | None = None
    seconds: float = 0.0
    error: str | None = None


def environment(work: Path, passed: Sequence[str] = ()) -> dict[str, str]:
    """The whole environment of a program of the contest. `passed` names variables that the person adds."""
    home = work / "home"
    home.mkdir(parents=True, exist_ok=True)
    hub = os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    found = {name: os.environ[name] for name in (*PASSED_ON, *passed) if name in os.environ}
    return {
        "PATH": os.defpath,
        **found,
        "HOME": str(home),
        "TMPDIR": str(home),
        "HF_HOME": hub,
        "PYTHONDONTWRITEBYTECODE": "1",
        # Byte code that lies beside a source is not what the hashes are of.
        "PYTHONPYCACHEPREFIX": str(home / "bytecode"),
        "PYTHONNOUSERSITE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def score(
    contest: Contest, model: Path, name: str, *, limit: int | None, seconds: float, passed: Sequence[str] = ()
) -> Score:
    """Ask the evaluator about a model folder.

    Args:
        name: of its log and its JSON in the work folder.
        limit: how many examples, where the evaluator takes a limit.
        seconds: after these it is stopped, with all that it started.
    """
    output, log = contest.work / f"{name}.json", contest.work / f"{name}.log"
    output.unlink(missing_ok=True)
    limit = limit if "--limit" in contest.options else None
    command = [sys.executable, EVALUATOR, "--model-path", _shown(contest, model), "--json-output-file", str(output)]
    command += [] if limit is None else ["--limit", str(limit)]
    began = time.monotonic()
    code = run_program(command, contest.root, environment(contest.work, passed), log, seconds)
    took = time.monotonic() - began
    if code is None:
        return Score(value=None, limit=limit, seconds=took, error=f"{EVALUATOR} was stopped after {took:.0f} s")
    if code != 0:
        said = f"{EVALUATOR} ended with exit code {code}: {_tail(log)}"
        return Score(value=None, limit=limit, seconds=took, error=said)
    metrics = _numbers(output)
    value = next((metrics[key] for key in HEADLINE if key in metrics), next(iter(metrics.values()), None))
    error = None if value is not None else f"{EVALUATOR} wrote no number into its JSON file"
    return Score(value=value, metrics=metrics, limit=limit, seconds=took, error=error)


def run_program(command: Sequence[str], folder: Path, env: dict[str, str], log: Path, seconds: float) -> int | None:
    """Run a command with its output in `log`; its exit code, or None where it had to be stopped."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
        try:
            return process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _shown(contest: Contest, model: Path) -> str:
    """The model as a contestant names it: relative to the folder where it lies in it."""
    return str(model.relative_to(contest.root)) if contest.root in model.parents else str(model)


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:LOG_TAIL] if lines else "it said nothing"


def _numbers(path: Path) -> dict[str, float]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {
        str(key): float(value)
        for key, value in pairs
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
