"""Search by posteriors: the experiment and the move whose expected improvement on the leader is largest.

What an experiment is worth is the referee's belief, added up along its comparisons: shrunk, so that a lucky score does
not attract the search. What a move brings is learnt from what it brought in this run, for each kind of move, as a
normal distribution with unknown mean and variance (normal inverse gamma: A. Gelman et al., "Bayesian Data Analysis",
3rd edition (2013), section 3.3). One draw from these (Thompson sampling) gives every pair of experiment and move an
expected improvement (D. Jones, M. Schonlau and W. Welch, Journal of Global Optimization 13 (1998), section 4.1), and
the largest is chosen. Failures and raced experiments count as what they are: spent without a gain. It does not weigh
costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, exp, pi, sqrt
from random import Random

from pydantic import Field

from postgrad.budget import Remaining
from postgrad.records import Choice, Move, Record
from postgrad.search import legal
from postgrad.tree import Experiment, State, Tree

EXTENDING = (Move.IMPROVE, Move.TUNE, Move.COMBINE, Move.ABLATE)
# What a failure or a raced training is taken to have brought.
NOTHING = -0.03


class PosteriorParams(Record):
    """Settings of the posterior policy.

    Attributes:
        n_drafts: drafts, besides the references, before anything is weighed.
        candidates: experiments that are weighed, best first.
        spread: standard deviation of what a move brings, before any was tried; on the scale of the metric.
        p_debug: how often a failed experiment is repaired when there is one.
        max_repairs: repairs in a row that are tried on one failure.
    """

    n_drafts: int = Field(default=5, ge=1)
    candidates: int = Field(default=6, ge=1)
    spread: float = Field(default=0.02, gt=0)
    p_debug: float = Field(default=0.5, ge=0, le=1)
    max_repairs: int = Field(default=2, ge=0)


@dataclass(frozen=True)
class Gains:
    """What a move brings: (mean, standard deviation) as drawn from what is known of it."""

    mean: float
    sd: float

    def improvement(self, behind: float) -> float:
        """E[max(0, gain - behind)], for an experiment so far behind the leader."""
        z = (self.mean - behind) / self.sd
        return self.sd * (z * 0.5 * (1 + erf(z / sqrt(2))) + exp(-0.5 * z * z) / sqrt(2 * pi))


class Posterior:
    """Weighs, then extends."""

    Params: type[Record] = PosteriorParams

    def choose(self, tree: Tree, remaining: Remaining, rng: Random, params: PosteriorParams) -> Choice:
        """Return the next choice."""
        if remaining.empty:
            return legal.stop()
        made = len(legal.drafts(tree))
        if made < params.n_drafts:
            return legal.draft(f"draft {made + 1} of {params.n_drafts}")
        broken = legal.repairable(tree, params.max_repairs)
        if broken and rng.random() < params.p_debug:
            return legal.repair(rng.choice(broken))
        leader = tree.leader()
        if leader is None:
            return legal.repair(rng.choice(broken)) if broken else legal.draft("nothing has a score yet")
        worth = merits(tree)
        return self._best(tree, leader, worth, rng, params)

    def _best(
        self, tree: Tree, leader: Experiment, worth: dict[str, float], rng: Random, params: PosteriorParams
    ) -> Choice:
        gains = {move: drawn(seen, params.spread, rng) for move, seen in brought(tree, worth).items()}
        top = worth.get(leader.id, 0.0)
        ranked = sorted(worth, key=lambda name: (-worth[name], name))[: params.candidates]
        options: list[tuple[float, Experiment, Move]] = []
        for name in ranked:
            options += [
                (gains[move].improvement(top - worth[name]), tree[name], move)
                for move in EXTENDING
                if _possible(tree, tree[name], move)
            ]
        value, node, move = max(options, key=lambda option: option[0])
        fresh = gains[Move.DRAFT].improvement(0.0)
        if fresh > value:
            return legal.draft(f"a draft is expected to gain {fresh:.4f}")
        reason = f"{move.value} of {node.id} is expected to gain {value:.4f}"
        if move is Move.COMBINE:
            return legal.combine_or_improve(tree, node, reason)
        return Choice(parent=node.id, move=move, reason=reason)


def merits(tree: Tree) -> dict[str, float]:
    """What each scored experiment is believed to be ahead of the first, by the referee; by the bare score where the log
    has no belief."""
    found: dict[str, float] = {}
    first: float | None = None
    for node in tree.all():
        if node.score is None or node.analysis is None or node.analysis.subject not in (None, node.id):
            continue
        gain, rival = node.analysis.gain, node.analysis.rival
        first = node.score if first is None else first
        if rival is None or gain is None or rival not in found:
            found[node.id] = node.score - first
            continue
        found[node.id] = found[rival] + gain.value
    return found


def brought(tree: Tree, worth: dict[str, float]) -> dict[Move, list[float]]:
    """What each move brought, over its parent; a draft over what led before it."""
    found: dict[Move, list[float]] = {move: [] for move in (*EXTENDING, Move.DRAFT)}
    best = 0.0
    for node in tree.all():
        move = node.proposed.choice.move
        if move not in found or legal.is_reference(node):
            pass
        elif node.state in (State.FAILED, State.RACED):
            found[move].append(NOTHING)
        elif node.id in worth:
            base = best if move is Move.DRAFT else worth.get(node.parent or "", best)
            found[move].append(worth[node.id] - base)
        best = max(best, worth.get(node.id, best))
    return found


def drawn(seen: list[float], spread: float, rng: Random, recent: int = 30) -> Gains:
    """A draw of (mean, standard deviation) given what was seen last, under a prior worth two of no gain."""
    values = seen[-recent:]
    count = len(values)
    weight, shape = 2.0 + count, 1.5 + count / 2
    average = sum(values) / count if count else 0.0
    mean = count * average / weight
    rate = 1.5 * spread**2 + 0.5 * sum((value - average) ** 2 for value in values) + count * average**2 / weight
    variance = rate / rng.gammavariate(shape, 1.0)
    return Gains(rng.gauss(mean, sqrt(variance / weight)), sqrt(variance))


def _possible(tree: Tree, node: Experiment, move: Move) -> bool:
    if legal.is_reference(node) and move is Move.ABLATE:
        return False
    if move is Move.ABLATE:
        return node.parent is not None
    if move is Move.COMBINE:
        return any(not legal.is_reference(other) for other in legal.partners(tree, node))
    return True
