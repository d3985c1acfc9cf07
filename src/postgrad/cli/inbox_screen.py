"""How an inbox is drawn on a terminal."""

from __future__ import annotations

from datetime import datetime
from typing import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from postgrad.cli.output import facts, span
from postgrad.events import Decided, Event
from postgrad.people.ask import Asked
from postgrad.report import wording
from postgrad.report.decisions import subject
from postgrad.research.difference import recipe_changes
from postgrad.tree import Experiment

SHOWN = 12


def proposals(now: Asked, run: str) -> Iterator[RenderableType]:
    """What waits: cost, reason, expected effect, and what it changes."""
    waiting = now.tree.waiting()
    if now.standing.paused is not None:
        yield Text(f"{run} is paused by {now.standing.paused.by}: postgrad inbox {run} continue", style="yellow")
    if not waiting:
        yield Text(f"{run} waits for {now.waits}." if now.waits else f"Nothing waits in {run}.", style="dim")
        return
    yield Text(f"{wording.plural(len(waiting), 'proposal')} of {run} for you to decide", style="bold")
    for node in waiting:
        yield Text("")
        yield from _proposal(now, node)
    first = waiting[0].id
    yield Text(f"\npostgrad inbox {run} approve {first}", style="dim")
    yield Text(f'postgrad inbox {run} reject {first} --reason "why"', style="dim")


def _proposal(now: Asked, node: Experiment) -> Iterator[RenderableType]:
    proposal, choice = node.proposed.proposal, node.proposed.choice
    on = f" on {' and '.join(name for name in (choice.parent, choice.other) if name)}" if choice.parent else ""
    yield Text.assemble((node.id, "bold"), f"  {choice.move}{on}  ", (proposal.kind, "dim"))
    before = now.tree[choice.parent].proposed.proposal.recipe if choice.parent else None
    changes = ", ".join(
        f"{each.setting} {f'{wording.setting(each.before)} → ' if before else ''}{wording.setting(each.after)}"
        for each in recipe_changes(before, proposal.recipe)
    )
    rows = [
        ("change", proposal.change),
        ("settings", wording.short(changes, 400)),
        ("reason", _reason(proposal.hypothesis, choice.reason)),
        ("expected", f"{wording.signed(proposal.expected_effect)}; refuted by: {proposal.refuted_by}"),
        ("cost", f"about {span(node.proposed.forecast_s)}"),
        ("waits", node.proposed.asks),
    ]
    yield facts([(name, text) for name, text in rows if text])


def _reason(hypothesis: str, chosen: str) -> str:
    """Why it should help and why it was chosen, where that is not said already."""
    return hypothesis if not chosen or chosen in hypothesis else f"{hypothesis} Chosen because: {chosen}."


def decisions(events: tuple[Event, ...]) -> Iterator[RenderableType]:
    """The latest decisions: when, who, what, and what came of it."""
    found = [(event.at, event.body) for event in events if isinstance(event.body, Decided)]
    if not found:
        return
    yield Text(f"\nDecisions{f', the last {SHOWN}' if len(found) > SHOWN else ''}", style="bold")
    table = Table.grid(padding=(0, 2))
    for at, body in found[-SHOWN:]:
        style = "" if body.took_effect else "red"
        said = body.said if body.took_effect else f"refused: {body.said}"
        why = f" ({body.order.reason})" if body.order.reason else ""
        table.add_row(
            Text(datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M"), style="dim"),
            Text(body.order.by),
            Text(f"{body.order.wish.verb} {subject(body.order)}".strip()),
            Text(said + why, style=style),
        )
    yield table
