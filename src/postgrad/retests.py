"""The further trainings that the referee asked for, and the one that comes next."""

from __future__ import annotations

from bisect import insort

from postgrad.records import Analysis, Choice, Move, Proposal
from postgrad.tree import Experiment, Tree


class Retests:
    """Remembers where another training was asked for, so that nobody has to look through the whole tree for it."""

    def __init__(self) -> None:
        self._open: list[int] = []

    def asked(self, node: Experiment, analysis: Analysis) -> Analysis:
        """Take in what was said of an experiment; returns it."""
        if analysis.verdict == "retest":
            insort(self._open, node.index)
        return analysis

    def owed(self, view: Tree) -> tuple[Proposal, Choice] | None:
        """The first training that was asked for and is in no experiment yet, as far as a view shows."""
        nodes = view.all()
        for index in tuple(self._open):
            node = nodes[index]
            if node.analysis is None or node.analysis.verdict != "retest":
                continue
            subject = view[node.analysis.subject or node.id]
            same = view.all_with(subject.proposed.proposal.recipe)
            if same[-1].index <= index:
                return _seed_of(subject, max(other.proposed.proposal.seed for other in same) + 1)
            if same[-1].analysis is not None:  # What it tried is settled: nobody can edit it any more.
                self._open.remove(index)
        return None


def _seed_of(subject: Experiment, seed: int) -> tuple[Proposal, Choice]:
    proposal = Proposal(
        recipe=subject.proposed.proposal.recipe,
        kind="referee.seed",
        hypothesis=f"Whether {subject.id} leads is undecided, and another training says more than a new recipe.",
        change="another training seed, the same recipe",
        expected_effect=0.0,
        refuted_by="nothing: it measures",
        proposer="referee",
        seed=seed,
    )
    return proposal, Choice(parent=subject.id, move=Move.REPLICATE, reason="the referee asks for another seed")
