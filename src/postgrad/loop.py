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
from typing import Callable, Iterable, Literal, Sequence

from postgrad.analyze.verdict import cut_off, rejected
from postgrad.certify import finalists, finish_reserve_s
from postgrad.chooser import Chooser
from postgrad.confirm import confirm
from postgrad.events import Analysed, AskedInVain, Decided, Proposed, RunEnded, SearchEnded
from postgrad.execute.executor import RunningJob
from postgrad.memory import lesson_of
from postgrad.packing import fits
from postgrad.pare import Parer
from postgrad.people.desk import Desk
from postgrad.prepare import prepare
from postgrad.racer import Racer
from postgrad.rebuild import rebuild
from postgrad.records import Analysis, Choice, Inject, JobResult, Move, Proposal
from postgrad.referee import Referee
from postgrad.research.base import Researcher
from postgrad.research.in_vain import asked_in_vain
from postgrad.research.references import reference_recipes
from postgrad.reserve import only_promised, spent_up
from postgrad.scoring import evaluate_search
from postgrad.scripts.stopping import Stopper
from postgrad.seal import seal
from postgrad.session import Job, Session
from postgrad.side_by_side import apart, side_by_side
from postgrad.spending import stop
from postgrad.tester import Tester
from postgrad.tree import Experiment, Tree
from postgrad.unchanged import Unchanged
from postgrad.views import Views, latest

POLL_S = 0.02
# What came of a step towards the next experiment: True, one was proposed, or another look is worth it; None, not now;
# else why the search is over.
Step = Literal[True] | str | None


@dataclass
class Control:
    """What the person may ask of a running loop. `finish` ends the search and certifies; the CLI sets it."""

    finish: bool = False


