"""The spine: the only file that knows the order of the steps.

choose -> propose -> train and predict -> evaluate -> analyse -> one more node, until the policy stops or the ledger is
empty; then `certify.py` and `seal.py` end it. A result is appended to the store before the next step starts, and what
to do next is read from the events alone, so a run that was killed goes on where its log ends.

Order and time. Several experiments are under way at once, but an experiment is chosen from the view in which exactly
the first `index + 1 - lookahead` experiments have ended, and experiments are analysed in index order. So the tree does
not depend on which worker was faster, only on how many there are. It depends on time in two places: a budget of wall
clock or CPU hours decides how many experiments there are, and wall clock which proposals are affordable near its end.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from random import Random
from typing import Callable, Sequence

from postgrad.analyze.verdict import cut_off, rejected
from postgrad.certify import finalists, finish_reserve_s
from postgrad.confirm import confirm
from postgrad.events import Analysed, Decided, Proposed, RunEnded, SearchEnded
from postgrad.execute.executor import RunningJob
from postgrad.memory import lesson_of
from postgrad.pare import Parer
from postgrad.people.desk import Desk
from postgrad.people.gate import asking
from postgrad.prepare import prepare
from postgrad.racer import Racer
from postgrad.records import Analysis, Choice, Inject, JobResult, Move, Proposal, Recipe
from postgrad.referee import Referee
from postgrad.research import edit
from postgrad.research.assemble import researcher_of
from postgrad.research.base import Context, Researcher
from postgrad.research.binding import bound
from postgrad.research.references import reference_recipes
from postgrad.scoring import evaluate_search
from postgrad.seal import seal
from postgrad.search import POLICIES
from postgrad.session import START_UP_S, Job, Session
from postgrad.side_by_side import side_by_side
from postgrad.tester import Tester
from postgrad.tree import Experiment, Tree

POLL_S = 0.02


@dataclass
class Control:
    """What the person may ask of a running loop. `finish` ends the search and certifies; the CLI sets it."""

    finish: bool = False


@dataclass
class Loop:
    """Drives one run to its end. `tick` is called often with the jobs under way, for the live screen; where there is a
    `guest`, it proposes in place of the task's researcher."""

    session: Session
    control: Control = field(default_factory=Control)
    tick: Callable[[str, Sequence[RunningJob]], None] = lambda phase, jobs: None
    guest: Researcher | None = None
    running: dict[str, tuple[Job, RunningJob]] = field(default_factory=dict)
    _reserve: tuple[int, float] | None = None

    def __post_init__(self) -> None:
        self.desk = Desk(self.session, lambda: self.control.finish)

    def run(self) -> None:
        """Do what is owed, whatever that is. Returns when the run has ended."""
        session = self.session
        if session.prepared is None:
            self.tick("preparing data", ())
            prepare(session, lambda line: self.tick(line, ()))
        self.referee = Referee(session, session.store.events())
        self.parer = Parer(session, self.referee)
        self.tester = Tester(session, self.referee, self.running, self._reserve_s)
        self.racer = Racer(session, self._view)
        if session.search_ended is None:
            self._search()
        if session.sealed is None:
            confirm(session, self.referee, self.run_jobs)
            seal(session, self.run_jobs)
        self.desk.read()
        if "run_ended" not in session.bodies:
            reason = session.search_ended.reason if session.search_ended else "finished"
            session.append(RunEnded(reason=reason, wall_s=session.ledger.charged(session.store.clock())))

    # --- the search -----------------------------------------------------------------------------------------------

    def _search(self) -> None:
        session = self.session
        self.references = reference_recipes(session.task)
        policy, barred = POLICIES.get(session.task.search.policy), self.desk.gate.barred
        self.policy = bound(policy, session.task, self._nominal_s, session.remembered.priors, barred=barred)
        self.params = self.policy.Params.model_validate(session.task.search.params)
        self.researcher = self.guest or researcher_of(session.task, session.store.folder)
        reason = None
        while reason is None:
            if (why := self.desk.waits()) is not None:
                self.tick(f"waiting: {why}", ())
                time.sleep(POLL_S)
                continue
            before = session.seq
            self._collect()
            self._close_in_order()
            if not self.desk.paused:
                reason = self._propose()
                self._start_owed()
            self.tick("searching", [job for _, job in self.running.values()])
            if reason is None and self.running:
                time.sleep(POLL_S)
            elif reason is None and session.seq == before:
                self.desk.wait()
        self._drain(reason)
        self.parer.settle()
        session.append(SearchEnded(reason=reason, finalists=tuple(finalists(session, self.referee))))

    def _drain(self, reason: str) -> None:
        """Let experiments under way end while the budget lasts, the very first in any case; cut the rest off."""
        while self.session.tree.ended() == 0 or not self._out_of_time():
            self.desk.read()
            self._collect()
            self._close_in_order()
            if not self.desk.stopping:
                self._start_owed()
            if not self.running:
                break
            self.tick("last experiments", [job for _, job in self.running.values()])
            time.sleep(POLL_S)
        for _, job in self.running.values():
            job.stop()
        self.running.clear()
        for node in self.session.tree.pending():
            cut = cut_off(f"the search ended first ({reason})")
            self._close(node, cut if self.racer.owed(node) and not node.rejection else self._closing(node))

    def _out_of_time(self) -> bool:
        wall = self.session.remaining().wall_s
        return wall is not None and wall < self._reserve_s()

    def _reserve_s(self) -> float:
        """`finish_reserve_s`, computed again only when an event was added."""
        seq = self.session.seq
        if self._reserve is None or self._reserve[0] != seq:
            self._reserve = (seq, finish_reserve_s(self.session))
        return self._reserve[1]

    # --- choose and propose ---------------------------------------------------------------------------------------

    @property
    def lookahead(self) -> int:
        """How many experiments may be under way or waiting: enough that no worker idles at the end of one."""
        slots = self.session.executor.engine.slots
        return 1 if slots == 1 else 2 * slots - 1

    def _propose(self) -> str | None:
        """Propose as many experiments as may be open; return a reason when the search is over."""
        session = self.session
        while True:
            index = len(session.tree)
            if reason := self._over(index):
                return self._unless_asked(reason)
            if session.tree.ended() < self._shown(index):
                return None
            if index < len(self.references):
                self._reference(index)
                continue
            if (idea := self.desk.idea()) is not None:
                self._idea(index, idea)
                continue
            if self.desk.full(self.lookahead):
                return None
            if (owed := self.referee.seed_owed(self._view(index))) is not None:
                self._append(index, *owed, self._view(index).champion)
                continue
            pared, choice = self._pared(index, stopped=False), None
            if pared is None and self.desk.awaits(index):
                return None
            if pared is None:
                choice = self._choose(index)
                pared = self._pared(index, stopped=True) if choice.move is Move.STOP else None
            if pared is not None:
                for asked, proposal in pared:
                    self._append(len(session.tree), proposal, asked, session.tree.champion)
                if not pared:
                    return None
            elif choice is None or choice.move is Move.STOP:
                return self._unless_asked("the policy stopped")
            else:
                if (found := self._proposal(index, choice)) is None:
                    return None if session.tree.pending() else self._unless_asked("people left nothing new open")
                proposal, answered = found
                if self._tells_nothing(proposal):
                    return None if session.tree.pending() else "nothing new can be paid with what is left"
                asks = self.desk.asks(proposal)
                self._append(index, proposal, answered, self._view(index).champion, asks=asks)

    def _unless_asked(self, reason: str) -> str | None:
        """Why the search is over; None while a person is still to say what becomes of a proposal, if there is time."""
        waits = self.session.tree.waiting() and not (self.desk.stopping or self._out_of_time())
        return None if waits else reason

    def _pared(self, index: int, *, stopped: bool) -> tuple[tuple[Choice, Proposal], ...] | None:
        """What paring asks for: experiments, none before others have ended; None where the search goes on."""
        return self.parer.owed(self._view(index), self._reserve_s(), stopped=stopped, testing=bool(self.tester.owed()))

    def _over(self, index: int) -> str | None:
        if self.desk.stopping and index > 0:  # The constant answer is measured in any case: then there is a champion.
            return self.desk.why_stopped
        remaining = self.session.remaining()
        if remaining.experiments is not None and remaining.experiments <= 0:
            return "the budget of experiments is spent"
        if index < len(self.references):
            return None
        if remaining.empty:
            return "the budget is spent"
        if self._out_of_time():
            return "the wall-clock budget is spent, less what certifying needs"
        return None

    def _view(self, index: int) -> Tree:
        """The tree that an experiment is, or was, chosen from."""
        view = self.session.tree.as_of if self.session.standing.asked else self.session.tree.view
        return view(max(0, self._shown(index)))

    def _shown(self, index: int) -> int:
        """How many experiments have to have ended, and are shown, when this one is chosen. What waits for a person
        holds up nothing else."""
        tree = self.session.tree
        if index < len(tree):
            shown = tree.all()[index].proposed.shown
            return index - self.lookahead + 1 if shown is None else shown
        return index - len(tree.waiting()) - self.lookahead + 1

    def _rng(self, index: int, what: str) -> Random:
        return Random(f"{self.session.task.seed}/{index}/{what}")

    def _choose(self, index: int) -> Choice:
        remaining = self.session.remaining().model_copy(update={"affordable_s": self._affordable_s()})
        view = self.desk.gate.view(self._view(index))
        return self.policy.choose(view, remaining, self._rng(index, "choose"), self.params)

    def _nominal_s(self, recipe: Recipe) -> float:
        return self.session.nominal_s(recipe, self.session.plan.search)

    def _tells_nothing(self, proposal: Proposal) -> bool:
        """True for what is proposed only because nothing else can be paid: once more what no seed changes."""
        if self.session.remaining().wall_s is None or not edit.valid(proposal.recipe):
            return False
        return self.session.tree.has_tried(proposal.recipe) and not edit.seeded(proposal.recipe)

    def _proposal(self, index: int, choice: Choice) -> tuple[Proposal, Choice] | None:
        """What the researcher proposes, and the choice that it answers; None where people left nothing open."""
        session = self.session
        context = Context(
            tree=self.desk.gate.view(self._view(index)),
            rng=self._rng(index, "propose"),
            index=index,
            affordable_s=self._affordable_s(),
            nominal_s=self._nominal_s,
            remembered=session.remembered,
            remaining=session.remaining(),
            card=session.prepared.card if session.prepared else None,
            rows=tuple(session.rows("train").values()),
            barred=self.desk.gate.barred,
        )
        policy = session.task.search.policy
        return self.desk.gate.proposal(*asking(self.researcher, policy, session.task), choice, context)

    def _reference(self, index: int) -> None:
        """The constant answer, the cheapest classic model and the untouched base model come first."""
        choice = Choice(parent=None, move=Move.DRAFT, reason="reference")
        self._append(index, self.references[index], choice, None)

    def _idea(self, index: int, idea: Decided) -> None:
        """What a person or a program wants tried next."""
        assert isinstance(idea.order.wish, Inject) and idea.proposal is not None
        parent = idea.order.wish.experiment
        move = Move.DRAFT if parent is None else Move.IMPROVE
        choice = Choice(parent=parent, move=move, reason=f"{idea.order.by} asked for it")
        asks = self.desk.asks(idea.proposal) if idea.order.wish.asks else ""
        self._append(index, idea.proposal, choice, self._view(index).champion, asks=asks, order=idea.order.id)

    def _append(
        self,
        index: int,
        proposal: Proposal,
        choice: Choice,
        incumbent: str | None,
        *,
        asks: str = "",
        order: str | None = None,
    ) -> None:
        session = self.session
        session.append(
            Proposed(
                experiment=f"e{index:04d}",
                choice=choice,
                proposal=proposal,
                incumbent=incumbent,
                nominal_s=session.nominal_s(proposal.recipe, session.plan.search),
                asks=asks,
                forecast_s=self.desk.forecast_s(proposal) if asks else None,
                shown=max(0, self._shown(index)) if session.standing.asked else None,
                order=order,
            )
        )

    def _affordable_s(self) -> float | None:
        """Nominal seconds that one more experiment may have: what the wall-clock budget still holds, and no more than
        leaves room for its own final training, without which it cannot win."""
        session = self.session
        wall, cheap = session.remaining().wall_s, self.desk.cheap_s(self.lookahead)
        limits = [] if wall is None else [wall - self._reserve_s(), wall / (1 + session.final_share)]
        limits += [] if cheap is None else [cheap - START_UP_S * session.pace.overall()]
        return max(0.0, min(limits)) / session.pace.overall() if limits else None

    # --- run ------------------------------------------------------------------------------------------------------

    def _start_owed(self) -> None:
        session = self.session
        for job in self.tester.jobs():
            if len(self.running) < session.executor.engine.slots and job.id not in self.running:
                self.running[job.id] = (job, session.start(job))
        for node in session.tree.pending():
            if len(self.running) >= session.executor.engine.slots:
                return
            if any(job.experiment == node.id for job, _ in self.running.values()) or node.waits or node.rejection:
                continue
            if units := self.racer.owed(node):
                proposal = node.proposed.proposal
                job = Job(node.id, "search", units, proposal.recipe, proposal.seed)
                if refusal := session.refusal(proposal.recipe):
                    session.finish(job, JobResult(job=job.id, failure=refusal))
                    continue
                self.running[job.id] = (job, session.start(job))

    def _collect(self) -> None:
        """Record what has ended, and score what is recorded but not scored yet."""
        for name, (job, handle) in list(self.running.items()):
            result = handle.poll(0.0)
            if result is not None:
                del self.running[name]
                self.session.finish(job, result)
        for node in self.session.tree.pending():
            units = sum(len(result.units) for result in node.results)
            scored = node.evaluation.units if node.evaluation else 0
            if units > scored and node.failure is None:
                evaluate_search(self.session, node)

    def run_jobs(self, jobs: Sequence[Job], phase: str) -> None:
        """Run jobs side by side to their end, skipping what is recorded already; a final training that failed is no
        result, so a resumed run tries it again."""
        session = self.session
        done = {name for name, body in session.finished.items() if body.purpose != "sealed" or not body.result.failure}
        owed = [job for job in jobs if job.id not in done]
        side_by_side(session, owed, session.start, session.finish, lambda jobs: self.tick(phase, jobs))

    def run_apart(self, jobs: Sequence[Job], phase: str = "extra jobs") -> dict[str, JobResult]:
        """Run jobs that are not part of the run: nothing is recorded, only the output files are kept."""
        results: dict[str, JobResult] = {}
        session = self.session

        def start(job: Job) -> RunningJob:
            return session.executor.start(session.job_spec(job), session.inputs(job))

        def finish(job: Job, result: JobResult) -> None:
            results[job.id] = result

        side_by_side(session, jobs, start, finish, lambda running: self.tick(phase, running))
        return results

    # --- evaluate and analyse -------------------------------------------------------------------------------------

    def _close_in_order(self) -> None:
        """Analyse experiments that have nothing more to wait for, in index order. A test comes before the next one."""
        for node in self.session.tree.pending():
            if node.waits:
                continue
            if self.tester.testing():
                return
            if any(job.experiment == node.id for job, _ in self.running.values()):
                return
            if self.racer.owed(node) and not node.rejection:
                return
            self._close(node, self._closing(node))
        self.tester.testing()

    def _closing(self, node: Experiment) -> Analysis:
        if node.rejection is not None:
            return rejected(node.rejection.order.by, node.rejection.order.reason)
        return self.referee.close(node, self.racer.race(node))

    def _close(self, node: Experiment, analysis: Analysis) -> None:
        if (lesson := lesson_of(node.proposed.proposal, analysis, node.id)) is not None:
            analysis = analysis.model_copy(update={"lesson": lesson})
        self.session.append(Analysed(experiment=node.id, analysis=analysis, champion=self.referee.champion))
