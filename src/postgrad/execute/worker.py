"""The program inside the engine: `python -m postgrad.execute.worker JOB_FOLDER`.

It reads `job.json` and the rows, trains, answers the inputs and writes `out-UNIT.npz`, `model/` and `result.json` into
the same folder. The result is written after every unit, so that a crash in the third still gives back the first two,
and a job that is started again goes on where it was. It holds no label of an item that it answers, and judges nothing.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import math
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Sequence

import postgrad
from postgrad.data import OPERATORS
from postgrad.data.steps import training_rows
from postgrad.errors import UserError
from postgrad.execute.boundary import JobFailed, boundary
from postgrad.metrics import TEXT_METRICS, reads_verdicts
from postgrad.metrics.base import Answered
from postgrad.metrics.items import each
from postgrad.records import Failure, JobResult, JobSpec, Record, Row, StepReport, Unit, UnitResult
from postgrad.removing import remove_tree
from postgrad.train import BACKENDS
from postgrad.train.base import FitJob, Fitted, Grade, Outputs, Texts

MODEL_FORMAT = 1
TRAINED = "trained.jsonl"
HISTORY_POINTS = 200
PROGRESS_EVERY_S = 0.5
STOPPED = 128 + signal.SIGTERM
STDERR = 2
_PR_SET_PDEATHSIG = 1


def write_whole(path: Path, text: str) -> None:
    """Replace a file at once: a reader sees the old text or the new one."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


@dataclass
class Progress:
    """What the live screen and the log get to see, and the loss history of the unit under way."""

    folder: Path
    units: int
    unit: int = 0
    name: str = ""
    measured: dict[str, float] = field(default_factory=dict)
    history: list[tuple[int, float]] = field(default_factory=list)
    _written: float = 0.0

    def start(self, unit: int, name: str) -> None:
        self.unit, self.name, self.history, self.measured = unit, name, [], {}
        self.say("preparing")

    def report(self, step: int, loss: float) -> None:
        """Called by the backend."""
        if math.isfinite(loss):
            self.history.append((step, loss))
        if time.monotonic() - self._written >= PROGRESS_EVERY_S:
            self.say(f"step {step}, loss {loss:.4f}")

    def measure(self, name: str, value: float) -> None:
        """Called by the backend."""
        if math.isfinite(value):
            self.measured[name] = value

    def say(self, state: str) -> None:
        """Log a line and show it."""
        self._written = time.monotonic()
        print(f"unit {self.unit} of {self.units} ({self.name}): {state}", flush=True)
        facts = {"unit": self.unit, "units": self.units, "name": self.name, "state": state}
        write_whole(self.folder / "progress.json", json.dumps(facts))

    def thinned(self) -> tuple[tuple[int, float], ...]:
        """At most `HISTORY_POINTS` of the history, the last one included."""
        every = math.ceil(len(self.history) / HISTORY_POINTS) or 1
        return tuple(self.history[::-1][::every][::-1])


