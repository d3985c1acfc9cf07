"""One training by Training Hub as a process in its own environment: started, followed, ended, and judged by its files.

Neither its exit code nor what it returned is enough: it was seen to return nothing, with exit code 0, after an error.
What counts is a model folder with weights in safetensors, and a record of at least one training step.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

from postgrad.errors import UserError
from postgrad.train.base import CheckFailed, TrainingDiverged
from postgrad.train.environments import python_of
from postgrad.train.models import resolve_model
from postgrad.train.th_runner import TOO_LARGE

POLL_S = 0.3
GRACE_S = 3.0
SAID_LINES, SAID_LETTERS, TAIL_BYTES = 12, 1500, 1 << 16
# Lines of a metrics file, and what is read of one at a look.
LINE_BYTES, LOOK_BYTES = 1 << 16, 1 << 20
STATE_BYTES = 8 << 20
METRICS = ("training_metrics*.jsonl", "training_params_and_metrics_global*.jsonl")
# What the trainer of sentence-transformers writes at the end of every epoch; its JSONL has one line, at the very end.
STATES = ("checkpoint-*/trainer_state.json",)
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Report = Callable[[int, float], None]


class TrainingHubFailed(RuntimeError):
    """Training Hub ended without a model that can be used."""


@dataclass(frozen=True)
class Produced:
    """What a training left.

    Attributes:
        folder: with a model, or with low-rank adapters.
        adapters: whether it is adapters, which need their base model.
    """

    folder: Path
    adapters: bool


@dataclass
class Progress:
    """Reads metrics files as they grow. What is in them is another program's: numbers are taken, nothing else."""

    out: Path
    report: Report
    steps: int = 0
    _read: dict[Path, int] = field(default_factory=dict)

    def look(self) -> None:
        """Report every new step.

        Raises:
            TrainingDiverged: a loss is no finite number.
        """
        for pattern in METRICS:
            for file in sorted(self.out.rglob(pattern)):
                for line in self._new_lines(file):
                    self._take(_facts(line))
        for pattern in STATES:
            for file in sorted(self.out.glob(pattern)):
                self._take_all(file)

    def _new_lines(self, file: Path) -> list[bytes]:
        """Whole lines behind what was read already; a line that is too long is left out."""
        start = self._read.get(file, 0)
        with suppress(OSError), file.open("rb") as opened:
            opened.seek(start)
            found = opened.read(LOOK_BYTES)
            whole = found.rfind(b"\n") + 1
            if not whole and len(found) == LOOK_BYTES:
                whole = len(found)
            self._read[file] = start + whole
            return [line for line in found[:whole].split(b"\n") if len(line) <= LINE_BYTES]
        return []

    def _take_all(self, file: Path) -> None:
        with suppress(OSError):
            stamp = file.stat()
            if stamp.st_size > STATE_BYTES or self._read.get(file) == stamp.st_mtime_ns:
                return
            found = _facts(file.read_bytes()).get("log_history")
            self._read[file] = stamp.st_mtime_ns
            for facts in found if isinstance(found, list) else ():
                self._take(facts if isinstance(facts, dict) else {})

    def _take(self, facts: Mapping[str, Any]) -> None:
        step = next((v for k in ("step", "global_step") if _is_number(v := facts.get(k))), None)
        loss = next((v for k in ("loss", "avg_loss", "train_loss") if _is_number(v := facts.get(k))), None)
        if step is None or loss is None or not math.isfinite(step) or step <= self.steps:
            return
        if not math.isfinite(loss):
            raise TrainingDiverged(f"the loss of Training Hub is {loss} at step {int(step)}")
        self.steps = int(step)
        self.report(self.steps, float(loss))


