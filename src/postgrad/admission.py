"""Whether a proposal may be tried at all: looked at before a job is started, whoever proposed it.

A recipe can only be made of what the project knows: backends and data steps by name, with parameters they take, the
base models of the task, the threshold rules of the referee. A proposal that is turned away is an experiment that
failed, with the reason; the run goes on. Workers check parameters once more. Does not judge whether a recipe is good.
"""

from __future__ import annotations

import math
from typing import Iterator

from pydantic import ValidationError

from postgrad.data import OPERATORS
from postgrad.errors import UserError
from postgrad.evaluate.threshold import check_inference
from postgrad.execute.boundary import classified
from postgrad.isolated import needed, unable
from postgrad.metrics import reads_verdicts
from postgrad.quoting import escaped
from postgrad.records import Asked, Choice, Failure, Proposal, Recipe, Record, Stage, TaskSpec, Value
from postgrad.research import edit
from postgrad.train import BACKENDS
from postgrad.train.environments import find
from postgrad.tree import Tree

MOST_STEPS = 20
DEEPEST = 12
LARGEST = 64_000
LONGEST = 200_000
# Stands for a recipe that could not be recorded. No backend has this name.
UNREADABLE = "unreadable"
NAME = 200
# What a backend answers with that does not say so.
LABELS = frozenset({"labels"})


def recordable(proposal: Proposal) -> Proposal:
    """The proposal, if the log can hold it and give it back; else one that says why not, and is refused.

    A number of thousands of digits, or half a surrogate pair, would make the event that holds it unreadable, and with
    it the run. What it cost to ask for it stays on the account.
    """
    why = _out_of_shape(proposal.recipe) or _unwritable(proposal)
    if why is None:
        return proposal
    return Proposal(
        recipe=Recipe(stage=Stage(backend=UNREADABLE, params={"why": why})),
        kind=f"draft.{UNREADABLE}",
        hypothesis="Not known: the proposal could not be recorded as it was.",
        change="a proposal that cannot be recorded",
        expected_effect=0.0,
        refuted_by="nothing: it is not tried",
        proposer="admission",
        seed=0,
        asked=_accounted(proposal.asked, why) if proposal.asked else None,
    )


def _unwritable(record: Record) -> str | None:
    """Why a record of a proposal cannot stand in the log, or None."""
    try:
        text = record.model_dump_json()
        type(record).model_validate_json(text)
    except (ValueError, RecursionError) as wrong:
        return f"The proposal cannot be written down ({type(wrong).__name__})."
    if len(text) > LONGEST:
        return f"The proposal has {len(text):,} characters, and at most {LONGEST:,} are taken."
    return None


def _accounted(asked: Asked, why: str) -> Asked | None:
    """A question as far as it can be recorded: whole, else who was asked and the figures, None where not even these."""
    if _unwritable(asked) is None:
        return asked
    names = {
        name: escaped(getattr(asked, name).encode("utf-8", "replace").decode()[:NAME])
        for name in ("proposer", "provider", "model", "key")
    }
    lean = asked.model_copy(update={**names, "failed": why, "sketches": (), "notes": ()})
    return lean if _unwritable(lean) is None else None


def refusal(recipe: Recipe, task: TaskSpec) -> Failure | None:
    """Why a recipe is not tried, or None."""
    if recipe.stage.backend == UNREADABLE:
        return Failure(boundary="recipe", kind="invalid", message=str(recipe.stage.params.get("why")))
    if shape := _out_of_shape(recipe):
        return Failure(boundary="recipe", kind="invalid", message=shape)
    if recipe.base_model is not None and recipe.base_model not in task.base_models:
        known = ", ".join(task.base_models) or "it has none"
        said = f"The base model {recipe.base_model!r} is none of the task's ({known})."
        return Failure(boundary="recipe", kind="scope", message=f"{said} What is trained from is for the task to say.")
    try:
        for step in recipe.data:
            OPERATORS.get(step.op).Params.model_validate(step.params)
        BACKENDS.get(recipe.stage.backend).Params.model_validate(recipe.stage.params)
        check_inference(recipe.inference)
    except (UserError, ValidationError) as wrong:
        return classified("recipe", wrong).model_copy(update={"evidence": ""})
    if others := [name for name in edit.teachers(recipe) if name not in task.base_models]:
        said = f"The teacher {others[0]!r} is none of the task's base models ({', '.join(task.base_models)})."
        return Failure(boundary="recipe", kind="scope", message=f"{said} Add it to base_models, or take one of them.")
    return _other_answers(recipe, task) or _ungraded(recipe, task) or _unable(recipe)


