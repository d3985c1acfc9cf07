"""Tests of the champion on the select items in the middle of a search: what they need, and their results."""

from __future__ import annotations

from typing import Callable, Mapping

from postgrad.certify import evaluate_select, select_jobs
from postgrad.referee import Referee
from postgrad.session import Job, Session

# A test may take so much longer than forecast.
TEST_ROOM = 1.5


class Tester:
    """Says which trainings a test still needs, and records its result.

    Args:
        running: the jobs under way, by name.
        reserve_s: wall seconds that certifying needs.
    """

    def __init__(
        self, session: Session, referee: Referee, running: Mapping[str, object], reserve_s: Callable[[], float]
    ) -> None:
        self.session, self.referee, self.running, self.reserve_s = session, referee, running, reserve_s
        self._asked: tuple[object, tuple[str, str] | None] = (None, None)

    def testing(self) -> bool:
        """True while a test of the champion is owed trainings. Records its result once they have ended."""
        if self.jobs():
            return True
        if owed := self.owed():
            done = [evaluate_select(self.session, self.session.tree[name]) for name in owed]
            self.session.append(self.referee.tested(owed[0], failed=not all(done)))
            self._asked = (None, None)  # A test that failed has taught nothing, and is not owed any more.
        return False

    def jobs(self) -> list[Job]:
        """The trainings that a test still needs."""
        session = self.session
        jobs = [job for name in self.owed() for job in select_jobs(session, session.tree[name])]
        return [job for job in jobs if job.id not in session.finished]

    def owed(self) -> tuple[str, ...]:
        """The experiments of the test that is owed, if the wall-clock budget has room for it."""
        session, owed = self.session, self._to_test()
        if owed is None:
            return ()
        wall = session.remaining().wall_s
        if wall is not None:
            recipes = [session.tree[name].proposed.proposal.recipe for name in owed]
            needed = sum(session.forecast_s(recipe, session.plan.select) for recipe in recipes)
            if any(job.id in self.running for name in owed for job in select_jobs(session, session.tree[name])):
                return owed
            if TEST_ROOM * needed > wall - self.reserve_s():
                return ()
        return owed

    def _to_test(self) -> tuple[str, str] | None:
        """What the referee would test, asked again only when it has learnt something."""
        tree, looks = self.session.tree, self.session.ledger.looks
        at = (tree.ended(), tree.champion, looks["select"], self.referee.judge.control.tests)
        if self._asked[0] != at:
            self._asked = (at, self.referee.to_test())
        return self._asked[1]
