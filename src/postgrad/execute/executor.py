"""Starts jobs on an engine and turns what they leave into `JobResult`s. Judges a job by its files, never by its word."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

from pydantic import ValidationError

from postgrad.engines.base import Engine, Exit, Handle
from postgrad.records import Failure, JobResult, JobSpec, Row, UnitResult
from postgrad.store.artifacts import Artifacts

TAIL_LINES = 20
MESSAGES = {
    "timeout": "The job was stopped at its wall-clock limit.",
    "memory": "The job was stopped at its memory limit.",
    "hung": "The job was stopped: it used no processor for minutes.",
    "stopped": "The job was stopped by the run.",
}
KINDS = {"timeout": "timeout", "memory": "oom", "hung": "hung", "stopped": "stopped"}


@dataclass
class RunningJob:
    """A job under way."""

    spec: JobSpec
    folder: Path
    handle: Handle
    asked: Mapping[str, tuple[str, ...]]
    artifacts: Artifacts

    @property
    def experiment(self) -> str:
        return self.spec.experiment

    def poll(self, timeout: float) -> JobResult | None:
        """The result once the job has ended; None while it runs. Ask no more after a result."""
        ended = self.handle.wait(timeout)
        if ended is None:
            return None
        result = self._collect(ended)
        shutil.rmtree(self.folder, ignore_errors=True)
        return result

    def stop(self) -> None:
        """End the job; its folder and checkpoints stay for a later start."""
        self.handle.stop()

    def progress(self) -> str:
        """How far the job is, for a person."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "progress.json").read_text())
        except (OSError, ValueError):
            return "starting"
        loss = "" if found["loss"] is None else f", step {found['step']}, loss {found['loss']:.3f}"
        return f"training {found['unit']} of {found['units']}{loss}"

    def _collect(self, ended: Exit) -> JobResult:
        written = self._written()
        failure = written.failure or self._ended_badly(ended, written)
        units: list[UnitResult] = []
        for unit in written.units:
            wrong = self._wrong_output(unit)
            if wrong is not None:
                failure = failure or wrong
                break
            stored = self.artifacts.put_file(self.folder / unit.outputs)
            units.append(unit.model_copy(update={"outputs": stored}))
        model = None
        if failure is None and written.model is not None:
            model = self.artifacts.put_folder(self.folder / written.model)
        return written.model_copy(
            update={
                "units": tuple(units),
                "model": model,
                "usage": ended.usage,
                "failure": failure,
                "log_tail": self._log_tail() if failure else "",
            }
        )

    def _written(self) -> JobResult:
        try:
            return JobResult.model_validate_json((self.folder / "result.json").read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return JobResult(job=self.spec.job)

    def _ended_badly(self, ended: Exit, written: JobResult) -> Failure | None:
        if ended.cause is not None:
            return Failure(
                boundary="resource",
                kind=KINDS.get(ended.cause, ended.cause),
                message=MESSAGES.get(ended.cause, ended.cause),
                evidence=self._log_tail(),
            )
        if ended.code != 0:
            how = f"signal {-ended.code}" if ended.code < 0 else f"exit code {ended.code}"
            kind = "oom" if ended.code == -9 else "crash"
            message = f"The training program ended with {how}."
            return Failure(boundary="train", kind=kind, message=message, evidence=self._log_tail())
        missing = [unit.name for unit in self.spec.units][len(written.units) :]
        if missing or (self.spec.save_model and written.model is None):
            what = f"units {', '.join(missing)}" if missing else "the model"
            message = f"The job ended without {what}."
            return Failure(boundary="predict", kind="invalid_output", message=message, evidence=self._log_tail())
        return None

    def _wrong_output(self, unit: UnitResult) -> Failure | None:
        """What is wrong with an output file: ids, shape, numbers."""
        import numpy as np

        try:
            with np.load(self.folder / unit.outputs, allow_pickle=False) as file:
                ids, probs, score = tuple(str(i) for i in file["ids"]), file["probs"], file["score"]
        except (OSError, ValueError, KeyError) as problem:
            return _invalid(unit, f"the file cannot be read ({problem})")
        if ids != self.asked.get(unit.name):
            return _invalid(unit, "the answers are not to the questions that were asked")
        if probs.shape != (len(ids), len(self.spec.labels)) or score.shape != (len(ids),):
            return _invalid(unit, f"shapes {probs.shape} and {score.shape}")
        if not (np.isfinite(probs).all() and np.isfinite(score).all()):
            return _invalid(unit, "some answers are not numbers")
        return None

    def _log_tail(self) -> str:
        try:
            text = (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.strip().splitlines()[-TAIL_LINES:])


def _invalid(unit: UnitResult, what: str) -> Failure:
    return Failure(boundary="predict", kind="invalid_output", message=f"The outputs of {unit.name} are invalid: {what}.")


@dataclass
class Executor:
    """Writes job folders under `scratch` and starts them."""

    engine: Engine
    artifacts: Artifacts
    scratch: Path

    def start(
        self, spec: JobSpec, inputs: Mapping[str, tuple[Sequence[Row], Sequence[Row]]]
    ) -> RunningJob:
        """Start a job.

        Args:
            inputs: unit name -> (train rows, rows to be asked); of the latter only id and text reach the folder.
        """
        folder = self.scratch / spec.job
        text = spec.model_dump_json(indent=1)
        self._clean(folder, text)
        for unit in spec.units:
            train, asked = inputs[unit.name]
            _write_lines(folder / unit.train, ({"id": r.id, "text": r.text, "label": r.label} for r in train))
            _write_lines(folder / unit.predict, ({"id": r.id, "text": r.text} for r in asked))
        (folder / "job.json").write_text(text, encoding="utf-8")
        handle = self.engine.start(folder, spec.limits)
        asked_ids = {name: tuple(row.id for row in asked) for name, (_, asked) in inputs.items()}
        return RunningJob(spec, folder, handle, asked_ids, self.artifacts)

    def _clean(self, folder: Path, text: str) -> None:
        """An empty folder; checkpoints stay when they are of the very same job."""
        old = folder / "job.json"
        same = old.exists() and old.read_text(encoding="utf-8") == text
        if folder.exists() and not same:
            shutil.rmtree(folder)
        for name in ("result.json", "progress.json"):
            (folder / name).unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)


def _write_lines(path: Path, rows: Any) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
