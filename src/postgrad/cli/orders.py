"""What `inbox` does: from words to an order, into the mailbox, and what came of it."""

from __future__ import annotations

import getpass
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Mapping

from postgrad.budget import parse_budget
from postgrad.cli.output import console, print_json
from postgrad.cli.reading import experiment_id
from postgrad.cli.runs import find_run, is_being_written
from postgrad.errors import UserError, near_miss
from postgrad.events import Decided, Event
from postgrad.people.ask import Asked, asked, wish_of_file
from postgrad.people.mailbox import new_order, post
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
    Reject,
    Stop,
    Unban,
    Unpin,
    Value,
    Wish,
)
from postgrad.store.sqlite import SqliteStore
from postgrad.tree import Tree

if TYPE_CHECKING:
    from rich.console import RenderableType

# Seconds in which a controller that runs is expected to decide.
PATIENCE_S = 5.0
POLL_S = 0.05
# What is longer is no name of a file.
LONGEST_NAME = 250


@dataclass(frozen=True)
class Given:
    """What a person wrote after `inbox RUN`."""

    verb: str
    what: str | None
    reason: str
    only_this: bool
    settings: tuple[str, ...]
    approve: bool
    on: str | None


def _experiment(given: Given, tree: Tree) -> str:
    return experiment_id(_needed(given, "an experiment, such as e0007"), tree)


def _needed(given: Given, what: str) -> str:
    if given.what is None:
        raise UserError(f"`inbox RUN {given.verb}` needs {what}. What can be ordered: postgrad inbox --help")
    return given.what


def _edit(given: Given, tree: Tree) -> Edit:
    changes: dict[str, Value] = {}
    for text in given.settings:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UserError(
                f"Cannot read the setting '{text}'. Write it as NAME=VALUE, for example: --set stage.lr=1e-4"
            )
        changes[name.strip()] = _value(value)
    if not changes:
        raise UserError("`edit` changes settings, and none was given. For example: --set stage.lr=1e-4")
    return Edit(experiment=_experiment(given, tree), changes=changes, approve=given.approve)


def _value(text: str) -> Value:
    """A value as YAML reads it, with numbers such as 1e-4, which YAML takes for text."""
    import yaml

    try:
        return float(text) if "e" in text.lower() and not text.isalpha() else _plain(yaml.safe_load(text))
    except (ValueError, yaml.YAMLError):
        return text


def _plain(value: Any) -> Value:
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _inject(given: Given, tree: Tree) -> Inject:
    what = _needed(given, "a file with a recipe, or a kind of change such as method.partial")
    on = experiment_id(given.on, tree) if given.on else None
    path = Path(what)
    if path.suffix in (".yaml", ".yml", ".json") or (len(what) < LONGEST_NAME and path.is_file()):
        return wish_of_file(path, on)
    return Inject(kind=what, experiment=on, hypothesis=given.reason[:500])


def _somewhere(given: Given, tree: Tree) -> str:
    """An experiment, or a kind of change."""
    what = _needed(given, "an experiment or a kind of change, such as e0007 or method.partial")
    return experiment_id(what, tree) if what.removeprefix("e").isdecimal() else what


def _reject(given: Given, tree: Tree) -> Reject:
    if not given.reason.strip():
        raise UserError('A rejection needs a reason: the search learns from it. Add: --reason "why"')
    return Reject(experiment=_experiment(given, tree), only_this=given.only_this)


VERBS: Mapping[str, Callable[[Given, Tree], Wish]] = {
    "approve": lambda given, tree: Approve(experiment=_experiment(given, tree)),
    "reject": _reject,
    "edit": _edit,
    "inject": _inject,
    "pin": lambda given, tree: Pin(experiment=_experiment(given, tree)),
    "unpin": lambda given, tree: Unpin(experiment=_experiment(given, tree)),
    "ban": lambda given, tree: Ban(what=_somewhere(given, tree)),
    "unban": lambda given, tree: Unban(what=_somewhere(given, tree)),
    "budget": lambda given, tree: Grant(budget=parse_budget(_needed(given, "a budget, such as 2h"))),
    "pause": lambda given, tree: Pause(),
    "continue": lambda given, tree: Continue(),
    "stop": lambda given, tree: Stop(),
}


