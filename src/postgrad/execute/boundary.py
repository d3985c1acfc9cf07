"""Where an exception inside a job becomes a `Failure` with an address. Nothing is swallowed: it is named and raised."""

from __future__ import annotations

import errno
import traceback
from types import TracebackType
from typing import Literal

from pydantic import ValidationError

from postgrad.errors import UserError
from postgrad.records import Failure
from postgrad.train.base import CheckFailed, TrainingDiverged, is_out_of_memory

Stage = Literal["recipe", "data", "train", "predict"]
EVIDENCE_LINES = 20
MESSAGE_LETTERS = 500
_OUT_OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class JobFailed(Exception):
    """A failure on its way out of a job."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class boundary:  # noqa: N801 - reads as the context manager it is
    """`with boundary("train"):` turns every exception inside into `JobFailed`, with the boundary it belongs to."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, JobFailed):
            raise JobFailed(classified(self.stage, error)) from error


def classified(stage: Stage, error: Exception) -> Failure:
    """The failure that an exception in this stage is."""
    evidence = tail_of(error)
    if isinstance(error, ValidationError):
        return Failure(boundary="recipe", kind="invalid", message=_invalid(error), evidence=evidence)
    if isinstance(error, UserError):
        return Failure(boundary="recipe", kind="invalid", message=str(error), evidence=evidence)
    if isinstance(error, TrainingDiverged):
        return Failure(boundary="train", kind="nan", message=f"Training diverged: {error}.", evidence=evidence)
    if isinstance(error, CheckFailed):
        return Failure(
            boundary="train", kind=error.kind, message=f"Checked before training: {error}", evidence=evidence
        )
    what = f"{type(error).__name__}: {error}"[:MESSAGE_LETTERS]
    if is_out_of_memory(error):
        return Failure(boundary="resource", kind="oom", message=f"Out of memory. {what}", evidence=evidence)
    if isinstance(error, OSError) and error.errno in _OUT_OF_DISK:
        return Failure(boundary="resource", kind="disk", message=f"The disk is full. {what}", evidence=evidence)
    return Failure(boundary=stage, kind="crash", message=what, evidence=evidence)


def tail_of(error: Exception) -> str:
    """The last lines of the traceback, without the lines that only underline."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join([line for line in lines if line.strip(" ^~")][-EVIDENCE_LINES:])


def _invalid(error: ValidationError) -> str:
    problems = [f"{'.'.join(map(str, p['loc'])) or 'params'}: {p['msg']}" for p in error.errors(include_url=False)]
    return f"The recipe's {error.title} are not valid. {'; '.join(problems)}."
