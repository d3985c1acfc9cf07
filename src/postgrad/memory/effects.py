"""What each kind of change brought in a run: effects over the parent, corrected for noise and the search's own luck.

The referee's posterior gains are added up along its comparisons. A parent was picked for a high score, so the plain
difference to it says too little: in simulated runs it was 1 to 3 points of accuracy below the true effect on average,
and the posterior was 0 to 1. Failures are counted and have no effect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite

from postgrad.records import Difference, Estimate, Move
from postgrad.tree import Experiment, Tree

# The same change on another parent has an effect of its own: its standard deviation, on the metric's scale.
BETWEEN_PARENTS = 0.02
# What an experiment that failed is taken to have brought: it gave nothing for its cost.
FAILED_EFFECT = -0.03
Z95 = 1.959964
DRAFTS_AGAINST = "reference.classic"
_WITH_PARENT = (Move.IMPROVE, Move.TUNE, Move.COMBINE, Move.ABLATE)


@dataclass(frozen=True)
class Effect:
    """An effect on the metric, with the variance of what is not known of it."""

    value: float
    variance: float


@dataclass
class Brought:
    """What one kind of change brought in one run.

    Attributes:
        effects: one an experiment that could be measured.
        costs_s: nominal seconds of its experiments, failures included.
    """

    effects: list[Effect] = field(default_factory=list)
    failures: int = 0
    costs_s: list[float] = field(default_factory=list)

    def mean(self) -> Effect:
        """The kind's effect in this run: the mean weighted by precision, and its variance. Needs an effect."""
        weights = [1 / (effect.variance + BETWEEN_PARENTS**2) for effect in self.effects]
        total = sum(weights)
        return Effect(sum(w * e.value for w, e in zip(weights, self.effects, strict=True)) / total, 1 / total)


def merits(tree: Tree) -> dict[str, Effect]:
    """Experiment -> how far it is believed to be ahead of the first; the variance is that of its last comparison.

    Further seeds of a recipe count for its first experiment. Without a belief in the log, there is no entry.
    """
    found: dict[str, Effect] = {}
    for node in tree.all():
        said = node.analysis
        if said is None or node.score is None:
            continue
        name = said.subject or node.id
        if not found:
            found[name] = Effect(0.0, 0.0)
        elif said.rival in found and said.gain is not None and (own := _measured(said.gain)) is not None:
            found[name] = Effect(found[said.rival].value + own.value, own.variance)
    return found


def brought(tree: Tree) -> dict[str, Brought]:
    """Kind of change -> what it brought; a draft is measured over the classic reference. References, repairs, repeated
    trainings and recipes that a policy named itself say nothing about a kind."""
    known = merits(tree)
    anchor = next((node.id for node in tree.roots() if node.proposed.proposal.kind == DRAFTS_AGAINST), None)
    found: dict[str, Brought] = {}
    for node in tree.all():
        base = _base(node, anchor)
        if base is None or node.analysis is None or node.analysis.verdict == "unscored":
            continue
        kind = found.setdefault(_kind(node), Brought())
        kind.costs_s.append(node.proposed.nominal_s)
        if node.analysis.verdict == "failed":
            kind.failures += 1
        elif (effect := _effect(node, base, known)) is not None:
            kind.effects.append(effect)
    return found


def _kind(node: Experiment) -> str:
    """Whatever an ablation takes away, it is one kind."""
    kind = node.proposed.proposal.kind
    return "ablate" if kind.startswith("ablate.") else kind


def _base(node: Experiment, anchor: str | None) -> str | None:
    """What an experiment's effect is measured over."""
    if node.proposed.choice.move in _WITH_PARENT:
        return node.parent
    is_draft = node.proposed.choice.move is Move.DRAFT and node.proposed.proposal.kind.startswith("draft.")
    return anchor if is_draft else None


def _effect(node: Experiment, base: str, known: dict[str, Effect]) -> Effect | None:
    said = node.analysis
    assert said is not None
    if node.id in known and base in known:
        doubt = 0.0 if said.rival == base else known[base].variance
        return Effect(known[node.id].value - known[base].value, known[node.id].variance + doubt)
    own = _measured(said.difference) if said.difference is not None else None
    if own is None or said.against is None:
        return None
    lead = 0.0
    if said.against != base:  # A raced experiment was compared with the champion.
        if base not in known or said.against not in known:
            return None
        lead = known[said.against].value - known[base].value
    return Effect(own.value + lead, own.variance)


def _measured(said: Estimate | Difference) -> Effect | None:
    """A number with its 95 % interval, as a mean and a variance; None where it is not finite."""
    if not all(map(isfinite, (said.value, said.low, said.high))):
        return None
    return Effect(said.value, ((said.high - said.low) / (2 * Z95)) ** 2)
