"""Everything a report shows, read off a run's events: one frozen value for the page, the Markdown and the screen.

It measures nothing and reads no label of an evaluation split. The texts it is given are those of the search items.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence, TypeVar

from postgrad.budget import Ledger, Spent
from postgrad.errors import UserError
from postgrad.evaluate.power import recorded_seed_sd
from postgrad.evaluate.splits import SplitPlan, group_of
from postgrad.events import (
    Analysed,
    Body,
    Certified,
    DataPrepared,
    Event,
    FinalModel,
    JobFinished,
    JobStarted,
    Pared,
    Reopened,
    RunEnded,
    RunResumed,
    RunStarted,
    SealedDone,
    SearchEnded,
    current,
    sealed_reads,
)
from postgrad.records import (
    Budget,
    Confusion,
    DataCard,
    Estimate,
    JudgeControl,
    Lesson,
    SealedRead,
    SealedScore,
    TaskSpec,
)
from postgrad.report.contamination import Contamination, contamination_of
from postgrad.report.decisions import Decision, decisions_of
from postgrad.report.guards import GuardCheck, final_models, guard_checks
from postgrad.report.hardware import ran_on
from postgrad.report.tried import Tried, compared, what_was_tried
from postgrad.report.verdict import Verdict, verdict_of
from postgrad.tree import Experiment, State, Tree

T = TypeVar("T")


@dataclass(frozen=True)
class Moment:
    """When an experiment was closed: controller seconds."""

    experiment: Experiment
    clock: float


@dataclass(frozen=True)
class Reign:
    """A champion of the search, from `clock` (controller seconds) on, when `closed` experiments had ended."""

    experiment: str
    clock: float
    closed: int
    estimate: Estimate


@dataclass(frozen=True)
class BadCase:
    """A confused pair with the texts of some of its items; a text that is not at hand is left out."""

    confusion: Confusion
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Lineage:
    """Where the final weights come from: base model, final job, model artefact. `model` is None where none is kept."""

    base_model: str | None
    job: str | None
    model: str | None


@dataclass(frozen=True)
class Reading:
    """One read of the sealed split: when (Unix time), why again (None for the first), and what it said."""

    number: int
    at: float
    reason: str | None
    read: SealedRead

    @property
    def champion(self) -> str:
        return self.read.scores[0].experiment


@dataclass(frozen=True)
class RunView:
    """A run as a report shows it.

    Attributes:
        champion: the certified champion; before that, the best of the search so far.
        baseline: the experiment that the champion is compared with on the sealed split.
        moments: closed experiments in the order they were closed.
        reigns: the champions of the search, in order.
        sealed: the last read, unless the run was reopened after it; `readings` has all of them for ever.
        pared: what became of changes of the champion that were left out to see whether they are worth having.
        decisions: what people ordered, and what came of it.
        seed_sd: standard deviation of one training's score over training seeds, as the run measured it.
        reopened: why the run goes on after an end, where it does; None again when it has its new end.
        optimism_gap: search estimate minus sealed estimate of the champion.
        model_dir, report: paths of the final model and of this report, where they are known.
    """

    run: str
    started_at: float
    task: TaskSpec
    postgrad: str
    machine: dict[str, str]
    packages: dict[str, str]
    resumed: int
    plan: SplitPlan | None
    prepared: DataPrepared | None
    labels: tuple[str, ...]
    tree: Tree
    ledger: Ledger
    moments: tuple[Moment, ...]
    reigns: tuple[Reign, ...]
    tried: tuple[Tried, ...]
    champion: Experiment | None
    baseline: Experiment | None
    search_ended: SearchEnded | None
    certified: Certified | None
    sealed: SealedRead | None
    readings: tuple[Reading, ...]
    reopened: str | None
    pared: tuple[Pared, ...]
    decisions: tuple[Decision, ...]
    seed_sd: float | None
    ended: RunEnded | None
    bad_cases: tuple[BadCase, ...]
    lessons: tuple[Lesson, ...]
    undecided: tuple[Experiment, ...]
    guards: tuple[GuardCheck, ...]
    finals: dict[str, FinalModel]
    lineage: Lineage
    model_dir: str | None
    report: str | None

    @property
    def spent(self) -> Spent:
        return self.ledger.spent

    @property
    def granted(self) -> Budget:
        return self.ledger.granted

    @property
    def looks(self) -> dict[str, int]:
        return self.ledger.looks

    @property
    def card(self) -> DataCard | None:
        return self.prepared.card if self.prepared else None

    @property
    def taught_by(self) -> int:
        """How many finished runs taught this one what to expect of each kind of change."""
        return self.prepared.remembered.runs if self.prepared and self.prepared.remembered else 0

    @property
    def judge(self) -> JudgeControl | None:
        """What the task's judge said where the right answer is known; None where it has none."""
        return self.prepared.judge if self.prepared else None

    @property
    def metric(self) -> str:
        return self.task.metric

    @property
    def failures(self) -> tuple[Experiment, ...]:
        return tuple(self.tree.failed())

    @property
    def raced(self) -> tuple[Experiment, ...]:
        return tuple(node for node in self.tree.all() if node.state is State.RACED)

    @property
    def contamination(self) -> Contamination:
        return contamination_of(self.plan, self.tree)

    @property
    def optimism_gap(self) -> float | None:
        score = self.score_of("champion")
        if score is None or self.champion is None or self.champion.evaluation is None:
            return None
        gap = self.champion.evaluation.estimate.value - score.estimate.value
        return gap if math.isfinite(gap) else None

    @property
    def unsealed_reason(self) -> str | None:
        """Why there is no sealed score, or None when there is one."""
        if self.sealed is not None:
            return None
        if self.reopened is not None and self.search_ended is None:
            return "the run was reopened and the search goes on"
        if self.ended is not None:
            return f"the run ended without a sealed read: {self.ended.reason}"
        if self.certified is not None:
            return "the champion is certified and its final training is not finished"
        if self.search_ended is not None:
            return "the search has ended and the finalists are not certified yet"
        return "the search has not ended"

    @property
    def verdict(self) -> Verdict:
        return verdict_of(self)

    def score_of(self, role: str) -> SealedScore | None:
        """The sealed score of a role; None before the read, or where there is no such model."""
        scores = self.sealed.scores if self.sealed else ()
        return next((score for score in scores if score.role == role), None)


