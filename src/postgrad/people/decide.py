"""Whether an order can take effect, and what it does then, in words. The terminal and the controller ask the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatch
from typing import NoReturn

from postgrad.budget import Ledger, format_budget, merge
from postgrad.errors import UserError, near_miss
from postgrad.events import Decided
from postgrad.people.gate import Gate, Rule
from postgrad.people.ideas import edited, injected, kinds_in, known_kinds
from postgrad.people.standing import Standing, kinds_of
from postgrad.records import (
    Approve,
    Ban,
    Continue,
    Edit,
    Grant,
    Inject,
    Order,
    Pause,
    Pin,
    Proposal,
    Recipe,
    Reject,
    Stop,
    TaskSpec,
    Unban,
    Unpin,
)
from postgrad.research.novelty import Tried, near
from postgrad.tree import Experiment, Tree


@dataclass(frozen=True)
class Situation:
    """What an order is judged by. `ended`: the search has ended; `kinds`: those known for the files of a script."""

    tree: Tree
    standing: Standing
    task: TaskSpec
    ledger: Ledger
    ended: bool
    kinds: tuple[str, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Effect:
    """What an order does: in words, and the proposal that it makes or leaves."""

    said: str
    proposal: Proposal | None = None


class Refused(Exception):
    """An order cannot take effect. The text says why, and what to do."""


def decided(order: Order, now: Situation) -> Decided:
    """The decision on an order. It is a pure function of the log so far."""
    try:
        if now.ended:
            _refuse("The search has ended. To search on, and why: postgrad resume RUN --again REASON --budget MORE")
        effect = _effect(order.wish, order, now)
    except Refused as refused:
        return Decided(order=order, took_effect=False, said=str(refused))
    except UserError as wrong:
        return Decided(order=order, took_effect=False, said=str(wrong))
    return Decided(order=order, took_effect=True, said=effect.said, proposal=effect.proposal)


def _refuse(why: str) -> NoReturn:
    raise Refused(why)


@singledispatch
def _effect(wish: object, order: Order, now: Situation) -> Effect:
    raise AssertionError(f"no rule for {type(wish).__name__}")


# --- proposals that wait ----------------------------------------------------------------------------------------------


def _there(name: str, now: Situation) -> Experiment:
    known = now.tree.experiments
    if name not in known:
        there = f"They go from {next(iter(known))} to {list(known)[-1]}." if known else "It has none yet."
        _refuse(f"The run has no experiment '{name}'.{near_miss(name, known)} {there}")
    return known[name]


def _waiting(name: str, now: Situation) -> Experiment:
    """The experiment, if it waits for a person."""
    node = _there(name, now)
    if node.waits:
        return node
    waiting = ", ".join(each.id for each in now.tree.waiting()) or "none"
    if node.decided is not None:
        state = f"was decided on by {node.decided.order.by}: {node.decided.said}"
    elif node.analysis is not None:
        state = "has ended"
    elif node.proposed.asks:
        state = "was decided on"
    else:
        state = "needs no approval: it is under way, or next"
    _refuse(f"{name} does not wait: it {state}. Waiting: {waiting}.")


@_effect.register
def _(wish: Approve, order: Order, now: Situation) -> Effect:
    _waiting(wish.experiment, now)
    return Effect(f"{wish.experiment} is approved")


@_effect.register
def _(wish: Reject, order: Order, now: Situation) -> Effect:
    node = _waiting(wish.experiment, now)
    if wish.only_this:
        return Effect(f"{node.id} is not tried")
    kinds = sorted(kinds_of(node.proposed.proposal, node.proposed.choice))
    together = " together" if len(kinds) > 1 else ""
    return Effect(f"{node.id} is not tried, and {' and '.join(kinds)}{together} is not proposed again")


@_effect.register
def _(wish: Edit, order: Order, now: Situation) -> Effect:
    node = _waiting(wish.experiment, now)
    found = edited(node.proposed.proposal, wish, order, now.task, now.tree, now.standing.ideas)
    then = " and approved" if wish.approve else ", and waits on"
    return Effect(f"{node.id} is edited{then}: {found.change}", found)


@_effect.register
def _(wish: Inject, order: Order, now: Situation) -> Effect:
    if wish.experiment is not None:
        _there(wish.experiment, now)
    found = injected(wish, order, now.task, now.tree, now.standing.ideas)
    if wish.asks:
        _within_rules(found, wish.experiment, now)
    return Effect(f"it is proposed next: {found.change}{_repeats(found.recipe, wish, now)}", found)


def _repeats(recipe: Recipe, wish: Inject, now: Situation) -> str:
    """What the store knows of an idea that was tried already, for a person to read. A program's is refused, and so is
    one that does the very same."""
    same = Tried(now.tree).repeat(recipe)
    if same is not None and (wish.asks or not same.changes):
        _refuse(f"Nothing new: {same.told}. Propose something else, or see: postgrad show RUN {same.node.id}")
    ideas = ((idea.order.by, idea.proposal) for idea in now.standing.ideas.values())
    queued = (by for by, proposal in ideas if proposal is not None and near(proposal.recipe, recipe))
    if wish.asks and (by := next(queued, None)) is not None:
        _refuse(f"{by} put in an idea that differs from it by next to nothing, and it is proposed next. Wait for that.")
    return "" if same is None else f". Note: {same.told}"


def _within_rules(idea: Proposal, parent: str | None, now: Situation) -> None:
    """Refuse a program's idea that goes where people closed the way. A person's own idea is an exception to a rule."""
    rule = _against(idea, parent, now, now.standing)
    if rule is not None:
        why = f" ({rule.order.reason})" if rule.order.reason else ""
        _refuse(
            f"{rule.said}: {rule.order.by} decided that{why}. Propose something else, or ask a person to lift it: "
            f"postgrad inbox RUN {rule.lifted_by}"
        )


def _against(idea: Proposal, parent: str | None, now: Situation, rules: Standing) -> Rule | None:
    """What stands against an idea; None where nothing does."""
    gate = Gate(rules)
    if gate.open:
        return None
    before = now.tree[parent].proposed.proposal.recipe if parent is not None else None
    return gate.closed(parent, now.tree) or gate.against(kinds_in(idea, before, now.task))


def declined(taken: Decided, now: Situation) -> Decided | None:
    """The decision on an idea that was taken and is not proposed yet, where a rule that was made since stands against
    it; None where it is still to be tried. Rules from before do not count: whoever put it in knew them."""
    order, idea = taken.order, taken.proposal
    assert isinstance(order.wish, Inject) and idea is not None, "an idea that was taken"
    rule = _against(idea, order.wish.experiment, now, now.standing.since(order.id))
    if rule is None:
        return None
    why = f" ({rule.order.reason})" if rule.order.reason else ""
    said = (
        f"it is not tried after all: {rule.said}, {rule.order.by} decided that after the idea was taken{why}. To have "
        f"it tried, put it in again after: postgrad inbox RUN {rule.lifted_by}"
    )
    return Decided(order=order, took_effect=False, said=said)


# --- where the search may go ------------------------------------------------------------------------------------------


@_effect.register
def _(wish: Pin, order: Order, now: Situation) -> Effect:
    node = _there(wish.experiment, now)
    if node.id in now.standing.pins:
        _refuse(f"{node.id} is pinned already.")
    return Effect(f"only {node.id} and what is below it is extended")


@_effect.register
def _(wish: Unpin, order: Order, now: Situation) -> Effect:
    pins = now.standing.pins
    if wish.experiment not in pins:
        _refuse(f"{wish.experiment} is not pinned. Pinned: {', '.join(pins) or 'nothing'}.")
    return Effect(f"{wish.experiment} is not pinned any more")


@_effect.register
def _(wish: Ban, order: Order, now: Situation) -> Effect:
    if wish.what in now.standing.bans:
        _refuse(f"{wish.what} is banned already.")
    if wish.what in now.tree.experiments:
        return Effect(f"{wish.what} and what is below it is not extended any more")
    known = known_kinds(now.task, now.tree, now.kinds)
    if wish.what not in known:
        _refuse(
            f"'{wish.what}' is neither an experiment of the run nor a kind of change.{near_miss(wish.what, known)} "
            f"Kinds: {', '.join(known)}."
        )
    return Effect(f"changes of the kind {wish.what} are not proposed any more")


@_effect.register
def _(wish: Unban, order: Order, now: Situation) -> Effect:
    barred = {kind for kinds in now.standing.barred for kind in kinds}
    if wish.what not in now.standing.bans and wish.what not in barred:
        _refuse(f"{wish.what} is not banned. Banned: {', '.join([*now.standing.bans, *sorted(barred)]) or 'nothing'}.")
    return Effect(f"{wish.what} is not banned any more")


# --- the run ----------------------------------------------------------------------------------------------------------


@_effect.register
def _(wish: Grant, order: Order, now: Situation) -> Effect:
    granted = merge(now.ledger.granted, wish.budget)
    spent = now.ledger.spent
    pairs = ((granted.wall_s, spent.wall_s), (granted.experiments, spent.experiments))
    if any(limit is not None and limit <= used for limit, used in pairs):
        _refuse(
            f"The budget {format_budget(wish.budget)} is spent already; it is for the whole run, what is spent "
            "included. To end the search, order: stop"
        )
    return Effect(f"the budget is {format_budget(granted)}, what is spent included")


@_effect.register
def _(wish: Pause, order: Order, now: Situation) -> Effect:
    if now.standing.paused is not None:
        _refuse(f"The run is paused already, by {now.standing.paused.by}.")
    return Effect("nothing new is started until it is continued")


@_effect.register
def _(wish: Continue, order: Order, now: Situation) -> Effect:
    if now.standing.paused is None:
        _refuse("The run is not paused.")
    return Effect("the run goes on")


@_effect.register
def _(wish: Stop, order: Order, now: Situation) -> Effect:
    if now.standing.stopped is not None:
        _refuse(f"The search was stopped already, by {now.standing.stopped.by}.")
    return Effect("the search ends, and what there is is certified")
