"""How far each recipe of a run is ahead of the first: the steps that lead to it, added up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Mapping

from postgrad.evaluate.statistics.effects import Belief, Effects

if TYPE_CHECKING:
    from postgrad.evaluate.statistics.known import Known

# Hindsight knows better what proposals of this run are worth. But it takes too much off the steps of a long climb: a
# leader's luck on these items wears off with every change, which looks as if changes did harm. So foresight counts too.
HINDSIGHT = 0.7


@dataclass(frozen=True)
class Merits:
    """A view of the recipes and of what their effects have taught. A rival is older than who is compared with it."""

    nodes: Mapping[str, Known]
    effects: Effects

    def belief(self, name: str) -> Belief:
        """What is now believed of a recipe's true gain over its rival."""
        node = self.nodes[name]
        if node.number is None:
            return Belief(node.observed, 0.0, float(node.observed > 0))
        return self.effects.belief(node.observed, node.noise, near=node.number)

    def of(self, name: str) -> float:
        """Posterior mean of the gain over the first recipe of the run."""
        total, at = 0.0, name
        while (rival := self.nodes[at].rival) is not None:
            total, at = total + self._step(at), rival
        return total

    def ahead(self, name: str, other: str) -> float:
        """By how much one recipe's merit exceeds another's. Only the steps count which one of them rests on alone: two
        recipes of a long run have nearly all in common."""
        mine, theirs = self._parted(name, other)
        return sum(map(self._step, mine)) - sum(map(self._step, theirs))

    def doubt(self, name: str, beyond: str | None) -> float:
        """Posterior variance of the merit beyond that of a recipe on the way to it, steps taken as independent."""
        total, at = 0.0, name
        while at != beyond and (rival := self.nodes[at].rival) is not None:
            total, at = total + self.belief(at).variance, rival
        return total

    def between(self, name: str, other: str) -> float:
        """Posterior variance of the difference of two merits: that of the steps which only one of them rests on."""
        mine, theirs = self._parted(name, other)
        return sum(self.belief(each).variance for each in (*mine, *theirs))

    def _parted(self, name: str, other: str) -> tuple[list[str], list[str]]:
        """The steps that only the one rests on, and only the other, latest first: each line back to where they meet."""
        mine: list[str] = []
        theirs: list[str] = []
        while name != other:
            first, second = self.nodes[name], self.nodes[other]
            if first.steps >= second.steps and first.rival is not None:
                mine.append(name)
                name = first.rival
            elif second.rival is not None:
                theirs.append(other)
                other = second.rival
            else:
                break
        return mine, theirs

    def ranked(self) -> list[str]:
        """Recipes that may lead, best first."""
        merits: dict[str, float] = {}
        for name, node in self.nodes.items():
            merits[name] = 0.0 if node.rival is None else merits[node.rival] + self._step(name)
        names = [name for name, node in self.nodes.items() if node.eligible]
        return sorted(names, key=lambda name: -merits[name])

    def _step(self, name: str) -> float:
        """What a recipe is believed to gain over its rival, in hindsight and as it was foreseen."""
        node = self.nodes[name]
        return HINDSIGHT * self.belief(name).mean + (1 - HINDSIGHT) * node.foreseen + node.bonus
