"""The contract of a search policy: a pure function of the tree, what is left, and a generator."""

from __future__ import annotations

from random import Random
from typing import Any, Protocol

from postgrad.budget import Remaining
from postgrad.records import Choice, Record
from postgrad.tree import Tree


class Policy(Protocol):
    """Chooses which experiment to extend, and with which move. Does not run, parse, prompt or save."""

    Params: type[Record]

    def choose(self, tree: Tree, remaining: Remaining, rng: Random, params: Any) -> Choice:
        """Return the next choice. `tree` holds pending experiments too. `params` is a validated `Params`.

        The parent of improve, tune, ablate, repair and replicate is in the tree; a draft has no parent.
        """
        ...
