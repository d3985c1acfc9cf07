"""`contest.json`: what was done so far and what came of it. Written whole after each step, so that a kill loses one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from postgrad import __version__
from postgrad.contest.evaluator import Score
from postgrad.contest.verdict import Verdict
from postgrad.errors import UserError
from postgrad.records import Record


class State(Record):
    """One entry into one contest.

    Attributes:
        started, deadline: Unix times; the deadline stays when the command is called again.
        protected: relative path -> SHA-256 of what nobody may touch, as it was at the start.
        base_model, base_hash: the base, and the hash of its content.
        data: which test data was found and compared with, and how many rows were taken out.
        copy_s: what one copy of the base took; None before the base lies in `final_model`.
        run: folder of the run; None before it is started.
        final_is: what lies in `final_model` now.
        why: the reason for that.
        touched: protected files that were changed while the contest went on.
    """

    postgrad: str = __version__
    folder: str
    final_model: str
    started: float
    deadline: float
    protected: dict[str, str]
    base_model: str
    base_hash: str
    data: dict[str, Any]
    limit: int | None = None
    copy_s: float | None = None
    base_score: Score | None = None
    run: str | None = None
    verdict: Verdict | None = None
    final_is: Literal["base", "champion"] = "base"
    why: str = "the run has not ended"
    load_problems: tuple[str, ...] | None = None
    final_score: Score | None = None
    touched: tuple[str, ...] = Field(default=())
    done: bool = False


def read_state(path: Path) -> State | None:
    """The entry that was begun here, or None.

    Raises:
        UserError: the file is there and is no such record.
    """
    if not path.is_file():
        return None
    try:
        return State.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, ValueError) as wrong:
        raise UserError(
            f"{path} is no record of this version ({str(wrong).splitlines()[0]}). Move it away and begin again."
        ) from wrong


def write_state(path: Path, state: State) -> State:
    """Write the record in one step; return it."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(state.model_dump_json(indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return state
