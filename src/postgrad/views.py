"""The trees that experiments are chosen from, one after the other, without working each out from the whole tree.

With a thousand workers some thousand experiments are hidden in every view. From one view to the next hardly any of them
is another: the view goes on from the last one as the tree does.
"""

from __future__ import annotations

from typing import Iterator, Sequence

from postgrad.tree import Experiment, Tree


class Views:
    """`Tree.view` of the trees of one run, as they follow on each other."""

    def __init__(self) -> None:
        self._tree, self._closed, self._view = Tree(), 0, Tree()

    def view(self, tree: Tree, closed: int) -> Tree:
        """The same as `tree.view(closed)`. Quick where the tree and the number are a little further than last time."""
        if tree is self._tree and closed == self._closed:
            return self._view
        if not self._closed <= closed <= len(tree):
            return tree.view(closed)  # A look back: the next one goes on from where it was.
        found = self._further(tree, closed)
        self._tree, self._closed, self._view = tree, closed, found
        return found

    def _further(self, tree: Tree, closed: int) -> Tree:
        """The last view with what has been shown since, and what has been proposed or has changed since."""
        nodes = tree.all()
        others = set(tree.differing(self._tree)) | set(range(self._closed, min(closed, len(nodes))))
        changed: list[Experiment] = []
        for place in sorted(others):
            node = nodes[place]
            seen = self._view.all()[place] if place < len(self._view) else None
            now = node if place < closed else seen if seen and seen.proposed is node.proposed else node.bare()
            if now is not seen:
                changed.append(now)
        champion = _champion(nodes, closed)
        if not changed and champion == self._view.champion:
            return self._view
        return self._view.with_experiments(changed, champion)


def latest(tree: Tree, closed: int) -> Iterator[Experiment]:
    """The experiments that a view shows as ended, the latest first, without making the view."""
    nodes = tree.all()
    return (nodes[place] for place in range(min(len(nodes), closed) - 1, -1, -1))


def _champion(nodes: Sequence[Experiment], closed: int) -> str | None:
    """The champion of the last one shown that has ended."""
    return next((nodes[place].champion for place in range(closed - 1, -1, -1) if nodes[place].analysis), None)
