"""Who proposes next: the proposers that the task names, and the playbook, by what their experiments have brought.

Thompson sampling (Thompson 1933) on gain per nominal cost, as the playbook weighs its kinds of change: each proposer
has a normal belief about the effect of its experiments. That of others than the playbook starts a little below what the
playbook has shown in this run: a run is short, and who has shown nothing is more likely worse than the default than
better. A question that came to nothing counts as a failed experiment, so who cannot answer loses its share; the
playbook is always among those drawn from. Who is not believed to be better yet is on trial, with a tenth of the
experiments at most: so much is the most that a proposer of no use can cost. Everything is read off the tree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import hypot, isfinite
from random import Random
from statistics import NormalDist
from typing import Sequence

from postgrad.memory.effects import BETWEEN_PARENTS, FAILED_EFFECT, Z95
from postgrad.records import Move
from postgrad.research.drafts import DRAFT_PRIOR
from postgrad.research.learning import Belief, effect_of, worth
from postgrad.research.tally import REFERENCE
from postgrad.tree import Experiment, Tree

PLAYBOOK = "playbook"
OVERHEAD_S = 10.0
#: Choices that a proposer may answer. Numbers are the tuner's, a second training the referee's, and what a failure asks
#: for is known.
ANSWERED = (Move.DRAFT, Move.IMPROVE, Move.COMBINE, Move.ABLATE)
# A proposer that failed so often in a row rests for up to so many experiments.
LONGEST_REST = 32
# Where the belief about others starts: so far below the playbook's, give or take so much.
BEHIND, UNSURE = 0.02, 0.015
# Who is not yet believed to be better than the playbook with this probability is on trial: all on trial together get at
# most this share of the experiments. In a short run a draw cannot tell them apart.
BETTER, TRIAL = 0.7, 0.1


@dataclass
class Record:
    """What one proposer did so far.

    Attributes:
        belief: about the effect of its next experiment.
        seen: (gain, variance) of what it did.
        experiments: that it proposed; `cost_s` are their nominal seconds.
        streak: questions in a row that came to nothing, up to the last one; `since` counts the experiments after it.
    """

    belief: Belief = DRAFT_PRIOR
    seen: list[tuple[float, float]] = field(default_factory=list)
    experiments: int = 0
    cost_s: float = 0.0
    streak: int = 0
    since: int = 0

    @property
    def rests(self) -> bool:
        """True while it is not asked again: twice as long after every further failure."""
        return self.streak > 1 and self.since < min(LONGEST_REST, 2 ** (self.streak - 1))


def records(tree: Tree, names: Sequence[str], unit: float = 1.0) -> dict[str, Record]:
    """Proposer -> what it did, the playbook too: what a policy names by itself counts as its.

    Args:
        unit: what an effect of 1 is, in what scores are counted in.
    """
    found = {name: Record() for name in (*names, PLAYBOOK)}
    for node in tree.all():
        asked = node.proposed.proposal.asked
        for record in found.values():
            record.since += 1
        if asked is not None and asked.proposer in found:
            one = found[asked.proposer]
            one.streak, one.since = (one.streak + 1 if asked.failed else 0), 0
            if asked.failed:
                one.seen.append((FAILED_EFFECT, BETWEEN_PARENTS**2))
        name = _proposer(node, found)
        if name is not None:
            _count(found[name], node, tree, unit)
    playbook = found[PLAYBOOK]
    playbook.belief = _believed(playbook, DRAFT_PRIOR)
    start = Belief(playbook.belief.mean - BEHIND, UNSURE)
    for name in names:
        found[name].belief = _believed(found[name], start)
    return found


def _believed(record: Record, start: Belief) -> Belief:
    for effect, variance in record.seen:
        start = start.updated(effect, variance)
    return start


def _proposer(node: Experiment, names: dict[str, Record]) -> str | None:
    proposal = node.proposed.proposal
    if proposal.proposer in names and proposal.proposer != PLAYBOOK:
        return proposal.proposer
    counts = node.proposed.choice.move in ANSWERED and not proposal.kind.startswith(REFERENCE)
    return PLAYBOOK if counts else None


def _count(record: Record, node: Experiment, tree: Tree, unit: float) -> None:
    record.experiments += 1
    record.cost_s += OVERHEAD_S + node.proposed.nominal_s
    if (seen := _gain(node) or effect_of(node, tree)) is not None:
        record.seen.append(_in_units(seen, unit))


def _in_units(seen: tuple[float, float], unit: float) -> tuple[float, float]:
    """An effect and its variance, of which what other parents would make of it stays as it is."""
    if unit == 1.0 or seen == (FAILED_EFFECT, BETWEEN_PARENTS**2):
        return seen
    return seen[0] / unit, max(0.0, seen[1] - BETWEEN_PARENTS**2) / unit**2 + BETWEEN_PARENTS**2


def _gain(node: Experiment) -> tuple[float, float] | None:
    """(gain over the champion it was proposed against, variance), as the referee believes it; None where it says
    nothing. An effect on the parent would not do: whose parents are poor finds it easy to improve on them."""
    said = node.analysis.gain if node.analysis is not None else None
    if said is None or not all(map(isfinite, (said.value, said.low, said.high))):
        return None
    return said.value, ((said.high - said.low) / (2 * Z95)) ** 2 + BETWEEN_PARENTS**2


def admitted(found: dict[str, Record], names: Sequence[str]) -> list[str]:
    """Those of these who may propose beside the playbook now: the trusted ones, and who is on trial and has not used up
    its share, questions that came to nothing included."""
    playbook = found[PLAYBOOK].belief
    whole = sum(record.experiments for record in found.values()) + 1
    trial = [name for name in names if _better(found[name].belief, playbook) < BETTER]
    share = max(1.0, TRIAL * whole) / max(1, len(trial))
    return [
        name
        for name in names
        if name not in trial or max(len(found[name].seen), found[name].experiments) < max(1.0, share)
    ]


def _better(one: Belief, other: Belief) -> float:
    """The probability that one normal belief is about more than another."""
    return NormalDist().cdf((one.mean - other.mean) / hypot(one.sd, other.sd))


def drawn(found: dict[str, Record], among: Sequence[str], rng: Random) -> str:
    """Who is to propose, of these. One that has proposed nothing yet is taken to cost what the others do."""
    costs = [record.cost_s / record.experiments for record in found.values() if record.experiments]
    usual = sum(costs) / len(costs) if costs else OVERHEAD_S
    best: tuple[float, str] | None = None
    for name in among:
        record = found[name]
        cost = record.cost_s / record.experiments if record.experiments else usual
        value = worth(record.belief.draw(rng), cost)
        if best is None or value > best[0]:
            best = value, name
    assert best is not None, "there is always somebody to propose"
    return best[1]
