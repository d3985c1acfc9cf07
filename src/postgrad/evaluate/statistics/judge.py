"""The decision rule: keep, discard, retest or tie, for the whole sequence of experiments of a run.

Two questions are kept apart. *What to build on* is a choice with the same loss on either side, so it follows the
posterior mean, shrunk for noise and for the search's own luck; a test would leave real gains behind. *What to claim* is
a test: "keep" means shown to be better than what was kept before, and the share of false keeps is bounded (`control`).
An experiment may lead without being kept: it is then a tie that the search builds on, and says so.

A keep is shown on fresh ground. The search climbs on its own items, so whatever leads is partly their luck; a test on
them would find it again. When the leader is far enough ahead for a test to succeed, it is trained with a fresh seed and
asked the select items, and compared there with what was kept before.

Scores. `q` is what a recipe scores on these items, averaged over seeds; a training shows it with noise. An incumbent
was picked for a high score: its luck is estimated from how its rivals fared (a normal filter), and is no bar for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import sqrt
from typing import TYPE_CHECKING

from postgrad.evaluate.statistics.control import ALPHA, Control, freedom, one_sided_p
from postgrad.evaluate.statistics.effects import Belief, Effects, expected_gain
from postgrad.evaluate.statistics.finalists import combined
from postgrad.evaluate.statistics.known import Decision, Judgement, Known, held, item_variance, mean_of
from postgrad.evaluate.statistics.merits import Merits
from postgrad.evaluate.statistics.seeds import MODELS, SeedNoise, SeedPrior
from postgrad.evaluate.statistics.unit import Unit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DISCARD_BELOW = 0.05
MOST_SEEDS = 5
# A further experiment is worth this much before any was seen, in the run's unit, counted as so many experiments.
EXPERIMENT_WORTH, WORTH_COUNT = 0.008, 4.0
# Share of the planned trainings that may be spent on tests, and how likely a test must be to succeed.
TEST_SHARE, TEST_POWER = 0.02, 0.7
# Standard errors that a gain must have left after a test that failed, to lead on.
HESITATE = 0.5
# Runs shorter than this cannot afford to train their first recipe twice.
REPLICATE_FROM = 30
# What the item part of a difference keeps at least when the flips of seeds are taken out of it.
LEAST_ITEM_SHARE = 0.1


@dataclass
class Judge:
    """The state of the rule over a run: a fold over its experiments in index order.

    Args:
        horizon: how many trainings are planned.
        alpha: the bound on the share of false keeps.
        seedless: families whose trainings do not depend on a seed.
        before: what is taken for granted of seeds.
    """

    horizon: int
    alpha: float = ALPHA
    seedless: frozenset[str] = frozenset()
    before: SeedPrior = MODELS
    leader: str | None = None
    kept: str | None = None
    _nodes: dict[str, Known] = field(default_factory=dict)
    _seeds: dict[str, SeedNoise] = field(default_factory=dict)
    _unit: Unit | None = None
    _worth: float = 0.0
    _weighed: int = 0

    def __post_init__(self) -> None:
        self.control = Control(horizon=max(1, round(TEST_SHARE * self.horizon)), alpha=self.alpha)
        self.effects = Effects(1.0)

    # --- what comes in --------------------------------------------------------------------------------------------

    def start(self, name: str, values: NDArray[np.float64], *, family: str = "", eligible: bool = True) -> Judgement:
        """The first recipe of a run leads.

        Args:
            values: (N,) per-item values whose mean is the score; the same items in the same order every time.
            family: recipes of one family share their seed noise.
        """
        self._started(values)
        node = self._added(name, values, family)
        node.open, node.eligible = False, eligible
        self.leader = self.kept = name
        return self._said(name, node, "tie", Belief(0.0, 0.0, 0.0), p=1.0, gap=0.0, error=0.0)

    def weigh(
        self,
        name: str,
        rival: str,
        values: NDArray[np.float64],
        *,
        family: str = "",
        eligible: bool = True,
        price: float = 0.0,
        may_retest: bool = True,
    ) -> Judgement:
        """Judge a proposal against the incumbent it was made against.

        Args:
            eligible: False for what may not lead, such as a recipe that breaks a guard.
            price: gain in score below which it may not lead, for a recipe that is dearer than its rival.
            may_retest: False where no further training can be had.
        """
        self._paired(values, self._nodes[rival].values)
        node = self._added(name, values, family, rival)
        node.eligible, node.price = eligible, price
        self._weighed += 1
        return self._judged(name, may_retest)

    def measure(
        self, name: str, rival: str, values: NDArray[np.float64], *, family: str = "", eligible: bool = True
    ) -> Judgement:
        """Compare a reference: it takes no part in what proposals are worth, is not shrunk, and nothing is claimed. The
        best of them is what the first keep has to beat."""
        if not len(self.effects) and float(values.std()) > self.unit:
            self._started(values)  # A constant answer comes first, and has no spread to measure effects by.
        node, other = self._added(name, values, family, rival), self._nodes[rival]
        node.open, node.eligible = False, eligible
        node.observed, items = node.score - other.q, self._items(node, other)
        node.foreseen = node.observed
        variance = items + self._shift(node) + self._shift(other)
        belief = Belief(node.observed, variance, float(node.observed > 0))
        if eligible and self._ahead(name, node, belief):
            self.leader = self.kept = name
        gap = node.score - other.score
        return self._said(name, node, "tie", belief, p=1.0, gap=gap, error=sqrt(variance))

    def again(self, name: str, values: NDArray[np.float64], *, may_retest: bool = True) -> Judgement:
        """Another training of a recipe, with a fresh seed. Its case is judged once more if it is still open."""
        node = self._nodes[name]
        self._paired(values, node.last)
        self._pool(node.family).add(node.scores, node.last, values)
        count = len(node.scores)
        node.mean, node.latest = held((node.values * count + values) / (count + 1)), held(values)
        node.scores.append(float(values.mean()))
        if node.open:
            return self._judged(name, may_retest)
        single = self._training_variance(node)
        weight = node.q_variance / (node.q_variance + single) if node.q_variance + single > 0 else 0.0
        node.q += weight * (node.scores[-1] - node.q)
        node.q_variance *= 1 - weight
        belief = self.merits.belief(name)
        return self._said(
            name, node, "keep" if self.kept == name and node.tested else "tie", belief, p=1.0, gap=0.0, error=0.0
        )

    # --- keeps ----------------------------------------------------------------------------------------------------

    def to_test(self, *, last: bool = False) -> str | None:
        """The leader, when a test of it against what was kept is likely to succeed and the run can afford one.

        Args:
            last: True at the end of the search, when tests that were planned and not used are free.
        """
        leader, kept = self.leader, self.kept
        if leader is None or kept is None or leader == kept or self._nodes[leader].tested:
            return None
        affords = self.control.affords(self._weighed, self.horizon) and self.horizon >= REPLICATE_FROM
        if not (affords or last and self.control.left):
            return None
        return leader if self._power(leader, kept) >= (TEST_POWER / 2 if last else TEST_POWER) else None

    def fresh(self, name: str, values: NDArray[np.float64]) -> None:
        """A fresh training of a recipe, asked the select items: (M,) per-item values, the same items every time."""
        self._nodes[name].fresh.append(values)

    def needs_fresh(self, name: str) -> bool:
        """True when a recipe was not asked the select items yet."""
        return not self._nodes[name].fresh

    def test(self, name: str) -> Judgement:
        """Test a recipe against what was kept before, on select items that both were asked. It is kept when it is shown
        to be better; in any case its merit takes in what was measured. What leads, another one if the search went on,
        stays so only while it is ahead of what is kept."""
        assert self.kept is not None
        node, kept = self._nodes[name], self._nodes[self.kept]
        pairs = mean_of(node.fresh) - mean_of(kept.fresh)
        gap, items = float(pairs.mean()), item_variance(pairs, self.unit)
        shift = self._claimed_shift(node, len(node.fresh)) + self._claimed_shift(kept, len(kept.fresh))
        level, node.tested = self.control.level, True
        p = one_sided_p(gap, items, len(pairs), shift, self._claimed_degrees(node))
        believed = self.merits.ahead(name, self.kept)
        mean, _ = combined(believed, self.doubt(name), gap, items + shift)
        node.bonus += mean - believed
        rival, keep = self.kept, self.control.tested(p)
        if keep:
            self.kept = name
        elif mean < HESITATE * sqrt(items + shift):
            node.eligible = False  # Fresh ground says that there is hardly a gain.
        if self.leader and not (self._nodes[self.leader].eligible and self.merits.ahead(self.leader, self.kept) > 0):
            self.leader = self.kept
        belief = Belief(mean, items + shift, 1 - p)
        said = self._said(name, node, "keep" if keep else "tie", belief, p=p, gap=gap, error=sqrt(items + shift))
        return replace(said, rival=rival, level=level)

    def untestable(self, name: str) -> None:
        """The fresh training of a recipe failed: it is not asked for again."""
        self._nodes[name].tested = True

    def _power(self, name: str, kept: str) -> float:
        """Probability that a test of `name` against `kept` succeeds, by what is believed of it."""
        from scipy.special import ndtr, stdtrit

        node, other = self._nodes[name], self._nodes[kept]
        items = self._items(node, other)
        shift = self._claimed_shift(node, 1) + self._claimed_shift(other, max(1, len(other.fresh)))
        degrees = freedom(items, len(node.values), shift, self._claimed_degrees(node))
        needed = -float(stdtrit(degrees, self.control.level)) * sqrt(items + shift)
        ahead = self.merits.ahead(name, kept)
        return float(ndtr((ahead - needed) / sqrt(items + shift + self.doubt(name))))

    def _claimed_shift(self, node: Known, trainings: int) -> float:
        """Seed variance of a mean over trainings, for a claim: the prior counts as one replicate at most."""
        return self._pool(node.family).shift(worth=self.before.claimed) / trainings

    def _claimed_degrees(self, node: Known) -> float:
        return self.before.claimed + self._pool(node.family).replicates

    # --- what is known --------------------------------------------------------------------------------------------

    def wants_replicate(self, name: str) -> bool:
        """True while seed noise is unknown and the run is long enough to learn it from a second training of this."""
        node = self._nodes[name]
        return self.horizon >= REPLICATE_FROM and self._pool(node.family).replicates < self.before.first

    @property
    def merits(self) -> Merits:
        """How far each recipe is ahead of the first."""
        return Merits(self._nodes, self.effects)

    def merit(self, name: str) -> float:
        """Posterior mean of the gain over the first recipe of the run."""
        return self.merits.of(name)

    def doubt(self, name: str) -> float:
        """Posterior variance of the merit beyond what was kept."""
        return self.merits.doubt(name, self.kept)

    def settled(self, name: str) -> bool:
        """True for a recipe that was weighed and whose case is closed."""
        return name in self._nodes and not self._nodes[name].open

    def gain(self, name: str, over: str) -> tuple[float, float, float]:
        """(posterior mean, its variance, measured difference) of what one recipe gains over another."""
        measured = self._nodes[name].score - self._nodes[over].score
        return self.merits.ahead(name, over), self.merits.between(name, over), measured

    def ranked(self) -> list[str]:
        """Recipes that may lead, best posterior mean first, under everything the run has taught."""
        return self.merits.ranked()

    def seed_variance(self, family: str = "") -> float:
        """Variance of a whole score over training seeds, flips not included."""
        return self._pool(family).shift()

    def replicates(self, family: str = "") -> int:
        """How many second and further trainings `seed_variance` rests on."""
        return self._pool(family).replicates

    def gap_variance(self, name: str, other: str) -> float:
        """Variance of the difference of one fresh training of each on as many fresh items."""
        first, second = self._nodes[name], self._nodes[other]
        seeds = self._pool(first.family).shift() + self._pool(second.family).shift()
        return self._items(first, second) + seeds

    def worth(self) -> float:
        """Expected gain of a new proposal: the mean of the positive parts so far, with a prior."""
        return (self._worth + EXPERIMENT_WORTH * self.unit * WORTH_COUNT) / (self._weighed + WORTH_COUNT)

    # --- the rule -------------------------------------------------------------------------------------------------

    def _judged(self, name: str, may_retest: bool) -> Judgement:
        node = self._nodes[name]
        assert node.rival is not None
        rival = self._nodes[node.rival]
        items = self._items(node, rival)
        flips = self._flips(node, items) / len(node.scores) + self._flips(rival, items) / len(rival.scores)
        own = self._training_variance(node, items) / len(node.scores)
        node.observed = node.score - rival.q
        node.noise = rival.q_variance + max(items - flips, LEAST_ITEM_SHARE * items) + own
        if node.number is None:
            node.number = self.effects.add(node.observed, node.noise)
        else:
            self.effects.revise(node.number, node.observed, node.noise)
        self.effects.learn()
        belief = self.effects.belief(node.observed, node.noise)
        gap, look = node.score - rival.score, len(node.scores)
        shift = self._shift(node) + self._shift(rival)
        p = one_sided_p(gap, items, len(node.values), shift, self.before.worth + self._pool(node.family).replicates)
        error = sqrt(items + shift)
        if may_retest and look < MOST_SEEDS and self._worth_a_seed(node, belief, own):
            return self._said(name, node, "retest", belief, p=p, gap=gap, error=error)
        node.open = False
        self._settle(node, rival, belief, own)
        if node.eligible and self._ahead(name, node, belief):
            self.leader = name
        verdict: Decision = "discard" if belief.better < DISCARD_BELOW else "tie"
        return self._said(name, node, verdict, belief, p=p, gap=gap, error=error)

    def _ahead(self, name: str, node: Known, belief: Belief) -> bool:
        """True when the search should build on this recipe from now on."""
        leader = self.leader
        if leader is None or not self._nodes[leader].eligible:
            return True
        ahead = belief.mean if leader == node.rival else self.merits.ahead(name, leader)
        return ahead > node.price

    def _worth_a_seed(self, node: Known, belief: Belief, own: float) -> bool:
        """True when another training of this recipe is expected to improve the choice by more than a new proposal gains
        (knowledge gradient: P. Frazier, W. Powell and S. Dayanik, SIAM J. Control Optim. 47 (2008) 2410-2439)."""
        less = node.noise - own / (len(node.scores) + 1)
        after = 1 / (1 / belief.variance + 1 / less - 1 / node.noise)
        moved = expected_gain(belief.mean, sqrt(max(0.0, belief.variance - after))) - max(0.0, belief.mean)
        return moved > self.worth()

    def _settle(self, node: Known, rival: Known, belief: Belief, own: float) -> None:
        """Share the part of the gap that is noise among what may have made it: this training's luck, the rival's, the
        items'."""
        self._worth += max(0.0, belief.mean)
        node.foreseen = belief.mean
        luck, known = node.observed - belief.mean, node.noise - belief.variance
        mine, theirs = own / node.noise, rival.q_variance / node.noise
        node.q = node.score - mine * luck
        node.q_variance = max(1e-14, own - mine**2 * known)
        rival.q += theirs * luck
        rival.q_variance = max(1e-14, rival.q_variance - theirs**2 * known)

    # --- noise ----------------------------------------------------------------------------------------------------

    @property
    def unit(self) -> float:
        """What effects and seed noise are measured in, before they are known."""
        return self._unit.value if self._unit else 1.0

    def _started(self, values: NDArray[np.float64]) -> None:
        self._unit = Unit(values)
        self.effects = Effects(self.unit)

    def _paired(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> None:
        """Let a pair of recipes, or of trainings, settle the unit."""
        if self._unit is None or not self._unit.seen(first, second):
            return
        self.effects.restate(self.unit)
        for pool in self._seeds.values():
            pool.restate(self.unit)
        if not self._weighed:
            for node in self._nodes.values():
                node.q_variance = self._training_variance(node) / len(node.scores)

    def _pool(self, family: str) -> SeedNoise:
        if family not in self._seeds:
            known = family in self.seedless
            self._seeds[family] = SeedNoise.none() if known else SeedNoise.before_any(self.unit, self.before)
        return self._seeds[family]

    def _items(self, node: Known, rival: Known) -> float:
        """Variance of the gap from items, the mean over trainings of either side paired item by item."""
        return item_variance(node.values - rival.values, self.unit)

    def _flips(self, node: Known, disagreement: float) -> float:
        return self._pool(node.family).flips(disagreement)

    def _shift(self, node: Known) -> float:
        return self._pool(node.family).shift() / len(node.scores)

    def _training_variance(self, node: Known, disagreement: float | None = None) -> float:
        """Variance of one training's score around `q`. Before the first replicate, a tenth of an item's variance stands
        in for what two recipes disagree about."""
        pool = self._pool(node.family)
        between = disagreement if disagreement is not None else 0.5 * self.unit**2 / len(node.values)
        return pool.shift() + pool.flips(between)

    def _added(self, name: str, values: NDArray[np.float64], family: str, rival: str | None = None) -> Known:
        score = float(values.mean())
        node = Known(mean=held(values), family=family, scores=[score], q=score, q_variance=0.0, rival=rival)
        node.steps = 0 if rival is None else self._nodes[rival].steps + 1
        node.q_variance = self._training_variance(node)
        self._nodes[name] = node
        return node

    def _said(
        self, name: str, node: Known, verdict: Decision, belief: Belief, *, p: float, gap: float, error: float
    ) -> Judgement:
        return Judgement(
            name=name,
            rival=node.rival,
            verdict=verdict,
            gap=gap,
            error=error,
            p=p,
            level=0.0,
            belief=belief,
            leads=self.leader == name,
            seeds=len(node.scores),
            seed_sd=sqrt(self._pool(node.family).shift()),
        )
