"""Which moves the state of a tree allows. Policies choose among these; nothing here ranks them by promise.

A move extends a finished state only: an experiment that is pending, failed, raced or unscored has nothing to improve.
"""

from __future__ import annotations

from itertools import islice
from random import Random
from typing import Iterator, Sequence

from postgrad.budget import Remaining
from postgrad.groups import among, those
from postgrad.records import Choice, Move
from postgrad.tree import Experiment, State, Tree

REFERENCE = "reference."
# Failures that may still be mended, and scored experiments that may be combined with: more than ordinary runs have.
LATEST, BEST = 200, 2000


def stop() -> Choice:
    """The choice when the budget is used up."""
    return Choice(parent=None, move=Move.STOP, reason="the budget is used up")


def draft(reason: str) -> Choice:
    """A new root."""
    return Choice(parent=None, move=Move.DRAFT, reason=reason)


def first_choice(tree: Tree, remaining: Remaining) -> Choice | None:
    """Stop on an empty budget, draft while nothing has a score; None when there is something to choose."""
    if remaining.empty:
        return stop()
    return None if tree.scored() or tree.failed() else draft("nothing has a score yet")


def is_reference(node: Experiment) -> bool:
    """True for the models that a run measures first: the constant answer, the classic default, the base model."""
    return node.parent is None and node.proposed.proposal.kind.startswith(REFERENCE)


def is_constant(node: Experiment) -> bool:
    """True for the constant answer, which is measured first and says nothing about recipes."""
    return node.proposed.proposal.kind == f"{REFERENCE}constant"


def drafts(tree: Tree) -> Sequence[Experiment]:
    """Roots that were drafted, pending ones too; references are not drafts."""
    return among(tree, those("drafts", lambda node: node.parent is None and not is_reference(node)))


def repairable(tree: Tree, depth: int) -> tuple[Experiment, ...]:
    """Failed leaves that end a chain of fewer than `depth` repairs, of the latest failures."""
    failed = tree.failed()[-LATEST:]
    return tuple(node for node in failed if not tree.children(node.id) and repairs(tree, node) < depth)


def repairs(tree: Tree, node: Experiment) -> int:
    """How many failed ancestors in a row this failed experiment was meant to repair."""
    count = 0
    while node.parent is not None and tree[node.parent].state is State.FAILED:
        node = tree[node.parent]
        count += 1
    return count


def partners(tree: Tree, node: Experiment) -> Iterator[Experiment]:
    """Scored experiments that a combine with `node` could draw on, best first: neither above nor below it. Of a long
    run's, the best are looked at."""
    return (other for other in islice(tree.scored(), BEST) if not related(tree, node, other))


def related(tree: Tree, one: Experiment, two: Experiment) -> bool:
    """True where one of them is above the other, or both are the same."""
    above, below = sorted((one, two), key=lambda node: node.index)
    while below.index > above.index and below.parent is not None:
        below = tree[below.parent]
    return below.id == above.id


def combine_or_improve(tree: Tree, node: Experiment, reason: str) -> Choice:
    """Combine with the best experiment of another branch; improve where there is none."""
    other = next((other for other in partners(tree, node) if not is_reference(other)), None)
    if other is None:
        return Choice(parent=node.id, move=Move.IMPROVE, reason=reason)
    return Choice(parent=node.id, move=Move.COMBINE, other=other.id, reason=f"{reason}; with {other.id}")


def ablate_or_improve(node: Experiment, reason: str) -> Choice:
    """Take a change back; improve where no change was made."""
    move = Move.IMPROVE if node.parent is None else Move.ABLATE
    return Choice(parent=node.id, move=move, reason=reason)


def weighted(shares: dict[Move, float], rng: Random) -> Move:
    """Draw a move with the given probabilities; what is left to 1 is improve."""
    draw = rng.random()
    for move, share in shares.items():
        draw -= share
        if draw < 0:
            return move
    return Move.IMPROVE


def extend(tree: Tree, node: Experiment, shares: dict[Move, float], rng: Random, reason: str) -> Choice:
    """Extend a scored experiment with a drawn move, or with improve where that move is not possible."""
    move = weighted(shares, rng)
    if move is Move.COMBINE:
        return combine_or_improve(tree, node, reason)
    if move is Move.ABLATE:
        return ablate_or_improve(node, reason)
    return Choice(parent=node.id, move=move, reason=reason)


def repair(node: Experiment) -> Choice:
    """Mend a failed experiment."""
    return Choice(parent=node.id, move=Move.REPAIR, reason=f"{node.id} failed")
