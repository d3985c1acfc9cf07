"""What people have decided in a run so far: a fold over its events."""

from __future__ import annotations

from typing import Iterable

from postgrad.events import Body, Decided, Event, Proposed, Reopened
from postgrad.records import Ban, Choice, Continue, Inject, Order, Pause, Pin, Proposal, Reject, Stop, Unban, Unpin

SEVERAL = "several."


def kinds_of(proposal: Proposal, choice: Choice) -> frozenset[str]:
    """The kinds of change that make a proposal: those that it says it carried out, else those of the choice that it
    answers, where it made several, else its own."""
    carried = proposal.carried_out
    if carried is not None and carried.kinds:
        return frozenset(carried.kinds)
    several = choice.kinds if proposal.kind.startswith(SEVERAL) else ()
    return frozenset(several or [proposal.kind])


# What experiments are, which nothing changes: as many entries as experiments, so they are shared and not copied.
GROWING = ("_kinds", "_same")


class Standing:
    """The orders that hold now. Rebuilt from the log, so it is the same after a kill.

    Attributes:
        known: ids of the orders that were decided on.
        asked: True once a proposal had to wait.
        paused, stopped: the order that did it; None where nothing is paused, or nobody stopped the search.
        pins: experiment -> the order that pinned it.
        bans: experiment or kind of change -> the order that banned it.
        barred: what rejections bar: kinds of change that are not proposed together again -> the rejection.
        ideas: ideas that are not proposed yet, in the order they came.
    """

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.asked = False
        self.paused: Order | None = None
        self.stopped: Order | None = None
        self.pins: dict[str, Order] = {}
        self.bans: dict[str, Order] = {}
        self.barred: dict[frozenset[str], Order] = {}
        self.ideas: dict[str, Decided] = {}
        self._kinds: dict[str, frozenset[str]] = {}
        self._same: dict[frozenset[str], frozenset[str]] = {}
        self._turns: dict[str, int] = {}

    @classmethod
    def of(cls, events: Iterable[Event]) -> Standing:
        """What holds after these events."""
        standing = cls()
        for event in events:
            standing.fold(event.body)
        return standing

    def copy(self) -> Standing:
        """The same orders, for somebody who looks while further ones come in."""
        other = Standing()
        for name, value in vars(self).items():
            shared = name in GROWING or not isinstance(value, dict | set)
            setattr(other, name, value if shared else value.copy())
        return other

    def fold(self, body: Body) -> None:
        """Take in one more event."""
        if isinstance(body, Proposed):
            self.asked = self.asked or bool(body.asks)
            kinds = kinds_of(body.proposal, body.choice)
            self._kinds[body.experiment] = self._same.setdefault(kinds, kinds)
            if body.order is not None:
                self.ideas.pop(body.order, None)
        elif isinstance(body, Reopened):
            self.paused = self.stopped = None
        elif isinstance(body, Decided):
            self.known.add(body.order.id)
            self._turns.setdefault(body.order.id, len(self._turns))
            if body.took_effect:
                self._take(body)
            else:
                self.ideas.pop(body.order.id, None)  # An idea that was taken, and is declined after all.

    def since(self, order: str) -> Standing:
        """The rules that people made after an order. Where one of them is a pin, earlier pins stay open too."""
        later, turn = Standing(), self._turns[order]
        if any(self._turns[each.id] > turn for each in self.pins.values()):
            later.pins = self.pins
        later.bans = {what: each for what, each in self.bans.items() if self._turns[each.id] > turn}
        later.barred = {kinds: each for kinds, each in self.barred.items() if self._turns[each.id] > turn}
        return later

    def _take(self, body: Decided) -> None:
        order, wish = body.order, body.order.wish
        if isinstance(wish, Reject) and not wish.only_this:
            self.barred[self._kinds[wish.experiment]] = order
        elif isinstance(wish, Inject):
            self.ideas[order.id] = body
        elif isinstance(wish, Pin):
            self.pins[wish.experiment] = order
        elif isinstance(wish, Unpin):
            self.pins.pop(wish.experiment, None)
        elif isinstance(wish, Ban):
            self.bans[wish.what] = order
        elif isinstance(wish, Unban):
            self.bans.pop(wish.what, None)
            self.barred = {kinds: by for kinds, by in self.barred.items() if wish.what not in kinds}
        elif isinstance(wish, Pause):
            self.paused = order
        elif isinstance(wish, Continue):
            self.paused = None
        elif isinstance(wish, Stop):
            self.stopped = order