class Worker:
    """One job."""

    def __init__(self, folder: Path, spec: JobSpec) -> None:
        self.folder = folder
        self.spec = spec
        self.progress = Progress(folder, len(spec.units))
        self.started = time.monotonic()

    def run(self) -> JobResult:
        """Do every unit that is not done yet; the result is on the disk when this returns."""
        done = self._done_before()
        failure: Failure | None = None
        model: str | None = None
        saved = self.folder / "model" / "postgrad.json"
        self._write(done, failure, model)
        try:
            with boundary("recipe"):
                params = self._checked()
            for number, unit in enumerate(self.spec.units, 1):
                if unit.name in done and (not self.spec.save_model or saved.exists()):
                    continue
                self.progress.start(number, unit.name)
                done[unit.name] = self._unit(unit, params)
                self._write(done, failure, model)
                remove_tree(self.folder / "checkpoint" / unit.name)
            model = "model" if self.spec.save_model else None
        except JobFailed as failed:
            failure = failed.failure
            print(failure.evidence or failure.message, flush=True)
        return self._write(done, failure, model)

    def _done_before(self) -> dict[str, UnitResult]:
        """Units that this job finished before it was killed."""
        path = self.folder / "result.json"
        try:
            before = JobResult.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # Not there, or cut off by a machine that went down.
            return {}
        return {unit.name: unit for unit in before.units if (self.folder / unit.outputs).exists()}

    def _checked(self) -> Record:
        """The backend's parameters; every operator's are checked as well, before anything is trained."""
        for step in self.spec.recipe.data:
            OPERATORS.get(step.op).Params.model_validate(step.params)
        stage = self.spec.recipe.stage
        return BACKENDS.get(stage.backend).Params.model_validate(stage.params)

    def _write(self, done: dict[str, UnitResult], failure: Failure | None, model: str | None) -> JobResult:
        result = JobResult(job=self.spec.job, units=tuple(done.values()), model=model, failure=failure)
        write_whole(self.folder / "result.json", result.model_dump_json())
        return result

    # --- one unit -----------------------------------------------------------------------------------------------------

    def _unit(self, unit: Unit, params: Record) -> UnitResult:
        started = time.monotonic()
        steps: tuple[StepReport, ...] = ()
        if self.spec.loads is not None:
            with boundary("predict"):
                model = BACKENDS.get(self.spec.recipe.stage.backend).load(self.folder / self.spec.loads)
        else:
            with boundary("data"):
                rows, steps = self._rows(unit)
                if self.spec.save_model:
                    write_whole(self.folder / TRAINED, "".join(json.dumps(row.told) + "\n" for row in rows))
            with boundary("train"):
                model = self._fit(rows, params, unit)
        with boundary("predict"):
            self.progress.say("answering")
            file = self._answer(model, unit)
        with boundary("train"):
            if self.spec.save_model:
                self._save(model, unit)
        return UnitResult(
            name=unit.name,
            outputs=file,
            steps=steps,
            history=self.progress.thinned(),
            wall_s=time.monotonic() - started,
            measured=self.progress.measured,
        )

    def _rows(self, unit: Unit) -> tuple[tuple[Row, ...], tuple[StepReport, ...]]:
        """Train rows after the data steps and without what is near an asked text."""
        spec = self.spec
        rows, reports = training_rows(
            tuple(Row(**json.loads(line)) for line in _lines(self.folder / unit.train)),
            [json.loads(line)["text"] for line in _lines(self.folder / unit.predict)],
            spec.recipe.data,
            seed=unit.seed,
            out_of_scope=spec.out_of_scope,
            base_model=Path(spec.base_model) if spec.base_model else None,
            say=self.progress.say,
        )
        if not any(row.label in spec.labels or not spec.labels for row in rows):
            raise JobFailed(
                Failure(
                    boundary="data",
                    kind="empty",
                    message=f"No train row with an in-scope label is left after the data steps (of unit {unit.name}).",
                    evidence="\n".join(f"{r.op}: {r.rows_in} in, {r.rows_out} out. {r.note}" for r in reports),
                )
            )
        return rows, reports

    def _fit(self, rows: tuple[Row, ...], params: Record, unit: Unit) -> Fitted:
        spec = self.spec
        job = FitJob(
            rows=rows,
            labels=spec.labels,
            out_of_scope=spec.out_of_scope,
            params=params,
            base_model=Path(spec.base_model) if spec.base_model else None,
            seed=unit.seed,
            threads=spec.limits.threads,
            checkpoint=self.folder / "checkpoint" / unit.name,
            report=self.progress.report,
            generation=spec.generation,
            grade=grader(spec.metric) if spec.metric else None,
            models={name: Path(folder) for name, folder in spec.models.items()},
            environments=tuple(map(Path, spec.environments)),
            calibration=spec.calibration,
            most_s=self._left_s(unit),
            measure=self.progress.measure if unit == spec.units[0] else None,
        )
        self.progress.say(f"training {spec.recipe.stage.backend} on {len(rows)} rows")
        return BACKENDS.get(spec.recipe.stage.backend).fit(job)

    def _left_s(self, unit: Unit) -> float:
        """What there is for this unit: the job's time that is left, divided among the units that are to come."""
        names = [one.name for one in self.spec.units]
        left = self.spec.limits.wall_s - (time.monotonic() - self.started)
        return left / (len(names) - names.index(unit.name))

    def _answer(self, model: Fitted, unit: Unit) -> str:
        asked = [json.loads(line) for line in _lines(self.folder / unit.predict)]
        outputs = model.predict([item["text"] for item in asked])
        ids = [item["id"] for item in asked]
        file = f"out-{unit.name}{'.jsonl' if isinstance(outputs, Texts) else '.npz'}"
        unfinished = self.folder / f"{file}.part"
        with unfinished.open("wb") as opened:
            if isinstance(outputs, Texts):
                _write_texts(opened, ids, outputs)
            else:
                _write_arrays(opened, ids, outputs)
        unfinished.replace(self.folder / file)
        return file

    def _save(self, model: Fitted, unit: Unit) -> None:
        folder = self.folder / "model"
        model.save(folder)
        facts = {
            "format": MODEL_FORMAT,
            "postgrad": postgrad.__version__,
            "backend": self.spec.recipe.stage.backend,
            "labels": self.spec.labels,
            "out_of_scope": self.spec.out_of_scope,
            "recipe": self.spec.recipe.model_dump(mode="json"),
            "seed": unit.seed,
        }
        write_whole(folder / "postgrad.json", json.dumps(facts, indent=1, ensure_ascii=False))