def _other_answers(recipe: Recipe, task: TaskSpec) -> Failure | None:
    """Why a backend cannot answer in the form that the task wants, or None."""
    wanted = "words" if task.kind == "generation" else "labels"
    for name in (recipe.stage.backend, *(stage.backend for stage in edit.stages(recipe))):
        if wanted not in getattr(BACKENDS.get(name), "answers", LABELS):
            said = f"The backend '{name}' does not answer with {wanted}, and this task's kind is {task.kind}."
            return Failure(boundary="recipe", kind="scope", message=said)
    return None


def _ungraded(recipe: Recipe, task: TaskSpec) -> Failure | None:
    """Why a stage that learns from grades cannot be gone through, or None: no worker has a judge."""
    if task.kind != "generation" or not reads_verdicts(task.metric):
        return None
    for stage in edit.stages(recipe):
        params = BACKENDS.get(stage.backend).Params.model_validate(stage.params)
        for later in getattr(params, "then", ()):
            if later.learns_from_grades:
                said = (
                    f"The stage '{later.method}' learns from grades of single answers by the task's metric, and "
                    f"'{task.metric}' has none without its judge, which no training has."
                )
                return Failure(boundary="recipe", kind="scope", message=f"{said} Leave the stage out.")
    return None


def _unable(recipe: Recipe) -> Failure | None:
    """Why this machine cannot train a recipe, where its backends know: a GPU or an environment is missing."""
    if (why := unable(recipe)) is not None:
        return Failure(boundary="recipe", kind="machine", message=why)
    for stage in edit.stages(recipe):
        for environment in needed(stage):
            if find(environment) is None:
                said = (
                    f"The backend '{stage.backend}' runs in the environment {environment.name}, which is not built. "
                    f"Name it in the task file, so that it is built before the run: backends: [{stage.backend}]"
                )
                return Failure(boundary="recipe", kind="environment", message=said)
    return None


def _out_of_shape(recipe: Recipe) -> str | None:
    """Too large, too deep, or with numbers that are none: what no part of the project has to be asked about."""
    if len(recipe.data) > MOST_STEPS:
        return f"The recipe has {len(recipe.data)} data steps, and at most {MOST_STEPS} are taken."
    names = [recipe.base_model or "", recipe.stage.backend, *(step.op for step in recipe.data)]
    size = sum(map(len, names))
    parts: list[dict[str, Value]] = [*(step.params for step in recipe.data), recipe.stage.params, recipe.inference]
    for value, depth in (found for part in parts for found in _values(part, 0)):
        size += len(value) if isinstance(value, str) else 8
        if depth > DEEPEST or size > LARGEST:
            return f"The recipe's settings are nested deeper than {DEEPEST}, or longer than {LARGEST:,} characters."
        if isinstance(value, float) and not math.isfinite(value):
            return f"The recipe has the setting {value}, which is no number to train with."
        if isinstance(value, int) and abs(value) > 2**63:
            return "The recipe has a setting over 2^63."
    return None


def _values(value: Value, depth: int) -> Iterator[tuple[Value, int]]:
    """Every value inside a value, with how deep it lies; nothing below the limit is looked at."""
    yield value, depth
    if depth <= DEEPEST:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
        for one in inner:
            yield from _values(one, depth + 1)


def answered_choice(choice: Choice, proposal: Proposal, tree: Tree) -> Choice:
    """The choice that a proposal says it carried out, if its parents are experiments that are there; else the one that
    was made. An experiment cannot be put under itself, or under one that does not exist."""
    carried = proposal.carried_out
    if carried is None:
        return choice
    parents = [name for name in (carried.parent, carried.other) if name is not None]
    return carried if all(name in tree.experiments for name in parents) else choice
