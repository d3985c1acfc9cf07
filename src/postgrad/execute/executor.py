"""Starts jobs on an engine and turns what they leave into `JobResult`s. Judges a job by its files, never by its word.

It does not score: it checks that outputs answer what was asked, in the right shape and with finite numbers.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence
from zipfile import BadZipFile

from pydantic import ValidationError

from postgrad.engines.base import Engine, Exit, Handle
from postgrad.errors import PostgradError
from postgrad.records import Failure, JobResult, JobSpec, Limits, Row, UnitResult
from postgrad.store.artifacts import Artifacts

TAIL_LINES = 20
TAIL_BYTES = 1 << 16
ROUNDING = 1e-3
_NAME = re.compile(r"[A-Za-z0-9][\w.@+=,-]*")
Inputs = Mapping[str, tuple[Sequence[Row], Sequence[Row]]]


class RunningJob:
    """A job under way.

    Args:
        asked: unit name -> ids to be answered, in order.
    """

    def __init__(
        self, spec: JobSpec, folder: Path, handle: Handle, asked: Mapping[str, tuple[str, ...]], artifacts: Artifacts
    ) -> None:
        self.spec = spec
        self._folder = folder
        self._handle = handle
        self._asked = asked
        self._artifacts = artifacts
        self._result: JobResult | None = None

    @property
    def experiment(self) -> str:
        """The experiment that the job belongs to."""
        return self.spec.experiment

    def poll(self, timeout: float) -> JobResult | None:
        """Return the result once the job has ended, None while it runs after `timeout` seconds.

        Outputs and model are in the artefact store by then, and the job folder is gone, unless the job was stopped.

        Raises:
            PostgradError: the artefact store cannot be written. The job folder is kept.
        """
        if self._result is None and (ended := self._handle.wait(timeout)) is not None:
            self._result = self._collected(ended)
            if ended.cause != "stopped":
                shutil.rmtree(self._folder, ignore_errors=True)
        return self._result

    def stop(self) -> None:
        """End the job. Its folder stays, so that starting the same job again goes on from there. Idempotent."""
        self._handle.stop()

    def progress(self) -> str:
        """One line on how far the job is, for a person."""
        try:
            facts: dict[str, Any] = json.loads((self._folder / "progress.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return "starting"
        return f"{facts['state']} (part {facts['unit']} of {facts['units']})"

    # --- what the job left --------------------------------------------------------------------------------------------

    def _collected(self, ended: Exit) -> JobResult:
        written, unreadable = self._written()
        failure = written.failure or self._bad_end(ended) or unreadable
        units: list[UnitResult] = []
        for unit in written.units:
            if (problem := self._problem(unit)) is not None:
                failure = failure or _invalid(f"The outputs of unit {unit.name} are not valid: {problem}.")
                continue
            units.append(unit.model_copy(update={"outputs": self._artifacts.put_file(self._folder / unit.outputs)}))
        failure = failure or self._incomplete(written)
        model = None
        if failure is None and self.spec.save_model:
            model = self._artifacts.put_folder(self._folder / "model")
        tail = self._log_tail()
        if failure is not None and not failure.evidence:
            failure = failure.model_copy(update={"evidence": tail})
        return JobResult(
            job=self.spec.job,
            units=tuple(units),
            model=model,
            usage=ended.usage,
            failure=failure,
            log_tail=tail if failure else "",
        )

    def _written(self) -> tuple[JobResult, Failure | None]:
        """The worker's result; an empty one and the failure that this is, when it left none."""
        nothing = JobResult(job=self.spec.job)
        try:
            written = JobResult.model_validate_json((self._folder / "result.json").read_text(encoding="utf-8"))
        except OSError:
            return nothing, _crash("The training program ended without a result.")
        except ValidationError as error:
            return nothing, _invalid(f"The result file is not valid: {error.error_count()} problems in {error.title}.")
        return written, None

    def _bad_end(self, ended: Exit) -> Failure | None:
        if ended.cause is not None:
            return _ended_by(ended, self.spec.limits)
        if ended.code < 0:
            name = signal.Signals(-ended.code).name
            hint = " Most often that is the system itself, short of memory." if name == "SIGKILL" else ""
            return _crash(f"The training program was ended by {name} from outside Postgrad.{hint}")
        return _crash(f"The training program ended with exit code {ended.code}.") if ended.code else None

    def _incomplete(self, written: JobResult) -> Failure | None:
        missing = [unit.name for unit in self.spec.units if unit.name not in {done.name for done in written.units}]
        if missing:
            return _invalid(f"The job ended without outputs of {', '.join(missing)}.")
        if self.spec.save_model and not (self._folder / "model" / "postgrad.json").is_file():
            return _invalid("The job ended without its model.")
        return None

    def _problem(self, unit: UnitResult) -> str | None:
        """What is wrong with an output file, or None."""
        import numpy as np

        if unit.name not in self._asked:
            return "nothing of that name was asked"
        ids = self._asked[unit.name]
        try:
            with np.load(self._folder / unit.outputs, allow_pickle=False) as file:
                answered = tuple(str(name) for name in file["ids"])
                probs, score = file["probs"], file["score"]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            return f"the file cannot be read ({error})"
        if answered != ids:
            return "the answers are not to the questions that were asked"
        if probs.shape != (len(ids), len(self.spec.labels)) or score.shape != (len(ids),):
            wanted = f"{(len(ids), len(self.spec.labels))} and {(len(ids),)}"
            return f"probabilities and scores have shapes {probs.shape} and {score.shape}, not {wanted}"
        if not (np.isfinite(probs).all() and np.isfinite(score).all()):
            return "some probabilities or scores are not finite numbers"
        if (probs < 0).any() or (np.abs(probs.sum(1) - 1.0) > ROUNDING).any():
            return "some rows of probabilities do not sum to 1"
        return None

    def _log_tail(self) -> str:
        try:
            with (self._folder / "log.txt").open("rb") as log:
                log.seek(max(0, log.seek(0, 2) - TAIL_BYTES))
                text = log.read().decode("utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.strip().splitlines()[-TAIL_LINES:])


class Executor:
    """Writes job folders under `scratch` and starts them on an engine that is open."""

    def __init__(self, engine: Engine, artifacts: Artifacts, scratch: Path) -> None:
        self.engine = engine
        self.artifacts = artifacts
        self.scratch = scratch

    def start(self, spec: JobSpec, inputs: Inputs) -> RunningJob:
        """Start a job. One that was stopped or killed goes on, if spec and rows are the very same.

        Args:
            inputs: unit name -> (train rows, rows to be answered). Of the latter only id and text reach the job.

        Raises:
            PostgradError: the folder cannot be written, or the engine cannot start a process.
        """
        names = [spec.job, *(unit.name for unit in spec.units)]
        for name in names:
            if not _NAME.fullmatch(name):
                raise PostgradError(f"'{name}' cannot be the name of a job or unit: it names files.")
        folder = self.scratch / spec.job
        files = _files(spec, inputs)
        try:
            if not _holds(folder, files):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                for name, data in files.items():
                    (folder / name).write_bytes(data)
            handle = self.engine.start(folder.resolve(), spec.limits)
        except OSError as error:
            raise PostgradError(
                f"Cannot start job {spec.job} in {folder}: {error.strerror or error}. Nothing is lost: put that right, "
                "then go on with `postgrad resume`."
            ) from error
        asked = {name: tuple(row.id for row in rows) for name, (_, rows) in inputs.items()}
        return RunningJob(spec, folder.resolve(), handle, asked, self.artifacts)

    def clear(self) -> None:
        """Remove the folders of jobs that were stopped and will not go on. None may be running."""
        shutil.rmtree(self.scratch, ignore_errors=True)


def _files(spec: JobSpec, inputs: Inputs) -> dict[str, bytes]:
    """Everything that a job folder starts with. `job.json` is last: a folder that holds it is complete."""
    files: dict[str, bytes] = {}
    for unit in spec.units:
        train, asked = inputs[unit.name]
        files[unit.train] = _lines(row._asdict() for row in train)
        files[unit.predict] = _lines({"id": row.id, "text": row.text} for row in asked)
    files["job.json"] = spec.model_dump_json(indent=1).encode()
    return files


def _lines(rows: Iterable[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _holds(folder: Path, files: Mapping[str, bytes]) -> bool:
    with suppress(OSError):
        return all((folder / name).read_bytes() == data for name, data in files.items())
    return False


def _ended_by(ended: Exit, limits: Limits) -> Failure:
    """The failure for a job that the engine ended."""
    used = ended.usage
    if ended.cause == "stopped":
        return Failure(boundary="controller", kind="stopped", message="The job was stopped by the run.")
    kind, message = {
        "timeout": ("timeout", f"The job reached its limit of {limits.wall_s:g} s."),
        "memory": (
            "oom",
            f"The job reached its limit of {limits.memory_mb} MB: it used {used.max_rss_mb:.0f} MB after "
            f"{used.wall_s:.0f} s.",
        ),
        "hung": ("hung", f"The job neither computed nor reported anything for {limits.hung_s:g} s."),
    }.get(ended.cause or "", (ended.cause or "unknown", "The engine ended the job."))
    return Failure(boundary="resource", kind=kind, message=message)


def _crash(message: str) -> Failure:
    return Failure(boundary="train", kind="crash", message=message)


def _invalid(message: str) -> Failure:
    return Failure(boundary="predict", kind="invalid_output", message=message)
