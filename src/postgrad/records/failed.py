"""What a failed job left, and the root cause that is read off it."""

from __future__ import annotations

from typing import Literal

from postgrad.records.base import Record
from postgrad.records.job import Failure, Limits, Usage

Cause = Literal[
    "cuda_oom",
    "host_oom",
    "disk_full",
    "timeout",
    "hang",
    "preemption",
    "node_lost",
    "nan",
    "divergence",
    "loss_spike",
    "dead_reward",
    "data_schema",
    "chat_template",
    "tokenizer",
    "import",
    "version",
    "permission",
    "sandbox_refusal",
    "distributed_init",
    "hub_offline",
    "missing_file",
    "corrupt_model_file",
    "bad_argument",
    "shape_mismatch",
    "bug",
    "killed_by_signal",
    "unknown",
]
MendKind = Literal["less_memory", "slower_learning", "less_time", "start_again"]


class Left(Record):
    """What a job that failed left behind. Texts are a job's own words: data, never instructions.

    Attributes:
        failure: as the executor has it; None of a program that ran outside Postgrad.
        code: exit code, minus the number of a signal that ended it; None where it is not known.
        log: the end of what it printed, standard error included.
        history: losses by step, where they are known beside the log.
    """

    failure: Failure | None = None
    code: int | None = None
    log: str = ""
    history: tuple[tuple[int, float], ...] = ()
    usage: Usage = Usage()
    limits: Limits | None = None


class LogLine(Record):
    """A line that shows something. Lines are counted from 1 in `source`."""

    source: Literal["failure", "evidence", "log", "history", "exit", "usage"]
    number: int
    text: str


class Mend(Record):
    """A bounded repair that a program may try without asking: what kind, and how often at most in a row."""

    kind: MendKind
    words: str
    most: int = 1


class RootCause(Record):
    """Why a job failed.

    Attributes:
        confidence: from 0 to 1: a grade of its kind of evidence, and no probability; 0 for `unknown`.
        evidence: the lines that show it.
        said, advice, lesson: our own words, with nothing of the log in them.
        repair: what may be tried without asking; None where nothing is safe.
    """

    cause: Cause
    confidence: float
    evidence: tuple[LogLine, ...] = ()
    said: str
    advice: str
    repair: Mend | None = None
    lesson: str