def _facts(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def trained(environment: Path, work: Path, spec: Mapping[str, Any], report: Report) -> Produced:
    """Run `th_runner.py` with a spec in an environment and return what it left.

    Args:
        work: a folder of this training alone; emptied first.
        spec: algorithm and arguments; `ckpt_output_dir` of these is where results are looked for.

    Raises:
        TrainingHubFailed: it failed, or left no model or no record of a step.
        TrainingDiverged: a loss is not finite.
        CheckFailed: by its own estimate the training does not fit into the GPU.
    """
    out = Path(spec["arguments"]["ckpt_output_dir"])
    out.mkdir(parents=True, exist_ok=True)
    file, log = work / "spec.json", work / "log.txt"
    file.write_text(json.dumps({**spec, "parent": os.getpid()}), encoding="utf-8")
    runner = Path(__file__).with_name("th_runner.py")
    progress = Progress(out, report)
    with (
        log.open("wb") as said,
        _running([str(python_of(environment)), "-P", str(runner), str(file)], environment, said) as p,
    ):
        while p.poll() is None:
            progress.look()
            with suppress(subprocess.TimeoutExpired):
                p.wait(POLL_S)
    progress.look()
    if p.returncode == TOO_LARGE:
        raise CheckFailed("memory", _too_large(Path(spec["estimate_file"])))
    if p.returncode:
        how = f"exit code {p.returncode}" if p.returncode > 0 else signal.Signals(-p.returncode).name
        raise TrainingHubFailed(f"Training Hub's {spec['algorithm']} ended with {how}. {_said_last(log)}")
    found = _produced(out)
    if found is None:
        raise TrainingHubFailed(
            f"Training Hub's {spec['algorithm']} ended with exit code 0 and left no model (config.json and "
            f"safetensors, or adapters, were expected). {_said_last(log)}"
        )
    if not progress.steps:
        raise TrainingHubFailed(
            f"Training Hub's {spec['algorithm']} left a model and no record of a training step, so nothing says that "
            f"it was trained. {_said_last(log)}"
        )
    return found


@contextmanager
def _running(command: list[str], environment: Path, said: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The process, ended with everything that it started when this is left, for whatever reason."""
    process = subprocess.Popen(
        command, env=_surroundings(environment), stdout=said, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask, wait a little, then make it: the whole group, so that processes of its own go as well."""
    deadline = time.monotonic() + GRACE_S
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
    process.wait()


def _surroundings(environment: Path) -> dict[str, str]:
    """This job's environment, with the programs of Training Hub first: it starts `torchrun` by name. Of Python's path
    only what watches over a job is passed on, none of Postgrad's packages."""
    hooks = [
        p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and (Path(p) / "sitecustomize.py").is_file()
    ]
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return {
        **kept,
        **({"PYTHONPATH": os.pathsep.join(hooks)} if hooks else {}),
        "PATH": os.pathsep.join([str(environment / "bin"), os.environ.get("PATH", os.defpath)]),
        "VIRTUAL_ENV": str(environment),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "WANDB_MODE": "disabled",
    }


# --- what it left -----------------------------------------------------------------------------------------------------


def _produced(out: Path) -> Produced | None:
    """The finished model of a training: the folder itself, else the newest one below that is not a checkpoint on the
    way, else the newest of all."""
    below = sorted(
        (p for p in out.rglob("*") if p.is_dir() and not p.is_symlink()), key=lambda p: (p.stat().st_mtime_ns, p)
    )
    below.sort(key=lambda p: any(part.startswith("checkpoint-") for part in p.relative_to(out).parts), reverse=True)
    return next((found for folder in (out, *reversed(below)) if (found := _usable(folder))), None)


def _usable(folder: Path) -> Produced | None:
    """What a folder holds, if it can be read without running code. Links could lead anywhere."""
    if any(path.is_symlink() for path in folder.iterdir()):
        return None
    if (folder / ADAPTER).is_file() and (folder / ADAPTER_WEIGHTS).is_file():
        return Produced(folder, adapters=True)
    if not (folder / "config.json").is_file() or not any(p.stat().st_size for p in folder.glob("*.safetensors")):
        return None
    try:
        return Produced(resolve_model(f"path:{folder}"), adapters=False)
    except UserError as wrong:
        raise TrainingHubFailed(f"The model that Training Hub left cannot be used. {wrong}") from wrong


def _said_last(log: Path) -> str:
    """The end of what a run said."""
    with log.open("rb") as opened:
        opened.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = opened.read().decode("utf-8", errors="replace").splitlines()
    last = "\n".join([line for line in lines if line.strip()][-SAID_LINES:])[-SAID_LETTERS:]
    print(last, flush=True)
    return f"It said last: {last or 'nothing'}"


def _too_large(file: Path) -> str:
    facts = _facts(file.read_bytes())
    low, gpu = (float(facts.get(name, 0)) / 1e9 for name in ("low", "gpu"))
    return (
        f"Training Hub estimates at least {low:.1f} GB for this training, and the GPU has {gpu:.1f} GB. Take a smaller "
        "base model, fewer tokens at once (max_tokens_per_gpu, max_seq_len), or lora_sft."
    )


def emptied(work: Path) -> Path:
    """A folder with nothing in it: trainings of Training Hub are not gone on with, and the log says so."""
    if work.exists():
        print("Training Hub's checkpoints are not gone on from: the training begins again", flush=True)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    return work
