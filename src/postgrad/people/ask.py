"""What somebody outside the controller sees of a run's inbox, read off its events and its mailbox. Writes nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

from pydantic import ValidationError

from postgrad.budget import Ledger
from postgrad.errors import UserError, near_miss
from postgrad.events import DataPrepared, Decided, Event, RunStarted, Waiting, current
from postgrad.people.decide import Situation, decided
from postgrad.people.mailbox import Reader
from postgrad.people.standing import Standing
from postgrad.records import Inject, Order, Recipe
from postgrad.tree import Experiment, Tree

IDEA_KEYS = ("recipe", "kind", "on", "change", "hypothesis", "expected_effect", "refuted_by")
MAX_BYTES = 200_000


@dataclass(frozen=True)
class Asked(Situation):
    """A run as an order will find it, if nothing happens until then. `prepared`: its data is ready; `waits`: what the
    run waits for, while it does nothing else."""

    prepared: bool
    waits: str | None = None

    def decided(self, order: Order) -> Decided:
        """What would be decided on an order now."""
        return decided(order, self)

    def unread(self, folder: Path) -> tuple[tuple[Order, ...], int]:
        """The orders in the mailbox that were not decided on, and how many lines are no orders."""
        reader = Reader(folder)
        found = {order.id: order for order in reader.new() if order.id not in self.standing.known}
        return tuple(found.values()), reader.passed_over

    def document(self, folder: Path, events: Sequence[Event]) -> dict[str, Any]:
        """The inbox as JSON."""
        unread, passed_over = self.unread(folder)
        standing = self.standing
        return {
            "run": folder.name,
            "approve": self.task.approve,
            "waiting": [_proposal(node) for node in self.tree.waiting()],
            "waits_for": self.waits,
            "paused": standing.paused,
            "stopped": standing.stopped,
            "pinned": list(standing.pins),
            "banned": list(standing.bans),
            "rejected_kinds": [sorted(kinds) for kinds in standing.barred],
            "ideas": [body.order for body in standing.ideas.values()],
            "decisions": [
                {"at": e.at, "clock": e.clock, **e.body.model_dump(mode="json", exclude={"proposal"})}
                for e in events
                if isinstance(e.body, Decided)
            ],
            "unread": list(unread),
            "passed_over": passed_over,
        }


def _proposal(node: Experiment) -> dict[str, Any]:
    return {
        "experiment": node.id,
        "parent": node.parent,
        "move": node.proposed.choice.move,
        "why_it_waits": node.proposed.asks,
        "forecast_s": node.proposed.forecast_s,
        "proposal": node.proposed.proposal,
    }


def asked(events: Sequence[Event]) -> Asked:
    """Read a run off its events.

    Raises:
        UserError: they do not begin with the start of a run.
    """
    first = events[0].body if events else None
    if not isinstance(first, RunStarted):
        raise UserError("The run was stopped before its first event: there is nothing to decide in it.")
    bodies, ledger = current(events), Ledger.from_events(first.task.budget, events)
    last, prepared = bodies.get("waiting"), bodies.get("data_prepared")
    return Asked(
        tree=Tree.from_events(events),
        standing=Standing.of(events),
        task=first.task,
        ledger=ledger,
        ended="search_ended" in bodies,
        prepared=prepared is not None,
        kinds=prepared.script.kinds if isinstance(prepared, DataPrepared) and prepared.script else (),
        waits=last.why if isinstance(last, Waiting) and ledger.waits_since is not None else None,
    )


def wish_of_file(path: Path, on: str | None) -> Inject:
    """An idea from a YAML or JSON file: a recipe, or an object with `recipe` or `kind` and words for it.

    Raises:
        UserError: the file cannot be read, or holds no idea.
    """
    import yaml

    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise UserError(f"{path} is larger than {MAX_BYTES:,} bytes, so it is no idea. Name the file of a recipe.")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as wrong:
        raise UserError(f"{path} cannot be read: {wrong.strerror or wrong}. Name a YAML or JSON file.") from wrong
    except (ValueError, yaml.YAMLError, RecursionError) as wrong:
        raise UserError(f"{path} cannot be read: {str(wrong).splitlines()[0]}") from wrong
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no recipe. Expected keys such as stage, data and base_model.")
    # YAML reads a bare `on` as true.
    return wish_of({"on" if key is True else str(key): value for key, value in found.items()}, on, str(path))


def wish_of(found: Mapping[str, Any], on: str | None, where: str) -> Inject:
    """An idea from an object: the keys of a recipe, or `IDEA_KEYS`.

    Raises:
        UserError: it holds no idea; the message names every problem.
    """
    told: dict[str, Any] = {"recipe": dict(found)} if "stage" in found else dict(found)
    if unknown := [str(key) for key in told if key not in IDEA_KEYS]:
        hint = near_miss(unknown[0], IDEA_KEYS)
        raise UserError(
            f"{where}: unknown key '{unknown[0]}'.{hint} Known: {', '.join(IDEA_KEYS)}, or those of a recipe."
        )
    if on is not None:
        told["on"] = on
    try:
        recipe = Recipe.model_validate(told["recipe"]) if told.get("recipe") is not None else None
        words = {key: told[key] for key in IDEA_KEYS[3:] if told.get(key) is not None}
        return Inject.model_validate(
            {"recipe": recipe, "kind": told.get("kind"), "experiment": told.get("on"), **words}
        )
    except ValidationError as wrong:
        problems = [f"{'.'.join(map(str, each['loc'])) or 'idea'}: {each['msg']}" for each in wrong.errors()[:10]]
        raise UserError(f"{where} holds no idea that can be read: {'; '.join(problems)}") from wrong
    except RecursionError as wrong:
        raise UserError(f"{where} is nested too deep to be a recipe.") from wrong
