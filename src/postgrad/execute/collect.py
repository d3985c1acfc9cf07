"""What a job left, judged by its files and never by its word: units, model, or the failure that it is.

Scores nothing. What a job may not touch is a failure at the boundary "isolation", and then nothing of the job counts.
"""

from __future__ import annotations

import hashlib
import json
import math
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

from pydantic import ValidationError

from postgrad.budget import format_duration
from postgrad.engines.base import Exit
from postgrad.execute.answers import BadAnswers, Questions
from postgrad.execute.files import Refused, check_model, plain_text, plain_value, read_regular, read_tail
from postgrad.execute.forms import AnyAnswers, form_of
from postgrad.execute.worker import MODEL_FORMAT, TRAINED
from postgrad.records import Allowed, Failure, JobResult, JobSpec, Limits, UnitResult, Usage
from postgrad.records.job import Amount
from postgrad.store.artifacts import Artifacts

MB = 1 << 20
RESULT_BYTES = 8 * MB
FACTS_BYTES = 4 * MB
MODEL_MB = 8_000
TRAINED_BYTES = 256 * MB
TAIL_LINES, TAIL_BYTES = 20, 1 << 16
EVIDENCE_LETTERS = 4_000
HISTORY_POINTS, MEASURED = 1_000, 20
# What a job may say of itself. Everything else is for the controller to say.
OWN_BOUNDARIES = ("recipe", "data", "train", "predict")
OWN_RESOURCES = ("oom", "disk")
REFUSED = {
    "forbidden_file": "The job tried to touch a file that is not its own: {}.",
    "network": "The job tried to reach the network: {}.",
    "signal": "The job tried to signal a process that is not its own: {}.",
    "left_behind": "The job left {} behind when it ended.",
}


# What a job may use of budgets: the key of a task file, and words for it.
AMOUNTS: Mapping[Amount, tuple[str, str]] = {
    "wall_s": ("wall", "time"),
    "cpu_s": ("cpu_hours", "time of cores"),
    "gpu_s": ("gpu_hours", "time of devices"),
    "usd": ("usd", "money"),
}
# What became of a job whose place is gone, after every attempt that it was granted.
LOST = {
    "lost": "Every node that the job was given to was lost, or ended it without a word.",
    "preempted": "The cluster took its node away again each time that the job was started.",
}


@dataclass(frozen=True)
class Fingerprint:
    """Size and sha256 of a file."""

    size: int
    digest: bytes

    @classmethod
    def of(cls, data: bytes) -> Fingerprint:
        return cls(len(data), hashlib.sha256(data).digest())


@dataclass(frozen=True)
class Handed:
    """What a job was given: its input files by name, and the questions by unit."""

    inputs: Mapping[str, Fingerprint]
    asked: Mapping[str, Questions]


@dataclass(frozen=True)
class Collected:
    """A result, and the answers in it by unit name."""

    result: JobResult
    answers: Mapping[str, AnyAnswers]


def check_inputs(folder: Path, handed: Handed) -> None:
    """Look whether a job's inputs are what it was given.

    Raises:
        Refused: one is not.
    """
    for name, known in handed.inputs.items():
        try:
            found = Fingerprint.of(read_regular(folder / name, known.size))
        except (OSError, Refused) as error:
            raise Refused("changed_inputs", f"The job removed or replaced its input {name}.") from error
        if found != known:
            raise Refused("changed_inputs", f"The job changed its input {name}.")


