"""What an audit looks at: the log, the plan and the rows of a run, and the champion's final training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from postgrad.errors import PostgradError, UserError
from postgrad.evaluate.guards.rows import GuardPlan
from postgrad.evaluate.splits import SplitPlan, load_rows
from postgrad.events import Certified, DataPrepared, Event, JobFinished, JobStarted, Proposed, RunStarted, SealedDone
from postgrad.records import JobResult, Recipe, Record, Row
from postgrad.records.job import unit_seed
from postgrad.seal import SEALED_SEED
from postgrad.session import run_started
from postgrad.store.sqlite import SqliteStore
from postgrad.train.models import resolve_model

About = Literal["data", "lineage", "configuration", "weights", "report"]
State = Literal["clean", "finding", "unknown", "flagged", "skipped"]


class AuditCheck(Record):
    """One thing that was checked.

    Attributes:
        state: `clean`; `finding`: it is not as it must be; `unknown`: what it takes is not there; `flagged`: worth a
            look, and no fault; `skipped`: does not apply here.
        ids: of train rows that the words are about. Never a text.
    """

    about: About
    name: str
    state: State
    words: str
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """A run with a champion.

    Attributes:
        champion: its experiment.
        final: the job that trained the final model; None where none is on record.
    """

    store: SqliteStore
    events: tuple[Event, ...]
    started: RunStarted
    prepared: DataPrepared
    champion: str
    proposed: Proposed
    final: JobFinished | None

    @property
    def recipe(self) -> Recipe:
        return self.proposed.proposal.recipe

    @property
    def result(self) -> JobResult | None:
        return self.final.result if self.final else None

    @property
    def model(self) -> str | None:
        """The artefact of the final model."""
        return self.result.model if self.result else None

    @property
    def seed(self) -> int:
        """The training seed of the final model."""
        return unit_seed(self.proposed.proposal.seed + SEALED_SEED, "sealed")

    @cached_property
    def plan(self) -> SplitPlan:
        return SplitPlan.model_validate_json(self.store.artifacts.read(self.prepared.plan))

    @cached_property
    def rows(self) -> dict[str, tuple[Row, ...]]:
        """train, search, select and sealed rows, and the side rows of guards."""
        read = self.store.artifacts.read
        found = {part: load_rows(read(name)) for part, name in self.plan.rows.items()}
        guards = GuardPlan.model_validate_json(read(self.prepared.guards)) if self.prepared.guards else GuardPlan()
        return {**found, "side": load_rows(read(guards.rows)) if guards.rows else ()}

    @cached_property
    def given(self) -> tuple[Row, ...]:
        """The rows that the final job was given, in its order."""
        return tuple({row.id: row for row in self.rows["train"]}.values())

    @cached_property
    def trained(self) -> tuple[Row, ...] | None:
        """The rows that the final job says it trained on; None where they are not on record.

        Raises:
            PostgradError: the artefact is missing or damaged.
        """
        if self.result is None or self.result.trained is None:
            return None
        try:
            found = load_rows(self.store.artifacts.read(self.result.trained))
        except (ValueError, KeyError, TypeError) as broken:
            raise PostgradError(f"The record of the rows trained on cannot be read: {broken}.") from broken
        return found

    @cached_property
    def base(self) -> Path | None:
        """Folder of the recipe's base model; None where it has none, or it is not at hand."""
        if self.recipe.base_model is None:
            return None
        try:
            return resolve_model(self.recipe.base_model)
        except UserError:
            return None

    def model_facts(self, folder: Path) -> dict[str, object]:
        """What the final model says of itself in its postgrad.json; empty where that is no JSON object."""
        try:
            facts = json.loads((folder / "postgrad.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def base_hashes(self) -> tuple[str | None, ...]:
        """The content hashes under which the log knows the recipe's base model, each once."""
        of = {body.experiment: body.proposal.recipe.base_model for event in self.events if (body := _proposed(event))}
        jobs = (event.body for event in self.events if isinstance(event.body, JobStarted))
        same = (job.base_hash for job in jobs if of.get(job.experiment) == self.recipe.base_model)
        return tuple(dict.fromkeys(same))


def _proposed(event: Event) -> Proposed | None:
    return event.body if isinstance(event.body, Proposed) else None


def open_case(store: SqliteStore) -> Case:
    """Read a run.

    Raises:
        UserError: the run has no certified champion.
    """
    events = store.events()
    started = run_started(store, events)
    bodies = [event.body for event in events]
    prepared = next((body for body in bodies if isinstance(body, DataPrepared)), None)
    sealed = [body for body in bodies if isinstance(body, SealedDone)]
    certified = [body for body in bodies if isinstance(body, Certified)]
    if prepared is None or not (sealed or certified):
        raise UserError(
            f"The run {started.run} has no champion yet, so there are no final weights to check. Finish it with: "
            f"postgrad resume {started.run}"
        )
    champion = sealed[-1].read.scores[0].experiment if sealed else certified[-1].champion
    finals = [
        body
        for body in bodies
        if isinstance(body, JobFinished)
        and body.purpose == "sealed"
        and body.experiment == champion
        and body.result.model is not None
    ]
    return Case(
        store=store,
        events=events,
        started=started,
        prepared=prepared,
        champion=champion,
        proposed=next(body for body in bodies if isinstance(body, Proposed) and body.experiment == champion),
        final=finals[-1] if finals else None,
    )
