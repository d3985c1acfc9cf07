"""Who plays a simulated ledger, and what is said of it: the public session's rule with one or more trainings of each
recipe, the project's `Judge` with a fixed number of them, and the project's test put to keeps that are already written.

The rule that decides about retests itself is `keep_rules.Ours`, as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postgrad.bench.keep_rules import Bench, Outcome
from postgrad.evaluate.statistics.control import Control, one_sided_p
from postgrad.evaluate.statistics.judge import Judge
from postgrad.evaluate.statistics.seeds import SeedNoise
from postgrad.evaluate.statistics.unit import Unit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from postgrad.bench.worlds import Setting, World


@dataclass(frozen=True)
class Line:
    """One line of a ledger.

    Attributes:
        rival: the incumbent that the recipe was compared with.
        gap: recorded score less the incumbent's; kept where it is above zero.
        better: whether the recipe is truly better.
    """

    recipe: Any
    rival: Any
    gap: float
    better: bool

    @property
    def kept(self) -> bool:
        return self.gap > 0


class Measured:
    """Trainings in groups of so many; a measurement is the mean of a group, item by item."""

    def __init__(self, world: World, seeds: int) -> None:
        self.bench, self.seeds, self.recipes = Bench(world), seeds, 0

    def first(self, recipe: Any) -> NDArray[np.float64]:
        """(N,) values on the search items, of a recipe that was not measured before."""
        self.recipes += 1
        return self.again(recipe)

    def again(self, recipe: Any) -> NDArray[np.float64]:
        """(N,) values on the search items."""
        return _mean([self.bench.train(recipe) for _ in range(self.seeds)])

    def both(self, recipe: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N,) values on the search items and on fresh ones."""
        pairs = [self.bench.train_both(recipe) for _ in range(self.seeds)]
        return _mean([search for search, _ in pairs]), _mean([fresh for _, fresh in pairs])


def _mean(trainings: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    import numpy as np

    mean: NDArray[np.float64] = np.mean(trainings, axis=0)
    return mean


def ledger_of(
    world: World, setting: Setting, seed: int, *, proposals: int, seeds: int = 1
) -> tuple[Outcome, list[Line]]:
    """The autoresearch rule: measure, and keep what scored strictly better. With one training of each recipe this is
    `keep_rules.Fixed(0.0)`, line by line."""
    first = world.start(setting, seed)
    measured, out = Measured(world, seeds), Outcome(first=first, final=first)
    held = start = float(measured.first(first).mean())
    lines: list[Line] = []
    for number in range(proposals):
        recipe = world.propose(out.final, number)
        score = float(measured.first(recipe).mean())
        line = Line(recipe, out.final, score - held, measured.bench.better(recipe, out.final))
        lines.append(line)
        out.proposals.append(line.better)
        if line.kept:
            out.keeps.append(line.better)
            out.final, held = recipe, score
    out.leads, out.claimed_gain, out.trainings = out.keeps, held - start, measured.bench.trainings
    return out, lines


def shown(world: World, lines: list[Line], seeds: int) -> tuple[int, int]:
    """Put the project's test to every keep of a ledger: (keeps shown to be better than what they replaced, those of
    them that are not).

    The recipe and the one it replaced are trained `seeds` times each, apart from the ledger's own training, and asked
    fresh items. Seed noise is what these trainings show of it; with one training of each recipe nothing is known but
    the prior. The share of false ones among the shown is bounded over the whole ledger (`control`).
    """
    keeps, bench = [line for line in lines if line.kept], Bench(world)
    bench.trainings = len(lines) + 1
    control, found, false = Control(horizon=max(1, len(keeps))), 0, 0
    recipes = [keeps[0].rival, *(line.recipe for line in keeps)] if keeps else []
    trained = [[bench.train_both(recipe)[1] for _ in range(seeds)] for recipe in recipes]
    pool = SeedNoise.before_any(_unit([values[0] for values in trained]))
    for values in trained:
        for count in range(1, seeds):
            earlier = [float(value.mean()) for value in values[:count]]
            pool.add(earlier, values[count - 1], values[count])
    for line, before, after in zip(keeps, trained, trained[1:], strict=False):
        pairs = _mean(after) - _mean(before)
        shift = 2 * pool.shift(worth=1.0) / seeds
        p = one_sided_p(float(pairs.mean()), float(pairs.var()) / len(pairs), len(pairs), shift, 1.0 + pool.replicates)
        if control.tested(p):
            found, false = found + 1, false + (not line.better)
    return found, false


def _unit(recipes: list[NDArray[np.float64]]) -> float:
    """The unit of priors, from recipes each of which changed the one before it."""
    if not recipes:
        return 1.0
    unit = Unit(recipes[0])
    for before, after in zip(recipes, recipes[1:], strict=False):
        unit.seen(after, before)
    return unit.value


@dataclass(frozen=True)
class Seeded:
    """The project's rule without retests: every recipe is measured once, by `seeds` trainings. Only the first recipe is
    measured twice, as the rule asks, and what is put to a test is measured afresh.

    Args:
        proposals: most changes that are tried.
        trainings: most trainings that are used.
    """

    seeds: int
    proposals: int
    trainings: int

    def play(self, world: World, setting: Setting, seed: int) -> Outcome:
        """Play one run. The setting's own number of experiments is not read."""
        first = world.start(setting, seed)
        measured, out = Measured(world, self.seeds), Outcome(first=first, final=first)
        bench, recipes = measured.bench, {"r0": first}
        judge = Judge(horizon=min(self.trainings // self.seeds, self.proposals + 1))
        judge.start("r0", measured.first(first))
        if judge.wants_replicate("r0"):
            again, fresh = measured.both(first)
            judge.again("r0", again)
            judge.fresh("r0", fresh)
        while (left := (self.trainings - bench.trainings) // self.seeds) > 0:
            last = left <= 2 or measured.recipes > self.proposals
            if measured.recipes > 1 and left >= 2 and (name := judge.to_test(last=last)):
                self._test(judge, name, recipes, measured, out)
            elif measured.recipes <= self.proposals:
                self._propose(judge, recipes, measured, out)
            else:
                break
        best = judge.ranked()[0]
        out.final, out.claimed_gain, out.trainings = recipes[best], judge.merit(best), bench.trainings
        return out

    def _propose(self, judge: Judge, recipes: dict[str, Any], measured: Measured, out: Outcome) -> None:
        rival, number = judge.leader, measured.recipes - 1
        assert rival is not None
        name = f"r{measured.recipes}"
        recipes[name] = recipe = measured.bench.world.propose(recipes[rival], number)
        better = measured.bench.better(recipe, recipes[rival])
        out.proposals.append(better)
        judge.weigh(name, rival, measured.first(recipe), may_retest=False)
        if judge.leader == name:
            out.leads.append(better)

    def _test(self, judge: Judge, name: str, recipes: dict[str, Any], measured: Measured, out: Outcome) -> None:
        kept = judge.kept
        assert kept is not None
        for each in (kept, name):
            if judge.needs_fresh(each):
                again, fresh = measured.both(recipes[each])
                judge.again(each, again)
                judge.fresh(each, fresh)
        if judge.test(name).verdict == "keep":
            out.keeps.append(measured.bench.better(recipes[name], recipes[kept]))
