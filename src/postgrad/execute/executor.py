"""Starts jobs on an engine and turns what they leave into `JobResult`s. Judges a job by its files, never by its word.

It does not score. A job gets train rows and texts to answer, under numbers and in an order that tell nothing; the
outputs that are stored have the referee's ids in the referee's order. A model that a job saves is loaded once more in
a second job, which answers a sample of the questions again: the answers have to be the model's own.
"""

from __future__ import annotations

import json
import re
import signal
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Iterable, Iterator, Mapping, Sequence

from postgrad.engines.base import Engine, Exit, Handle, Outlying
from postgrad.engines.remote.lease import REMOTE
from postgrad.errors import PostgradError
from postgrad.execute.answers import questions
from postgrad.execute.collect import Collected, Collector, Fingerprint, Handed, check_inputs, isolation
from postgrad.execute.files import Refused, plain_text, read_regular
from postgrad.execute.forms import form_of
from postgrad.records import Failure, JobResult, JobSpec, Limits, Row, Unit, Usage
from postgrad.records.job import sum_of
from postgrad.removing import remove_tree
from postgrad.store.artifacts import Artifacts

PROGRESS_BYTES = 1 << 14
RECHECKED = 256
# Answers in words take longer.
RECHECKED_WORDS = 32
RECHECK_S = 600.0
SAVED = "saved"
_NAME = re.compile(r"[A-Za-z0-9][\w.@+=,-]*")
Inputs = Mapping[str, tuple[Sequence[Row], Sequence[Row]]]


class RunningJob:
    """A job under way, and after it the second look at the model that it saved."""

    def __init__(self, spec: JobSpec, folder: Path, handle: Handle, handed: Handed, executor: Executor) -> None:
        self.spec = spec
        self._folder = folder
        self._handle = handle
        self._handed = handed
        self._executor = executor
        self._first: Collected | None = None
        self._recheck: Recheck | None = None
        self._result: JobResult | None = None
        self._before: Usage | None = None

    @property
    def experiment(self) -> str:
        """The experiment that the job belongs to."""
        return self.spec.experiment

    def poll(self, timeout: float) -> JobResult | None:
        """Return the result once the job has ended, None while it runs after `timeout` seconds.

        Outputs and model are in the artefact store by then, and the job folder is gone, unless the job was stopped.

        Raises:
            PostgradError: the artefact store or the job folder cannot be written. The job folder is kept.
        """
        with explained(self.spec.job):
            if self._result is None and self._first is None:
                ended = self._handle.wait(timeout)
                if ended is not None and self._begun_again(ended):
                    ended = self._handle.wait(timeout)
                if ended is None:
                    return None
                ended = self._with_before(ended)
                self._first = Collector(self.spec, self._folder, self._handed, self._executor.artifacts).collect(ended)
                if self._first.result.model is None:
                    self._end(self._first.result)
            if self._result is None and self._first is not None:
                self._recheck = self._recheck or Recheck(self._executor, self.spec, self._handed, self._first)
                if (found := self._recheck.poll(timeout)) is not None:
                    self._end(found)
        return self._result

    def _begun_again(self, ended: Exit) -> bool:
        """Let a job that was killed from outside go on where it was, once: that is no fault of its recipe. One that
        changed its inputs is not: they say what it may read."""
        limits = self.spec.limits
        if self._before is not None or not killed_from_outside(ended, limits):
            return False
        try:
            check_inputs(self._folder, self._handed)
        except Refused:
            return False
        self._before = ended.usage
        remove_tree(self._folder / REMOTE)  # To an engine it is a new job, with what the last one had kept.
        self._handle = self._executor.engine.start(self._folder, limits)
        return True

    def _with_before(self, ended: Exit) -> Exit:
        return ended if self._before is None else replace(ended, usage=self._before.plus(ended.usage))

    def _end(self, result: JobResult) -> None:
        self._result = result
        if result.failure is None or result.failure.kind != "stopped":
            remove_tree(self._folder)

    def stop(self) -> None:
        """End the job. Its folder stays, so that starting the same job again goes on from there. Idempotent.

        Raises:
            PostgradError: the job folder cannot be written.
        """
        with explained(self.spec.job):
            self._handle.stop()
            if self._recheck is not None:
                self._recheck.stop()

    def used(self) -> Usage:
        """What it has used, once it has ended or was stopped; nothing before."""
        parts = [] if self._first is None else [self._first.result.usage]
        ended = self._handle.wait(0) if self._first is None else None
        parts += [self._with_before(ended).usage] if ended is not None else []
        parts += [self._recheck.used()] if self._recheck is not None else []
        return sum_of(parts)

    def progress(self) -> str:
        """One line on how far the job is, for a person."""
        if self._recheck is not None:
            return "checking the saved model"
        try:
            facts: dict[str, Any] = json.loads(read_regular(self._folder / "progress.json", PROGRESS_BYTES))
            return plain_text(f"{facts['state']} (part {facts['unit']} of {facts['units']})", 200)
        except (OSError, Refused, ValueError, LookupError, TypeError, RecursionError):
            return "starting"


