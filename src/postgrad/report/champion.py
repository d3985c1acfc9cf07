"""What the champion is: what the search made of the base model, or one of the references that it began with."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Literal

from postgrad.records import Recipe, Stage
from postgrad.report import wording
from postgrad.research import edit
from postgrad.research.references import PROPOSER, ROLES

if TYPE_CHECKING:
    from postgrad.report.view import RunView
    from postgrad.tree import Experiment

Tone = Literal["better", "none", "worse"]
RELATIONS: dict[Tone, str] = {
    "better": "is better than the baseline",
    "none": "shows no real difference to the baseline",
    "worse": "is worse than the baseline",
}
# What trains no weight of a base model: the backend, and what its `tune` says then. Others train where they have one.
UNTRAINED = {"embedder": "frozen", "causal_lm": "none"}
WITHOUT_BASE = ("classic", "nearest", "constant")


def references_of(view: RunView) -> tuple[Experiment, ...]:
    """The experiments that the run began with: what a later proposal calls itself does not count."""
    return tuple(takewhile(lambda node: node.proposed.proposal.proposer == PROPOSER, view.tree.all()))


def reference_of(view: RunView) -> str | None:
    """Which of them the champion is, by its recipe: "baseline", "base_model", "few_shot" or "constant"; None where the
    search made it."""
    if view.champion is None:
        return None
    recipe = view.champion.proposed.proposal.recipe.hash
    if view.baseline is not None and view.baseline.proposed.proposal.recipe.hash == recipe:
        return "baseline"
    points = (node.proposed.proposal for node in references_of(view))
    return next((ROLES.get(point.kind) for point in points if point.recipe.hash == recipe), None)


def trains_base(recipe: Recipe) -> bool:
    """True where weights of the recipe's base model are trained, and not only what stands on top of them."""
    return recipe.base_model is not None and any(_trains(stage) for stage in edit.stages(recipe))


def _trains(stage: Stage) -> bool:
    if stage.backend in WITHOUT_BASE:
        return False
    untrained = stage.backend in UNTRAINED and stage.params.get("tune") == UNTRAINED[stage.backend]
    return not untrained or bool(stage.params.get("then"))


def claim_of(view: RunView, tone: Tone) -> str:
    """What the sealed read says of the champion, which is not the baseline, in a sentence without its full stop."""
    role = reference_of(view)
    if role is not None and role != "baseline":
        name = wording.ROLE_NAMES[role]
        name = f"{name[0].lower()}{name[1:]}"
        if len(view.tree) == len(references_of(view)):
            return f"Nothing was tuned, and the {name} {RELATIONS[tone]}"
        return f"Nothing beat the {name}, which {RELATIONS[tone]}"
    name = _name_of(view)
    if tone == "none":
        return f"No real difference shown between the {name} and the baseline"
    return f"The {name} {RELATIONS[tone]}"


def _name_of(view: RunView) -> str:
    """What a champion that the search made is: a tuned model only where weights of its base model were trained."""
    if view.task.script is not None:
        return "changed script"
    tuned = view.champion is None or trains_base(view.champion.proposed.proposal.recipe)
    return "tuned model" if tuned else "champion"


def remarks_of(view: RunView) -> tuple[str, ...]:
    """What has to be said of a champion that is no tuned model."""
    if view.champion is None or view.task.script is not None:
        return ()
    found, role = [], reference_of(view)
    tried = len(view.tree) - len(references_of(view))
    if role is not None and tried == 0:
        why = f" ({view.search_ended.reason})" if view.search_ended else ""
        found.append(f"The search tried nothing beyond the references that every run begins with{why}.")
    elif role is not None:
        experiments = "The one experiment" if tried == 1 else f"None of the {tried:,} experiments"
        chosen = "was not chosen over" if tried == 1 else "was chosen over"
        found.append(f"{experiments} of the search {chosen} the references that every run begins with.")
    recipe = view.champion.proposed.proposal.recipe
    if recipe.base_model is not None and not trains_base(recipe):
        top = recipe.stage.backend != "causal_lm"
        more = ": what was fitted to the train rows stands on top of it" if top else ""
        found.append(f"No weight of the base model was trained{more}.")
    elif recipe.base_model is None and view.task.base_models and role is None:
        found.append("No base model is in the champion: it learned from the train rows alone.")
    return tuple(found)
