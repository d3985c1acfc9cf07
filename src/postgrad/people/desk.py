"""The controller's side of the mailbox: what waits for a person, what people ordered, and what came of it.

Decisions are events, appended where the loop reads the mailbox; everything else follows from the log. An order that is
in the log is never decided on again.
"""

from __future__ import annotations

import time
from typing import Callable

from postgrad.budget import HOUR, format_duration
from postgrad.events import Decided, Waiting, WentOn
from postgrad.people.decide import Situation, decided, declined
from postgrad.people.gate import Gate
from postgrad.people.mailbox import Reader
from postgrad.records import ApproveSpec, Budget, Proposal
from postgrad.session import Session

# Without a threshold of its own, a proposal is expensive that would take more than this share of the time granted.
SHARE = 0.1


def threshold_s(spec: ApproveSpec, granted: Budget) -> float | None:
    """Wall seconds above which a proposal is expensive; None where nothing says so."""
    if spec.above is not None:
        return spec.above
    if granted.wall_s is not None:
        return SHARE * granted.wall_s
    return SHARE * granted.cpu_hours * HOUR if granted.cpu_hours is not None else None


class Desk:
    """Decides on orders for one run.

    Args:
        finishing: whether the person at the controller asked it to finish.
    """

    def __init__(self, session: Session, finishing: Callable[[], bool]) -> None:
        self.session, self._finishing = session, finishing
        self._reader = Reader(session.store.folder)
        self.gate = Gate(session.standing)
        self._asked: tuple[int, float] | None = None
        self._given_up: int | None = None
        self._full = False

    # --- orders ---------------------------------------------------------------------------------------------------

    def read(self) -> bool:
        """Decide on the orders that came in; True where one took effect."""
        session, effect = self.session, False
        for order in self._reader.new():
            if order.id in session.standing.known:
                continue
            found = decided(order, self._situation)
            if found.proposal is not None:
                recipe, units = found.proposal.recipe, session.plan.search
                costs = {"nominal_s": session.nominal_s(recipe, units), "forecast_s": session.forecast_s(recipe, units)}
                found = found.model_copy(update=costs)
            session.append(found)
            effect = effect or found.took_effect
            self._decline()
        if effect and session.ledger.waits_since is not None:
            session.append(WentOn())
        return effect

    @property
    def _ended(self) -> bool:
        return self.session.search_ended is not None

    @property
    def stopping(self) -> bool:
        """True when a person ended the search, here or by an order."""
        return self._finishing() or self.session.standing.stopped is not None

    @property
    def why_stopped(self) -> str:
        order = self.session.standing.stopped
        if order is None or self._finishing():
            return "stopped by the user"
        return f"stopped by {order.by}" + (f": {order.reason}" if order.reason else "")

    @property
    def paused(self) -> bool:
        return self.session.standing.paused is not None and not self.stopping

    def idea(self) -> Decided | None:
        """The next idea that a person or a program put in and that is still open; None where there is none."""
        self._decline()
        return next(iter(self.session.standing.ideas.values()), None)

    def _decline(self) -> None:
        """Turn away ideas that people closed the way of since they were taken."""
        session = self.session
        for taken in tuple(session.standing.ideas.values()):
            if (found := declined(taken, self._situation)) is not None:
                session.append(found)

    @property
    def _situation(self) -> Situation:
        session = self.session
        known = session.prepared.script if session.prepared else None
        kinds = known.kinds if known else ()
        return Situation(session.tree, session.standing, session.task, session.ledger, self._ended, kinds=kinds)

    # --- approval -------------------------------------------------------------------------------------------------

    def asks(self, proposal: Proposal) -> str:
        """Why a proposal waits for a person; "" where it does not."""
        spec = self.session.task.approve
        if spec.when == "all":
            return "every proposal is to be approved"
        limit = threshold_s(spec, self.session.ledger.granted)
        if spec.when == "never" or limit is None:
            return ""
        forecast = self.forecast_s(proposal)
        if forecast <= limit:
            return ""
        return f"it is forecast to take {format_duration(forecast)}, and {format_duration(limit)} need no approval"

    def forecast_s(self, proposal: Proposal) -> float:
        """Wall seconds that a proposal is expected to take."""
        return self.session.forecast_s(proposal.recipe, self.session.plan.search)

    def full(self, lookahead: int) -> bool:
        """True while so many proposals wait that no more are made. Of cheap ones there may always be more."""
        most = lookahead if self.session.task.approve.when == "all" else 2 * lookahead
        self._full = self.session.standing.asked and len(self.session.tree.waiting()) >= most
        return self._full

    def cheap_s(self, lookahead: int) -> float | None:
        """Wall seconds that the next proposal should stay below, because enough dear ones wait; None for no limit."""
        session = self.session
        if session.task.approve.when != "expensive" or len(session.tree.waiting()) < lookahead:
            return None
        return threshold_s(session.task.approve, session.ledger.granted)

    # --- waiting --------------------------------------------------------------------------------------------------

    def waits(self) -> str | None:
        """What the run waits for while only a person can make it go on; None when it goes on. Reads the mailbox."""
        self.read()
        if self.session.ledger.waits_since is None:
            return None
        why = self._why()
        if why is None or self._finishing():
            self.session.append(WentOn())
            return None
        return why

    def wait(self) -> None:
        """Nothing is under way and nothing was done: from here on only a person makes the run go on, if one can."""
        why = self._why()
        if why is not None and self.session.ledger.waits_since is None:
            self.session.append(Waiting(why=why))

    def _why(self) -> str | None:
        standing, waiting = self.session.standing, self.session.tree.waiting()
        if standing.paused is not None:
            return f"paused by {standing.paused.by}"
        if self._outside:  # The playbook fills in for it, whatever waits for approval.
            return "an idea from outside" if self._in_time() and not self.session.standing.ideas else None
        names = ", ".join(node.id for node in waiting)
        if waiting:
            return f"{names} {'waits' if len(waiting) == 1 else 'wait'} for approval"
        return None

    @property
    def _outside(self) -> bool:
        """True while an idea from outside is what the next experiment waits for, or waited for until just now."""
        index = len(self.session.tree)
        asked = self._asked is not None and self._asked[0] == index and self._given_up != index
        return asked and not self._full

    def awaits(self, index: int) -> bool:
        """True while whoever is outside is given time to put in an idea for this experiment. The time begins when it is
        first asked, and anew after a resume."""
        spec = self.session.task.researcher
        if isinstance(spec, str) or spec.kind != "outside" or self.stopping:
            return False
        if self._asked is None or self._asked[0] != index:
            self._asked = index, time.monotonic()
        if self._in_time():
            return True
        self._given_up = index
        return False

    def _in_time(self) -> bool:
        spec = self.session.task.researcher
        assert self._asked is not None and not isinstance(spec, str)
        return time.monotonic() - self._asked[1] < spec.wait_s
