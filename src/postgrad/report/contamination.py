"""What a run took out of its training data, and what the report says of it. Ids only: a sealed text is never shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Iterable, Mapping

from postgrad.data.decontaminate import Match
from postgrad.evaluate.splits import SplitPlan
from postgrad.records import StepReport
from postgrad.report.wording import plural
from postgrad.tree import Tree

SHOWN = 20
STEP = "decontaminate"
HOW = {
    "exact": "equal",
    "reordered": "the same words in another order",
    "mistyped": "one typing error apart",
    "contained": "with words around it",
    "ngrams": "sharing long word sequences",
    "minhash": "nearly the same letters",
    "embedding": "close under the encoder",
}


@dataclass(frozen=True)
class Removed:
    """A given row that is in no split: `near` is the split of the item that it is like."""

    part: str
    near: str
    match: Match

    @property
    def how(self) -> str:
        return HOW[self.match.how]


@dataclass(frozen=True)
class Contamination:
    """What was looked for, found and taken out.

    Attributes:
        searched: False before the data is split.
        near_copies: False for runs that looked for equal texts only.
        counts: given part -> how many of its rows are in no split.
        removed: these rows, where they are on record.
        made: matcher -> ids of train rows that workers took out of single trainings of the search, because they were
            near what that training was asked. Older runs have no ids.
        barred: how often that happened, over all trainings.
    """

    searched: bool
    near_copies: bool
    counts: Mapping[str, int]
    removed: tuple[Removed, ...]
    made: Mapping[str, tuple[str, ...]]
    barred: int

    @property
    def shown(self) -> tuple[Removed, ...]:
        """The first of `removed`: what a page has room for."""
        return self.removed[:SHOWN]

    @property
    def words(self) -> str:
        """What the report says."""
        if not self.searched:
            return "The data is not split yet, so nothing is known."
        rows = [f"{plural(count, 'row')} of {part}" for part, count in self.counts.items() if count]
        what = "the text of a held-out row or nearly that" if self.near_copies else "the text of a held-out row"
        if rows:
            found = self._kinds()
            words = (
                f"{' and '.join(rows)} had {what}{found}. They were taken out before anything was trained or chosen."
            )
        else:
            words = f"No training row has {what}."
        if self.barred:
            what = "came near" if self.near_copies else "had the text of"
            made = f"{plural(self.barred, 'row')} made by data steps"
            words += f" {made} {what} a question of the same training; taken out too."
        return words

    def _kinds(self) -> str:
        counts = Counter(one.how for one in self.removed)
        return f" ({', '.join(f'{count} {how}' for how, count in counts.most_common())})" if counts else ""


def contamination_of(plan: SplitPlan | None, tree: Tree) -> Contamination:
    """Read it off the plan and the data steps of the search."""
    steps = [
        step
        for node in tree.all()
        for result in node.results
        for unit in result.units
        for step in unit.steps
        if step.op == STEP
    ]
    near = _splits(plan) if plan else {}
    matches = (plan.matches if plan else None) or {}
    return Contamination(
        searched=plan is not None,
        near_copies=plan is not None and plan.matches is not None,
        counts=plan.removed if plan else {},
        removed=tuple(
            Removed(part, near.get(match.item, "guards"), match) for part, found in matches.items() for match in found
        ),
        made=_together(steps),
        barred=sum(step.dropped for step in steps),
    )


def _splits(plan: SplitPlan) -> dict[str, str]:
    """Item id -> the split that it is in. What a train row can be near of and is in none is a side row of a guard."""
    asked = {"select": plan.select, "search": plan.search}
    found = {item: split for split, units in asked.items() for unit in units for item in unit.items}
    return found | dict.fromkeys(plan.sealed, "sealed")


def _together(steps: Iterable[StepReport]) -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for step in steps:
        for how, ids in step.removed.items():
            found.setdefault(how, {}).update(dict.fromkeys(ids))
    return {how: tuple(ids) for how, ids in found.items()}