@dataclass
class Loop:
    """Drives one run to its end. `tick` is called often with the jobs under way, for the live screen; where there is a
    `guest`, it proposes in place of the task's researcher; `pause` waits between two looks."""

    session: Session
    control: Control = field(default_factory=Control)
    tick: Callable[[str, Sequence[RunningJob]], None] = lambda phase, jobs: None
    guest: Researcher | None = None
    pause: Callable[[float], None] = time.sleep
    running: dict[str, tuple[Job, RunningJob]] = field(default_factory=dict)
    _reserve: tuple[int, float] | None = None
    _waits: int = -1  # The experiment that waits for all others: nothing new came of what it was shown of them.

    def __post_init__(self) -> None:
        self.desk = Desk(self.session, lambda: self.control.finish)
        self.views, self._whole, self._scored = Views(), Unchanged(), Unchanged()

    def run(self) -> None:
        """Do what is owed, whatever that is. Returns when the run has ended."""
        session = self.session
        if session.prepared is None:
            self.tick("preparing data", ())
            prepare(session, lambda line: self.tick(line, ()))
        rebuild(session, lambda jobs, phase: apart(session, jobs, lambda handles: self.tick(phase, handles)))
        self.referee = Referee(session, session.store.in_order())
        self.parer = Parer(session, self.referee)
        self.tester = Tester(session, self.referee, self._reserve_s)
        self.racer = Racer(session, self._before)
        self.stopper = Stopper(session, self._view)
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
        self.chooser = Chooser(session, self.desk, self.lookahead, self._reserve_s, self.guest)
        reason = None
        while reason is None:
            if (why := self.desk.waits()) is not None:
                self.tick(f"waiting: {why}", ())
                self.pause(POLL_S)
                continue
            before = session.seq
            self._collect()
            self._close_in_order()
            if not self.desk.paused:
                reason = self._propose()
                self._start_owed()
            self.tick("searching", [job for _, job in self.running.values()])
            if reason is None and (self.running or self.chooser.busy):
                self.pause(POLL_S)
            elif reason is None and session.seq == before:
                self.desk.wait()
        self._drain(reason)
        self.parer.settle()
        while self.chooser.busy:  # What it costs is on the account, whoever needs the answer.
            self.tick("waiting for the answer to a question", ())
            self.pause(POLL_S)
        for asked in asked_in_vain(session.store.folder, session.store.in_order):
            session.append(AskedInVain(asked=asked))
        session.append(SearchEnded(reason=reason, finalists=tuple(finalists(session, self.referee))))

    def _drain(self, reason: str) -> None:
        """Let experiments under way end while the budget lasts, the very first in any case; cut the rest off."""
        while self.session.tree.ended() == 0 or not self._out_of_time():
            self.desk.read()
            self._collect()
            self._close_in_order()
            self.tester.holds(last=True)
            if not self.desk.stopping:
                self._start_owed()
            if not self.running:
                break
            self.tick("last experiments", [job for _, job in self.running.values()])
            self.pause(POLL_S)
        for job, under_way in self.running.values():
            stop(self.session, job, under_way)
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
        return 2 * self.session.executor.engine.slots - 1

    def _propose(self) -> str | None:
        """Propose as many experiments as may be open; return a reason when the search is over."""
        while (step := self._step(len(self.session.tree))) is True:
            continue
        return step

    def _step(self, index: int) -> Step:
        if reason := self._over(index):
            return self._unless_asked(reason)
        if index == self._waits and self.session.tree.pending():
            return None
        if self.chooser.question is None:
            chosen = self._chosen(index)
            if not isinstance(chosen, Choice):
                return chosen
            self.chooser.ask(index, chosen, self._view(index), self._shown(index))
        return None if self.chooser.busy else self._answered(index)

    def _chosen(self, index: int) -> Choice | Step:
        """What the researcher is to be asked for, or the step that needs nobody to be asked."""
        session = self.session
        if session.tree.ended() < self._shown(index):
            return None
        if self._known(index):
            return True
        if self.desk.full(self.lookahead):
            return None
        if (owed := self.referee.seed_owed(self._view(index))) is not None:
            self._append(index, *owed, self._view(index).champion)
            return True
        pared = self._pared(index, stopped=False)
        if pared is None:
            if self.desk.awaits(index):
                return None
            choice = self.chooser.choose(index, self._view(index))
            if choice.move is not Move.STOP:
                return choice
            pared = self._pared(index, stopped=True)
        if pared is None:
            return self._unless_asked("the policy stopped")
        for asked, proposal in pared:
            self._append(len(session.tree), proposal, asked, session.tree.champion)
        return True if pared else None

    def _known(self, index: int) -> bool:
        """Propose what is known without a choice: a reference, or what somebody put in."""
        if index < len(self.references):
            self._reference(index)
            return True
        if (idea := self.desk.idea()) is not None:
            self._idea(index, idea)
        return idea is not None

    def _answered(self, index: int) -> Step:
        """Propose what the researcher answered."""
        session, question, found = self.session, self.chooser.question, self.chooser.taken(index)
        if self.chooser.question is not None:
            return True
        if found is None:
            return None if session.tree.pending() else self._unless_asked("people left nothing new open")
        assert question is not None
        proposal, answered = found
        if self.chooser.tells_nothing(proposal):
            if question.shown >= session.tree.ended() and not session.tree.pending():
                return "nothing new can be paid with what is left"
            self._waits = index
            return True
        asks = self.desk.asks(proposal)
        self._append(index, proposal, answered, question.view.champion, asks=asks, shown=question.shown)
        return True

    def _unless_asked(self, reason: str) -> str | None:
        """Why the search is over; None while a person, if there is time, or a job under way may still change that."""
        waits = self.session.tree.waiting() and not (self.desk.stopping or self._out_of_time())
        return None if waits or (self.running and only_promised(self.session)) else reason

    def _pared(self, index: int, *, stopped: bool) -> tuple[tuple[Choice, Proposal], ...] | None:
        """What paring asks for: experiments, none before others have ended; None where the search goes on."""
        found = self.parer.owed(self._view(index), self._reserve_s(), stopped=stopped, testing=self.tester.testing())
        if found == ():
            self.tester.holds(last=True)
        return found

    def _over(self, index: int) -> str | None:
        if self.desk.stopping and index > 0:  # The constant answer is measured in any case: then there is a champion.
            return self.desk.why_stopped
        remaining = self.session.remaining()
        if remaining.experiments is not None and remaining.experiments <= 0:
            return "the budget of experiments is spent"
        if index < len(self.references):
            return None
        if (why := spent_up(self.session)) is not None:
            return why
        if self._out_of_time():
            return "the wall-clock budget is spent, less what certifying needs"
        return None

    def _view(self, index: int) -> Tree:
        """The tree that an experiment is, or was, chosen from."""
        tree, shown = self.session.tree, max(0, self._shown(index))
        return tree.as_of(shown) if self.session.standing.asked else self.views.view(tree, shown)

    def _before(self, index: int) -> Iterable[Experiment]:
        """The experiments of the view of this one, the latest first, less some that had not ended."""
        asked = self.session.standing.asked
        return reversed(self._view(index).all()) if asked else latest(self.session.tree, self._shown(index))

    def _shown(self, index: int) -> int:
        """How many experiments have to have ended, and are shown, when this one is chosen: never fewer than the one
        before it was shown. What waits for a person holds up nothing else."""
        tree, usual = self.session.tree, index - self.lookahead + 1
        if index < len(tree):
            shown = tree.all()[index].proposed.shown
            return usual if shown is None else shown
        if index == self._waits:
            return tree.ended()
        if self.session.standing.asked:
            return usual - len(tree.waiting())
        return max(usual, tree.all()[index - 1].proposed.shown or 0) if index else usual

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
        shown: int | None = None,
    ) -> None:
        session = self.session
        shown = max(0, self._shown(index) if shown is None else shown)
        session.append(
            Proposed(
                experiment=f"e{index:04d}",
                choice=choice,
                proposal=proposal,
                incumbent=incumbent,
                nominal_s=session.nominal_s(proposal.recipe, session.plan.search),
                asks=asks,
                forecast_s=self.desk.forecast_s(proposal) if asks else None,
                shown=shown if session.standing.asked or shown > max(0, index - self.lookahead + 1) else None,
                order=order,
            )
        )

    # --- run ------------------------------------------------------------------------------------------------------

    def _start_owed(self) -> None:
        session, slots = self.session, self.session.executor.engine.slots
        for job in self.tester.jobs():
            if job.id not in self.running and self._has_room(job):
                self.running[job.id] = (job, session.start(job))
        begun = {job.experiment for job, _ in self.running.values()}
        for node in self._whole.others(session.tree.pending()):
            if len(self.running) >= slots:
                return
            if node.id in begun or node.waits or node.rejection or (own := self.racer.job(node)) is None:
                self._whole.note(node)
            elif refusal := session.refusal(own.recipe):
                session.finish(own, JobResult(job=own.id, failure=refusal))
            elif not self._has_room(own):
                return
            else:
                self.running[own.id] = (own, session.start(own))

    def _has_room(self, job: Job) -> bool:
        return fits(self.session, job, [other for other, _ in self.running.values()])

    def _collect(self) -> None:
        """Record what has ended, and score what is recorded but not scored yet."""
        for name, (job, handle) in list(self.running.items()):
            result = handle.poll(0.0) or self.stopper.cut(job, handle)
            if result is not None:
                del self.running[name]
                self.session.finish(job, result)
        for node in self._scored.others(self.session.tree.pending()):
            self._scored.note(node)
            units = sum(len(result.units) for result in node.results)
            scored = node.evaluation.units if node.evaluation else 0
            if units > scored and node.failure is None:
                evaluate_search(self.session, node)

    def run_jobs(self, jobs: Sequence[Job], phase: str) -> None:
        """Run jobs side by side to their end, skipping what is recorded already; a final training that failed is no
        result, so a resumed run tries it again."""
        session = self.session
        owed = [job for job in jobs if not session.finished.served(job.id)]
        side_by_side(session, owed, session.start, session.finish, lambda jobs: self.tick(phase, jobs))

    # --- evaluate and analyse -------------------------------------------------------------------------------------

    def _close_in_order(self) -> None:
        """Analyse experiments that have nothing more to wait for, in index order; results of tests come where due."""
        begun = {job.experiment for job, _ in self.running.values()}
        for node in self.session.tree.pending():
            if node.waits:
                continue
            if self.tester.holds() or node.id in begun:
                return
            if self.racer.owed(node) and not node.rejection:
                return
            self._close(node, self._closing(node))
        self.tester.holds()

    def _closing(self, node: Experiment) -> Analysis:
        if node.rejection is not None:
            return rejected(node.rejection.order.by, node.rejection.order.reason)
        return self.referee.close(node, self.racer.race(node))

    def _close(self, node: Experiment, analysis: Analysis) -> None:
        if (lesson := lesson_of(node.proposed.proposal, analysis, node.id)) is not None:
            analysis = analysis.model_copy(update={"lesson": lesson})
        self.session.append(Analysed(experiment=node.id, analysis=analysis, champion=self.referee.champion))
