"""From a choice to a proposal, whoever names the recipe: the policy itself, or the researcher.

A policy that names a recipe is taken at its word where one more experiment can try it: the recipe is in no experiment
yet and can be paid. Otherwise the researcher is asked for something else, and the proposal says so. Whether a recipe
may be tried at all is for `admission.py`, which looks at every proposal alike.
"""

from __future__ import annotations

from postgrad.records import Choice, Move, Proposal, Recipe, TaskSpec
from postgrad.research import edit
from postgrad.research.base import Context, Guiding, Researcher
from postgrad.research.drafts import drafts, spoken
from postgrad.research.moves import PLAYS
from postgrad.research.tuner import described

SEVERAL = "several.changes"


def answer(researcher: Researcher, policy: str, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
    """The proposal for a choice that the policy of this name made. A researcher that guides is asked first: what the
    policy names is one answer among others to it."""
    if isinstance(researcher, Guiding):
        return researcher.guide(
            task, choice, context, lambda: answer(researcher.fallback, policy, task, choice, context)
        )
    if choice.recipe is None:
        return researcher.propose(task, choice, context)
    choice, recipe = _to_run(choice, choice.recipe, context)
    why_not = "it cannot be run" if recipe is None else _why_not(recipe, context)
    if recipe is not None and why_not is None:
        return _as_chosen(recipe, policy, task, choice, context)
    parent = choice.parent
    move, what = (Move.DRAFT, "a draft") if parent is None else (Move.IMPROVE, f"another change of {parent}")
    instead = Choice(parent=parent, move=move, reason=f"{choice.reason}; {why_not}: {what} instead")
    proposal = researcher.propose(task, instead, context)
    return proposal if proposal.carried_out else proposal.model_copy(update={"carried_out": instead})


def _as_chosen(recipe: Recipe, policy: str, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
    if choice.kinds:
        return _of_changes(recipe, policy, task, choice, context)
    return Proposal(
        recipe=recipe,
        kind=f"search.{policy}",
        hypothesis=f"No idea about the task stands behind this recipe, only the scores so far: {choice.reason}.",
        change=f"the whole recipe: {_described(recipe)}",
        expected_effect=0.0,
        refuted_by="its score is not above the best so far",
        proposer=policy,
        seed=task.seed,
    )


def _of_changes(recipe: Recipe, policy: str, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
    """A proposal of changes that have names. One is told as the researcher would tell it, several are one step of the
    search: each of them is believed to help, and they are tried together."""
    before = context.tree[choice.parent].proposed.proposal.recipe if choice.parent else None
    changes = [_told(kind, recipe, before, choice) for kind in choice.kinds]
    why = next((play.hypothesis for play in PLAYS if (play.kind,) == choice.kinds), "")
    if not why:
        why = "Each of these changes is believed to help." if len(changes) > 1 else "The scores so far point there."
    return Proposal(
        recipe=recipe,
        kind=choice.kinds[0] if len(choice.kinds) == 1 else SEVERAL,
        hypothesis=f"{why} By all scores of this run together, it is {choice.reason}.",
        change="; ".join(changes),
        expected_effect=round(choice.gain, 4),
        refuted_by="its score is not above the best so far",
        proposer=policy,
        seed=task.seed,
    )


def _told(kind: str, recipe: Recipe, before: Recipe | None, choice: Choice) -> str:
    """One change in words."""
    group, _, name = kind.partition(".")
    if group == "draft":
        known = (*drafts(recipe.base_model), *drafts(None), *spoken(recipe.base_model))
        return next((draft.change for draft in known if draft.kind == kind), f"the method of {kind}")
    if group == "ablate":
        return f"without {name}"
    if group == "combine":
        return f"together with {choice.other}" if choice.other else "with what its parent has"
    if group == "tune":
        same = before is not None and edit.structure_of(before) == edit.structure_of(recipe)
        return described(before, recipe) if before is not None and same else "other numbers"
    return next((play.change for play in PLAYS if play.kind == kind), kind)


def _to_run(choice: Choice, recipe: Recipe, context: Context) -> tuple[Choice, Recipe | None]:
    """What will be run for a recipe that was chosen, None where nothing is left; and the choice, without the names of
    its changes where another recipe is run than they make."""
    if not _valid(recipe):
        return choice, recipe
    admitted = context.admit(recipe) if choice.kinds else None
    if admitted is not None:
        return choice, admitted
    return choice.model_copy(update={"kinds": ()}), context.nearest(recipe)


def _why_not(recipe: Recipe, context: Context) -> str | None:
    """Why one more experiment cannot try a recipe. None for one that is not valid either: that is refused later, with
    the reason."""
    if not _valid(recipe):
        return None
    if context.tree.has_tried(recipe):
        return "its recipe was tried before"
    cost, limit = context.nominal_s(recipe), context.affordable_s
    return None if limit is None or cost <= limit else f"it costs {cost:.0f} s and {limit:.0f} s are left"


def _valid(recipe: Recipe) -> bool:
    """False too for what cannot even be written down, such as a number of thousands of digits."""
    try:
        return bool(recipe.hash) and edit.valid(recipe)
    except (ValueError, RecursionError):
        return False


def _described(recipe: Recipe) -> str:
    """The structure in a few words."""
    if not _valid(recipe):
        return recipe.stage.backend
    names = []
    for stage in edit.stages(recipe):
        kind = [str(stage.params[key]) for key in ("tune", "head", "score") if key in stage.params]
        names.append(" ".join([stage.backend, *kind]))
    steps = ", ".join(step.op for step in recipe.data)
    return " with ".join(names) + (f", data steps {steps}" if steps else "")
