"""What each kind of change did in a run: how often it was tried, what it brought, and which experiments say so.

One pass over the tree: some 30 ms for 10,000 experiments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import nlargest, nsmallest
from math import inf
from typing import Iterable

from postgrad.memory.effects import SEVERAL, Z95
from postgrad.records import Lesson
from postgrad.research.learning import Belief, effect_of
from postgrad.tree import Experiment, State, Tree

REFERENCE = "reference."
#: The last ones are named.
NAMED = 3


@dataclass(frozen=True)
class Fact:
    """What one experiment says of its change: an effect over the parent, as `learning.effect_of` has it."""

    id: str
    kind: str
    effect: float
    variance: float


@dataclass
class Sum:
    """One kind of change over a tree, or over the children of one experiment. `together` counts the experiments that
    made it with others at once: what those brought is nobody's alone, and in no mean."""

    kind: str
    tried: int = 0
    failed: int = 0
    pending: int = 0
    rejected: int = 0
    compared: int = 0
    together: int = 0
    precision: float = 0.0
    weighted: float = 0.0
    best: tuple[float, str] = (-inf, "")
    worst: tuple[float, str] = (inf, "")
    last: list[str] = field(default_factory=list)

    def add(self, name: str, state: State, fact: Fact | None, rejected: bool = False) -> None:
        """One more experiment with this change alone. What a person rejected was proposed and not tried."""
        self.tried += not rejected
        self.rejected += rejected
        self.failed += state is State.FAILED
        self.pending += state is State.PENDING
        self._name(name)
        if fact is None:
            return
        self.precision += 1 / fact.variance
        self.weighted += fact.effect / fact.variance
        if state is State.FAILED:
            return
        self.compared += 1
        self.best = max(self.best, (fact.effect, fact.id))
        self.worst = min(self.worst, (fact.effect, fact.id))

    def add_together(self, name: str) -> None:
        """One more experiment that made this change and others."""
        self.together += 1
        self._name(name)

    def _name(self, name: str) -> None:
        self.last = [*self.last[1 - NAMED :], name]

    @property
    def mean(self) -> tuple[float, float, float] | None:
        """(mean effect, low, high), weighted by precision, with a 95 % interval; failures count as small losses."""
        if not self.compared:
            return None
        mean, reach = self.weighted / self.precision, Z95 * self.precision**-0.5
        return mean, mean - reach, mean + reach

    def believed(self, prior: Belief) -> Belief:
        """What is believed of an effect after these experiments."""
        precision = 1 / prior.sd**2 + self.precision
        return Belief((prior.mean / prior.sd**2 + self.weighted) / precision, precision**-0.5)


@dataclass(frozen=True)
class Tally:
    """All kinds of change of a tree, and what stands out in it.

    Attributes:
        facts: what was compared, in index order; failures are not.
        lessons: (experiment, kind of its change, the lesson that its analysis drew), in index order.
        failures: "boundary/kind" -> the experiments that ended so, in index order.
    """

    kinds: dict[str, Sum]
    facts: list[Fact]
    lessons: list[tuple[str, str, Lesson]]
    failures: dict[str, list[str]]

    def wins(self, most: int) -> list[Fact]:
        """The largest gains over a parent, the largest first."""
        return nlargest(most, (fact for fact in self.facts if fact.effect > 0), key=lambda fact: fact.effect)

    def losses(self, most: int) -> list[Fact]:
        """The largest losses, the largest first."""
        return nsmallest(most, (fact for fact in self.facts if fact.effect < 0), key=lambda fact: fact.effect)


def fact_of(node: Experiment, tree: Tree) -> Fact | None:
    """What an ended experiment says; None where nothing was compared."""
    found = effect_of(node, tree)
    return None if found is None else Fact(node.id, node.proposed.proposal.kind, *found)


def sums(nodes: Iterable[Experiment], tree: Tree) -> dict[str, Sum]:
    """Kind of change -> what these experiments say of it, in the order in which kinds were first tried."""
    return _read(nodes, tree).kinds


def tally(tree: Tree) -> Tally:
    """What the experiments of a tree say of each kind of change. References are no change and are left out."""
    return _read(tree.all(), tree)


def _read(nodes: Iterable[Experiment], tree: Tree) -> Tally:
    kinds: dict[str, Sum] = {}
    found = Tally(kinds, [], [], {})
    for node in nodes:
        kind, choice = node.proposed.proposal.kind, node.proposed.choice
        if kind.startswith(REFERENCE):
            continue
        state = node.state
        if state is State.FAILED and node.failure is not None:
            found.failures.setdefault(f"{node.failure.boundary}/{node.failure.kind}", []).append(node.id)
        if kind.startswith(SEVERAL) and choice.kinds:
            for each in choice.kinds:
                kinds.setdefault(each, Sum(each)).add_together(node.id)
            continue
        fact = fact_of(node, tree)
        kinds.setdefault(kind, Sum(kind)).add(node.id, state, fact, node.verdict == "rejected")
        if fact is not None and state is not State.FAILED:
            found.facts.append(fact)
            if node.analysis is not None and node.analysis.lesson is not None:
                found.lessons.append((node.id, kind, node.analysis.lesson))
    return found
