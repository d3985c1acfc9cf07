"""What people decided in a run, for the report and the screens: who, when, what and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Sequence

from postgrad.budget import format_budget
from postgrad.events import Decided, Event, Proposed
from postgrad.records import Ban, Grant, Inject, Order, Unban


@dataclass(frozen=True)
class Decision:
    """One order and what came of it. `at` is Unix time, `clock` controller seconds.

    Attributes:
        about: what it is about: an experiment, a kind of change, a budget; "" where it is about the run.
        led_to: the experiment that an idea became; None where it was not tried.
        experiment: the one that the order was about, or led to; None where there is none.
    """

    at: float
    clock: float
    by: str
    verb: str
    about: str
    reason: str
    took_effect: bool
    said: str
    led_to: str | None = None
    experiment: str | None = None


def decisions_of(events: Sequence[Event]) -> tuple[Decision, ...]:
    """Every decision, in order."""
    became = {e.body.order: e.body.experiment for e in events if isinstance(e.body, Proposed) and e.body.order}
    return tuple(_decision(event, event.body, became) for event in events if isinstance(event.body, Decided))


def _decision(event: Event, body: Decided, became: Mapping[str, str]) -> Decision:
    order, led_to = body.order, became.get(body.order.id)
    about = None if isinstance(order.wish, Inject) else getattr(order.wish, "experiment", None)
    return Decision(
        at=event.at,
        clock=event.clock,
        by=order.by,
        verb=order.wish.verb,
        about=subject(order),
        reason=order.reason,
        took_effect=body.took_effect,
        said=body.said,
        led_to=led_to,
        experiment=led_to or about,
    )


def subject(order: Order) -> str:
    """What an order is about, in a word or two."""
    wish = order.wish
    if isinstance(wish, Ban | Unban):
        return wish.what
    if isinstance(wish, Grant):
        return format_budget(wish.budget)
    if isinstance(wish, Inject):
        return f"{wish.kind or 'a recipe'}{f' on {wish.experiment}' if wish.experiment else ''}"
    return str(getattr(wish, "experiment", ""))
