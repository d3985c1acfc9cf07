"""The races of a run: which units an experiment trains next, and whether it ends at the rung it stands at.

What is asked of `racing` is the view that the experiment was chosen from and its own answers so far, so a run that was
killed, or whose workers were faster or slower, decides the same. A rung that could not stop anything, because its order
is not known yet or too little is left to save, is passed by without a stop, and costs no start of a job.
"""

from __future__ import annotations

from collections import OrderedDict
from math import isfinite
from typing import TYPE_CHECKING, Callable, Iterable, TypeVar

from postgrad import racing
from postgrad.evaluate.evaluator import cross_fitted
from postgrad.evaluate.splits import UnitPlan
from postgrad.evaluate.statistics import point
from postgrad.evaluate.statistics.influence import group_values
from postgrad.execute.foreign import runs_foreign_code
from postgrad.metrics import metric_of
from postgrad.metrics.items import Items
from postgrad.records import Race
from postgrad.session import Job, Session
from postgrad.tree import Experiment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

K = TypeVar("K")
V = TypeVar("V")
# Experiments and rungs that are remembered: more than are under way, and those that races are judged by.
REMEMBERED = 16_384


class Racer:
    """Remembers scores at rungs; everything else is read from the session.

    Args:
        before: index of an experiment -> those that had ended in the view that it was chosen from, the latest first.
    """

    def __init__(self, session: Session, before: Callable[[int], Iterable[Experiment]]) -> None:
        self.session, self.before = session, before
        self.metric = metric_of(session.task.metric)
        self._races: OrderedDict[tuple[str, int], Race | None] = OrderedDict()
        self._stops: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._parts: OrderedDict[tuple[str, int], float | None] = OrderedDict()

    def job(self, node: Experiment) -> Job | None:
        """The next job of an open experiment."""
        proposal, units = node.proposed.proposal, self.owed(node)
        return Job(node.id, "search", units, proposal.recipe, proposal.seed) if units else None

    def owed(self, node: Experiment) -> tuple[UnitPlan, ...]:
        """The units of the next job of an open experiment; none when it only waits to be closed."""
        if node.analysis is not None or node.failure is not None or _cut_short(node) is not None:
            return ()
        done = {unit.name for result in node.results for unit in result.units}
        left = tuple(unit for unit in self.session.plan.search if unit.name not in done)
        if not left or self.race(node) is not None:
            return ()
        if runs_foreign_code(node.proposed.proposal.recipe):
            return left[:1]
        stop = next((rung for rung in self._rungs(node) if rung > len(done)), None)
        return left if stop is None else left[: stop - len(done)]

    def race(self, node: Experiment) -> Race | None:
        """How an experiment ended at the rung that it stands at; None where it goes on, or has ended."""
        if (race := _cut_short(node)) is not None:
            return race
        done = sum(len(result.units) for result in node.results)
        if node.evaluation is None or node.evaluation.complete or node.evaluation.units != done:
            return None
        if (node.id, done) not in self._races:  # Asked at every turn of the loop.
            _keep(self._races, (node.id, done), self._raced(node, done) if done in self._rungs(node) else None)
        return self._races[node.id, done]

    def _rungs(self, node: Experiment) -> tuple[int, ...]:
        """The rungs at which an experiment may end."""
        if node.id not in self._stops:
            units = len(self.session.plan.search)
            worth = [r for r in racing.rungs(units) if racing.races(node) and racing.saves(node, r / units)]
            _keep(self._stops, node.id, tuple(rung for rung in worth if racing.trusted(self._ended(node, rung))))
        return self._stops[node.id]

    def _raced(self, node: Experiment, rung: int) -> Race | None:
        rival = self.session.tree[node.proposed.incumbent or ""]
        mine, theirs = (self._values(each, rung) for each in (node, rival))
        whole, share = rival.score, rung / len(self.session.plan.search)
        if whole is None or not isfinite(whole + float(mine.sum() + theirs.sum())):
            return None
        kin = racing.kin(rival.proposed.proposal.recipe)
        against = racing.Scores(float(theirs.mean()), whole, kin)
        own = racing.kin(node.proposed.proposal.recipe)
        return racing.verdict(mine, theirs, against, self._ended(node, rung), kin=own, share=share)

    def _ended(self, node: Experiment, rung: int) -> list[racing.Scores]:
        """The experiments that had ended when this one was chosen."""
        return racing.ended(self.before(node.index), lambda other: self._part(other, rung))

    def _part(self, node: Experiment, rung: int) -> float | None:
        """The score of an ended experiment at a rung."""
        if (node.id, rung) not in self._parts:
            value = point(self.metric, self._items(node, rung).answers)
            _keep(self._parts, (node.id, rung), value if isfinite(value) else None)
        return self._parts[node.id, rung]

    def _values(self, node: Experiment, rung: int) -> NDArray[np.float64]:
        return group_values(self.metric, self._items(node, rung))

    def _items(self, node: Experiment, rung: int) -> Items:
        """What the first units answered, with the thresholds that these alone give: as an experiment stands there."""
        parts = self.session.raw_items(node.id, "search")[:rung]
        rejects = self.session.plan.out_of_scope is not None
        return cross_fitted(parts, node.proposed.proposal.recipe.inference, rejects)


def _keep(known: OrderedDict[K, V], key: K, value: V) -> None:
    """Remember one more; the oldest of very many, which is worked out again if it is asked for, is forgotten."""
    known[key] = value
    if len(known) > REMEMBERED:
        known.popitem(last=False)


def _cut_short(node: Experiment) -> Race | None:
    """The race of a job that was ended on its way."""
    return next((result.race for result in node.results if result.race), None)
