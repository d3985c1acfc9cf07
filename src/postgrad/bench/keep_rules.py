"""The rules that `postgrad bench noise` compares, each driving one simulated run on the same budget of trainings.

`Fixed` is what rivals do: one training, kept when its score is above the incumbent's by so many standard errors (0 is
the autoresearch rule). `Ours` drives the project's own `Judge`, the class that the loop uses.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from math import sqrt
from typing import TYPE_CHECKING, Any, Protocol

from postgrad.bench.worlds import Part, Setting, World
from postgrad.evaluate.statistics.finalists import worth_confirming
from postgrad.evaluate.statistics.influence import contributions
from postgrad.evaluate.statistics.judge import REPLICATE_FROM, Judge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EQUAL = 1e-12
FINAL_TRAININGS = 2


@dataclass
class Outcome:
    """What a rule made of one run.

    Attributes:
        first, final: the first recipe and the one that is delivered.
        keeps: for each keep, whether the recipe is truly better than the incumbent it was compared with.
        leads: for each change of what is built upon, whether it was truly better.
        proposals: for each proposal, whether it was truly better than the incumbent it was made against.
        claimed_gain: what the rule says the final recipe gains over the first.
        trainings: how many trainings were used.
        decide_s: wall seconds of deciding.
        seed_variance: of a whole score over training seeds, as the rule knows it, from so many `replicates`.
    """

    first: Any
    final: Any
    keeps: list[bool] = field(default_factory=list)
    leads: list[bool] = field(default_factory=list)
    proposals: list[bool] = field(default_factory=list)
    claimed_gain: float = 0.0
    trainings: int = 0
    decide_s: float = 0.0
    seed_variance: float = 0.0
    replicates: int = 0


class Rule(Protocol):
    """Plays one run to the end of its budget."""

    def play(self, world: World, setting: Setting, seed: int) -> Outcome: ...


class Bench:
    """A world with a counter of trainings."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.trainings = 0
        self.spent_s = 0.0

    def train(self, recipe: Any) -> NDArray[np.float64]:
        """(N,) per-item values of one more training on the search items."""
        self.trainings += 1
        return self._values(self.world.train(recipe, self.trainings), "search")

    def train_both(self, recipe: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N,) per-item values of one more training on the search items and on the select items."""
        self.trainings += 1
        model = self.world.train(recipe, self.trainings)
        return self._values(model, "search"), self._values(model, "select")

    def _values(self, model: Any, part: Part) -> NDArray[np.float64]:
        return contributions(self.world.metric, self.world.answers(model, part))

    def better(self, recipe: Any, than: Any) -> bool:
        return self.world.truth(recipe) - self.world.truth(than) > EQUAL


@dataclass(frozen=True)
class Fixed:
    """Keep when the score is above the incumbent's by more than `errors` standard errors of the paired difference."""

    errors: float

    def play(self, world: World, setting: Setting, seed: int) -> Outcome:
        first = world.start(setting, seed)
        bench, out = Bench(world), Outcome(first=first, final=first)
        incumbent, held = first, bench.train(first)
        start = float(held.mean())
        for number in range(setting.experiments - 1):
            recipe = world.propose(incumbent, number)
            values = bench.train(recipe)
            better = bench.better(recipe, incumbent)
            out.proposals.append(better)
            gap = values - held
            if float(gap.mean()) > self.errors * sqrt(float(gap.var()) / len(gap)):
                out.keeps.append(better)
                incumbent, held = recipe, values
        out.leads = out.keeps
        out.final, out.claimed_gain, out.trainings = incumbent, float(held.mean()) - start, bench.trainings
        return out


class Ours:
    """The project's rule: `Judge` with retests, and a look at fresh items before a doubtful recipe is delivered."""

    def play(self, world: World, setting: Setting, seed: int) -> Outcome:
        first = world.start(setting, seed)
        bench, out = Bench(world), Outcome(first=first, final=first)
        judge, recipes = Judge(horizon=setting.experiments), {"r0": first}
        judge.start("r0", bench.train(first))
        if judge.wants_replicate("r0"):
            again, fresh = bench.train_both(first)
            judge.again("r0", again)
            judge.fresh("r0", fresh)
        number = 0
        while (left := setting.experiments - bench.trainings) > 0:
            if number and left > FINAL_TRAININGS and (name := judge.to_test()):
                self._test(judge, name, recipes, bench, out)
            elif left == FINAL_TRAININGS and number and self._final(judge, recipes, bench, out):
                break
            else:
                self._propose(judge, recipes, bench, out, (number, setting.experiments))
                number += 1
        best = judge.ranked()[0]
        out.final, out.claimed_gain = recipes[best], judge.merit(best)
        out.trainings, out.seed_variance = bench.trainings, judge.seed_variance()
        out.replicates = judge.replicates()
        return out

    def _test(self, judge: Judge, name: str, recipes: dict[str, Any], bench: Bench, out: Outcome) -> None:
        """Fresh trainings of the leader, and of what was kept where it has none, on search and select items."""
        kept = judge.kept
        assert kept is not None
        for each in (kept, name):
            if judge.needs_fresh(each):
                again, fresh = bench.train_both(recipes[each])
                judge.again(each, again)
                judge.fresh(each, fresh)
        if judge.test(name).verdict == "keep":
            out.keeps.append(bench.better(recipes[name], recipes[kept]))

    def _final(self, judge: Judge, recipes: dict[str, Any], bench: Bench, out: Outcome) -> bool:
        """Spend the last two trainings on a test; short runs only where that is worth more than two proposals."""
        best = judge.leader = judge.ranked()[0]
        kept = judge.kept
        assert kept is not None
        if best == kept or not judge.needs_fresh(best):
            return False
        ahead, noise = judge.merit(best) - judge.merit(kept), judge.gap_variance(best, kept)
        price = FINAL_TRAININGS * judge.worth() * (judge.horizon < REPLICATE_FROM or judge.control.keeps > 0)
        doubtful = worth_confirming(ahead, judge.doubt(best), noise, price)
        if doubtful:
            self._test(judge, best, recipes, bench, out)
        return doubtful

    def _propose(self, judge: Judge, recipes: dict[str, Any], bench: Bench, out: Outcome, at: tuple[int, int]) -> None:
        number, budget = at
        rival = judge.leader
        assert rival is not None
        name = f"r{number + 1}"
        recipes[name] = recipe = bench.world.propose(recipes[rival], number)
        better = bench.better(recipe, recipes[rival])
        out.proposals.append(better)
        values = bench.train(recipe)
        started = time.perf_counter()
        said = judge.weigh(name, rival, values, may_retest=bench.trainings < budget)
        out.decide_s += time.perf_counter() - started
        while said.verdict == "retest":
            values = bench.train(recipe)
            started = time.perf_counter()
            said = judge.again(name, values, may_retest=bench.trainings < budget)
            out.decide_s += time.perf_counter() - started
        if judge.leader == name:
            out.leads.append(better)


RULES: dict[str, Rule] = {
    "postgrad": Ours(),
    "autoresearch": Fixed(0.0),
    "1 sigma": Fixed(1.0),
    "2 sigma": Fixed(2.0),
}
