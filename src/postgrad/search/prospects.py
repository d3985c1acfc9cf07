"""What is known of the recipes of a run, and what trying one more is expected to bring.

A recipe that leads was picked for a high score, so what is expected to be improved on is what the surrogate believes of
it, not what it scored (the winner's curse). Experiments under way count as having scored what is believed of
them (D. Ginsbourger et al., "Kriging is well-suited to parallelize optimization" (2010), section 4.2), so that parallel
workers spread out.
"""

from __future__ import annotations

from itertools import islice
from math import isfinite
from random import Random
from typing import TYPE_CHECKING, Mapping, Sequence

from postgrad.records import Move, Recipe
from postgrad.search import legal
from postgrad.search.base import Features, Options, Taught
from postgrad.search.surrogate import ALONE, KERNELS, Surrogate
from postgrad.tree import Experiment, State, Tree

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Experiments that the surrogate takes in: the best and the latest.
BEST, LATEST = 75, 75
# Experiments under way that it expects a score of: the latest. All that 64 workers leave open.
UNDER_WAY = 128
# Trainings without a failure that a part is given before any was tried, rounds of the fit, the least risk that counts.
SAFE, ROUNDS, LEAST_RISK = 3.0, 20, 1e-3
# Parts that the range of a number falls into.
QUARTERS = 4
# Places that a number is tried at.
PLACES = 8


# Parts that every recipe has.
COUNTS = frozenset({"steps", "members", "doublings"})


