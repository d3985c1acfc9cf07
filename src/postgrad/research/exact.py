"""From a choice to a proposal, whoever names the recipe: the policy itself, or the researcher.

A policy that names a recipe is taken at its word where one more experiment can try it: the recipe is in no experiment
yet and can be paid. Otherwise the researcher is asked for a draft, and the proposal says so. Whether a recipe may be
tried at all is for `admission.py`, which looks at every proposal alike.
"""

from __future__ import annotations

from postgrad.records import Choice, Move, Proposal, Recipe, TaskSpec
from postgrad.research import edit
from postgrad.research.base import Context, Researcher


def answer(researcher: Researcher, policy: str, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
    """The proposal for a choice that the policy of this name made."""
    recipe = choice.recipe
    if recipe is None:
        return researcher.propose(task, choice, context)
    why_not = _why_not(recipe, context)
    if why_not is None:
        return _as_chosen(recipe, policy, task, choice)
    instead = Choice(parent=None, move=Move.DRAFT, reason=f"{choice.reason}; {why_not}: a draft instead")
    proposal = researcher.propose(task, instead, context)
    return proposal if proposal.carried_out else proposal.model_copy(update={"carried_out": instead})


def _as_chosen(recipe: Recipe, policy: str, task: TaskSpec, choice: Choice) -> Proposal:
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


def _why_not(recipe: Recipe, context: Context) -> str | None:
    """Why one more experiment cannot try a recipe. None for one that is not valid either: that is refused later, with
    the reason."""
    if not _valid(recipe):
        return None
    if any(node.proposed.proposal.recipe.hash == recipe.hash for node in context.tree.all()):
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
