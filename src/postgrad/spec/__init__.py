"""The task file: read and checked, written, compared, described."""

from postgrad.data.guess import InitGuess, guess_columns
from postgrad.spec.changes import task_changes, task_fingerprint
from postgrad.spec.keys import DEFAULT_BASE_MODEL, DEFAULT_BUDGET, task_schema
from postgrad.spec.load import load_task
from postgrad.spec.write import write_task

__all__ = [
    "DEFAULT_BASE_MODEL",
    "DEFAULT_BUDGET",
    "InitGuess",
    "guess_columns",
    "load_task",
    "task_changes",
    "task_fingerprint",
    "task_schema",
    "write_task",
]
