"""Paring in a simulated run, as `loop.py` does it: the leader without one of its changes, before the budget ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postgrad.bench.simulated_parts import nominal_s
from postgrad.pare import ROOM, Paring, is_paring
from postgrad.records import Choice, Proposal, Recipe, SearchSpec
from postgrad.research.ablations import Ablation
from postgrad.research.changes import RecipeChanges

if TYPE_CHECKING:
    from postgrad.bench.simulated import SimulatedRun


def paring_of(run: SimulatedRun) -> Paring:
    """The state of paring of a run that begins."""

    def admits(recipe: Recipe) -> bool:
        admit = getattr(run.landscape, "admit", None)
        admitted = recipe if admit is None else admit(recipe, frozenset())
        return admitted is not None and admitted.hash == recipe.hash

    return Paring(run.judge, RecipeChanges(run.task, nominal_s), nominal_s, admits)


def owed(run: SimulatedRun, *, stopped: bool = False) -> tuple[Choice, Proposal] | None:
    """The next experiment of paring, when little more is left of the budget than what paring needs, or the policy has
    stopped; None where it is not time, or nothing is left to try. Decides what can be decided without an experiment."""
    granted = run.grant.amount * SearchSpec().pare
    if not run.grant.pare or (run.left > ROOM * granted and not stopped):
        return None
    left = granted - _taken(run)
    waiting = _affordable(run, left)
    begun = is_paring(run.tree.all()[-1])
    if not waiting or (ROOM * _cost(run, waiting) < run.left and not (stopped or begun)):
        return None
    settle(run)
    waiting = _affordable(run, left)
    return run.paring.proposed(run.tree, waiting[0], run.task.seed) if waiting else None


def settle(run: SimulatedRun) -> None:
    """Make the decisions that need no experiment."""
    while run.grant.pare and (body := run.paring.decision(run.tree)) is not None:
        run.paring.fold(body)
        run.out.pared.append((run.truth(body.against) - run.truth(body.experiment), body.dropped))
        if body.dropped:
            run.tree = run.tree.with_experiments((), body.champion)
            run.out.curve.append((run.spent, run.truth(body.champion)))


def _affordable(run: SimulatedRun, left: float) -> list[Ablation]:
    found: list[Ablation] = []
    cost = 0.0
    for each in run.paring.untried(run.tree):
        cost += _cost(run, [each])
        if cost > left:
            break
        found.append(each)
    return found


def _cost(run: SimulatedRun, waiting: list[Ablation]) -> float:
    if run.grant.unit == "experiments":
        return len(waiting)
    return sum(nominal_s(each.recipe) for each in waiting)


def _taken(run: SimulatedRun) -> float:
    done = [node for node in run.tree.all() if is_paring(node)]
    return len(done) if run.grant.unit == "experiments" else sum(node.cost_s for node in done)
