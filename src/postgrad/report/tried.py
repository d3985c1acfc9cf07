"""What was tried and what it did, by kind of change. Sums up recorded differences; it compares nothing anew."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, variance

from postgrad.records import Difference, Estimate, Race
from postgrad.report.wording import VERDICTS
from postgrad.tree import Experiment, State, Tree

Z95 = 1.959964
REFERENCE = "reference."


@dataclass(frozen=True)
class Tried:
    """One kind of change over the whole run.

    Attributes:
        kind: the proposals' kind.
        nodes: the experiments of this kind, in index order.
        kept, tie, undecided, discarded: how many complete ones came out how against what they changed. The first of
            its kind, which had nothing to be compared with, is in none of these.
        raced, failed, open: stopped early as clearly behind; ended in a failure; without a score.
        effects: the differences of the complete ones, in index order.
        effect: their mean with its interval; None where nothing was comparable. `n` counts the differences.
        cost_s: wall seconds of the jobs.
        races: how those ended that were stopped early, as far as their runs have recorded it.
    """

    kind: str
    nodes: tuple[str, ...]
    kept: int
    tie: int
    undecided: int
    discarded: int
    raced: int
    failed: int
    open: int
    effects: tuple[Difference, ...]
    effect: Estimate | None
    cost_s: float
    races: tuple[Race, ...] = ()

    @property
    def counts(self) -> str:
        """What became of them: "2 kept, 1 tie, 1 stopped early"."""
        named = {
            "kept": self.kept,
            "tie" if self.tie == 1 else "ties": self.tie,
            "undecided": self.undecided,
            "discarded": self.discarded,
            f"stopped early{self._at_rungs}": self.raced,
            "failed": self.failed,
            "without a score": self.open,
        }
        return ", ".join(f"{count} {name}" for name, count in named.items() if count)

    @property
    def _at_rungs(self) -> str:
        """After which share of an experiment, and how well the order there agrees with that of whole scores."""
        at = {f"{race.share:.0%}": race for race in sorted(self.races, key=lambda race: (race.share, race.ended))}
        told = [f"after {share}, rank correlation {race.correlation:.2f}" for share, race in at.items()]
        return f" ({'; '.join(told)})" if told else ""

    @property
    def outcome(self) -> str:
        """One or two words: what the interval of the mean effect says."""
        if self.effect is None:
            return "stopped early" if self.raced else "failed" if self.failed else "not compared"
        if self.effect.low > 0:
            return "helped"
        return "hurt" if self.effect.high < 0 else "not clear"


def mean_effect(effects: tuple[Difference, ...]) -> Estimate | None:
    """The mean of differences that were read on the same items, with a 95 % interval.

    Item noise is counted as shared by all of them, so averaging does not shrink it; only the spread between the
    effects shrinks with their number. That is wider than a meta-analysis of independent studies would be, and honest
    here.
    """
    if not effects:
        return None
    center = fmean(effect.value for effect in effects)
    if len(effects) == 1:
        return Estimate(value=center, low=effects[0].low, high=effects[0].high, n=1)
    of_items = fmean(((effect.high - effect.low) / (2 * Z95)) ** 2 for effect in effects)
    of_effects = variance(effect.value for effect in effects) / len(effects)
    reach = Z95 * math.sqrt(of_items + of_effects)
    return Estimate(value=center, low=center - reach, high=center + reach, n=len(effects))


def what_was_tried(tree: Tree) -> tuple[Tried, ...]:
    """Every kind of change, best mean effect first; kinds without one come last, in the order they were first tried.

    References are no change and are left out.
    """
    kinds: dict[str, list[Experiment]] = {}
    for node in tree.all():
        if not node.proposed.proposal.kind.startswith(REFERENCE):
            kinds.setdefault(node.proposed.proposal.kind, []).append(node)
    found = [_sum_up(kind, nodes) for kind, nodes in kinds.items()]
    return tuple(sorted(found, key=lambda one: -one.effect.value if one.effect else math.inf))


def compared(node: Experiment) -> Difference | None:
    """The difference of a complete experiment to what it changed, where it is a number."""
    found = node.analysis.difference if node.analysis is not None and node.state is State.DONE else None
    if found is None or not all(map(math.isfinite, (found.value, found.low, found.high))):
        return None
    return found


def _sum_up(kind: str, nodes: list[Experiment]) -> Tried:
    pairs = [(node.verdict, found) for node in nodes if node.verdict and (found := compared(node))]
    words = [VERDICTS.get(verdict) for verdict, _ in pairs]
    states = [node.state for node in nodes]
    effects = tuple(found for _, found in pairs)
    return Tried(
        kind=kind,
        nodes=tuple(node.id for node in nodes),
        kept=words.count("kept"),
        tie=words.count("tie"),
        undecided=words.count("undecided"),
        discarded=words.count("discarded"),
        raced=states.count(State.RACED),
        failed=states.count(State.FAILED),
        open=states.count(State.PENDING) + states.count(State.UNSCORED),
        effects=effects,
        effect=mean_effect(effects),
        cost_s=sum(node.cost_s for node in nodes),
        races=tuple(node.analysis.race for node in nodes if node.analysis and node.analysis.race),
    )
