"""A task that is a program: what may be edited in it, how it is run, and who measures what it leaves."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from postgrad.records.base import Record


class ScriptSpec(Record):
    """A repository or folder with a training script.

    Attributes:
        source: where it lies. It is copied, and never written to.
        editable: patterns, as in .gitignore, of the files that experiments may change; all others are protected.
        protected: patterns of files that stay as they are although `editable` names them.
        run: the command of one experiment, without a shell; it starts in a checkout.
        time_s: what the script is told to train for, in `POSTGRAD_TIME_S`.
        fixed: what is the same in all trainings. Of "time", scores on different hardware are not compared; of "steps"
            the machine decides nothing.
        kill_s: wall seconds after which it is ended.
        leaves: files and folders that it writes and the referee reads.
        metric: the name of the number; `direction` says which way is better.
        referee: the command that measures what was left, from a checkout of the untouched files; None where the number
            is read from what the script printed, and so is the script's own word.
        hidden: split -> a file of the source that the script never sees and the referee measures on.
        confirm: the command of a larger setting, in which champion and baseline are trained once the search is over; ()
            for none. `confirm_time_s` is what it is told to train for.
        printed: the key of the line `key: value` that is read where there is no referee.
    """

    source: str
    editable: tuple[str, ...]
    protected: tuple[str, ...] = ()
    run: tuple[str, ...]
    time_s: float = 300.0
    fixed: Literal["time", "steps"] = "time"
    kill_s: float = 630.0
    leaves: tuple[str, ...] = ()
    metric: str
    direction: Literal["min", "max"] = "max"
    referee: tuple[str, ...] = ()
    hidden: dict[Literal["search", "select", "sealed"], str] = Field(default_factory=dict)
    printed: str = ""
    confirm: tuple[str, ...] = ()
    confirm_time_s: float = 300.0

    @property
    def trusted(self) -> bool:
        """False where the number is the script's own word."""
        return bool(self.referee)

    @property
    def scored(self) -> str:
        """The name of the metric as the rest of a run knows it, where more is better: who says it, a minus where less
        of it is better, and its name."""
        sign = "-" if self.direction == "min" else ""
        return f"{'referee' if self.trusted else 'printed'}:{sign}{self.metric}"


class ScriptPrepared(Record):
    """The source as a run began with it: its commit, what names its content, and which files may be changed.

    `kinds`: the kinds of change that are known for these files, such as `constant.LEARNING_RATE`.
    """

    commit: str
    tree: str
    editable: tuple[str, ...]
    protected: tuple[str, ...]
    kinds: tuple[str, ...] = ()
