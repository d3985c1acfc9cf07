"""Before a run ends: is every change of the champion worth having? It is compared with the recipes that lack just one.

A search keeps what looked good when it was tried, and some of that is luck or has become idle through later changes.
What each change brings is predicted from all experiments of the run, and only where the prediction finds little the
recipe without it is trained. It is an ordinary experiment, weighed by the judge like any other; a recipe that the
search has tried already is its own answer. Where the judge finds that the change brings no more than the price of its
complexity, the simpler recipe leads, and paring goes on from there.

`Paring` holds no run: functions of the tree, the judge and the decisions so far say what to try next and what to
prefer, so that the simulator pares as a run does. `Parer` says when it is time in a run, and records the decisions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Mapping, NamedTuple, Sequence

from postgrad.budget import HOUR
from postgrad.evaluate.statistics import interval
from postgrad.evaluate.statistics.judge import Judge
from postgrad.events import Pared
from postgrad.groups import among, those
from postgrad.records import Choice, Estimate, Move, Proposal, Recipe
from postgrad.research.ablations import Ablation
from postgrad.research.changes import Changes
from postgrad.tree import Experiment, State, Tree

if TYPE_CHECKING:
    from postgrad.referee import Referee
    from postgrad.session import Session

KIND = "pare."
# Digits of a prediction: two that are equal stay so, whatever else is under way.
DIGITS = 6
# It starts while so many times what it needs are left: what is dropped leads to more to try. The search has the rest.
ROOM = 2
# Costs that differ by less are equal.
DEARER = 1.01


@dataclass
class Paring:
    """The state of paring in one run: a fold over its decisions.

    Args:
        changes: what recipes of the run are made of.
        nominal_s: nominal seconds of a recipe; what is dearer than the champion does not take its place.
        admits: whether a recipe can be tried at all.
    """

    judge: Judge
    changes: Changes
    nominal_s: Callable[[Recipe], float]
    admits: Callable[[Recipe], bool] = lambda recipe: True
    decided: list[Pared] = field(default_factory=list)
    _known: dict[str, str] = field(default_factory=dict)
    _read: int = 0

    def fold(self, body: Pared) -> None:
        """Take in a decision."""
        self.decided.append(body)
        if body.dropped:
            self.judge.leader = body.experiment

    # --- what to try ----------------------------------------------------------------------------------------------

    def open(self, tree: Tree) -> list[Ablation]:
        """The changes of the champion that are not decided yet, in the order in which they came."""
        if tree.champion is None:
            return []
        kept = {(body.brought_by, body.what) for body in self.decided if not body.dropped}
        most = DEARER * self.nominal_s(tree[tree.champion].proposed.proposal.recipe)
        found = [each for each in self.changes.ablations(tree.path(tree.champion)) if each.key not in kept]
        return [each for each in found if self.nominal_s(each.recipe) <= most and self.admits(each.recipe)]

    def doubtful(self, tree: Tree) -> list[Ablation]:
        """The open changes that are predicted to bring little, least first."""
        found = self.open(tree)
        if not found or tree.champion is None:
            return []
        brings = [round(each, DIGITS) for each in self.changes.brings(tree, found)]
        order = sorted(range(len(found)), key=brings.__getitem__)
        return [found[at] for at in order if brings[at] <= self.changes.price]

    def untried(self, tree: Tree) -> list[Ablation]:
        """The doubtful changes that are worth a training: the recipe without them is in no experiment yet."""
        return [each for each in self.doubtful(tree) if self._tried(tree, each.recipe) is None]

    def proposed(self, tree: Tree, ablation: Ablation, seed: int) -> tuple[Choice, Proposal]:
        """The experiment that tries the champion without a change."""
        champion = tree.champion
        proposal = Proposal(
            recipe=ablation.recipe,
            kind=f"{KIND}{ablation.what}",
            hypothesis=f"Without it {champion} should score the same, and of two equal recipes the simpler is better.",
            change=ablation.change,
            expected_effect=0.0,
            refuted_by=f"the score falls: {champion} needs it",
            proposer="referee",
            seed=seed,
        )
        reason = f"is the change of {ablation.brought_by} worth having"
        return Choice(parent=champion, move=Move.ABLATE, reason=reason), proposal

    # --- what to prefer -------------------------------------------------------------------------------------------

    def decision(self, tree: Tree) -> Pared | None:
        """The next decision that can be made: about a doubtful change whose recipe without it was tried; else None."""
        if (taken := self._taken_over(tree)) is not None:
            return taken
        left = {body.against for body in self.decided if body.dropped}  # Of two equal ones the first left stays so.
        for change in self.doubtful(tree):
            node = self._tried(tree, change.recipe)
            if tree.champion is not None and node is not None and node.id not in left and not self._awaited(node):
                return self._decided(tree, tree.champion, node, change)
        return None

    def _taken_over(self, tree: Tree) -> Pared | None:
        """The decision about a recipe without a change that leads by its own score."""
        node = tree.experiments.get(tree.champion or "")
        if node is None or node.parent is None or not is_paring(node):
            return None
        if any(body.experiment == node.id and body.dropped for body in self.decided):
            return None
        same = self.changes.same
        recipe = same(node.proposed.proposal.recipe)
        found = (each for each in self.changes.ablations(tree.path(node.parent)) if same(each.recipe) == recipe)
        change = next(found, None)
        return self._decided(tree, node.parent, node, change) if change else None

    def _awaited(self, node: Experiment) -> bool:
        """True while it is under way, or the judge wants more trainings of it."""
        return node.state is State.PENDING or (node.state is State.DONE and not self.judge.settled(node.id))

    def _decided(self, tree: Tree, champion: str, node: Experiment, change: Ablation) -> Pared:
        gain, measured, dropped = None, None, False
        if self.judge.settled(node.id) and self.judge.settled(champion):
            mean, variance, measured = self.judge.gain(champion, node.id)
            low, high = interval(mean, variance)
            gain = Estimate(value=mean, low=low, high=high, n=node.evaluation.estimate.n if node.evaluation else 0)
            as_good = mean <= self.changes.price and measured < self.changes.limit(champion, node.id)
            dropped = tree.champion == node.id or (as_good and node.id in self.judge.ranked())
        return Pared(
            experiment=node.id,
            against=champion,
            what=change.what,
            change=change.change,
            brought_by=change.brought_by,
            gain=gain,
            measured=measured,
            dropped=dropped,
            champion=node.id if dropped else tree.champion,
        )

    # --- what is known --------------------------------------------------------------------------------------------

    def _tried(self, tree: Tree, recipe: Recipe) -> Experiment | None:
        """The first experiment with this recipe."""
        nodes = tree.all()
        for node in nodes[self._read :]:
            if (own := self.changes.same(node.proposed.proposal.recipe)) is not None:
                self._known.setdefault(own, node.id)
        self._read = max(self._read, len(nodes))
        name = self._known.get(self.changes.same(recipe) or "")
        return tree[name] if name is not None else None


def simpler(best: str, decided: Sequence[Pared], stands: Callable[[str, str], bool]) -> str:
    """The finalist in place of the best one: what paring made of it.

    Args:
        stands: whether the second one can take the place of the first: it is a finalist, and not behind on select by as
            much as matters.
    """
    for body in decided:
        if body.dropped and body.against == best and stands(best, body.experiment):
            best = body.experiment
    return best


def is_paring(node: Experiment) -> bool:
    """True for an experiment that leaves out a change of the champion before the run ends."""
    return node.proposed.proposal.kind.startswith(KIND)


# --- in a run ---------------------------------------------------------------------------------------------------------


class Limit(NamedTuple):
    """One limit of the budget: what was granted of it, what is left, what paring has spent, and what changes need."""

    granted: float
    left: float
    spent: float
    needs: Callable[[Sequence[Ablation]], float]


class Parer:
    """Says when a run pares, and records what was decided.

    A round is as many experiments as there are workers. It starts when everything before it has ended, and nothing is
    decided before all of it has, so the tree does not depend on which worker was faster.
    """

    def __init__(self, session: Session, referee: Referee) -> None:
        self.session, self.referee = session, referee
        self.share = session.task.search.pare
        self._asked: tuple[Tree, tuple[object, ...], list[Ablation]] | None = None
        self._open: tuple[tuple[str | None, int], list[Ablation]] | None = None

    def owed(
        self, view: Tree, reserve_s: float, *, stopped: bool, testing: bool
    ) -> tuple[tuple[Choice, Proposal], ...] | None:
        """The experiments to propose now; none of them while others have to end first; None where the search goes on.

        Args:
            view: what the policy sees.
            reserve_s: wall seconds that certifying needs.
            stopped: the policy has stopped.
            testing: a test of the champion is under way.
        """
        tree = self.session.tree
        if not (is_paring(tree.all()[-1]) or self._due(view, reserve_s, stopped)):
            return None
        pending = tuple(node for node in tree.pending() if not node.waits)
        begun = bool(pending) and all(is_paring(node) and not node.started and not node.results for node in pending)
        if testing or (pending and not begun):
            return ()
        if not begun:
            if (seed := self.referee.seed_owed(tree)) is not None:
                return ((seed[1], seed[0]),)
            self.settle()
            tree = self.session.tree
        room = self.session.executor.engine.slots - len(pending)
        affordable = _within(self._wanted(tree), {limit: limit.left for limit in self._limits(reserve_s)})
        found = tuple(self.referee.paring.proposed(tree, each, self.session.task.seed) for each in affordable[:room])
        return found if found or begun else None

    def settle(self) -> None:
        """Record every decision that can be made. Nothing is under way."""
        while self.share and (body := self.referee.paring.decision(self.session.tree)) is not None:
            self.session.append(body)
            self.referee.paring.fold(body)

    def _due(self, view: Tree, reserve_s: float, stopped: bool) -> bool:
        """True when little more is left of the budget than what paring needs."""
        limits = self._limits(reserve_s)
        near = stopped or any(limit.left <= ROOM * self.share * limit.granted for limit in limits)
        if not self.share or not near:  # What is wanted takes a while to tell, and never needs more than the share.
            return False
        if not stopped and not any(limit.left <= ROOM * self._at_most(limit, view) for limit in limits):
            return False
        wanted = self._wanted(view)
        return bool(wanted) and (stopped or any(limit.left <= ROOM * limit.needs(wanted) for limit in limits))

    def _at_most(self, limit: Limit, tree: Tree) -> float:
        """More than what is wanted can need of a limit: all that is open, one after the other. Quick to tell."""
        at = (tree.champion, len(self.referee.paring.decided))
        if self._open is None or self._open[0] != at:
            self._open = (at, self.referee.paring.open(tree))
        changes = self._open[1]
        return float(len(changes)) if limit.needs is len else self._job_s(changes)

    def _own(self) -> Sequence[Experiment]:
        """The experiments that pare, in index order."""
        return among(self.session.tree, those("pares", is_paring))

    def _wanted(self, tree: Tree) -> list[Ablation]:
        """What paring would try, as far as its share of the budget reaches."""
        paring = self.referee.paring
        at = (len(paring.decided), paring.changes.beyond)
        if self._asked is None or self._asked[0] is not tree or self._asked[1] != at:
            self._asked = (tree, at, paring.untried(tree))
        shares = {limit: self.share * limit.granted - limit.spent for limit in self._limits(0.0)}
        return _within(self._asked[2], shares)

    def _limits(self, reserve_s: float) -> list[Limit]:
        granted, remaining = self.session.ledger.granted, self.session.remaining()
        own = self._own()
        spent, engine = sum(node.cost_s for node in own), self.session.executor.engine
        found = []
        if granted.experiments is not None and remaining.experiments is not None:
            found.append(Limit(granted.experiments, remaining.experiments, len(own), len))
        if granted.wall_s is not None and remaining.wall_s is not None:
            found.append(Limit(granted.wall_s, remaining.wall_s - reserve_s, spent / engine.slots, self._wall_s))
        if granted.cpu_hours is not None and remaining.cpu_hours is not None:
            each = HOUR / engine.threads
            # Proposed and not yet started, so in no ledger: workers side by side would be promised the same hours.
            promised = sum(
                self.session.forecast_s(node.proposed.proposal.recipe, self.session.plan.search)
                for node in own
                if not node.started and node.analysis is None
            )
            left = each * remaining.cpu_hours - promised
            found.append(Limit(each * granted.cpu_hours, left, spent + promised, self._job_s))
        return found

    def _job_s(self, changes: Sequence[Ablation]) -> float:
        return sum(self.session.forecast_s(each.recipe, self.session.plan.search) for each in changes)

    def _wall_s(self, changes: Sequence[Ablation]) -> float:
        """Wall seconds in rounds of as many as there are workers."""
        slots = self.session.executor.engine.slots
        each = [self._job_s([change]) for change in changes]
        return sum(max(each[at : at + slots]) for at in range(0, len(each), slots))


def _within(changes: Sequence[Ablation], amounts: Mapping[Limit, float]) -> list[Ablation]:
    """As many of the changes, from the first, as need no more of any limit than this."""
    count = len(changes)
    while any(limit.needs(changes[:count]) > amount for limit, amount in amounts.items()) and count:
        count -= 1
    return list(changes[:count])