def grader(metric: str) -> Grade:
    """What answers to train rows are worth, each by itself, on the metric's scale brought to [0, 1].

    It raises UserError for a metric that counts what a judge says: no job has one.
    """
    own = TEXT_METRICS.get(metric)

    def grade(rows: Sequence[Row], answers: Sequence[str]) -> list[float]:
        if reads_verdicts(metric):
            raise UserError(f"'{metric}' grades nothing without its judge, which no job has. Leave this stage out.")
        answered = [Answered(r.text, r.label, a, check=r.check) for r, a in zip(rows, answers, strict=True)]
        return [(value - own.low) / (own.high - own.low) for value in each(own, answered).tolist()]

    return grade


def _write_arrays(file: IO[bytes], ids: Sequence[str], outputs: Outputs) -> None:
    import numpy as np

    np.savez(
        file,
        ids=np.array(ids, dtype=np.str_),
        probs=np.asarray(outputs.probs, dtype=np.float32),
        score=np.asarray(outputs.score, dtype=np.float32),
    )


def _write_texts(file: IO[bytes], ids: Sequence[str], outputs: Texts) -> None:
    for name, text, tokens in zip(ids, outputs.texts, outputs.tokens, strict=True):
        file.write(json.dumps({"id": name, "text": text, "tokens": int(tokens)}).encode() + b"\n")


def _lines(path: Path) -> list[str]:
    # Not splitlines: a text may hold line separators that JSON leaves as they are.
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (Linux): the controller, or what watches over the sandbox
    and dies with the controller itself. The controller may be gone already: check.

    On other systems a worker whose controller was killed ends its job first.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if controller_is_gone():
        raise SystemExit(STOPPED)


def controller_is_gone() -> bool:
    """True when standard input is the engine's socket (`POSTGRAD_LINE` holds its inode) and has come to its end.

    The number of the parent says nothing in a process space of its own.
    """
    if "POSTGRAD_LINE" not in os.environ or str(os.fstat(0).st_ino) != os.environ["POSTGRAD_LINE"]:
        return False
    with socket.socket(fileno=os.dup(0)) as line:
        try:
            return line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(STOPPED)


def tell_stacks() -> None:
    """Have every thread's stack written to the log by a fatal signal, and by the SIGTERM that ends a job which hangs or
    is late: then the handler that stands goes on."""
    faulthandler.enable(file=STDERR)
    faulthandler.register(signal.SIGTERM, file=STDERR, all_threads=True, chain=True)


def main(arguments: Sequence[str]) -> int:
    """Run the job in the folder that is the only argument; 0 when it worked, 1 when the result holds a failure."""
    die_with_parent()
    signal.signal(signal.SIGTERM, _stop)
    tell_stacks()
    folder = Path(arguments[0])
    spec = JobSpec.model_validate_json((folder / "job.json").read_text(encoding="utf-8"))
    return 1 if Worker(folder, spec).run().failure else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
