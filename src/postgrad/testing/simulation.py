"""A run without jobs: policy and researcher are real, a function takes the place of training and the referee.

Experiments end at once, so nothing here says anything about time or about parallel workers, apart from `lookahead`: how
many experiments are still pending in the view that a choice is made on.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Callable

from postgrad.budget import Remaining
from postgrad.events import Analysed, Body, JobFinished, Proposed
from postgrad.records import Analysis, Choice, Difference, Failure, JobResult, Move, Proposal, Recipe, TaskSpec
from postgrad.research.base import Context, Researcher
from postgrad.research.binding import bound
from postgrad.research.exact import answer
from postgrad.research.references import reference_recipes
from postgrad.search.base import Policy
from postgrad.testing.events import evaluated, numbered
from postgrad.train import BACKENDS
from postgrad.tree import Experiment, Tree

UNITS, ROWS, TEXTS = 4, 300, 150

#: (recipe, seed of the training) -> observed score, or what went wrong.
Objective = Callable[[Recipe, int], "float | Failure"]


def nominal_s(recipe: Recipe) -> float:
    """Nominal seconds of a recipe over four folds of a small data set."""
    return UNITS * BACKENDS.get(recipe.stage.backend).nominal_cost(recipe.stage.params, ROWS, TEXTS)


@dataclass(frozen=True)
class Simulation:
    """What a simulated run needs.

    Attributes:
        error: standard error of a paired difference, for the intervals of analyses.
        lookahead: pending experiments in a view.
        name: what proposals call the policy where it names the recipe itself.
        affordable_s: nominal seconds that one experiment may cost.
    """

    task: TaskSpec
    policy: Policy
    researcher: Researcher
    objective: Objective
    error: float = 0.01
    lookahead: int = 0
    affordable_s: float | None = None
    name: str = "policy"

    def run(self, steps: int, seed: int) -> Tree:
        """References first, then `steps` experiments that are chosen and proposed."""
        tree = Tree()
        policy = bound(self.policy, self.task, nominal_s)
        params = policy.Params()
        for proposal in reference_recipes(self.task):
            tree = self._add(tree, Choice(parent=None, move=Move.DRAFT), proposal)
        for step in range(steps):
            view = tree.view(max(3, len(tree) - self.lookahead))
            remaining = Remaining(experiments=steps - step, fraction=1 - step / steps)
            choice = policy.choose(view, remaining, Random(f"{seed}/{step}/choose"), params)
            if choice.move is Move.STOP:
                break
            context = Context(view, Random(f"{seed}/{step}/propose"), len(tree), self.affordable_s, nominal_s)
            proposal = answer(self.researcher, self.name, self.task, choice, context)
            asked = choice.model_copy(update={"recipe": None})
            tree = self._add(tree, proposal.carried_out or asked, proposal)
        return tree

    def _add(self, tree: Tree, choice: Choice, proposal: Proposal) -> Tree:
        """The tree with one more ended experiment."""
        name = f"e{len(tree):04d}"
        cost = nominal_s(proposal.recipe)
        opened = Proposed(experiment=name, choice=choice, proposal=proposal, incumbent=tree.champion, nominal_s=cost)
        result = self.objective(proposal.recipe, proposal.seed)
        failure = result if isinstance(result, Failure) else None
        finished = JobFinished(
            job=f"{name}-search", experiment=name, purpose="search", result=JobResult(job=name, failure=failure)
        )
        bodies: list[Body] = [opened, finished]
        if failure is not None:
            analysis = Analysis(verdict="failed", against=None, difference=None, cause=failure.message)
            bodies.append(Analysed(experiment=name, analysis=analysis, champion=tree.champion))
        elif isinstance(result, float):
            bodies.append(evaluated(name, result))
            best = tree.best()
            champion = name if best is None or result > (best.score or 0.0) else best.id
            rival = tree[choice.parent] if choice.parent else best
            bodies.append(Analysed(experiment=name, analysis=self._compared(result, rival), champion=champion))
        for event in numbered(bodies):
            tree = tree.with_event(event)
        return tree

    def _compared(self, score: float, rival: Experiment | None) -> Analysis:
        if rival is None or rival.score is None:
            return Analysis(verdict="tie", against=None, difference=None, cause="nothing to compare with")
        gap = score - rival.score
        low, high = gap - 1.96 * self.error, gap + 1.96 * self.error
        difference = Difference(value=gap, low=low, high=high, p=0.5, n=100)
        if low > 0:
            return Analysis(verdict="better", against=rival.id, difference=difference, cause="simulated")
        return Analysis(
            verdict="worse" if high < 0 else "tie", against=rival.id, difference=difference, cause="simulated"
        )
