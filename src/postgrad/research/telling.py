"""Experiments in words, for a proposer: names of others are quoted unless they are plain words."""

from __future__ import annotations

import re

from postgrad.quoting import inlined
from postgrad.tree import Experiment

LABEL, CHANGE = 60, 160
_PLAIN = re.compile(r"[A-Za-z0-9_.@/:+-]{1,120}")


def word(name: str) -> str:
    """A name as it is where it is a plain word, else quoted: plug-ins and other programs choose theirs."""
    return name if _PLAIN.fullmatch(name) else inlined(name, LABEL)


def scored(node: Experiment, sign: float = 1.0) -> str:
    """The search score with its interval.

    Args:
        sign: -1 for a metric of which less is better, whose scores are kept with the sign turned.
    """
    if node.score is None or node.evaluation is None:
        return f"no score ({node.state.value})"
    said = node.evaluation.estimate
    low, high = sorted((sign * said.low, sign * said.high))
    return f"{sign * said.value:.4f} [{low:.4f}, {high:.4f}]"


def outcome(node: Experiment, sign: float = 1.0) -> str:
    """What came of an experiment: its score, its difference to what it was compared with, and the verdict when it
    ended: a test may follow, and what is told does not depend on how long that takes."""
    said = node.analysis
    if said is None:
        return "under way"
    if said.verdict == "failed":
        failure = node.failure
        return f"failed ({word(f'{failure.boundary}/{failure.kind}')})" if failure else "failed"
    gap, against = said.difference, ""
    if gap and said.against:
        low, high = sorted((sign * gap.low, sign * gap.high))
        against = f", {sign * gap.value:+.4f} [{low:+.4f}, {high:+.4f}] to {said.against}"
    return f"{scored(node, sign)}{against}, {said.verdict}"


def step(node: Experiment, sign: float = 1.0) -> str:
    """One experiment in a line: its parent, its change, and what came of it."""
    proposal, parent = node.proposed.proposal, node.parent
    on = f" on {parent}" if parent else ""
    return f"{node.id}{on}: {word(proposal.kind)}, {inlined(proposal.change, CHANGE)}: {outcome(node, sign)}"