# --- building -------------------------------------------------------------------------------------------------------


def build_view(
    events: Sequence[Event],
    texts: Mapping[str, str] | None = None,
    *,
    plan: SplitPlan | None = None,
    model_dir: Path | None = None,
    report: Path | None = None,
) -> RunView:
    """Read a run off its events; a run under way gives what there is so far.

    Args:
        texts: row id -> text of the search items, for the bad cases. Never of select or sealed items.
        plan: the split plan, for what the contamination check removed.

    Raises:
        UserError: the events do not begin with RunStarted.
    """
    started = _started(events)
    last = current(events)
    tree = Tree.from_events(events)
    certified = _only(last, Certified)
    champion = _champion(tree, certified)
    prepared = _only(last, DataPrepared)
    done = _only(last, SealedDone)
    return RunView(
        run=started.run,
        started_at=events[0].at,
        task=started.task,
        postgrad=started.postgrad,
        machine=started.machine | _sandbox(events) | ran_on(events),
        packages=started.packages,
        resumed=sum(isinstance(event.body, RunResumed) for event in events),
        plan=plan,
        prepared=prepared,
        labels=prepared.labels if prepared else (),
        tree=tree,
        ledger=Ledger.from_events(started.task.budget, events),
        moments=_moments(events, tree),
        reigns=_reigns(events, tree),
        tried=what_was_tried(tree),
        champion=champion,
        baseline=tree[certified.baseline] if certified else _reference(tree),
        search_ended=_only(last, SearchEnded),
        certified=certified,
        sealed=done.read if done else None,
        readings=_readings(events),
        reopened=_reopened(last),
        pared=tuple(event.body for event in events if isinstance(event.body, Pared)),
        decisions=decisions_of(events),
        seed_sd=recorded_seed_sd(events),
        ended=_only(last, RunEnded),
        bad_cases=_bad_cases(champion, texts or {}),
        lessons=_lessons(tree),
        undecided=_undecided(tree, started.task.min_effect),
        guards=guard_checks(started.task, champion, final_models(events), done.read if done else None),
        finals=final_models(events),
        lineage=_lineage(events, champion),
        model_dir=str(model_dir) if model_dir and model_dir.is_dir() else None,
        report=str(report) if report else None,
    )


