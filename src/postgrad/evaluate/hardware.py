"""Which scores of different hardware may be compared: the whole rule.

A training that goes through the same rows in the same order ends, up to the last bits, in the same model on whatever it
runs: its score is compared, and that hardware differed is recorded and told. A training that stops by the clock gets
further on a faster machine: its score is that of the machine as well, so it is compared with scores of the same kind of
hardware only, and set apart where there are none. The hardware is that of the attempt that made it: one that was lost
on its way left nothing to the next (`Limits.anew`), wherever it ran. Kind is processor, threads, devices and nodes
(`Hardware.kind`), and neither host, driver nor load: these are recorded.
"""

from __future__ import annotations

from typing import Iterable, Sequence

from postgrad.records import Failure, Hardware, TaskSpec

# So many trainings in a row on other hardware: the engine gives no more of the kind that the run began on.
MOST_APART = 3
APART = "other_hardware"


def time_bound(task: TaskSpec) -> bool:
    """True where a score depends on how fast the machine is: the trainings of a task stop by the clock."""
    return task.script is not None and task.script.fixed == "time"


def kinds(hardware: Iterable[Hardware]) -> frozenset[str]:
    """The kinds of hardware that a training went through; none where they were not recorded."""
    return frozenset(each.kind for each in hardware)


def unlike(task: TaskSpec, mine: Sequence[Hardware], theirs: Sequence[Hardware], whose: str) -> Failure | None:
    """Why a score may not be compared with that of `whose`; None where it may, or where one of them was recorded by a
    version that recorded no hardware.

    Args:
        mine, theirs: what made the two scores ran on (`JobResult.hardware`).
    """
    own, other = kinds(mine), kinds(theirs)
    if not time_bound(task) or not own or not other or own == other:
        return None
    said = (
        f"It was trained on {told(mine)}, and {whose} on {told(theirs)}. What stops by the clock "
        "gets further on a faster machine, so the two scores are not compared. Ask the cluster for one kind of node "
        "(engine.options, engine.partition), or write script.fixed: steps where the clock decides nothing."
    )
    return Failure(boundary="evaluate", kind=APART, message=said)


def told(hardware: Iterable[Hardware]) -> str:
    """Kinds of hardware in words, each once."""
    return "; then ".join(dict.fromkeys(each.kind for each in hardware))
