"""The researcher that a task names, with all that it needs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Sequence

from postgrad.errors import UserError
from postgrad.llm.base import Patience, Price, Provider, Settings
from postgrad.llm.keys import Keys
from postgrad.llm.presets import connect
from postgrad.records import ModelSpec, ResearcherSpec, TaskSpec
from postgrad.research import RESEARCHERS
from postgrad.research.asking import Asking, Proposer
from postgrad.research.base import Researcher
from postgrad.research.command import NAME, Command, Program
from postgrad.research.language_model import LanguageModel, patient
from postgrad.research.proposers import PLAYBOOK

RECORD = "asked.jsonl"
OUTSIDE = "outside"
# Where a program works, in the run's folder.
SCRATCH = "researcher"
# One reply may take so much of a budget of time, and never less than a few seconds.
SHARE, LEAST_S = 0.05, 5.0


def researcher_of(task: TaskSpec, folder: Path) -> Researcher:
    """The researcher of a run in this folder.

    Raises:
        UserError: a key, a library, a price or a program is missing.
    """
    spec = task.researcher
    if isinstance(spec, str):
        return RESEARCHERS.get(spec)
    if spec.kind == OUTSIDE:
        return RESEARCHERS.get(PLAYBOOK)  # For what nobody put an idea in.
    program = Program(spec.command, folder / SCRATCH, timeout_s(task, spec), spec.env)
    return Asking(proposers_of(task, spec, folder, program), spec)


def proposers_of(task: TaskSpec, spec: ResearcherSpec, folder: Path, program: Program) -> Sequence[Proposer]:
    """Who is asked in a run in this folder: models, or this program where the task names one.

    Raises:
        UserError: a key, a library, a price or a program is missing.
    """
    record = folder / RECORD
    if spec.kind == NAME:
        ready(task)
        return [Command(spec, program, record)]
    models, rules = zip(spec.models, providers(task, spec), strict=True), patient(timeout_s(task, spec))
    return [LanguageModel(model, spec, provider, record, rules) for model, provider in models]


def ready(task: TaskSpec) -> None:
    """Say what the researcher of a task lacks, before anything is spent. Nothing is sent.

    Raises:
        UserError: a key, a library, a price or a program is missing.
    """
    spec = task.researcher
    if not isinstance(spec, ResearcherSpec):
        return
    if spec.command and shutil.which(spec.command[0]) is None:
        raise UserError(
            f"The program {spec.command[0]!r} of researcher.command is not there, or cannot be run. Check its name and "
            "that it is on the path."
        )
    providers(task, spec)


def timeout_s(task: TaskSpec, spec: ResearcherSpec) -> float:
    """Seconds that one reply may take: short beside the budget."""
    wall = task.budget.wall_s
    return spec.timeout_s if wall is None else min(spec.timeout_s, max(LEAST_S, SHARE * wall))


def providers(task: TaskSpec, spec: ResearcherSpec) -> list[Provider]:
    """Providers of the models of a task, in their order, sharing what keeps keys out of messages.

    Raises:
        UserError: a key or a library is missing, or under a budget of dollars the price of a model.
    """
    keys = Keys()
    keys.redactor.watch()
    found = [connect(_settings(model, timeout_s(task, spec)), keys) for model in spec.models]
    for model, provider in zip(spec.models, found, strict=True):
        if task.budget.usd is not None and provider.price is None:
            raise UserError(
                f"What {model.called} costs is not known, and the budget counts dollars. Give its price in dollars per "
                "million tokens, as price: {input: 0.1, output: 0.4}, or take the dollars out of the budget."
            )
    return found


def _settings(model: ModelSpec, wait: float) -> Settings:
    return Settings(
        provider=model.provider,
        model=model.model,
        base_url=model.base_url,
        key_env=model.key_env,
        price=Price(**model.price.model_dump()) if model.price else None,
        patience=Patience(connect_s=min(10.0, wait), idle_s=wait, whole_s=wait),
        stream=model.stream,
        schema_by=model.schema_by,
        path=Path(model.path) if model.path else None,
    )
