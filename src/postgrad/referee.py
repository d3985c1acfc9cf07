"""The decision rule in a run: experiments into the judge, in index order; verdicts, champions and further seeds out.

A fold over the events: after a kill it is built again from the log, with the verdicts that were recorded. It starts no
job and reads no sealed label.
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite, log2
from typing import TYPE_CHECKING, Iterable

from postgrad.analyze.badcases import confusions, worst
from postgrad.analyze.blame import blamed
from postgrad.analyze.failures import cause_of
from postgrad.analyze.matrix import right_or_wrong
from postgrad.analyze.verdict import cut_short, failed, raced, said, same_again, unmeasured
from postgrad.evaluate.statistics import difference, interval
from postgrad.evaluate.statistics.influence import contributions, group_values
from postgrad.evaluate.statistics.intervals import widened
from postgrad.evaluate.statistics.judge import Judge
from postgrad.evaluate.statistics.known import Judgement, item_variance
from postgrad.evaluate.statistics.seeds import MODELS, SCRIPTS
from postgrad.events import Analysed, Event, Pared, SearchEnded, TestBegun, Tested
from postgrad.metrics import is_given, metric_of
from postgrad.metrics.base import Graded
from postgrad.metrics.items import Items, shared_items
from postgrad.pare import Paring, is_paring
from postgrad.records import (
    Analysis,
    Blame,
    Choice,
    Confusion,
    Difference,
    Estimate,
    Evaluation,
    Failure,
    Proposal,
    Race,
    Recipe,
    TaskSpec,
)
from postgrad.research import edit
from postgrad.research.changes import Changes, RecipeChanges
from postgrad.research.references import reference_recipes
from postgrad.retests import Retests
from postgrad.scripts.paring import PRICE_OF_LINES, ScriptChanges
from postgrad.scripts.session import ScriptSession
from postgrad.search import legal
from postgrad.session import START_UP_S, Session
from postgrad.tree import Experiment, Tree

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The family of recipes whose trainings do not depend on a seed.
SEEDLESS = "seedless"
JUDGED = ("keep", "discard", "retest", "tie", "better", "worse")
FEWEST, MOST, GUESS = 10, 1000, 60
# A recipe that costs twice as much has to gain this share of the smallest effect that matters.
PRICE_OF_DOUBLE = 0.1
# As so many items that agree counts a number that was measured as one.
ALONE = 10_000


def horizon_of(task: TaskSpec, session: Session) -> int:
    """How many experiments a run is planned for: its budget of them, or what its wall clock holds of the dearest
    reference. Of the first budget, so that it is the same when the run goes on with another."""
    if task.budget.experiments is not None:
        return max(1, task.budget.experiments)
    if task.budget.wall_s is None:
        return GUESS
    recipes = [proposal.recipe for proposal in reference_recipes(task)]
    each = START_UP_S + max(session.nominal_s(recipe, session.plan.search) for recipe in recipes)
    return int(min(MOST, max(FEWEST, session.executor.engine.slots * task.budget.wall_s / each)))


class Referee:
    """The judge of one run, up to the last experiment that was closed."""

    def __init__(self, session: Session, events: Iterable[Event]) -> None:
        self.session = session
        self.metric = metric_of(session.task.metric)
        self._is_script = isinstance(session, ScriptSession)
        before = SCRIPTS if self._is_script else MODELS
        self.judge = Judge(horizon_of(session.task, session), seedless=frozenset({SEEDLESS}), before=before)
        self.paring = Paring(
            self.judge, self._changes(), self._nominal_s, lambda recipe: session.refusal(recipe) is None
        )
        self._subjects: dict[str, str] = {}
        self._trained: set[tuple[str, int]] = set()
        self._retests = Retests()
        self.test: TestBegun | None = None
        for event in events:
            body = event.body
            if isinstance(body, Analysed):
                self._retests.asked(session.tree[body.experiment], body.analysis)
                if body.analysis.verdict in JUDGED:
                    self._weigh(session.tree[body.experiment], body.analysis.verdict)
            elif isinstance(body, TestBegun):
                self.test = body
            elif isinstance(body, Tested):
                self._test(body.experiment, failed=body.difference is None)
            elif isinstance(body, SearchEnded):  # A test that the budget cut off: the finalists are asked anyway.
                self.test = None
            elif isinstance(body, Pared):
                self.paring.fold(body)

    def _nominal_s(self, recipe: Recipe) -> float:
        return self.session.nominal_s(recipe, self.session.plan.search)

    def _changes(self) -> Changes:
        """What recipes of this run are made of."""
        if isinstance(self.session, ScriptSession):
            return ScriptChanges(self.session, self.judge)
        return RecipeChanges(self.session.task, self._nominal_s)

    @property
    def champion(self) -> str | None:
        """What the search builds on; None while nothing keeps every guard."""
        leader = self.judge.leader
        if leader is None:
            return None
        evaluation = self.session.tree[leader].evaluation
        return leader if evaluation is not None and self.session.guards_hold(evaluation) else None

    # --- experiments ----------------------------------------------------------------------------------------------

    def close(self, node: Experiment, race: Race | None = None) -> Analysis:
        """What an experiment's results say, in full, with what its bad cases are blamed on; `race` of one that was
        stopped early."""
        items = self.session.items(node)
        analysis = self._retests.asked(node, self._closed(node, items, race))
        if items is None or node.failure is not None or is_given(self.session.task.metric):
            return analysis
        return analysis.model_copy(update={"blamed": self._blamed(node, items)})

    def _closed(self, node: Experiment, items: Items | None, race: Race | None) -> Analysis:
        if node.failure is not None:
            return failed(node.failure, cause_of(node, self.session.task.engine))
        if race is not None and node.evaluation is None:
            return cut_short(race, node.proposed.incumbent)
        if node.evaluation is None or items is None:
            return failed(Failure(boundary="evaluate", kind="unscored", message="No unit gave a score."))
        if (wrong := self._unlike(node)) is not None:
            return failed(wrong)
        shown = self._bad_cases(items)
        if not node.evaluation.complete:
            rival = node.proposed.incumbent
            gap = self.difference(node, self.session.tree[rival]) if rival else None
            return raced(node.evaluation, rival if gap else None, gap, shown, race)
        subject = self._subjects.get(_hash(node))
        if subject is not None and (_hash(node), node.proposed.proposal.seed) in self._trained:
            return same_again(subject, shown)
        judgement = self._weigh(node, None)
        if judgement is None:
            return unmeasured(node.evaluation, shown)
        return self._analysis(node, judgement, shown)

    def _unlike(self, node: Experiment) -> Failure | None:
        """What of a script's experiment that ended before its source cannot be compared with that: items, hardware."""
        found = [result for result in node.results if result.units]
        if not found or not isinstance(self.session, ScriptSession):
            return None
        return self.session.unlike(node.id, "search", found[0])

    def _analysis(self, node: Experiment, found: Judgement, shown: tuple[Confusion, ...]) -> Analysis:
        parent = node.parent or found.rival
        gap = None
        if parent is not None and parent in self.session.tree.experiments and parent != node.id:
            gap = self.difference(node, self.session.tree[parent], seeds=True)
        low, high = interval(found.belief.mean, found.belief.variance)
        gain = Estimate(value=found.belief.mean, low=low, high=high, n=gap.n if gap else 0) if found.rival else None
        subject = None if found.name == node.id else found.name
        # Of a script nothing is known of seeds, so its source is trained again before anything is compared with it.
        known = found.rival or self._is_script
        wanted = known and self._may_retest(node) and self.judge.wants_replicate(found.name)
        if found.leads and found.verdict == "tie" and wanted:
            # Its case is closed; the second training is for the seed noise of everything like it.
            found = replace(found, verdict="retest")
        analysis = said(found, gap, parent if gap else None, subject)
        return analysis.model_copy(
            update={"confusions": shown, "rival": found.rival, "gain": gain, "seed_sd": found.seed_sd or None}
        )

    def _may_retest(self, node: Experiment) -> bool:
        """Whether a further seed can be had. What the log says of an experiment follows from it, so that reading the
        log again gives the same judgement."""
        return not (is_paring(node) or self.session.remaining().empty)

    def difference(self, node: Experiment, rival: Experiment, *, seeds: bool = False) -> Difference | None:
        """The paired difference on the items both answered; None where they share none.

        Args:
            seeds: True widens the interval by the noise of training seeds.
        """
        mine, theirs = self.session.items(node), self.session.items(rival)
        if mine is None or theirs is None:
            return None
        first, second = shared_items(mine, theirs)
        if not len(first):
            return None
        found = difference(self.metric, first, second, seed=self.session.task.seed)
        return widened(found, *self._seed_noise(node, rival)) if seeds else found

    def _seed_noise(self, *nodes: Experiment) -> tuple[float, float]:
        """(variance through seeds of a difference of single trainings, its degrees of freedom)."""
        families = [_family(node) for node in nodes]
        variance = sum(self.judge.seed_variance(family) for family in families)
        degrees = self.judge.before.worth + min(self.judge.replicates(family) for family in families)
        return variance, max(1.0, degrees)

    def _weigh(self, node: Experiment, recorded: str | None) -> Judgement | None:
        """Give a complete experiment to the judge. `recorded` is the verdict of the log when it is read again."""
        values = self._values(node.evaluation)
        if values is None:
            return None
        name, seed, family = _hash(node), node.proposed.proposal.seed, _family(node)
        subject = self._subjects.setdefault(name, node.id)
        if (name, seed) in self._trained:
            return None
        self._trained.add((name, seed))
        may_retest = recorded == "retest" if recorded else self._may_retest(node)
        if subject != node.id:
            return self.judge.again(subject, values, may_retest=may_retest)
        assert node.evaluation is not None
        holds = self.session.guards_hold(node.evaluation)
        rival = self._rival(node)
        if rival is None:
            return self.judge.start(node.id, values, family=family, eligible=holds)
        if legal.is_reference(node):
            return self.judge.measure(node.id, rival, values, family=family, eligible=holds)
        return self.judge.weigh(
            node.id,
            rival,
            values,
            family=family,
            eligible=holds,
            price=self._price(node, self.session.tree[rival]),
            may_retest=may_retest,
        )

    def _rival(self, node: Experiment) -> str | None:
        incumbent = node.proposed.incumbent
        if incumbent is not None:
            return self._subjects.get(_hash(self.session.tree[incumbent]), self.judge.leader)
        return self.judge.leader

    def _price(self, node: Experiment, rival: Experiment) -> float:
        """The gain that a dearer recipe has to show: equal within noise, the cheaper one wins. Of a script's files, the
        larger difference is the dearer one; a smaller one may lead although it is that much worse."""
        if isinstance(self.session, ScriptSession):
            return PRICE_OF_LINES * self.judge.unit * self.session.larger(node, rival)
        ratio = max(node.proposed.nominal_s, 1e-9) / max(rival.proposed.nominal_s, 1e-9)
        return max(0.0, PRICE_OF_DOUBLE * self.session.task.min_effect * log2(ratio))

    def _values(self, evaluation: Evaluation | None) -> NDArray[np.float64] | None:
        """Per-item values of an evaluation, or None where the metric is not defined on it."""
        if evaluation is None:
            return None
        values = group_values(self.metric, self._items(evaluation))
        if len(values) == 1:  # One number for the whole is exact for its training: its noise is that of seeds.
            import numpy as np

            values = np.repeat(values, ALONE)
        return values if isfinite(float(values.sum())) else None

    def _items(self, evaluation: Evaluation) -> Items:
        return self.session.stored_items(evaluation.items)

    def _bad_cases(self, items: Items) -> tuple[Confusion, ...]:
        if isinstance(items.answers, Graded):
            values = contributions(self.metric, items.answers)
            return worst(items, values, self.session.rows("search"), self.metric.high)
        return confusions(items, self.session.plan.labels, self.session.plan.out_of_scope)

    def _blamed(self, node: Experiment, items: Items) -> tuple[Blame, ...]:
        """Causes of its bad cases, beside the experiment that it extends."""
        tree, words = self.session.tree, isinstance(items.answers, Graded)
        parent = tree.experiments.get(node.parent) if node.parent else None
        return blamed(
            items,
            self.session.items(parent) if parent is not None else None,
            [unit.history for result in node.results for unit in result.units],
            self._contributions if words else right_or_wrong,
            self.metric.high if words else 1.0,
            self.session.task.generation.max_new_tokens if words else None,
        )

    def _contributions(self, items: Items) -> NDArray[np.float64]:
        assert isinstance(items.answers, Graded)
        return contributions(self.metric, items.answers)

    # --- further seeds --------------------------------------------------------------------------------------------

    def seed_owed(self, view: Tree) -> tuple[Proposal, Choice] | None:
        """The training that the referee wants next, given what a view shows; None where the policy may choose."""
        return self._retests.owed(view)

    # --- tests ----------------------------------------------------------------------------------------------------

    def to_test(self) -> tuple[str, str] | None:
        """(experiment, what was kept before) that are owed a comparison on the select items. One test at a time: the
        level of the next depends on its result."""
        name, kept = self.judge.to_test(), self.judge.kept
        if name is None or kept is None or self.test is not None or self.champion != name:
            return None
        return name, kept

    def begun(self, name: str, against: str, due: int) -> TestBegun:
        """A test that begins, to be recorded."""
        self.test = TestBegun(experiment=name, against=against, due=due)
        return self.test

    def tested(self, name: str, *, failed: bool = False) -> Tested:
        """The result of a test whose trainings are evaluated, to be recorded."""
        against = self.judge.kept
        assert against is not None
        found = self._test(name, failed=failed)
        gap = None
        if found is not None:
            tree = self.session.tree
            first, second = (self._items(tree[each].select[-1]) for each in (name, against))
            plain = difference(self.metric, first, second, seed=self.session.task.seed)
            wide = widened(plain, *self._seed_noise(tree[name], tree[against]))
            gap = wide.model_copy(update={"p": found.p})
        return Tested(
            experiment=name,
            against=against,
            difference=gap,
            level=found.level if found else 0.0,
            kept=found is not None and found.verdict == "keep",
            champion=self.champion,
        )

    def _test(self, name: str, *, failed: bool) -> Judgement | None:
        kept, self.test = self.judge.kept, None
        assert kept is not None
        evaluations = {each: self.session.tree[each].select for each in (kept, name)}
        values = {each: self._values(found[-1]) if found else None for each, found in evaluations.items()}
        if failed or any(value is None for value in values.values()):
            self.judge.untestable(name)
            return None
        for each, value in values.items():
            if value is not None and self.judge.needs_fresh(each):
                self.judge.fresh(each, value)
        return self.judge.test(name)

    # --- the end --------------------------------------------------------------------------------------------------

    def ranked(self) -> list[Experiment]:
        """Recipes by the posterior mean of their gain, best first; those that break a guard are left out."""
        return [self.session.tree[name] for name in self.judge.ranked()]

    def believed(self, name: str) -> tuple[float, float]:
        """(mean, variance) of what the search believes a recipe gains over the first of the run."""
        return self.judge.merit(name), self.judge.doubt(name)

    @property
    def kept(self) -> str | None:
        """What was shown to be better last; before the first keep, the best reference."""
        return self.judge.kept

    def select_noise(self, first: Experiment, second: Experiment) -> tuple[float, float]:
        """(difference on select, its variance from items and seeds) of two finalists."""
        a, b = (self._values(node.select[-1]) for node in (first, second))
        if a is None or b is None:
            return 0.0, float("inf")
        pairs = a - b
        variance, _ = self._seed_noise(first, second)
        return float(pairs.mean()), item_variance(pairs, self.judge.unit) + variance


def _hash(node: Experiment) -> str:
    return node.proposed.proposal.recipe.hash


def _family(node: Experiment) -> str:
    """Recipes that share their seed noise: of one backend, and data steps draw from the seed where there are any. What
    does not depend on a seed is a family of its own, and says nothing about the noise of the others."""
    recipe = node.proposed.proposal.recipe
    if edit.valid(recipe) and not edit.seeded(recipe):
        return SEEDLESS
    return f"{recipe.stage.backend}+data" if recipe.data else recipe.stage.backend