class Collector:
    """Reads the folder of one job that has ended."""

    def __init__(self, spec: JobSpec, folder: Path, handed: Handed, artifacts: Artifacts) -> None:
        self.spec = spec
        self.folder = folder
        self.handed = handed
        self.artifacts = artifacts

    def collect(self, ended: Exit) -> Collected:
        """Everything of the job that can be trusted, in the artefact store.

        Raises:
            PostgradError: the artefact store cannot be written.
        """
        answers: dict[str, AnyAnswers] = {}
        tail = "\n".join(read_tail(self.folder / "log.txt", TAIL_BYTES).strip().splitlines()[-TAIL_LINES:])
        try:
            check_inputs(self.folder, self.handed)
            self._check_refused(ended)
            said, failure = self._said(ended)
            units, invalid = self._units(said, answers)
            failure = failure or invalid or self._incomplete(said)
            saved = failure is None and self.spec.save_model
            model, trained = (self._model(), self._trained()) if saved else (None, None)
        except Refused as refused:
            units, model, trained, failure = (), None, None, isolation(refused.kind, str(refused))
            answers.clear()
        if failure is not None and not failure.evidence:
            failure = failure.model_copy(update={"evidence": tail})
        result = JobResult(
            job=self.spec.job,
            units=units,
            model=model,
            trained=trained,
            usage=ended.usage,
            failure=failure,
            log_tail=tail if failure else "",
        )
        return Collected(result, answers)

    # --- what it may not have done ------------------------------------------------------------------------------------

    def _check_refused(self, ended: Exit) -> None:
        for kind, what in ended.refused:
            text = REFUSED.get(kind, "The job tried what it may not do: {}.")
            raise Refused(kind if kind in REFUSED else "forbidden", text.format(plain_text(what, 400)))

    # --- what it says -------------------------------------------------------------------------------------------------

    def _said(self, ended: Exit) -> tuple[JobResult, Failure | None]:
        """The worker's result, and the first thing that is wrong with how the job ended."""
        nothing = JobResult(job=self.spec.job)
        ending = bad_end(ended, self.spec.limits)
        try:
            data = read_regular(self.folder / "result.json", RESULT_BYTES)
            found = JobResult.model_validate_json(data)
        except OSError:
            return nothing, ending or _crash("The training program ended without a result.")
        except ValidationError as error:
            problem = _invalid(f"The result file is not valid: {error.error_count()} problems in {error.title}.")
            return nothing, ending or problem
        names = [unit.name for unit in found.units]
        if found.job != self.spec.job or len(set(names)) != len(names):
            raise Refused("forged_result", "The result file is that of another job, or names a unit twice.")
        return found, _own_failure(found.failure) or ending

    def _units(self, said: JobResult, answers: dict[str, AnyAnswers]) -> tuple[tuple[UnitResult, ...], Failure | None]:
        """The units with valid answers, stored, and the failure that the others are."""
        units, failure, form = [], None, form_of(self.spec)
        for unit in said.units:
            if unit.name not in self.handed.asked:
                what = plain_text(unit.name, 100)
                raise Refused("forged_result", f"The job answers a unit '{what}', and nothing of that name was asked.")
            if unit.outputs != f"out-{unit.name}{form.suffix}":
                raise Refused("outside", f"The outputs of {unit.name} are said to be in '{plain_text(unit.outputs)}'.")
            asked = self.handed.asked[unit.name]
            try:
                data = read_regular(self.folder / unit.outputs, form.largest(len(asked.ids)))
                answers[unit.name] = form.read(data, asked)
            except OSError as error:
                failure = failure or _bad_answers(unit.name, f"the file cannot be read ({error.strerror})")
            except BadAnswers as error:
                failure = failure or _bad_answers(unit.name, str(error))
            else:
                units.append(self._stored(unit, form.written(asked.ids, answers[unit.name])))
        return tuple(units), failure

    def _stored(self, unit: UnitResult, data: bytes) -> UnitResult:
        """A unit with its outputs as an artefact. What it says of itself is kept for people, and made harmless."""
        history = tuple(point for point in unit.history if math.isfinite(point[1]))[-HISTORY_POINTS:]
        facts: dict[str, Any] = plain_value(unit.model_dump(mode="json", include={"name", "steps"}))
        known = [(name, value) for name, value in unit.measured.items() if math.isfinite(value) and name.isidentifier()]
        wall = unit.wall_s if math.isfinite(unit.wall_s) and unit.wall_s >= 0 else 0.0
        return UnitResult.model_validate(
            {
                **facts,
                "outputs": self.artifacts.put_bytes(data),
                "history": history,
                "wall_s": wall,
                "measured": dict(known[:MEASURED]),
            }
        )

    def _incomplete(self, said: JobResult) -> Failure | None:
        done = {unit.name for unit in said.units}
        missing = [unit.name for unit in self.spec.units if unit.name not in done]
        if missing:
            return _invalid(f"The job ended without outputs of {', '.join(missing)}.")
        if self.spec.save_model and not (self.folder / "model" / "postgrad.json").exists():
            return _invalid("The job ended without its model.")
        return None

    def _model(self) -> str:
        """Store the saved model, after checking that it is data and says that it is this job's."""
        folder = self.folder / "model"
        check_model(folder, MODEL_MB * MB)
        try:
            facts = json.loads(read_regular(folder / "postgrad.json", FACTS_BYTES))
        except (OSError, ValueError, RecursionError) as error:
            raise Refused("model_facts", "The saved model's postgrad.json cannot be read.") from error
        for name, wanted in model_facts(self.spec).items():
            if not isinstance(facts, dict) or facts.get(name) != wanted:
                raise Refused("model_facts", f"The saved model is not this job's: its {name} is another one.")
        return self.artifacts.put_folder(folder)

    def _trained(self) -> str | None:
        """Store the rows that the job says it trained on, for the audit; None where it says nothing."""
        try:
            return self.artifacts.put_bytes(read_regular(self.folder / TRAINED, TRAINED_BYTES))
        except OSError:
            return None


