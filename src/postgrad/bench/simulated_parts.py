"""What a simulated run is granted, what comes of it, and the records it makes of item values."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import erfc, sqrt
from typing import TYPE_CHECKING, Literal

from postgrad.analyze.blame import ranked
from postgrad.analyze.causes import UNLIKELY, CauseKind, sign_test
from postgrad.bench.landscapes import Landscape
from postgrad.evaluate.statistics import interval
from postgrad.evaluate.statistics.known import item_variance
from postgrad.records import Blame, Difference, Estimate, Evaluation, Recipe
from postgrad.referee import FEWEST, MOST
from postgrad.research import edit
from postgrad.research.references import reference_recipes
from postgrad.train import BACKENDS
from postgrad.tree import Experiment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Unit = Literal["experiments", "seconds"]
UNITS, ROWS, TEXTS = 4, 300, 150


@edit.remembered
def nominal_s(recipe: Recipe) -> float:
    """Nominal seconds of a recipe over four folds of a small data set: what is known of its cost before it is tried."""
    return UNITS * BACKENDS.get(recipe.stage.backend).nominal_cost(recipe.stage.params, ROWS, TEXTS)


def blamed_of(accepted: float, mine: NDArray[np.float64], before: NDArray[np.float64] | None) -> tuple[Blame, ...]:
    """What recorded answers can be blamed on: out-of-scope questions that were answered, and what the experiment before
    it solved. Whether another wrong answer is a rejection was not recorded.

    Args:
        accepted: share of the search items that are out of scope and were answered.
        mine, before: (N,) values of the groups of items.
    """
    found: list[tuple[CauseKind, float]] = [("accepted", accepted)]
    if before is not None:
        lost, won = int((mine < before).sum()), int((mine > before).sum())
        if sign_test(lost, won) < UNLIKELY:
            found.append(("forgetting", lost / len(mine)))
    return ranked(found)


@dataclass(frozen=True)
class Grant:
    """What a run may spend.

    Attributes:
        amount: trainings or simulated seconds of the search, tests included; the finalists' trainings come on top.
        racing: True stops a dear proposal at a rung where there is too little chance that all of it beats the leader.
        pare: True leaves out changes of the leader, one at a time, before the budget ends.
    """

    amount: float
    unit: Unit = "experiments"
    racing: bool = False
    pare: bool = True

    def horizon(self, landscape: Landscape) -> int:
        """How many trainings the judge plans with."""
        if self.unit == "experiments":
            return max(1, int(self.amount))
        each = max(nominal_s(proposal.recipe) for proposal in reference_recipes(landscape.task))
        return int(min(MOST, max(FEWEST, self.amount / each)))


@dataclass
class Outcome:
    """What a run came to. True values are the landscape's.

    Attributes:
        final: true value of what is delivered.
        curve: (spent, true value of what the search built on from then on), in order.
        best: the best true value of all that was tried.
        keeps, false_keeps: of them those that are not truly better than what was kept before.
        leads, false_leads: changes of what is built on, and those of them to something that is not truly better.
        claimed: what the judge believes of the delivered recipe's gain over the first, less the true gain.
        parts: data steps, members, settings and rules of the delivered recipe that are not the default.
        pared: (what a change truly brings, whether it was dropped) of each change that was left out.
        trainings, cost_s, failures, raced: of the search, tests included.
        choose_s, propose_s, weigh_s: wall seconds, one entry a choice.
    """

    final: float = 0.0
    curve: list[tuple[float, float]] = field(default_factory=list)
    best: float = 0.0
    keeps: int = 0
    false_keeps: int = 0
    leads: int = 0
    false_leads: int = 0
    claimed: float = 0.0
    trainings: int = 0
    cost_s: float = 0.0
    failures: int = 0
    raced: int = 0
    final_trainings: int = 0
    parts: int = 0
    pared: list[tuple[float, bool]] = field(default_factory=list)
    choose_s: list[float] = field(default_factory=list)
    propose_s: list[float] = field(default_factory=list)
    weigh_s: list[float] = field(default_factory=list)


def parts_of(recipe: Recipe) -> int:
    """How many parts a recipe has: data steps, inference rules, members, and settings that are no numbers to tune and
    not the default."""
    count = len(recipe.data) + len(recipe.inference)
    for stage in edit.stages(recipe):
        backend = BACKENDS.get(stage.backend)
        space, fields = backend.space(stage.params), backend.Params.model_fields
        plain = backend.Params.model_validate(stage.params)
        count += 1 + sum(getattr(plain, key) != fields[key].default for key in fields if key not in space)
    return count


def family(recipe: Recipe) -> str:
    """Recipes that share their seed noise, as the referee groups them."""
    return f"{recipe.stage.backend}+data" if recipe.data else recipe.stage.backend


def gap_of(first: NDArray[np.float64], second: NDArray[np.float64], noise: float) -> Difference:
    """The paired difference of (N,) item values; `noise` is its variance from training seeds."""
    pairs = first - second
    value, variance = float(pairs.mean()), item_variance(pairs, 1.0) + noise
    low, high = interval(value, variance)
    p = erfc(abs(value) / sqrt(2 * variance))
    return Difference(value=value, low=low, high=high, p=p, n=len(pairs))


def evaluation_of(node: Experiment, values: NDArray[np.float64], *, share: float = 1.0) -> Evaluation:
    """The search evaluation of (N,) item values, of the whole or of a share of a training."""
    score = float(values.mean())
    low, high = interval(score, float(values.var()) / len(values))
    return Evaluation(
        experiment=node.id,
        split="search",
        seed=node.proposed.proposal.seed,
        metric="accuracy",
        estimate=Estimate(value=score, low=low, high=high, n=len(values)),
        metrics={"accuracy": score},
        threshold=None,
        items="",
        units=UNITS if share == 1 else max(1, min(UNITS - 1, round(share * UNITS))),
        units_planned=UNITS,
    )
