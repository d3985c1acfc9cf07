"""What a person or a program wants tried, as a proposal: a waiting one with other settings, or an idea of their own.

Nothing here is believed: the recipe is checked like every other, and what is wrong with it is said.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from pydantic import ValidationError

from postgrad.admission import recordable, refusal
from postgrad.data import OPERATORS
from postgrad.errors import UserError, near_miss
from postgrad.events import Decided
from postgrad.people.brought import brought
from postgrad.records import Edit, Inject, Order, Proposal, Recipe, TaskSpec, Value
from postgrad.research import edit
from postgrad.research.drafts import starts_of
from postgrad.research.ideas import changed
from postgrad.research.menu import settings_of
from postgrad.research.moves import plays_of
from postgrad.train import BACKENDS
from postgrad.tree import Tree

RECIPE = "idea.recipe"
# Kinds of change that are in no table.
OTHERS = ("ablate", "combine.answers", "combine.recipes", "draft.composed", "repair", "replicate", "tune", RECIPE)
# Of a script: groups of kinds, which may be ruled out whole.
OF_SCRIPTS = ("ablate", "constant", "delete", "edit", "patch", "repair", "replicate")
PARTS = ("base_model", "backend", "stage", "data", "inference")
Ideas = Mapping[str, Decided]


def known_kinds(task: TaskSpec, tree: Tree, of_script: Sequence[str] = ()) -> tuple[str, ...]:
    """Every kind of change that may be proposed in a run, and the groups that they belong to.

    Args:
        of_script: those that are known for a script's files.
    """
    if task.script is not None:
        proposed = {node.proposed.proposal.kind for node in tree.all() if node.parent is not None}
        return tuple(sorted({*of_script, *OF_SCRIPTS, *proposed}))
    found = {play.kind for play in plays_of(task)} | set(OTHERS)
    found |= {draft.kind for base in (*task.base_models, None) for draft in starts_of(task, base)}
    found |= {node.proposed.proposal.kind for node in tree.all()}
    found |= {kind for node in tree.all() for kind in node.proposed.choice.kinds}
    found |= {f"data.{op}" for op in OPERATORS.names()} | {f"backend.{name}" for name in BACKENDS.names()}
    return tuple(sorted(found | {kind.partition(".")[0] for kind in found}))


# --- a waiting proposal, edited ---------------------------------------------------------------------------------------


def edited(proposal: Proposal, wish: Edit, order: Order, task: TaskSpec, tree: Tree, ideas: Ideas) -> Proposal:
    """The proposal with other settings.

    Args:
        ideas: those that were taken and are not proposed yet.

    Raises:
        UserError: a setting that a recipe does not have, or a recipe that cannot be tried.
    """
    _no_script(task)
    if not wish.changes:
        raise UserError("No setting was given. Name what to change, as: stage.lr=1e-4")
    recipe = with_settings(proposal.recipe, wish.changes)
    words = ", ".join(f"{name}={value}" for name, value in wish.changes.items())
    _check(recipe, task, tree, ideas)
    told = {"recipe": recipe, "change": f"{proposal.change}; edited by {order.by}: {words}"}
    return _recorded(proposal.model_copy(update=told))


def with_settings(recipe: Recipe, changes: Mapping[str, Value]) -> Recipe:
    """The recipe with settings as `show` names them: "base_model", "backend", "stage.NAME", "data.STEP.NAME",
    "inference.NAME". None takes a setting, and "data.STEP" the whole step, out.

    Raises:
        UserError: no such place in a recipe.
    """
    plain: dict[str, Any] = recipe.model_dump(mode="json")
    for path, value in changes.items():
        part, _, rest = path.partition(".")
        if path == "base_model":
            plain["base_model"] = value
        elif path == "backend":
            plain["stage"]["backend"] = value
        elif part == "stage" and rest:
            _set(plain["stage"]["params"], rest, value, path)
        elif part == "inference" and rest:
            _set(plain["inference"], rest, value, path)
        elif part == "data" and rest:
            plain["data"] = _with_step(plain["data"], rest, value, path)
        else:
            raise UserError(
                f"A recipe has no setting '{path}'.{near_miss(part, PARTS)} Settings are named as `postgrad show` "
                "prints them: base_model, backend, stage.NAME, data.STEP.NAME, inference.NAME."
            )
    try:
        return Recipe.model_validate(plain)
    except (ValidationError, ValueError, RecursionError) as wrong:
        raise UserError(f"These settings make no recipe: {str(wrong).splitlines()[0]}") from wrong


def _set(params: Any, path: str, value: Value, whole: str) -> None:
    above, _, last = path.rpartition(".")
    try:
        inner = edit.get_path(params, above)
        if isinstance(inner, list):
            inner[int(last)] = value
        elif value is None:
            inner.pop(last, None)
        else:
            inner[last] = value
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as wrong:
        raise UserError(f"The recipe has no place '{whole}': nothing is called '{above}' in it.") from wrong


def _with_step(steps: list[dict[str, Any]], path: str, value: Value, whole: str) -> list[dict[str, Any]]:
    op, _, name = path.partition(".")
    if not name:
        kept = [step for step in steps if step["op"] != op]
        return kept if value in (None, False) else [*kept, {"op": op, "params": {}}]
    if all(step["op"] != op for step in steps):
        steps = [*steps, {"op": op, "params": {}}]
    for step in steps:
        if step["op"] == op:
            _set(step["params"], name, value, whole)
    return steps


# --- an idea ----------------------------------------------------------------------------------------------------------


def injected(wish: Inject, order: Order, task: TaskSpec, tree: Tree, ideas: Ideas) -> Proposal:
    """The idea of an order as a proposal. Its parent is an experiment of the tree.

    Args:
        ideas: those that were taken and are not proposed yet.

    Raises:
        UserError: neither or both of a recipe and a kind, a kind that does not apply, a recipe that cannot be tried,
            was tried, or is about to be.
    """
    _no_script(task)
    if (wish.recipe is None) == (wish.kind is None):
        raise UserError("An idea is a recipe, or a kind of change on an experiment: give one of the two.")
    kind, change, why, recipe = _named(wish, task, tree, ideas) if wish.kind else (RECIPE, "a recipe", "", wish.recipe)
    assert recipe is not None
    recipe = _checked(recipe)
    _check(recipe, task, tree, ideas)
    by = f"an idea of {order.by}"
    return _recorded(
        Proposal(
            recipe=recipe,
            kind=kind,
            hypothesis=wish.hypothesis or why or f"{by}; no reason was given",
            change=wish.change or f"{change} ({by})",
            expected_effect=wish.expected_effect,
            refuted_by=wish.refuted_by or "its score is not above that of what it was built on",
            proposer="agent" if wish.asks else "person",
            seed=task.seed,
        )
    )


def _checked(recipe: Recipe) -> Recipe:
    try:
        return edit.checked(recipe)
    except (ValueError, RecursionError) as wrong:
        raise UserError(f"The recipe cannot be written down: {str(wrong).splitlines()[0]}") from wrong


def kinds_in(idea: Proposal, before: Recipe | None, task: TaskSpec) -> frozenset[str]:
    """The kinds of change that an idea makes, as far as its recipe says: its own, the change or starting point of the
    playbook that gives the same recipe, data steps that come or go, settings of the main stage and the base model."""
    recipe, kinds = idea.recipe, {idea.kind} | brought(before, idea.recipe)
    had, has = {step.op for step in before.data} if before else set(), {step.op for step in recipe.data}
    kinds |= {f"data.{op}" for op in has - had} | {f"ablate.{op}" for op in had - has}
    if before is None:
        starts = [draft for base in (*task.base_models, None) for draft in starts_of(task, base)]
        same = {draft.kind for draft in starts if draft.recipe.hash == recipe.hash}
        return frozenset(kinds | (same or {"draft.composed"}))
    if not edit.valid(before) or not edit.valid(recipe):
        return frozenset(kinds)
    for play in plays_of(task):
        after = changed(play, before, task)
        if after is not None and after.hash == recipe.hash:
            kinds.add(play.kind)
    if edit.main_stage(before).backend == edit.main_stage(recipe).backend:
        old, new = settings_of(before), settings_of(recipe)
        kinds |= {f"set.{name}" for name in old.keys() & new.keys() if old[name].value != new[name].value}
    return frozenset(kinds | ({"base.next"} if before.base_model != recipe.base_model else set()))


def _named(wish: Inject, task: TaskSpec, tree: Tree, ideas: Ideas) -> tuple[str, str, str, Recipe]:
    """(kind, change, hypothesis, recipe) of a change that the playbook knows."""
    kind = wish.kind or ""
    if wish.experiment is None:
        drafts = [draft for base in (*task.base_models, None) for draft in starts_of(task, base)]
        for draft in drafts:
            if draft.kind == kind and not tree.has_tried(draft.recipe) and _same(draft.recipe, ideas) is None:
                return kind, draft.change, f"A different starting point may lead higher: {draft.change}.", draft.recipe
        known = sorted({draft.kind for draft in drafts})
        if kind in known:
            raise UserError(f"The starting point {kind} was tried already, or is proposed next.")
        raise UserError(
            f"There is no starting point '{kind}'.{near_miss(kind, known)} Known: {', '.join(known)}. "
            "A change needs the experiment that it is made to: --on EXP"
        )
    base = tree[wish.experiment].proposed.proposal.recipe
    plays = {play.kind: play for play in plays_of(task)}
    if kind not in plays:
        raise UserError(
            f"The playbook has no change '{kind}'.{near_miss(kind, plays)} Known: {', '.join(sorted(plays))}."
        )
    after = changed(plays[kind], base, task) if edit.valid(base) else None
    if after is None or after.hash == base.hash:
        raise UserError(f"The change {kind} does not apply to the recipe of {wish.experiment}.")
    return kind, plays[kind].change, plays[kind].hypothesis, after


def _no_script(task: TaskSpec) -> None:
    """Of a script, a recipe is a version of its files: a recipe or a change of the playbook would fail for sure."""
    if task.script is not None:
        raise UserError(
            "The experiments of this run are versions of a script's files, and have no recipe that could be written or "
            "changed here. Change the files in the source, and start a new run from there; or order: approve, reject, "
            "pin, ban."
        )


# --- both -------------------------------------------------------------------------------------------------------------


def _check(recipe: Recipe, task: TaskSpec, tree: Tree, ideas: Ideas) -> None:
    """Refuse a recipe that would fail before it is trained, or whose answer is known or on its way."""
    if (why := refusal(recipe, task)) is not None:
        raise UserError(f"The recipe cannot be tried: {why.message}")
    if tree.has_tried(recipe):
        same = next(node.id for node in tree.all() if node.proposed.proposal.recipe.hash == recipe.hash)
        raise UserError(f"{same} has this recipe already: postgrad show RUN {same}")
    if (first := _same(recipe, ideas)) is not None:
        raise UserError(f"{first.order.by} put this recipe in already, and it is proposed next. Wait for its result.")


def _same(recipe: Recipe, ideas: Ideas) -> Decided | None:
    """The idea with this recipe, among those that are not proposed yet."""
    return next((idea for idea in ideas.values() if idea.proposal and idea.proposal.recipe.hash == recipe.hash), None)


def _recorded(proposal: Proposal) -> Proposal:
    """The proposal, if the log can hold it."""
    kept = recordable(proposal)
    if kept is not proposal:
        raise UserError(f"The recipe cannot be recorded: {kept.recipe.stage.params.get('why')}")
    return kept
