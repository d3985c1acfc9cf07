"""Experiments that were looked at and are as they were: with a thousand workers some thousand wait for their turn, and
nothing of them needs another look until something happens to them."""

from __future__ import annotations

from typing import Iterator

from postgrad.experiment import Experiment
from postgrad.shelf import Ranked

# What is no longer asked about is forgotten when there is so much more of it than there is to ask about.
SPARE = 256

Piece = tuple[Experiment, ...]


class Unchanged:
    """Remembers what was looked at."""

    def __init__(self) -> None:
        self._seen: dict[str, Experiment] = {}
        # Pieces of which every experiment was noted, by identity: the object is held, so its number stays its own.
        self._whole: dict[int, Piece] = {}

    def note(self, node: Experiment) -> None:
        """Nothing is to be done about it as it is."""
        self._seen[node.id] = node

    def others(self, nodes: Ranked[Experiment]) -> Iterator[Experiment]:
        """Those of some experiments that are not as they were when they were noted, or never were."""
        self._forget(nodes)
        for piece in nodes.pieces:
            if id(piece) in self._whole:
                continue
            new = [node for node in piece if self._seen.get(node.id) is not node]
            if not new:
                self._whole[id(piece)] = piece
            yield from new

    def _forget(self, nodes: Ranked[Experiment]) -> None:
        if len(self._seen) > 2 * len(nodes) + SPARE:
            self._seen = {node.id: node for node in nodes if self._seen.get(node.id) is node}
        if len(self._whole) > 2 * len(nodes.pieces):
            self._whole = {id(piece): piece for piece in nodes.pieces if id(piece) in self._whole}