def _started(events: Sequence[Event]) -> RunStarted:
    if not events or not isinstance(events[0].body, RunStarted):
        raise UserError("These events are no run: the first one has to say what was started. Is the log complete?")
    return events[0].body


def _sandbox(events: Sequence[Event]) -> dict[str, str]:
    """What kept jobs apart from the machine; nothing for runs of versions that did not record it."""
    names = {event.body.sandbox for event in events if isinstance(event.body, JobStarted)} - {""}
    return {"sandbox": " and ".join(sorted(names))} if names else {}


def _champion(tree: Tree, certified: Certified | None) -> Experiment | None:
    name = certified.champion if certified else tree.champion
    return tree[name] if name else None


def _only(last: Mapping[str, Body], kind: type[T]) -> T | None:
    return next((body for body in last.values() if isinstance(body, kind)), None)


def _reopened(last: Mapping[str, Body]) -> str | None:
    """The reason of a run that was reopened and has no new end yet."""
    found = _only(last, Reopened)
    return found.reason if found and "sealed_done" not in last else None


def _readings(events: Sequence[Event]) -> tuple[Reading, ...]:
    return tuple(
        Reading(event.body.number, event.at, event.body.reason, event.body.read)
        for event in sealed_reads(events)
        if isinstance(event.body, SealedDone)
    )


def _moments(events: Sequence[Event], tree: Tree) -> tuple[Moment, ...]:
    return tuple(Moment(tree[e.body.experiment], e.clock) for e in events if isinstance(e.body, Analysed))


def _reigns(events: Sequence[Event], tree: Tree) -> tuple[Reign, ...]:
    reigns: list[Reign] = []
    closed = 0
    for event in events:
        if not isinstance(event.body, Analysed | Pared):
            continue
        closed += isinstance(event.body, Analysed)
        name = event.body.champion
        if name is None or (reigns and reigns[-1].experiment == name):
            continue
        evaluation = tree[name].evaluation
        if evaluation is not None:
            reigns.append(Reign(name, event.clock, closed, evaluation.estimate))
    return tuple(reigns)


def _reference(tree: Tree) -> Experiment | None:
    """What the baseline will be: the cheapest classic model."""
    return next(
        (
            node
            for node in tree.all()
            if node.proposed.proposal.kind in ("reference.classic", "reference.nearest", "reference.script")
        ),
        None,
    )


def _bad_cases(champion: Experiment | None, texts: Mapping[str, str]) -> tuple[BadCase, ...]:
    confusions = champion.analysis.confusions if champion and champion.analysis else ()
    by_group = {group_of(name): text for name, text in texts.items()}
    cases = []
    for confusion in confusions:
        found = (texts.get(name) or by_group.get(group_of(name)) for name in confusion.ids)
        cases.append(BadCase(confusion, tuple(dict.fromkeys(text for text in found if text))))
    return tuple(cases)


def _lessons(tree: Tree) -> tuple[Lesson, ...]:
    found = [node.analysis.lesson for node in tree.all() if node.analysis and node.analysis.lesson]
    return tuple(sorted(found, key=lambda lesson: -abs(lesson.effect.value)))


def _undecided(tree: Tree, min_effect: float) -> tuple[Experiment, ...]:
    """Ties that may still be a gain of the size the user asked for: the interval holds zero and `min_effect`."""
    pairs = [(node, found) for node in tree.all() if (found := compared(node))]
    left = [(node, found) for node, found in pairs if found.low <= 0 and found.high >= max(min_effect, 1e-9)]
    return tuple(node for node, _ in sorted(left, key=lambda pair: -pair[1].value))


def _lineage(events: Sequence[Event], champion: Experiment | None) -> Lineage:
    if champion is None:
        return Lineage(None, None, None)
    base = champion.proposed.proposal.recipe.base_model
    jobs = [event.body for event in events if isinstance(event.body, JobFinished) and event.body.purpose == "sealed"]
    own = [body for body in jobs if body.experiment == champion.id]
    # A script is trained several times at the end, and handed over once.
    last = next((body for body in reversed(own) if body.result.model), own[-1] if own else None)
    return Lineage(base, last.job, last.result.model) if last is not None else Lineage(base, None, None)
