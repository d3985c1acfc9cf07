"""What the trainings of a script leave open: those that failed at the end, and items that one side lacks.

Those that are left are no fair draw of all: a version that crashes on hard seeds, or a referee that names only what
went well, looks better than it is. So what is missing is told, and where it is too much nothing is certified.
"""

from __future__ import annotations

from typing import AbstractSet, Iterator, Mapping, NamedTuple, Sequence

from postgrad.quoting import inlined
from postgrad.records import Failure

# Numbers that a side needs: one says nothing of how much seeds matter.
FEWEST = 2
# Of the items that a side has, so many have to be compared.
SHARED = 0.9
NAMED, NAME = 3, 40
Named = Mapping[str, Sequence[Mapping[str, float]]]


def unlike(names: AbstractSet[str], others: AbstractSet[str], whose: str) -> Failure | None:
    """What is wrong with the items of a training: values are compared item by item, and none is left out for one side.

    Args:
        others: the items of `whose` on the same split.
    """
    if lacking := others - names:
        said = f"The referee did not name {_some(lacking, others)} items that it named of {whose}: {_shown(lacking)}."
        return Failure(boundary="evaluate", kind="missing_items", message=said)
    if more := names - others:
        said = f"The referee named {_some(more, names)} items that it had not named of {whose}: {_shown(more)}."
        return Failure(boundary="evaluate", kind="other_items", message=said)
    return None


def _some(some: AbstractSet[str], every: AbstractSet[str]) -> str:
    return f"{len(some):,} of {len(every):,}"


def _shown(names: AbstractSet[str]) -> str:
    first = sorted(names)[:NAMED]
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(inlined(name, NAME) for name in first) + more


class End(NamedTuple):
    """How a final training ended: with a failure, or a number; `again` where it had failed before."""

    failure: Failure | None
    again: bool


def weighed(ended: Mapping[str, Sequence[End]], found: Named) -> tuple[str | None, tuple[str, ...]]:
    """(why nothing may be certified, what else has to be told).

    Args:
        ended: experiment -> how each of its final trainings ended.
        found: experiment -> item -> number, of each training that gave one.
    """
    reasons = [*(_too_few(*side) for side in ended.items()), too_little_shared(found)]
    why = "; ".join(filter(None, reasons)) or None
    told = [said for side in ended.items() for said in (_failed(*side), _again(*side))]
    return why, tuple(said for said in (*told, *missing(found)) if said and said not in (why or ""))


def _failed(experiment: str, ended: Sequence[End]) -> str | None:
    found = [each.failure for each in ended if each.failure is not None]
    if not found:
        return None
    kinds = ", ".join(sorted({f"{each.boundary}/{each.kind}" for each in found}))
    return f"{len(found)} of {len(ended)} final trainings of {experiment} failed ({kinds})"


def _again(experiment: str, ended: Sequence[End]) -> str | None:
    count = sum(each.again for each in ended)
    said = (
        f"{count} of {len(ended)} final trainings of {experiment} gave a number only when tried again after a failure"
    )
    return said if count else None


def _too_few(experiment: str, ended: Sequence[End]) -> str | None:
    left = sum(each.failure is None for each in ended)
    if left >= min(FEWEST, len(ended)):
        return None
    return f"{_failed(experiment, ended)}, and what is left does not say how much seeds matter"


def compared(found: Named) -> list[str]:
    """The items that every training has, in order.

    Args:
        found: experiment -> item -> number, of each training that gave one.
    """
    every = [set(items) for each in found.values() for items in each]
    return sorted(set.intersection(*every)) if every else []


def missing(found: Named) -> Iterator[str]:
    """For each experiment with items that another one has and it lacks, in any of its trainings, what is said of it."""
    every = {name for each in found.values() for items in each for name in items}
    for experiment, each in found.items():
        lacking = {name for name in every if any(name not in items for items in each)}
        if lacking:
            yield f"the referee did not name {_some(lacking, every)} items of {experiment}: {_shown(lacking)}"


def too_little_shared(found: Named) -> str | None:
    """Why the items that are compared do not speak for all; None where they do."""
    common = len(compared(found))
    most = max((len({name for items in each for name in items}) for each in found.values()), default=0)
    if common >= SHARED * most:
        return None
    said = f"only {common:,} of {most:,} items were named in every final training, less than {SHARED:.0%}"
    return "; ".join([said, *missing(found)])
