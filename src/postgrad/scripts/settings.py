"""What a training of a script is: that of the search, or one in the larger setting that the task names."""

from __future__ import annotations

from dataclasses import dataclass

from postgrad.records import ScriptSpec
from postgrad.spec.script import KILL_FACTOR, KILL_MORE_S

#: The unit of a training in the larger setting.
LARGER = "larger"


@dataclass(frozen=True)
class Setting:
    """How one training is run.

    Attributes:
        command: without a shell.
        time_s, kill_s: seconds that it is told to train for, and after which it is ended.
        split: whose hidden file the referee measures on.
    """

    command: tuple[str, ...]
    time_s: float
    kill_s: float
    split: str


def setting_of(script: ScriptSpec, unit: str) -> Setting:
    """The setting of a unit."""
    if unit != LARGER:
        return Setting(script.run, script.time_s, script.kill_s, unit)
    kill_s = KILL_FACTOR * script.confirm_time_s + KILL_MORE_S
    return Setting(script.confirm, script.confirm_time_s, kill_s, "sealed")