def model_facts(spec: JobSpec) -> dict[str, Any]:
    """What `postgrad.json` of the model that a job saves has to say."""
    return {
        "format": MODEL_FORMAT,
        "backend": spec.recipe.stage.backend,
        "labels": list(spec.labels),
        "out_of_scope": spec.out_of_scope,
        "recipe": spec.recipe.model_dump(mode="json"),
        "seed": spec.units[-1].seed,
    }


# --- failures ---------------------------------------------------------------------------------------------------------


def isolation(kind: str, message: str) -> Failure:
    """A job that did what it may not."""
    return Failure(boundary="isolation", kind=kind, message=message if message.endswith(".") else f"{message}.")


def _own_failure(failure: Failure | None) -> Failure | None:
    """A failure that a job reports of itself, held to what it can know."""
    if failure is None:
        return None
    own = failure.boundary in OWN_BOUNDARIES or (failure.boundary == "resource" and failure.kind in OWN_RESOURCES)
    return Failure(
        boundary=failure.boundary if own else "train",
        kind=plain_text(failure.kind, 40) if own else "crash",
        message=plain_text(failure.message),
        evidence=plain_text(failure.evidence, EVIDENCE_LETTERS),
    )


def bad_end(ended: Exit, limits: Limits) -> Failure | None:
    if ended.cause is not None:
        return _ended_by(ended, limits)
    if ended.code < 0:
        name = signal.Signals(-ended.code).name
        hint = " Most often that is the system itself, short of memory." if name == "SIGKILL" else ""
        return _crash(f"The training program was ended by {name} from outside Postgrad.{hint}")
    return _crash(f"The training program ended with exit code {ended.code}.") if ended.code else None


def _ended_by(ended: Exit, limits: Limits) -> Failure:
    """The failure for a job that the engine ended."""
    used = ended.usage
    if ended.cause == "stopped":
        return Failure(boundary="controller", kind="stopped", message="The job was stopped by the run.")
    if ended.cause in LOST:
        return Failure(boundary="engine", kind=ended.cause, message=LOST[ended.cause])
    if ended.cause == "budget" and limits.allowed is not None:
        return over_budget(limits.allowed, used)
    kind, message = {
        "timeout": ("timeout", f"The job reached its limit of {limits.wall_s:g} s."),
        "memory": (
            "oom",
            f"The job reached its limit of {limits.memory_mb} MB: it used {used.max_rss_mb:.0f} MB after "
            f"{used.wall_s:.0f} s.",
        ),
        "hung": ("hung", f"The job neither computed nor reported anything for {limits.hung_s:g} s."),
        "disk": ("flood", f"The job wrote more than its {limits.disk_mb} MB, too long a log, or the disk nearly full."),
        "processes": ("flood", "The job started more processes than it may."),
    }.get(ended.cause or "", (ended.cause or "unknown", "The engine ended the job."))
    return Failure(boundary="resource", kind=kind, message=message)


def over_budget(allowed: Allowed, used: Usage) -> Failure:
    """The failure of a job that used up what budgets left it, with what to do."""
    name = allowed.over(used) or "wall_s"
    key, words = AMOUNTS[name]
    most, found = (_amount(name, getattr(each, name) or 0.0) for each in (allowed, used))
    if name in allowed.of_run:
        said = f"The job used up the {words} that the run's budget had left for one experiment: {found} of {most}."
        advice = f"Grant the run more (budget.{key}), or try what takes less: fewer epochs or rows, a smaller model."
    else:
        said = f"The experiment used up its own {words}: this job {found}, and {most} were left for it."
        advice = f"Raise experiment.{key} in the task file, or try what takes less: fewer epochs or rows."
    return Failure(boundary="resource", kind="budget", message=f"{said} {advice}")


def _amount(name: Amount, amount: float) -> str:
    return f"${amount:.2f}" if name == "usd" else format_duration(amount)


def _crash(message: str) -> Failure:
    return Failure(boundary="train", kind="crash", message=message)


def _invalid(message: str) -> Failure:
    return Failure(boundary="predict", kind="invalid_output", message=message)


def _bad_answers(unit: str, problem: str) -> Failure:
    return _invalid(f"The outputs of unit {unit} are not valid: {problem}.")
