"""What each kind of change brought in a run: effects over the parent, corrected for noise and the search's own luck.

The referee's posterior gains are added up along its comparisons. A parent was picked for a high score, so the plain
difference to it says too little: in simulated runs it was 1 to 3 points of accuracy below the true effect on average,
and the posterior was 0 to 1. Where an experiment made several changes at once, their effects are taken to add up, and
what each brought is read off all experiments together. Failures are counted and have no effect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import Mapping, NamedTuple, Sequence

from postgrad.records import Difference, Estimate, Move
from postgrad.tree import Experiment, Tree

# The same change on another parent has an effect of its own: its standard deviation, on the metric's scale.
BETWEEN_PARENTS = 0.02
# What an experiment that failed is taken to have brought: it gave nothing for its cost.
FAILED_EFFECT = -0.03
# Standard deviation of what another change is taken to bring, where it was made together with the one asked about.
BESIDE_SD = 0.05
# What was seen of a kind counts where it says at least this share of what that prior says.
LEAST_TOLD = 0.2
Z95 = 1.959964
DRAFTS_AGAINST = "reference.classic"
SEVERAL = "several."
_WITH_PARENT = (Move.IMPROVE, Move.TUNE, Move.COMBINE, Move.ABLATE)


class Effect(NamedTuple):
    """An effect on the metric, with the variance of what is not known of it."""

    value: float
    variance: float


@dataclass
class Brought:
    """What one kind of change brought in one run.

    Attributes:
        effect: of the kind in this run; None where no experiment told.
        count: experiments with it that could be measured.
        failures: experiments that failed with it and no other change. Who is to blame for others, nobody knows.
        costs_s: nominal seconds of its experiments, failures included.
        measured, failed: names of the experiments behind `count` and `failures`.
    """

    effect: Effect | None = None
    count: int = 0
    failures: int = 0
    costs_s: list[float] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


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
    anchors = (DRAFTS_AGAINST, "reference.nearest")
    anchor = next((node.id for node in tree.roots() if node.proposed.proposal.kind in anchors), None)
    found: dict[str, Brought] = {}
    measured: list[tuple[tuple[str, ...], Effect]] = []
    for node in tree.all():
        base = _base(node, anchor)
        if base is None or node.analysis is None or node.analysis.verdict == "unscored":
            continue
        kinds = _kinds(node)
        effect = None if node.analysis.verdict == "failed" else _effect(node, base, known)
        for kind in kinds:
            here = found.setdefault(kind, Brought())
            here.costs_s.append(node.proposed.nominal_s)
            if effect is not None:
                here.count += 1
                here.measured.append(node.id)
            if node.analysis.verdict == "failed" and len(kinds) == 1:
                here.failures += 1
                here.failed.append(node.id)
        if effect is not None:
            measured.append((kinds, effect))
    for kind, effect in told_apart(measured).items():
        found[kind].effect = effect
    return found


def told_apart(measured: Sequence[tuple[tuple[str, ...], Effect]]) -> Mapping[str, Effect]:
    """Kind -> its own effect, from experiments with the kinds that each made: a linear model in which an experiment
    brings the sum of its kinds. The others' effects are integrated out under a normal prior around 0 with standard
    deviation `BESIDE_SD`; the kind's own prior is taken off again, so that what is said of it is what was seen. Where
    each experiment made one change, this is the mean weighted by precision."""
    import numpy as np

    names = {kind: at for at, kind in enumerate(dict.fromkeys(kind for kinds, _ in measured for kind in kinds))}
    made = np.zeros((len(measured), len(names)))
    for row, (kinds, _) in enumerate(measured):
        made[row, [names[kind] for kind in kinds]] = 1.0
    weights = np.array([1 / (effect.variance + BETWEEN_PARENTS**2) for _, effect in measured])
    values = np.array([effect.value for _, effect in measured])
    prior = 1 / BESIDE_SD**2
    variances = np.linalg.inv((made.T * weights) @ made + prior * np.eye(len(names)))
    means = variances @ (made.T @ (weights * values))
    found = {}
    for kind, at in names.items():
        told = 1 / variances[at, at] - prior
        if told >= LEAST_TOLD * prior:
            found[kind] = Effect(float(means[at] / variances[at, at] / told), float(1 / told))
    return found


def _kinds(node: Experiment) -> tuple[str, ...]:
    """What changed. Whatever an ablation takes away, it is one kind. Where the method of a starting point takes the
    place of the parent's, that says nothing about the starting point, nor about combining, and is a kind of its own."""
    kind, choice = node.proposed.proposal.kind, node.proposed.choice
    kinds = choice.kinds if kind.startswith(SEVERAL) and choice.kinds else (kind,)
    if node.parent is not None and any(kind.startswith("draft.") for kind in kinds):
        kinds = tuple(kind.replace("draft.", "swap.") for kind in kinds if kind != "combine")
    return tuple(dict.fromkeys("ablate" if kind.startswith("ablate.") else kind for kind in kinds))


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