class Recheck:
    """Does the model that a job saved give the answers that the job gave? Asked of a sample, in a job of its own.

    Which questions are in the sample follows from answers and weights together: to know it before, a job would have to
    have made both.
    """

    def __init__(self, executor: Executor, spec: JobSpec, handed: Handed, first: Collected) -> None:
        assert first.result.model is not None
        unit = spec.units[-1]
        asked, answers = handed.asked[unit.name], first.answers[unit.name]
        outputs = next(done.outputs for done in first.result.units if done.name == unit.name)
        rng = Random(f"{outputs}/{first.result.model}")
        most = RECHECKED if spec.labels else RECHECKED_WORDS
        chosen = sorted(rng.sample(range(len(asked.ids)), min(most, len(asked.ids))))
        self._first = first
        self._form = form_of(spec)
        self._expected = self._form.only(answers, chosen)
        limits = spec.limits.model_copy(update={"wall_s": min(spec.limits.wall_s, RECHECK_S)})
        again = Unit(name="recheck", train="", predict="recheck.inputs.jsonl", seed=unit.seed)
        changes = {"job": f"{spec.job}-recheck", "units": (again,), "limits": limits, "save_model": False}
        self._spec = spec.model_copy(update={**changes, "loads": SAVED, "base_model": None})
        rows = tuple(Row(asked.ids[index], asked.texts[index], "") for index in chosen)
        self._handle, self._folder, self._handed = executor.launch_recheck(self._spec, rows, first.result.model)
        self._artifacts = executor.artifacts

    def poll(self, timeout: float) -> JobResult | None:
        """The first job's result, or what the second look makes of it; None while that takes time."""
        ended = self._handle.wait(timeout)
        if ended is None:
            return None
        found = Collector(self._spec, self._folder, self._handed, self._artifacts).collect(ended)
        remove_tree(self._folder)
        first = self._first.result
        both = first.usage.plus(ended.usage)
        failure = self._failure(found)
        if failure is None:
            return first.model_copy(update={"usage": both})
        return JobResult(job=first.job, usage=both, failure=failure, log_tail=found.result.log_tail)

    def _failure(self, found: Collected) -> Failure | None:
        failure = found.result.failure
        if failure is not None and failure.boundary in ("resource", "controller"):
            return failure
        if failure is not None:
            what = f"The saved model cannot be loaded and asked once more: {failure.message}"
            return isolation("swapped_weights", what).model_copy(update={"evidence": failure.evidence})
        difference = self._form.disagreement(self._expected, found.answers[self._spec.units[0].name])
        if not difference:
            return None
        return isolation("swapped_weights", f"The saved model is not the one that gave the answers: {difference}.")

    def stop(self) -> None:
        self._handle.stop()

    def used(self) -> Usage:
        """What it has used, once it has ended or was stopped."""
        ended = self._handle.wait(0)
        return ended.usage if ended is not None else Usage()


