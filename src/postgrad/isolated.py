"""Which isolated environments a task and its recipes need, and building them before a run: jobs have no network."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator

from postgrad.records import Recipe, Stage, TaskSpec
from postgrad.research import edit
from postgrad.research.drafts import starts_of
from postgrad.train import BACKENDS
from postgrad.train.environments import Environment, build, find


def needed(stage: Stage) -> tuple[Environment, ...]:
    """The isolated environments of a stage's backend, none for most."""
    ask = getattr(BACKENDS.get(stage.backend), "environments", None)
    found: tuple[Environment, ...] = ask(stage.params) if ask else ()
    return found


def needed_by(recipe: Recipe) -> Iterator[Environment]:
    """Those of all stages of a recipe."""
    for stage in edit.stages(recipe):
        yield from needed(stage)


def unable(recipe: Recipe) -> str | None:
    """Why this machine cannot train a recipe, where one of its backends knows; else None."""
    for stage in edit.stages(recipe):
        ask = getattr(BACKENDS.get(stage.backend), "unable", None)
        if ask is not None and (said := ask(stage.params)):
            return str(said)
    return None


def built(recipe: Recipe) -> tuple[Path, ...]:
    """The folders of a recipe's environments that are there."""
    return tuple(dict.fromkeys(folder for each in needed_by(recipe) if (folder := find(each)) is not None))


def build_environments(task: TaskSpec, say: Callable[[str], None]) -> None:
    """Build what the starting points of a task need and is not there yet.

    Raises:
        UserError: one cannot be built.
    """
    if not task.backends:
        return
    drafts = [draft for base in task.base_models or (None,) for draft in starts_of(task, base)]
    usable = [draft.recipe for draft in drafts if unable(draft.recipe) is None]
    for environment in dict.fromkeys(found for recipe in usable for found in needed_by(recipe)):
        build(environment, say)