class Prospects:
    """The beliefs of one tree.

    Args:
        scale: standard deviation of what one part brings, before any was tried; on the scale of the metric.
        shared: False has every experiment say something about recipes much like its own only.
        solved: share of the items that a cause of the leader's bad cases is about that a change which addresses it is
            expected to solve.
    """

    def __init__(self, tree: Tree, options: Options, scale: float, shared: bool = True, solved: float = 0.0) -> None:
        self.tree, self.options = tree, options
        self.seen = _taken(tree)
        told = [options.features(_recipe(node)) for node in self.seen]
        scores = [node.foreseen or 0.0 for node in self.seen]
        leader = tree.leader()
        taught: Sequence[Taught] = ()
        if leader is not None:
            taught = [*options.taught(_recipe(leader)), *options.promised(_recipe(leader), leader.analysis, solved)]
        self.surrogate = Surrogate(told, scores, scale, KERNELS if shared else ALONE, taught)
        self.means, self.sds = self.surrogate.predict(told)
        under_way = [options.features(_recipe(node)) for node in tree.pending()[-UNDER_WAY:]]
        if under_way:
            self.surrogate = self.surrogate.expecting(under_way)
            _, self.sds = self.surrogate.predict(told)  # So that workers do not all train the leader again.
        self.risks, self.mended = _Risks(tree, options), _mended(tree)
        at = [i for i, node in enumerate(self.seen) if leader is not None and node.id == leader.id]
        self.bar = float(self.means[at[0]]) if at else float(self.means.max())

    def leading(self, count: int) -> list[Experiment]:
        """The experiments that are believed to be best, one for each recipe."""
        found: dict[str, Experiment] = {}
        closed = self.tree.closed_off
        whole = [i for i, node in enumerate(self.seen) if node.score is not None and node.id not in closed]
        for i in sorted(whole, key=lambda i: (-self.means[i], self.seen[i].index)):
            found.setdefault(_recipe(self.seen[i]).hash, self.seen[i])
            if len(found) == count:
                break
        return list(found.values())

    def believed(self, features: Features) -> float:
        """The posterior mean of a recipe's value."""
        return float(self.surrogate.predict([features])[0][0])

    def gains(self, asked: Sequence[Features]) -> NDArray[np.float64]:
        """(M,) what one training of each recipe is expected to raise the best belief by, times the chance that it does
        not fail: a training tells no more than its noise allows (the knowledge gradient for normal beliefs: P. Frazier,
        W. Powell and S. Dayanik, SIAM Journal on Control and Optimization 47 (2008), section 4)."""
        import numpy as np

        means, sds = self.surrogate.predict(asked)
        safe = np.array([1 - self.risks.of(features) for features in asked])
        found: NDArray[np.float64] = safe * _raised(means - self.bar, self._told(sds))
        return found

    def placed(
        self, base: Features, ranges: Mapping[str, tuple[float, float]], most: int, rng: Random
    ) -> dict[str, float]:
        """Other places for at most so many of a recipe's numbers: one number after the other is put where a training is
        expected to raise the best belief most, until nothing helps."""
        import numpy as np

        asked = [(name, low + (high - low) * place) for name, (low, high) in ranges.items() for place in _grid(rng)]
        now, moved = dict(base.numbers), dict[str, float]()
        last = float(self.gains([base])[0])
        for _ in range(most if asked else 0):
            features = Features(base.parts, now)
            means, sds = self.surrogate.varied(features, asked)
            safe = 1 - np.array(self.risks.varied(features, asked))
            gains = safe * _raised(means - self.bar, self._told(sds))
            at = int(gains.argmax())
            if gains[at] <= last:
                break
            last, (name, place) = float(gains[at]), asked[at]
            now[name] = moved[name] = place
        return moved

    def of_another_training(self) -> float:
        """The same for training what is believed best once more: it may fall behind the second."""
        import numpy as np

        order = [at for at in np.argsort(-self.means, kind="stable") if self.seen[at].score is not None]
        first = _recipe(self.seen[order[0]]).hash
        others = [self.means[at] for at in order[1:] if _recipe(self.seen[at]).hash != first]
        if not others:
            return 0.0
        ahead = self.means[order[:1]] - others[0]
        return float(_raised(-ahead, self._told(self.sds[order[:1]]))[0])

    def of_repairs(self, nodes: Sequence[Experiment]) -> list[float]:
        """The same for mending each failed experiment: it turns out as the failed one might have, if that helps."""
        means, sds = self.surrogate.predict([self.options.features(_recipe(node)) for node in nodes])
        return [self.mended * float(raised) for raised in _raised(means - self.bar, self._told(sds))]

    def _told(self, sds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standard deviation of how far one training moves a belief."""
        import numpy as np

        moved: NDArray[np.float64] = sds**2 / np.sqrt(sds**2 + self.surrogate.noise_variance)
        return moved


def _grid(rng: Random) -> list[float]:
    """Places to try, from one end of a range to the other; elsewhere at every call."""
    shift = rng.random()
    return [(step + shift) / PLACES for step in range(PLACES)]


def _raised(ahead: NDArray[np.float64], sd: NDArray[np.float64]) -> NDArray[np.float64]:
    """E[max(0, x)] of normal x with these means and standard deviations."""
    import numpy as np
    from scipy.special import ndtr

    z = ahead / sd
    raised: NDArray[np.float64] = sd * (z * ndtr(z) + np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi))
    return raised


def _mended(tree: Tree) -> float:
    """The chance that a repair gives a score, by those of this run's latest failures."""
    tries = [
        node
        for failed in tree.failed()[-LATEST:]
        for node in tree.children(failed.id)
        if node.proposed.choice.move is Move.REPAIR and node.state is not State.PENDING
    ]
    return (1.0 + sum(node.state is not State.FAILED for node in tries)) / (2.0 + len(tries))


class _Risks:
    """How likely a training fails, by what its recipe is made of: any of its parts may fail it (a noisy-or: J. Pearl,
    "Probabilistic Reasoning in Intelligent Systems" (1988), section 4.3.2), each with a probability that is fitted by
    expectation maximisation, so that a part that is in everything does not take the blame of one that is in what
    failed. A part counts as having gone well some times before it was tried."""

    def __init__(self, tree: Tree, options: Options) -> None:
        self._parts: dict[str, float] = {}
        self._quarters: dict[str, dict[int, float]] = {}  # number -> quarter of its range -> risk
        if not tree.failed():
            return
        import numpy as np

        ended = list(islice(filter(_told_of_failing, reversed(tree.all())), BEST + LATEST))
        marked = [_marks(options.features(_recipe(node))) for node in ended]
        names = {mark: at for at, mark in enumerate(dict.fromkeys(mark for marks in marked for mark in marks))}
        there = np.zeros((len(ended), len(names)))
        for row, marks in enumerate(marked):
            there[row, [names[mark] for mark in marks]] = 1.0
        failed = np.array([node.state is State.FAILED for node in ended])
        counts, blame = there.sum(axis=0) + SAFE, there[failed]
        risk = blame.sum(axis=0) / counts
        for _ in range(ROUNDS):
            chance = 1 - np.prod(1 - blame * risk, axis=1)
            risk = (blame * risk / np.maximum(chance, 1e-9)[:, None]).sum(axis=0) / counts
        for (name, quarter), at in names.items():
            if risk[at] <= LEAST_RISK:
                continue
            if quarter is None:
                self._parts[name] = float(risk[at])
            else:
                self._quarters.setdefault(name, {})[quarter] = float(risk[at])

    def of(self, features: Features) -> float:
        """The probability that a training of such a recipe fails."""
        well = 1.0
        for name, risk in self._parts.items():
            if features.parts.get(name, 0.0) > 0:
                well *= 1 - risk
        for name in self._quarters:
            if (place := features.numbers.get(name)) is not None:
                well *= 1 - self._at(name, place)
        return 1 - well

    def varied(self, features: Features, asked: Sequence[tuple[str, float]]) -> list[float]:
        """The same for as many recipes, each with one number moved to another place."""
        if not self._parts and not self._quarters:
            return [0.0] * len(asked)
        well = 1 - self.of(features)
        own = {name: 1 - self._at(name, place) for name, place in features.numbers.items()}
        return [1 - well / own[name] * (1 - self._at(name, place)) for name, place in asked]

    def _at(self, name: str, place: float) -> float:
        """The risk of a number at a place of its range."""
        return self._quarters[name].get(_quarter(place), 0.0) if name in self._quarters else 0.0


def _told_of_failing(node: Experiment) -> bool:
    return node.state not in (State.PENDING, State.UNSCORED)


def _marks(features: Features) -> list[tuple[str, int | None]]:
    """Parts, and the quarter of its range that each number is in."""
    parts: list[tuple[str, int | None]] = [
        (name, None) for name, weight in features.parts.items() if weight > 0 and name not in COUNTS
    ]
    return parts + [(name, _quarter(place)) for name, place in features.numbers.items()]


def _quarter(place: float) -> int:
    return int(QUARTERS * min(0.99, max(0.0, place)))


def known(tree: Tree) -> bool:
    """True when a recipe has a score; the constant answer says nothing about recipes."""
    return any(map(_tells, tree.scored()))


def _tells(node: Experiment) -> bool:
    """True for a number that says something: a metric may be undefined on the answers of an experiment."""
    return not legal.is_constant(node) and node.foreseen is not None and isfinite(node.foreseen)


def _taken(tree: Tree) -> list[Experiment]:
    """The experiments with a score, or stopped early with one to be expected, in index order: all of a short run, of a
    long one the best and the latest. The constant answer says nothing about recipes."""
    best, latest = (filter(_tells, found) for found in (tree.measured(), reversed(tree.all())))
    chosen = {node.id: node for node in islice(best, BEST)}
    for node in latest:
        if len(chosen) == BEST + LATEST:
            break
        chosen[node.id] = node
    return sorted(chosen.values(), key=lambda node: node.index)


def _recipe(node: Experiment) -> Recipe:
    return node.proposed.proposal.recipe
