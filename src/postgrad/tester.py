"""Tests of the champion on the select items in the middle of a search: what they need, and their results."""

from __future__ import annotations

from typing import Callable

from postgrad.certify import evaluate_select, select_jobs
from postgrad.events import TestBegun
from postgrad.referee import Referee
from postgrad.session import Job, Session

# A test may take so much longer than forecast.
TEST_ROOM = 1.5


class Tester:
    """Begins tests, says which trainings one still needs, and records its result.

    Args:
        reserve_s: wall seconds that certifying needs.
    """

    def __init__(self, session: Session, referee: Referee, reserve_s: Callable[[], float]) -> None:
        self.session, self.referee, self.reserve_s = session, referee, reserve_s
        self._asked: tuple[object, tuple[str, str] | None] = (None, None)

    def holds(self, *, last: bool = False) -> bool:
        """Begin a test that is owed, and take in the result of one that is due. True while nothing may be closed: a
        result is due, and trainings of it have not ended.

        Args:
            last: nothing is proposed before the result is known, or ever: it is due as soon as everything has ended.
        """
        while (test := self._begun()) is not None and self._is_due(test, last):
            if self.jobs():
                return True
            self._take_in(test)
        return False

    def testing(self) -> bool:
        """True while a test is under way. Begins one that is owed."""
        return self._begun() is not None

    def jobs(self) -> list[Job]:
        """The trainings that the test still needs."""
        session, test = self.session, self.referee.test
        if test is None:
            return []
        jobs = [job for name in (test.experiment, test.against) for job in select_jobs(session, session.tree[name])]
        return [job for job in jobs if job.id not in session.finished]

    def _begun(self) -> TestBegun | None:
        """The test that is under way, or the one that is owed, if the wall-clock budget has room for it.

        Its result is due when everything has ended that may be open beside the next experiment: with one worker, before
        anything else is closed."""
        if self.referee.test is None and (owed := self._to_test()) is not None and self._has_room(owed):
            due = self.session.tree.ended() + 2 * (self.session.executor.engine.slots - 1)
            self.session.append(self.referee.begun(*owed, due))
        return self.referee.test

    def _is_due(self, test: TestBegun, last: bool) -> bool:
        tree = self.session.tree
        return tree.ended() >= test.due or (last and all(node.waits for node in tree.pending()))

    def _take_in(self, test: TestBegun) -> None:
        assert test.against == self.referee.kept, "nothing is kept but by a test, and one is under way at a time"
        done = [evaluate_select(self.session, self.session.tree[name]) for name in (test.experiment, test.against)]
        self.session.append(self.referee.tested(test.experiment, failed=not all(done)))
        self._asked = (None, None)  # A test that failed has taught nothing, and is not owed any more.

    def _has_room(self, owed: tuple[str, str]) -> bool:
        session = self.session
        wall = session.remaining().wall_s
        if wall is None:
            return True
        jobs = [job for name in owed for job in select_jobs(session, session.tree[name])]
        needed = sum(session.forecast_s(job.recipe, job.units) for job in jobs if job.id not in session.finished)
        return TEST_ROOM * needed <= wall - self.reserve_s()

    def _to_test(self) -> tuple[str, str] | None:
        """What the referee would test, asked again only when it has learnt something."""
        tree, looks = self.session.tree, self.session.ledger.looks
        at = (tree.ended(), tree.champion, looks["select"], self.referee.judge.control.tests)
        if self._asked[0] != at:
            self._asked = (at, self.referee.to_test())
        return self._asked[1]
