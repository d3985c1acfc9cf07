"""Races in a simulated run, by the rule of a real one: rungs are the fractions that a landscape can stop at."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from postgrad import racing
from postgrad.analyze.verdict import raced
from postgrad.bench.simulated_parts import evaluation_of, gap_of
from postgrad.records import Analysis, Failure
from postgrad.tree import Experiment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from postgrad.bench.simulated import SimulatedRun


class Races:
    """The races of one run."""

    def __init__(self, run: SimulatedRun) -> None:
        self.run = run
        self._parts: dict[tuple[str, float], NDArray[np.float64] | None] = {}

    def stopped(self, node: Experiment) -> tuple[Experiment, Analysis] | None:
        """The experiment stopped at a rung, where there is too little chance that all of it is worth having; else None.
        Going on costs nothing twice: a rung is a part of the training."""
        run = self.run
        incumbent = node.proposed.incumbent
        if not run.grant.racing or incumbent is None or not racing.races(node):
            return None
        rival = run.tree[incumbent]
        own = racing.kin(node.proposed.proposal.recipe)
        for rung in run.landscape.rungs:
            mine, theirs = self._part(node, rung), self._part(rival, rung)
            if mine is None or theirs is None or rival.score is None or not racing.saves(node, rung):
                return None
            known = racing.ended(reversed(run.tree.all()), partial(self._score, rung))
            against = racing.Scores(float(theirs.mean()), rival.score, racing.kin(run.recipe(rival.id)))
            found = racing.verdict(mine, theirs, against, known, kin=own, share=rung)
            if found is not None:
                run.out.raced += 1
                cost = run.pay(node.proposed.proposal.recipe, rung)
                evaluation = evaluation_of(node, mine, share=rung)
                closed = replace(run.ended(node, cost), evaluation=evaluation)
                return closed, raced(evaluation, incumbent, gap_of(mine, theirs, 0.0), (), found)
        return None

    def _part(self, node: Experiment, rung: float) -> NDArray[np.float64] | None:
        """(N,) search values of a training at a rung; None where it failed."""
        if (node.id, rung) not in self._parts:
            proposal = node.proposed.proposal
            part = self.run.landscape.train_part(proposal.recipe, proposal.seed, rung)
            self._parts[node.id, rung] = None if isinstance(part, Failure) else part.search
        return self._parts[node.id, rung]

    def _score(self, rung: float, node: Experiment) -> float | None:
        part = self._part(node, rung)
        return None if part is None else float(part.mean())