class Executor:
    """Writes job folders under `scratch` and starts them on an engine that is open.

    Args:
        referee: the engine that saved models are loaded on, with the project's own worker; `engine` if not given.
    """

    def __init__(self, engine: Engine, artifacts: Artifacts, scratch: Path, referee: Engine | None = None) -> None:
        self.engine = engine
        self.artifacts = artifacts
        self.scratch = scratch
        self._referee = referee or engine

    def start(self, spec: JobSpec, inputs: Inputs) -> RunningJob:
        """Start a job. One that was stopped or killed goes on, if spec and rows are the very same.

        Args:
            inputs: unit name -> (train rows, rows to be answered). Of the latter only texts reach the job.

        Raises:
            PostgradError: the folder cannot be written, or the engine cannot start a process.
        """
        for name in (spec.job, *(unit.name for unit in spec.units)):
            if not _NAME.fullmatch(name):
                raise PostgradError(f"'{name}' cannot be the name of a job or unit: it names files.")
        handed, files = _handed(spec, inputs)
        folder = self.scratch / spec.job
        try:
            if not _holds(folder, files):
                self.remove(folder)
                _fresh(folder, files)
            handle = self.engine.start(folder.resolve(), spec.limits)
        except OSError as error:
            raise _cannot_start(spec.job, folder, error) from error
        return RunningJob(spec, folder.resolve(), handle, handed, self)

    def launch_recheck(self, spec: JobSpec, asked: Sequence[Row], model: str) -> tuple[Handle, Path, Handed]:
        """Start a job that loads a stored model and answers; always afresh.

        Raises:
            PostgradError: the folder cannot be written, the model is damaged, or no process can be started.
        """
        handed, files = _handed(spec, {spec.units[0].name: ((), asked)})
        folder = self.scratch / spec.job
        try:
            _fresh(folder, files)
            self.artifacts.restore_folder(model, folder / SAVED)
            handle = self._referee.start(folder.resolve(), spec.limits)
        except OSError as error:
            raise _cannot_start(spec.job, folder, error) from error
        return handle, folder.resolve(), handed

    def clear(self) -> None:
        """Remove the folders of jobs that were stopped and will not go on. None may be running."""
        self.remove(self.scratch)

    def remove(self, folder: Path) -> None:
        """Remove a folder with jobs that will not go on, also one that a controller before this one left running."""
        if isinstance(self.engine, Outlying):
            self.engine.forget(folder)
        remove_tree(folder)


def killed_from_outside(ended: Exit, limits: Limits) -> bool:
    """True of a job that may be started once more: nothing that it did ended it, and no budget holds it to what it has
    used. One that had half of its memory was most likely killed for that, and would be again."""
    shot = ended.cause is None and ended.code == -signal.SIGKILL and not ended.refused
    return shot and limits.allowed is None and ended.usage.max_rss_mb <= limits.memory_mb / 2


@contextmanager
def explained(job: str) -> Iterator[None]:
    """A machine that refuses, such as a full disk, is no fault of the experiment, and no traceback."""
    try:
        yield
    except OSError as error:
        raise PostgradError(
            f"Job {job} cannot go on: {error.strerror or error}. Nothing is lost: put that right, then go on with "
            "`postgrad resume`."
        ) from error


def _cannot_start(job: str, folder: Path, error: OSError) -> PostgradError:
    return PostgradError(
        f"Cannot start job {job} in {folder}: {error.strerror or error}. Nothing is lost: put that right, then go on "
        "with `postgrad resume`."
    )


def _handed(spec: JobSpec, inputs: Inputs) -> tuple[Handed, dict[str, bytes]]:
    """What a job is given, and the files that a job folder starts with. `job.json` is last: a folder that holds it is
    complete."""
    files: dict[str, bytes] = {}
    asked = {}
    for unit in spec.units:
        train, rows = inputs[unit.name]
        asked[unit.name] = questions(unit.name, rows)
        if unit.train:
            files[unit.train] = _lines(row.told for row in train)
        files[unit.predict] = _lines({"id": name, "text": text} for name, text in asked[unit.name].shown)
    files["job.json"] = spec.model_dump_json(indent=1).encode()
    return Handed({name: Fingerprint.of(data) for name, data in files.items()}, asked), files


def _lines(rows: Iterable[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _fresh(folder: Path, files: Mapping[str, bytes]) -> None:
    remove_tree(folder)
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _holds(folder: Path, files: Mapping[str, bytes]) -> bool:
    with suppress(OSError, Refused):
        return all(read_regular(folder / name, len(data)) == data for name, data in files.items())
    return False
