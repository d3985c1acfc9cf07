"""One simulated run: real policy, real researcher, real decision rule, and a landscape in place of training.

It goes as the loop goes with one worker: references first, then choose, propose, train and weigh; further seeds where
the judge wants one, tests on the select items where the judge asks for one, and at the end the choice among finalists.
There is no store and no job, answers have no guards, and intervals are normal ones in place of the bootstrap.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from math import log2
from random import Random
from typing import TYPE_CHECKING, Any, Callable, Mapping

from postgrad.analyze.verdict import cut_off, failed, said, same_again
from postgrad.bench import simulated_pare
from postgrad.bench.landscapes import Landscape
from postgrad.bench.simulated_end import delivered, fresh, tested
from postgrad.bench.simulated_parts import Grant, Outcome, blamed_of, evaluation_of, family, gap_of, nominal_s
from postgrad.bench.simulated_races import Races
from postgrad.budget import Remaining
from postgrad.evaluate.statistics import interval
from postgrad.evaluate.statistics.judge import Judge
from postgrad.evaluate.statistics.known import Judgement
from postgrad.events import Proposed
from postgrad.pare import is_paring
from postgrad.records import (
    Analysis,
    Choice,
    Estimate,
    Failure,
    JobResult,
    Move,
    Prior,
    Proposal,
    Recipe,
    Remembered,
    Usage,
)
from postgrad.referee import PRICE_OF_DOUBLE
from postgrad.research import edit
from postgrad.research.base import Context, Researcher, itself
from postgrad.research.binding import bound
from postgrad.research.exact import answer
from postgrad.research.playbook import Playbook
from postgrad.research.references import reference_recipes
from postgrad.search import POLICIES, legal
from postgrad.tree import Experiment, Tree

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Admit = Callable[[Recipe], Recipe | None]


class SimulatedRun:
    """One run of one policy on one landscape.

    Args:
        policy: its name.
        seed: of the policy's and the researcher's chance.
        researcher: None takes the playbook.
        priors: kind of change -> what finished runs taught about it.
        params: settings of the policy that are not its own.
    """

    def __init__(
        self,
        landscape: Landscape,
        policy: str,
        grant: Grant,
        seed: int,
        researcher: Researcher | None = None,
        priors: Mapping[str, Prior] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        self.priors = priors or {}
        self.landscape, self.grant, self.seed, self.name = landscape, grant, seed, policy
        self.task = landscape.task
        self.family: Callable[[Recipe], str] = getattr(landscape, "family", family)
        self.policy = bound(POLICIES.get(policy), self.task, nominal_s, self.priors, self._seeded)
        self.params = self.policy.Params.model_validate(params or {})
        self.researcher = researcher or Playbook()
        self.judge = Judge(horizon=grant.horizon(landscape), seedless=landscape.seedless)
        self.out = Outcome()
        self.tree = Tree()
        self.select: dict[str, NDArray[np.float64] | None] = {}
        self._subjects: dict[str, str] = {}
        self._trained: set[tuple[str, int]] = set()
        self._values: dict[str, NDArray[np.float64]] = {}
        self._races = Races(self)
        self.paring = simulated_pare.paring_of(self)

    def play(self) -> Outcome:
        """Search to the end of the budget, choose among the finalists, and say what came of it."""
        references = reference_recipes(self.task)
        while self.left > 0:
            index = len(self.tree)
            if index < len(references):
                self._experiment(Choice(parent=None, move=Move.DRAFT, reason="reference"), references[index], None)
                continue
            if (owed := self._owed_seed()) is not None:
                self._experiment(*owed, self.tree.champion)
            elif self._used_up():
                break
            elif (pared := simulated_pare.owed(self)) is not None:
                self._experiment(*pared, self.judge.leader)
            else:
                choice = self._choose()
                if choice.move is Move.STOP:
                    if (pared := simulated_pare.owed(self, stopped=True)) is None:
                        break
                    self._experiment(*pared, self.judge.leader)
                    continue
                self._experiment(*self._proposed(choice), self.tree.champion)
            self._test_if_due()
        simulated_pare.settle(self)
        delivered(self)
        return self.out

    # --- the account ----------------------------------------------------------------------------------------------

    @property
    def spent(self) -> float:
        return self.out.trainings if self.grant.unit == "experiments" else self.out.cost_s

    @property
    def left(self) -> float:
        return max(0.0, self.grant.amount - self.spent)

    def _remaining(self) -> Remaining:
        share = self.left / self.grant.amount
        if self.grant.unit == "experiments":
            return Remaining(experiments=int(self.left), fraction=share)
        return Remaining(wall_s=self.left, fraction=share, affordable_s=self.left)

    def truth(self, name: str | None) -> float:
        """True value of an experiment's recipe; of the constant answer before there is one."""
        if name is None:
            return self.landscape.truth(reference_recipes(self.task)[0].recipe)
        return self.landscape.truth(self.recipe(name))

    def recipe(self, name: str) -> Recipe:
        return self.tree[name].proposed.proposal.recipe

    def _seeded(self, recipe: Recipe) -> bool:
        return self.family(recipe) not in self.landscape.seedless

    def pay(self, recipe: Recipe, share: float = 1.0) -> float:
        """Take a training, or a part of one, off the budget; return what it costs, in seconds."""
        cost = share * self.landscape.cost_s(recipe)
        self.out.trainings += 1
        self.out.cost_s += cost
        return cost

    # --- choose and propose ---------------------------------------------------------------------------------------

    def _choose(self) -> Choice:
        rng = Random(f"{self.seed}/{len(self.tree)}/choose")
        started = time.perf_counter()
        choice = self.policy.choose(self.tree, self._remaining(), rng, self.params)
        self.out.choose_s.append(time.perf_counter() - started)
        return choice

    def _proposed(self, choice: Choice) -> tuple[Choice, Proposal]:
        index = len(self.tree)
        affordable = self.left if self.grant.unit == "seconds" else None
        rng = Random(f"{self.seed}/{index}/propose")
        admit, nearest = self._admission()
        left, known = self._remaining(), Remembered(priors=dict(self.priors))
        context = Context(self.tree, rng, index, affordable, nominal_s, known, admit, nearest, left)
        started = time.perf_counter()
        proposal = answer(self.researcher, self.name, self.task, choice, context)
        self.out.propose_s.append(time.perf_counter() - started)
        return proposal.carried_out or choice.model_copy(update={"recipe": None}), proposal

    def _admission(self) -> tuple[Admit, Admit]:
        """What a researcher is told of the recipes that can be trained, where the landscape has a word in it."""
        admit = getattr(self.landscape, "admit", None)
        if admit is None:
            return itself, itself
        taken = frozenset(node.proposed.proposal.recipe.hash for node in self.tree.all())
        return partial(admit, taken=taken), partial(admit, taken=taken, near=True)

    def _used_up(self) -> bool:
        """True when the landscape has a pool of recipes and all of them were tried."""
        pool: frozenset[str] = getattr(self.landscape, "pool", frozenset())
        return bool(pool) and pool <= {node.proposed.proposal.recipe.hash for node in self.tree.all()}

    def _owed_seed(self) -> tuple[Choice, Proposal] | None:
        """The training that the judge wants next."""
        last = self.tree.all()[-1]
        if last.analysis is None or last.analysis.verdict != "retest":
            return None
        subject = self.tree[last.analysis.subject or last.id]
        recipe = subject.proposed.proposal.recipe
        seeds = [seed for name, seed in self._trained if name == recipe.hash]
        proposal = subject.proposed.proposal.model_copy(
            update={"kind": "referee.seed", "proposer": "referee", "seed": max(seeds) + 1, "expected_effect": 0.0}
        )
        return Choice(parent=subject.id, move=Move.REPLICATE, reason="the referee asks for another seed"), proposal

    # --- train and weigh ------------------------------------------------------------------------------------------

    def _experiment(self, choice: Choice, proposal: Proposal, incumbent: str | None) -> None:
        name = f"e{len(self.tree):04d}"
        recipe = proposal.recipe
        valid = edit.valid(recipe)
        nominal = nominal_s(recipe) if valid else 0.0
        opened = Proposed(experiment=name, choice=choice, proposal=proposal, incumbent=incumbent, nominal_s=nominal)
        node = Experiment(id=name, index=len(self.tree), proposed=opened)
        if not valid:
            self.out.trainings += 1
            wrong = Failure(boundary="recipe", kind="invalid", message="A parameter is not valid.")
            self._close(self.ended(node, 0.0, wrong), failed(wrong))
            return
        if (stopped := self._races.stopped(node)) is not None:
            self._close(*stopped)
            return
        cost = self.pay(recipe)
        if self.grant.unit == "seconds" and self.out.cost_s > self.grant.amount:
            self._close(self.ended(node, cost), cut_off("the budget ended first"))
            return
        result = self.landscape.train(recipe, proposal.seed)
        if isinstance(result, Failure):
            self.out.failures += 1
            self._close(self.ended(node, cost, result), failed(result))
            return
        self.out.best = max(self.out.best, self.landscape.truth(recipe))
        started = time.perf_counter()
        node = replace(self.ended(node, cost), evaluation=evaluation_of(node, result.search))
        analysis = self._weighed(node, result.search)
        if result.accepted is not None:
            blamed = blamed_of(result.accepted, result.search, self._values.get(node.parent or ""))
            analysis = analysis.model_copy(update={"blamed": blamed})
        self.out.weigh_s.append(time.perf_counter() - started)
        self._close(node, analysis)

    def ended(self, node: Experiment, cost: float, failure: Failure | None = None) -> Experiment:
        """The experiment with what its training cost, and how it failed."""
        job = JobResult(job=f"{node.id}-search", usage=Usage(wall_s=cost, cpu_s=cost), failure=failure)
        return replace(node, results=(job,))

    def _close(self, node: Experiment, analysis: Analysis) -> None:
        leader = self.judge.leader
        before = self.tree.champion
        node = replace(node, analysis=analysis, champion=leader)
        self.tree = self.tree.with_experiments((node,), leader)
        value = self.truth(leader)
        if leader != before and before is not None and node.index >= len(reference_recipes(self.task)):
            self.out.leads += 1
            self.out.false_leads += value <= self.truth(before)
        self.out.curve.append((self.spent, value))

    def _weighed(self, node: Experiment, values: NDArray[np.float64]) -> Analysis:
        """What the judge says, as the referee asks it."""
        recipe, seed = node.proposed.proposal.recipe, node.proposed.proposal.seed
        self._values[node.id] = values
        subject = self._subjects.setdefault(recipe.hash, node.id)
        if (recipe.hash, seed) in self._trained:
            return same_again(subject, ())
        self._trained.add((recipe.hash, seed))
        found = self._judged(node, subject, values)
        gap, against = None, node.parent or found.rival
        if against is not None and against in self._values:
            noise = sum(self.judge.seed_variance(self.family(each)) for each in (recipe, self.recipe(against)))
            gap = gap_of(values, self._values[against], noise)
        wanted = found.rival and not is_paring(node) and self.judge.wants_replicate(found.name)
        if found.leads and found.verdict == "tie" and wanted:
            found = replace(found, verdict="retest")
        low, high = interval(found.belief.mean, found.belief.variance)
        gain = Estimate(value=found.belief.mean, low=low, high=high, n=len(values)) if found.rival else None
        analysis = said(found, gap, against if gap else None, None if found.name == node.id else found.name)
        return analysis.model_copy(update={"rival": found.rival, "gain": gain, "seed_sd": found.seed_sd or None})

    def _judged(self, node: Experiment, subject: str, values: NDArray[np.float64]) -> Judgement:
        recipe, more = node.proposed.proposal.recipe, self.left >= 1 and not is_paring(node)
        if subject != node.id:
            return self.judge.again(subject, values, may_retest=more)
        incumbent = node.proposed.incumbent
        rival = self._subjects[self.recipe(incumbent).hash] if incumbent else self.judge.leader
        if rival is None:
            return self.judge.start(node.id, values, family=self.family(recipe))
        if legal.is_reference(node):
            return self.judge.measure(node.id, rival, values, family=self.family(recipe))
        ratio = max(node.proposed.nominal_s, 1e-9) / max(self.tree[rival].proposed.nominal_s, 1e-9)
        price = max(0.0, PRICE_OF_DOUBLE * self.task.min_effect * log2(ratio))
        return self.judge.weigh(node.id, rival, values, family=self.family(recipe), price=price, may_retest=more)

    # --- tests ----------------------------------------------------------------------------------------------------

    def _test_if_due(self) -> None:
        """The test that the judge wants, where the budget has room for its trainings."""
        name, kept = self.judge.to_test(), self.judge.kept
        if name is None or kept is None:
            return
        owed = [each for each in (kept, name) if each not in self.select]
        costs = [self.landscape.cost_s(self.recipe(each)) for each in owed]
        if self.left < (len(owed) if self.grant.unit == "experiments" else sum(costs)):
            return
        for each in owed:
            self.pay(self.recipe(each))
            fresh(self, each)
            self.out.curve.append((self.spent, self.truth(self.judge.leader)))
        tested(self, name)
