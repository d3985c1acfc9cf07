"""Experiments that belong together, found without a look at the others: what a search asks again and again of a tree
of any length.

A group is told by what an experiment is for good: its parent, its kind and its recipe. So each experiment is asked for
its group once, and trees that grew from each other share the answer.
"""

from __future__ import annotations

from typing import Callable, Hashable, Sequence, TypeVar

from postgrad.shelf import Group
from postgrad.tree import Experiment, Tree

T = TypeVar("T")


def by_kind(kind: str) -> Group[Experiment]:
    """Those with this kind of change."""
    return Group("kind", lambda node: node.proposed.proposal.kind, kind)


def those(key: Hashable, belongs: Callable[[Experiment], bool]) -> Group[Experiment]:
    """Those that a rule holds for, which `key` names. It asks for nothing but parent, kind and recipe."""
    return Group(key, lambda node: belongs(node) or None, True)


def among(tree: Tree, group: Group[Experiment]) -> Sequence[Experiment]:
    """The experiments of a group, in index order."""
    return tree.shelf.among(group)


def folded(tree: Tree, group: Group[Experiment], key: Hashable, start: T, step: Callable[[T, Experiment], T]) -> T:
    """What the experiments of a group that have ended come to, taken in one after the other in index order.

    Args:
        key: names start and step, which takes no notice of one that has not ended.
    """
    closed = tree.closed()
    return tree.shelf.folded(group, key, closed, closed if tree.ended() == closed else len(tree), start, step)


def has_child(tree: Tree, parent: str, kind: str) -> bool:
    """True where an experiment extends this one with this kind of change."""
    group: Group[Experiment] = Group("child", lambda node: (node.parent, node.proposed.proposal.kind), (parent, kind))
    return bool(among(tree, group))
