"""What a run has taught about its kinds of change: a normal belief about the effect of each.

Known-variance normal updating (Gelman et al. 2013, section 2.5): the prior comes from the table of moves, or from
finished runs where any tried the kind; an experiment counts with the variance of its own paired difference plus that of
the same change on different parents.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from random import Random
from typing import Mapping

from postgrad.groups import by_kind, folded
from postgrad.memory.effects import BETWEEN_PARENTS, FAILED_EFFECT, Z95
from postgrad.records import Prior
from postgrad.tree import Experiment, Tree


@dataclass(frozen=True)
class Belief:
    """Mean and standard deviation of an effect on the task's metric."""

    mean: float
    sd: float

    def updated(self, effect: float, variance: float) -> Belief:
        """The belief after one more observation."""
        precision = 1 / self.sd**2 + 1 / variance
        return Belief((self.mean / self.sd**2 + effect / variance) / precision, precision**-0.5)

    def draw(self, rng: Random) -> float:
        """One draw, for Thompson sampling."""
        return rng.gauss(self.mean, self.sd)


def prior_of(kind: str, table: Belief, priors: Mapping[str, Prior]) -> Belief:
    """The belief about a kind of change before the run: what finished runs taught where any tried it, else the
    table's."""
    found = priors.get(kind)
    return Belief(found.mean, found.sd) if found else table


def belief(kind: str, prior: Belief, tree: Tree) -> Belief:
    """The belief about a kind of change after the ended experiments of a tree."""

    def after(found: Belief, node: Experiment) -> Belief:
        seen = effect_of(node, tree)
        return found if seen is None else found.updated(*seen)

    return folded(tree, by_kind(kind), ("belief", prior), prior, after)


def effect_of(node: Experiment, tree: Tree) -> tuple[float, float] | None:
    """(effect on the parent, variance) of an ended experiment; None where it teaches nothing.

    A failure gave nothing for its cost and counts as a small loss. A raced experiment was compared with the champion:
    the champion's lead over the parent is added. Of one whose only training was ended on its way counts what it was
    expected to come to.
    """
    if node.analysis is None:
        return None
    if node.analysis.verdict == "failed":
        return FAILED_EFFECT, BETWEEN_PARENTS**2
    if (foretold := _foretold(node, tree)) is not None:
        return foretold
    gap, against = node.analysis.difference, node.analysis.against
    if gap is None or against is None or not all(map(isfinite, (gap.value, gap.low, gap.high))):
        return None
    lead = 0.0
    if node.parent is not None and against != node.parent:
        rival, parent = tree[against].score, tree[node.parent].score
        if rival is None or parent is None:
            return None
        lead = rival - parent
    error = (gap.high - gap.low) / (2 * Z95)
    return gap.value + lead, error**2 + BETWEEN_PARENTS**2


def _foretold(node: Experiment, tree: Tree) -> tuple[float, float] | None:
    race, parent = node.analysis.race if node.analysis else None, tree.experiments.get(node.parent or "")
    if race is None or node.evaluation is not None or parent is None or parent.score is None:
        return None
    error = (race.expected.high - race.expected.low) / (2 * Z95)
    return race.expected.value - parent.score, error**2 + BETWEEN_PARENTS**2


def worth(effect: float, cost_s: float) -> float:
    """An effect per second, in an order that holds for losses too: of two equal losses, the cheaper is better."""
    return effect / cost_s if effect > 0 else effect * cost_s
