"""What is tried next: the policy's choice, and the researcher's proposal for it.

A researcher that asks a language model or another program takes seconds to minutes. It is asked in a thread, one
question at a time: jobs under way are watched, results are recorded and orders are read meanwhile, and nothing else is
proposed, so that the order of the experiments does not depend on how fast the answer came.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from random import Random
from typing import Callable

from postgrad.people.desk import Desk
from postgrad.people.gate import Gate, asking
from postgrad.records import Choice, Proposal, Recipe
from postgrad.research import edit
from postgrad.research.assemble import researcher_of
from postgrad.research.base import Context, Guiding, Researcher
from postgrad.research.binding import bound
from postgrad.reserve import wall_limits
from postgrad.scripts.asking import REPAIRS, repaired_first, repairs_of
from postgrad.search import POLICIES
from postgrad.session import START_UP_S, Session
from postgrad.tree import Tree

# An answer that needs nobody else is there before the loop would look again.
AT_ONCE_S = 0.2
Found = tuple[Proposal, Choice] | None


@dataclass
class Question:
    """What is being asked.

    Attributes:
        choice, view, shown: what the experiment will be an answer to, as it stood when it was asked.
        decided: orders that were decided on by then.
    """

    choice: Choice
    view: Tree
    shown: int
    decided: int
    found: Found = None
    failed: BaseException | None = None
    thread: threading.Thread | None = None

    @property
    def answered(self) -> bool:
        return self.thread is None or not self.thread.is_alive()

    def __enter__(self) -> None:
        """What is raised within is kept, to be raised again where the answer is taken."""

    def __exit__(self, kind: object, raised: BaseException | None, trace: object) -> bool:
        self.failed = raised
        return True


class Chooser:
    """Chooses and asks for one run.

    Args:
        reserve_s: wall seconds that are kept for certifying.
        guest: proposes in place of the task's researcher.
    """

    def __init__(
        self, session: Session, desk: Desk, lookahead: int, reserve_s: Callable[[], float], guest: Researcher | None
    ) -> None:
        self.session, self.desk, self.lookahead = session, desk, lookahead
        self._reserve_s = reserve_s
        task = session.task
        self.policy = bound(
            POLICIES.get(task.search.policy), task, self._nominal_s, session.remembered.priors, barred=desk.gate.barred
        )
        params, self._repairs = self.policy.Params, repairs_of(task, self.policy.Params.model_fields)
        self.params = params.model_validate({**self._repairs, **task.search.params})
        self.researcher = guest or researcher_of(task, session.store.folder)
        self.question: Question | None = None

    # --- the policy -----------------------------------------------------------------------------------------------

    def choose(self, index: int, view: Tree) -> Choice:
        """What the policy wants extended, on the tree that is shown to it."""
        remaining = self.session.remaining().model_copy(update={"affordable_s": self.affordable_s()})
        shown = self.desk.gate.view(view)
        choice = self.policy.choose(shown, remaining, self._rng(index, "choose"), self.params)
        most = self.params.model_dump().get(REPAIRS, 0) if self._repairs else 0
        return repaired_first(choice, shown, most) if most else choice

    def affordable_s(self) -> float | None:
        """Nominal seconds that one more experiment may have: what the budgets still hold, its own too, and no more than
        leaves room for its own final training, without which it cannot win."""
        session = self.session
        wall, cheap = session.remaining().wall_s, self.desk.cheap_s(self.lookahead)
        limits = [] if wall is None else [wall - self._reserve_s(), wall / (1 + session.final_share)]
        limits += wall_limits(session)
        limits += [] if cheap is None else [cheap - START_UP_S * session.pace.overall()]
        return max(0.0, min(limits)) / session.pace.overall() if limits else None

    def tells_nothing(self, proposal: Proposal) -> bool:
        """True for what is proposed only because nothing else can be paid: once more what no seed changes."""
        if self.session.remaining().wall_s is None or not edit.valid(proposal.recipe):
            return False
        return self.session.tree.has_tried(proposal.recipe) and not edit.seeded(proposal.recipe)

    # --- the researcher -------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """True while a question is not answered yet."""
        return self.question is not None and not self.question.answered

    def ask(self, index: int, choice: Choice, view: Tree, shown: int) -> None:
        """Ask for the proposal of an experiment. `busy` says when `taken` gives it."""
        self._begin(index, Question(choice, view, shown, len(self.session.standing.known)))

    def taken(self, index: int) -> Found:
        """The proposal, and the choice that it answers; None where people left nothing open, and while orders that came
        in meanwhile have it looked at once more.

        Raises:
            Exception: whatever the researcher raised.
        """
        question = self.question
        assert question is not None and question.answered, "an answer is there before it is taken"
        if question.failed is not None:
            self.question = None
            raise question.failed
        if question.decided != len(self.session.standing.known):
            # The rules are others now. What was answered is not asked again: the researcher knows its last question.
            self._begin(index, replace(question, decided=len(self.session.standing.known), found=None, thread=None))
            return None
        self.question = None
        return question.found

    def _begin(self, index: int, question: Question) -> None:
        self.question = question
        gate = Gate(self.session.standing.copy())
        context = self._context(index, question.view, gate)
        policy = self.session.task.search.policy
        asks = asking(self.researcher, policy, self.session.task)

        def answer() -> None:
            question.found = gate.proposal(*asks, question.choice, context)

        if not isinstance(self.researcher, Guiding):
            answer()
            return

        def beside() -> None:
            with question:
                answer()

        # A daemon: whoever interrupts the controller does not wait for a server.
        question.thread = threading.Thread(target=beside, name="question", daemon=True)
        question.thread.start()
        question.thread.join(AT_ONCE_S)

    def _context(self, index: int, view: Tree, gate: Gate) -> Context:
        session = self.session
        return Context(
            tree=gate.view(view),
            rng=self._rng(index, "propose"),
            index=index,
            affordable_s=self.affordable_s(),
            nominal_s=self._nominal_s,
            remembered=session.remembered,
            remaining=session.remaining(),
            card=session.prepared.card if session.prepared else None,
            rows=tuple(session.rows("train").values()),
            barred=gate.barred,
        )

    def _rng(self, index: int, what: str) -> Random:
        return Random(f"{self.session.task.seed}/{index}/{what}")

    def _nominal_s(self, recipe: Recipe) -> float:
        return self.session.nominal_s(recipe, self.session.plan.search)