# --- giving an order --------------------------------------------------------------------------------------------------


def give(runs_dir: Path, run: str, given: Given, who: str | None, *, as_json: bool) -> None:
    """Put an order into a run's mailbox and say what came of it.

    Raises:
        UserError: no such verb or run, an order that is refused here or by the run.
    """
    folder = find_run(runs_dir, run)
    if given.verb not in VERBS:
        raise UserError(f"There is no order '{given.verb}'.{near_miss(given.verb, VERBS)} Known: {', '.join(VERBS)}.")
    with SqliteStore.open(folder, write=False) as store:
        now = asked(store.events())
        order = new_order(VERBS[given.verb](given, now.tree), who or login(), given.reason)
        refused = now.decided(order)
        if not refused.took_effect:
            raise UserError(refused.said)
        post(folder, order)
        found = wait_for(store, order, folder)
    if found is not None and not found.took_effect:
        raise UserError(found.said)
    if as_json:
        print_json(order_document(order, found))
    elif found is not None:
        console().print(f"Done: {found.said}.", markup=False)
    else:
        console().print(_later(folder), markup=False)


def _later(folder: Path) -> str:
    if is_being_written(folder):
        return "The order is in the run's mailbox; the run is busy and has not read it yet."
    return f"Nobody drives {folder.name} now. The order takes effect with: postgrad resume {folder.name}"


def login() -> str:
    """Who gives an order, where nothing else is said."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return f"user {os.getuid()}"


def wait_for(store: SqliteStore, order: Order, folder: Path, patience_s: float = PATIENCE_S) -> Decided | None:
    """What the run decided; None where no controller does within the time."""
    after, end = 0, time.monotonic() + patience_s
    while is_being_written(folder) and time.monotonic() < end:
        events = store.events(after)
        for event in events:
            if isinstance(event.body, Decided) and event.body.order.id == order.id:
                return event.body
        after = events[-1].seq if events else after
        time.sleep(POLL_S)
    return None


def order_document(order: Order, found: Decided | None) -> dict[str, Any]:
    """An order as JSON: `state` is decided, or waiting where nobody has read it yet."""
    return {
        "order": order.id,
        "verb": order.wish.verb,
        "by": order.by,
        "state": "waiting" if found is None else "decided",
        "took_effect": found.took_effect if found else None,
        "said": found.said if found else None,
    }


# --- looking into the inbox -------------------------------------------------------------------------------------------


def show_inbox(runs_dir: Path, run: str, given: Given, *, as_json: bool) -> None:
    """List what waits and what was decided."""
    folder = find_run(runs_dir, run)
    with SqliteStore.open(folder, write=False) as store:
        events = store.events()
    now = asked(events)
    unread, passed_over = now.unread(folder)
    if as_json:
        print_json(now.document(folder, events))
    else:
        console().print(_drawn(folder, now, events, unread, passed_over))


def _drawn(
    folder: Path, now: Asked, events: tuple[Event, ...], unread: tuple[Order, ...], passed_over: int
) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from postgrad.cli.inbox_screen import decisions, proposals

    parts: list[RenderableType] = [*proposals(now, folder.name), *decisions(events)]
    if unread:
        verbs = ", ".join(order.wish.verb for order in unread)
        parts.append(Text(f"\nNot read by the run yet: {verbs}. {_later(folder)}", style="yellow"))
    if passed_over:
        parts.append(Text(f"\n{passed_over} lines of the mailbox are no orders, and were passed over.", style="yellow"))
    return Group(*parts)
