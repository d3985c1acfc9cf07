"""Experiments that were looked at and are as they were: with a thousand workers some thousand wait for their turn, and
nothing of them needs another look until something happens to them."""

from __future__ import annotations

from typing import Iterator, Sequence

from postgrad.experiment import Experiment

# Experiments that are no longer asked about are forgotten when there are so many more than are.
SPARE = 256


class Unchanged:
    """Remembers what was looked at."""

    def __init__(self) -> None:
        self._seen: dict[str, Experiment] = {}

    def note(self, node: Experiment) -> None:
        """Nothing is to be done about it as it is."""
        self._seen[node.id] = node

    def others(self, nodes: Sequence[Experiment]) -> Iterator[Experiment]:
        """Those of some experiments that are not as they were when they were noted, or never were."""
        if len(self._seen) > 2 * len(nodes) + SPARE:
            self._seen = {node.id: node for node in nodes if self._seen.get(node.id) is node}
        seen = self._seen
        return (node for node in nodes if seen.get(node.id) is not node)
