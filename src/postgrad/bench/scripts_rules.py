"""The two rules that `postgrad bench scripts` compares, each a run with a log of its own.

`postgrad` is the loop as it is. `autoresearch` is the rule of karpathy/autoresearch (its program.md of March 2026): one
training for each experiment, kept where its number is strictly better than that of what was kept before, else
discarded; the next edit is one of what was kept. The loop cannot play it, because its referee tests and asks for
replicates whatever the policy is; so a driver of its own writes the same events, with the same researcher, the same
generators and the same jobs. Both go on where their log ends.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Callable, Iterator, Sequence

from postgrad.analyze.verdict import failed
from postgrad.engines.base import Engine
from postgrad.errors import PostgradError
from postgrad.evaluate.statistics import difference
from postgrad.events import Analysed, Event, Pared, Proposed, RunEnded, SearchEnded, Tested
from postgrad.metrics import metric_of
from postgrad.prepare import prepare
from postgrad.records import Analysis, Choice, Difference, Failure, JobResult, Move, TaskSpec
from postgrad.referee import Referee
from postgrad.research.base import Context
from postgrad.research.references import reference_recipes
from postgrad.runner import drive, opened, resume_event, start_run
from postgrad.scoring import evaluate_search
from postgrad.scripts.researcher import ScriptResearcher
from postgrad.scripts.session import ScriptSession
from postgrad.search.autoresearch import incumbent
from postgrad.session import Job
from postgrad.store.sqlite import SqliteStore
from postgrad.tree import Experiment, Tree

OURS, PLAIN = "postgrad", "autoresearch"
# The second with as many trainings as the first used.
EVEN = "autoresearch, as many trainings"
BASELINE = "e0000"
POLL_S = 0.02
Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Played:
    """What a rule made of its run.

    Attributes:
        delivered: the experiment whose files are handed over.
        built: (experiment, what was built on before), for each change of what is built on.
        kept: the same for what the rule says is better: of `autoresearch` all of `built`, of `postgrad` what a test
            with fresh trainings showed.
        claimed: what the rule says at its end that the delivery gains over the baseline, in the metric where more is
            better: the difference of the two search scores, or that of the sealed read.
        searched: what its search held the gain for: the same difference, or the posterior mean.
        experiments, trainings: of the search; and all of them, tests, finalists and the sealed read included.
        wall_s: seconds of the run's own clock.
        said: last lines of the log of each experiment's first training.
    """

    rule: str
    folder: Path
    delivered: str
    built: tuple[tuple[str, str], ...]
    kept: tuple[tuple[str, str], ...]
    claimed: float
    searched: float
    experiments: int
    trainings: int
    failures: int
    wall_s: float
    said: dict[str, str]


def play(
    rule: str,
    task: TaskSpec,
    root: Path,
    listener: Listener,
    engine: Engine | None = None,
    first: int | None = None,
) -> Played:
    """Play a rule to its end, or go on with it.

    Args:
        root: the folder of this rule; it holds one run.
        engine: runs the jobs in place of the task's own.
        first: tell what so many experiments of `autoresearch` came to; all if not given.

    Raises:
        PostgradError: the baseline gave no number.
    """
    with run_of(task, root, listener, engine) as session:
        if rule == PLAIN:
            Plain(session).play()
        elif "run_ended" not in session.bodies:
            drive(session, researcher=ScriptResearcher(session))  # Whoever the task names: both rules have the same.
        return played(rule, session, first)


@contextmanager
def run_of(
    task: TaskSpec, root: Path, listener: Listener = lambda event: None, engine: Engine | None = None
) -> Iterator[ScriptSession]:
    """The one run in a folder, begun where there is none."""
    found = [folder for folder in sorted(root.glob("*")) if (folder / "events.sqlite").is_file()]
    store = SqliteStore.open(found[0], write=True) if found else start_run(task, root)
    if found and not any(event.body.type == "run_ended" for event in store.events()):
        resume_event(store, None, "")
    with opened(store, listener, engine) as session:
        assert isinstance(session, ScriptSession), "the task is a script"
        yield session


def played(rule: str, session: ScriptSession, first: int | None = None) -> Played:
    """What the log of a run that has ended says; of its first experiments alone where `first` is given."""
    events = session.store.events()
    if first is not None:
        ends = [number for number, event in enumerate(events, 1) if event.body.type == "analysed"]
        events = events[: ends[first - 1]]
    tree = Tree.from_events(events)
    built, kept = _changes(events)
    if rule == PLAIN:
        best = incumbent(tree)
        assert best is not None, "a run that has ended has a baseline with a score"
        delivered, kept = best.id, built
        claimed = searched = _score(best) - _score(tree[BASELINE])
    else:
        assert session.certified is not None and session.sealed is not None, "the run has ended"
        delivered = session.certified.champion
        claimed = session.sealed.read.difference.value
        referee = Referee(session, events)
        searched = referee.believed(delivered)[0] - referee.believed(BASELINE)[0]
    return Played(
        rule=rule,
        folder=session.store.folder,
        delivered=delivered,
        built=built,
        kept=kept,
        claimed=claimed,
        searched=searched,
        experiments=len(tree),
        trainings=sum(event.body.type == "job_finished" for event in events),
        failures=len(tree.failed()),
        wall_s=events[-1].clock,
        said={node.id: node.results[0].log_tail for node in tree.all() if node.results},
    )


def _score(node: Experiment) -> float:
    assert node.score is not None, "what is delivered, and the baseline, have a score"
    return node.score


def _changes(events: Sequence[Event]) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """(what was built on, what was kept by a test), each with what it replaced."""
    built, kept, now = [], [], BASELINE
    for body in (event.body for event in events):
        if isinstance(body, Tested) and body.kept:
            kept.append((body.experiment, body.against))
        if isinstance(body, Analysed | Tested | Pared) and body.champion not in (None, now):
            built.append((str(body.champion), now))
            now = str(body.champion)
    return tuple(built), tuple(kept)


class Plain:
    """The plain rule. Every step looks at the log for what is owed."""

    def __init__(self, session: ScriptSession) -> None:
        self.session = session
        self.researcher = ScriptResearcher(session)

    def play(self) -> None:
        """Play to the end of the budget of experiments or of time: no training is begun that would end after it.

        Raises:
            PostgradError: the baseline gave no number.
        """
        session = self.session
        if session.prepared is None:
            prepare(session)
        while session.tree.pending() or self._may_go_on():
            if not session.tree.pending():
                self._propose(len(session.tree))
            node = session.tree.pending()[0]
            self._train(node)
            self._close(session.tree[node.id])
        if "run_ended" not in session.bodies:
            best = incumbent(session.tree)
            assert best is not None, "the baseline has a score"
            session.append(SearchEnded(reason="the budget is spent", finalists=(best.id,)))
            session.append(RunEnded(reason="finished", wall_s=session.store.clock()))

    def _may_go_on(self) -> bool:
        """One more experiment, as long as those before it took, is within the budget."""
        session, budget = self.session, self.session.task.budget
        count = len(session.tree)
        if budget.experiments is not None and count >= budget.experiments:
            return False
        if budget.wall_s is None or count == 0:
            return True
        return session.store.clock() * (count + 1) / count <= budget.wall_s

    def _propose(self, index: int) -> None:
        session, task = self.session, self.session.task
        best = incumbent(session.tree)
        if best is None:
            choice, proposal = Choice(parent=None, move=Move.DRAFT, reason="reference"), reference_recipes(task)[0]
        else:
            choice = Choice(parent=best.id, move=Move.IMPROVE, reason=f"{best.id} is what was kept last")
            # The generator that the loop gives to the researcher of this experiment.
            context = Context(
                tree=session.tree,
                rng=Random(f"{task.seed}/{index}/propose"),
                index=index,
                affordable_s=None,
                nominal_s=lambda recipe: session.nominal_s(recipe, session.plan.search),
            )
            proposal = self.researcher.propose(task, choice, context)
        nominal = session.nominal_s(proposal.recipe, session.plan.search)
        incumbent_id = best.id if best is not None else None
        session.append(
            Proposed(
                experiment=f"e{index:04d}", choice=choice, proposal=proposal, incumbent=incumbent_id, nominal_s=nominal
            )
        )

    def _train(self, node: Experiment) -> None:
        """One training, unless the log has it."""
        session, proposal = self.session, node.proposed.proposal
        job = Job(node.id, "search", session.plan.search, proposal.recipe, proposal.seed)
        if job.id not in session.finished:
            refusal = session.refusal(proposal.recipe)
            session.finish(job, JobResult(job=job.id, failure=refusal) if refusal else self._run(job))
        if session.tree[node.id].evaluation is None and session.tree[node.id].failure is None:
            evaluate_search(session, session.tree[node.id])

    def _run(self, job: Job) -> JobResult:
        running = self.session.start(job)
        try:
            while (result := running.poll(POLL_S)) is None:
                continue
        finally:
            running.stop()
        return result

    def _close(self, node: Experiment) -> None:
        """Keep it or not."""
        session, before = self.session, incumbent(self.session.tree)
        if node.failure is not None or node.evaluation is None:
            failure = node.failure or Failure(boundary="evaluate", kind="unscored", message="It gave no score.")
            if before is None:
                raise PostgradError(f"The script as it was given has no number ({failure.kind}): {failure.message}")
            session.append(Analysed(experiment=node.id, analysis=failed(failure), champion=before.id))
            return
        score = node.evaluation.estimate.value
        keeps = before is None or score > _score(before)
        analysis = Analysis(
            verdict="keep" if keeps else "discard",
            against=node.parent,
            difference=self._gap(node),
            cause="its number is strictly better" if keeps else "its number is not better",
        )
        kept = node if before is None or keeps else before
        session.append(Analysed(experiment=node.id, analysis=analysis, champion=kept.id))

    def _gap(self, node: Experiment) -> Difference | None:
        """The difference to the parent: the researcher learns from it which changes bring something."""
        session = self.session
        parent = session.tree[node.parent] if node.parent is not None else None
        first, second = session.items(node), session.items(parent) if parent is not None else None
        if first is None or second is None:
            return None
        return difference(metric_of(session.task.metric), first, second, seed=session.task.seed)
