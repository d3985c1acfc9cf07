"""Search by posteriors: the recipe is tried that is expected to raise the best one most, for what it costs.

What every recipe is worth is believed from all experiments together: what one says about a part, a number or a
combination, it says about all recipes that share it (`surrogate.py`). From the experiments that are believed best, and
from starting points that were not tried, changes are added for as long as that raises what is expected; so a proposal
holds one change where little is known and several where the run has taught what they bring. Leaving a part out, moving
numbers and taking from two branches are such changes; training the leader again and mending a failed experiment are
weighed against them. The more experiments, the more of them are built on (progressive widening, R. Coulom, "Computing
Elo ratings of move patterns in the game of Go" (2007), section 4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Sequence

from pydantic import Field

from postgrad.budget import Remaining
from postgrad.errors import PostgradError
from postgrad.records import Choice, Move, Recipe, Record
from postgrad.search import legal
from postgrad.search.base import Option, Options
from postgrad.search.prospects import Prospects, known
from postgrad.tree import Experiment, State, Tree

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Nominal seconds that an experiment costs beside its training.
OVERHEAD_S = 10.0
# The power of the cost that gains are divided by at the beginning; it falls with the budget, so that what is dear gets
# its turn (E. H. Lee, V. Perrone, C. Archambeau and M. Seeger, "Cost-aware Bayesian optimization" (2020), section 4.2,
# who begin with 1: on real recipes that kept to cheap ones for too long).
COST_POWER = 0.5


class PosteriorParams(Record):
    """Settings of the posterior policy.

    Attributes:
        scale: standard deviation of what one part of a recipe brings, before any was tried; on the scale of the metric.
        drafts: starting points, besides the references, that are tried before anything is changed.
        changes: most changes that one proposal makes.
        width: experiments that are built on at the beginning; their number grows with the root of the experiments.
        climbs: beginnings that further changes are added to.
        numbers: most numbers that one proposal moves.
        max_repairs: repairs in a row that are tried on one failure.
        least_gain: the search stops when all that is left is expected to gain less than this; on the metric's scale.
        shared: False has every experiment say something about recipes much like its own only.
        priced: False leaves costs out where the budget is time.
        replicate: False never trains the leader again.
        solved: share of the items that a cause of the leader's bad cases is about that a change which addresses it is
            expected to solve; 0 looks at no causes.
    """

    scale: float = Field(default=0.02, gt=0)
    drafts: int = Field(default=3, ge=0)
    changes: int = Field(default=2, ge=1)
    width: int = Field(default=2, ge=1)
    climbs: int = Field(default=2, ge=1)
    numbers: int = Field(default=6, ge=0)
    max_repairs: int = Field(default=2, ge=0)
    least_gain: float = Field(default=0.0005, ge=0)
    shared: bool = True
    priced: bool = True
    replicate: bool = True
    solved: float = Field(default=0.25, ge=0, le=1)


@dataclass(frozen=True)
class Found:
    """Something that could be done: what it is expected to bring, what that is worth, and the choice it would be.

    Attributes:
        gain: expected improvement on the leader, on the scale of the metric.
        worth: the same, divided by a price where costs count.
    """

    gain: float
    worth: float
    option: Option | None
    parent: Experiment | None
    kinds: tuple[str, ...]
    move: Move
    other: Experiment | None = None


class Posterior:
    """Weighs what could be tried, then asks for one recipe."""

    Params: type[Record] = PosteriorParams

    def __init__(self, options: Options | None = None) -> None:
        self.options = options

    def weighing(self, options: Options) -> Posterior:
        """The same policy over these options."""
        return Posterior(options)

    def choose(self, tree: Tree, remaining: Remaining, rng: Random, params: PosteriorParams) -> Choice:
        """Return the next choice."""
        if remaining.empty:
            return legal.stop()
        if self.options is None:
            raise PostgradError(
                "The policy 'posterior' needs the options of a task. Use what its `weighing` gives for them."
            )
        broken = [node for node in legal.repairable(tree, params.max_repairs) if self._mends(tree, node)]
        if not known(tree):
            return legal.repair(rng.choice(broken)) if broken else legal.draft("nothing has a score yet")
        prospects = Prospects(tree, self.options, params.scale, params.shared, params.solved)
        weighing = _Weighing(prospects, self.options, remaining, rng, params)
        return weighing.choice(broken)

    def _mends(self, tree: Tree, node: Experiment) -> bool:
        """True where the failure asks for a recipe that was not tried."""
        root = node.analysis.root if node.analysis else None
        mended = self.options.mended(_recipe(node), node.failure, root) if self.options and node.failure else None
        return mended is not None and not tree.has_tried(mended)


class _Weighing:
    """One choice in the making."""

    def __init__(
        self, prospects: Prospects, options: Options, remaining: Remaining, rng: Random, params: PosteriorParams
    ) -> None:
        self.prospects, self.options, self.rng, self.params = prospects, options, rng, params
        self.remaining = remaining
        self.priced = params.priced and (remaining.experiments is None or remaining.wall_s is not None)

    def choice(self, broken: Sequence[Experiment]) -> Choice:
        """Weigh everything, once a few starting points were tried: before, changes of the first are a gamble."""
        starts = self._starts()
        tried = [node for node in legal.drafts(self.prospects.tree) if node.state is not State.FAILED]
        if starts and len(tried) < self.params.drafts:
            return self._chosen(starts[0])
        width = self.params.width + int(len(self.prospects.seen) ** 0.5 / 3)
        leading = self.prospects.leading(width)
        begun = [*starts, *self._mixed(leading)]
        begun += [found for node in leading if (found := self._changed(_recipe(node), node, ())) is not None]
        begun.sort(key=lambda found: -found.worth)
        ready = [self._climbed(found) for found in begun[: self.params.climbs]]
        ready += [self._again(node) for node in leading[: self.params.replicate] if self._tells(_recipe(node))]
        ready += self._repaired(broken)
        ready += [
            found for node in leading if (found := self._tuned(_recipe(node), node, (), node.proposed.choice.move))
        ]
        if not ready:
            return legal.draft("no change of what leads is new")
        found = max(ready, key=lambda found: found.worth)
        return self._stopped(found) or self._chosen(found)

    # --- what could be done -------------------------------------------------------------------------------------------

    def _starts(self) -> list[Found]:
        starts, tree = self.options.starts(), self.prospects.tree
        dear = {_start(each) for each in starts if not (tree.has_tried(each.recipe) or self._affordable(each.recipe))}
        best = self._best([each for each in starts if each.stands_in is None or _start(each, each.stands_in) in dear])
        return [] if best is None else [Found(*best, None, (best[2].kind,), Move.DRAFT)]

    def _changed(self, recipe: Recipe, parent: Experiment | None, kinds: tuple[str, ...]) -> Found | None:
        """The best single change of a recipe."""
        best = self._best(self.options.changes(recipe))
        if best is None:
            return None
        return Found(*best, parent, (*kinds, best[2].kind), _move(parent, kinds, best[2]))

    def _climbed(self, found: Found) -> Found:
        """With further changes, and then with other numbers, for as long as that raises what is expected."""
        for _ in range(self.params.changes - 1):
            further = self._changed(found.option.recipe, found.parent, found.kinds) if found.option else None
            if further is None or further.worth <= found.worth:
                break
            found = further
        tuned = self._tuned(found.option.recipe, found.parent, found.kinds, found.move) if found.option else None
        return found if tuned is None or tuned.worth <= found.worth else replace(tuned, other=found.other)

    def _tuned(self, recipe: Recipe, parent: Experiment | None, kinds: tuple[str, ...], move: Move) -> Found | None:
        """The same structure with other numbers."""
        ranges = self.options.ranges(recipe)
        places = self.prospects.placed(self.options.features(recipe), ranges, self.params.numbers, self.rng)
        best = self._best([self.options.placed(recipe, places)]) if places else None
        if best is None:
            return None
        return Found(*best, parent, (*kinds, "tune"), move if kinds else Move.TUNE)

    def _mixed(self, leading: Sequence[Experiment]) -> list[Found]:
        """The best of what takes from the first and another, for each other, and for each starting point: what was
        learnt about one method may serve another."""
        found = []
        for other in leading[1:]:
            best = self._best(self.options.both(_recipe(leading[0]), _recipe(other)))
            if best is not None:
                found.append(Found(*best, leading[0], (best[2].kind,), Move.COMBINE, other))
        for start in self.options.starts():
            best = self._best(self.options.both(_recipe(leading[0]), start.recipe))
            if best is not None:
                found.append(Found(*best, leading[0], (start.kind, best[2].kind), Move.IMPROVE))
        return found

    def _again(self, node: Experiment) -> Found:
        """Training what is believed best once more, to know it better."""
        gain = self.prospects.of_another_training()
        return Found(gain, self._worth(gain, _recipe(node)), None, node, (), Move.REPLICATE)

    def _repaired(self, broken: Sequence[Experiment]) -> list[Found]:
        broken = [node for node in broken if self._affordable(_recipe(node))]
        gains = self.prospects.of_repairs(broken) if broken else []
        return [
            Found(gain, self._worth(gain, _recipe(node)), None, node, (), Move.REPAIR)
            for node, gain in zip(broken, gains, strict=True)
        ]

    # --- what it is worth ---------------------------------------------------------------------------------------------

    def _best(self, options: Sequence[Option]) -> tuple[float, float, Option] | None:
        """(gain, worth, option) of the most promising one whose recipe is in no experiment yet and can be paid."""
        if not options:
            return None
        gains = self.prospects.gains([option.features for option in options])
        worth = gains if not self.priced else self._per_cost(gains, options)
        for at in (-worth).argsort(kind="stable"):
            recipe = options[at].recipe
            if not self.prospects.tree.has_tried(recipe) and self._affordable(recipe):
                return float(gains[at]), float(worth[at]), options[at]
        return None

    def _tells(self, recipe: Recipe) -> bool:
        """True where training a recipe once more says something, and can be paid."""
        return self.options.seeded(recipe) and self._affordable(recipe)

    def _affordable(self, recipe: Recipe) -> bool:
        limit = self.remaining.affordable_s
        return limit is None or self.options.nominal_s(recipe) <= limit

    def _per_cost(self, gains: NDArray[np.float64], options: Sequence[Option]) -> NDArray[np.float64]:
        import numpy as np

        per_cost: NDArray[np.float64] = gains / np.array([self._price(option.recipe) for option in options])
        return per_cost

    def _worth(self, gain: float, recipe: Recipe) -> float:
        return gain / self._price(recipe) if self.priced else gain

    def _price(self, recipe: Recipe) -> float:
        """What a gain is divided by."""
        return float((OVERHEAD_S + self.options.nominal_s(recipe)) ** (COST_POWER * self.remaining.fraction))

    # --- the answer ---------------------------------------------------------------------------------------------------

    def _stopped(self, found: Found) -> Choice | None:
        """Stop where all that is left of the budget would gain less than is worth while, if every experiment gained as
        much as the best."""
        count, seconds = self.remaining.experiments, self.remaining.wall_s
        if count is not None:
            left, gain = f"{count} experiments", found.gain * count
        elif seconds is not None:
            left, gain = f"{seconds:.0f} seconds", found.gain * seconds / self._cost(found)
        else:
            return None
        if gain >= self.params.least_gain:
            return None
        reason = f"the {left} left are expected to gain less than {self.params.least_gain:g} together"
        return Choice(parent=None, move=Move.STOP, reason=reason)

    def _cost(self, found: Found) -> float:
        recipe = found.option.recipe if found.option else _recipe(found.parent) if found.parent else None
        return OVERHEAD_S + (self.options.nominal_s(recipe) if recipe else 0.0)

    def _chosen(self, found: Found) -> Choice:
        parent, option = found.parent, found.option
        above = 0.0
        if option is not None:
            value = self.prospects.believed(option.features)
            above = value - (self.prospects.believed(self.options.features(_recipe(parent))) if parent else value)
        return Choice(
            parent=parent.id if parent else None,
            move=found.move,
            other=found.other.id if found.other else None,
            reason=f"expected to raise the best score by {found.gain:.4f}",
            recipe=option.recipe if option else None,
            kinds=tuple(dict.fromkeys(found.kinds)),
            gain=above,
        )


def _move(parent: Experiment | None, kinds: tuple[str, ...], option: Option) -> Move:
    """What a change is called: several at once, and a part left out of a starting point, improve."""
    if parent is None:
        return Move.DRAFT
    rooted = option.move is Move.ABLATE and parent.parent is None
    return Move.IMPROVE if kinds or rooted else option.move


def _start(option: Option, kind: str | None = None) -> tuple[str, str | None]:
    """What a starting point is known by: its kind, or that of another on the same base model."""
    return kind or option.kind, option.recipe.base_model


def _recipe(node: Experiment) -> Recipe:
    return node.proposed.proposal.recipe
