"""The experiments that every run begins with, and that stand beside the champion in its report."""

from __future__ import annotations

from postgrad.records import Proposal, Recipe, Stage, TaskSpec
from postgrad.research.language import SHOTS, UNTOUCHED, lm_recipe, speaks

PROPOSER = "reference"
# Kind, change, and what is expected of it.
CONSTANT = ("reference.constant", "one answer to everything", "scores about 0")
CLASSIC = ("reference.classic", "TF-IDF and logistic regression", "is the bar that a tuned model has to clear")
NEAREST = (
    "reference.nearest",
    "the answer of the most similar train row",
    "is the bar that a tuned model has to clear",
)
UNTOUCHED_SCRIPT = ("reference.script", "the script as it was given", "is the bar that an experiment has to clear")
UNTOUCHED_ENCODER = ("reference.base_model", "the untouched base model, nearest prototype", "needs no training")
UNTOUCHED_LM = ("reference.base_model", "the untouched language model", "needs no training")
#: Kind of a reference -> what it is in a report.
ROLES = {
    "reference.script": "baseline",
    "reference.classic": "baseline",
    "reference.nearest": "baseline",
    "reference.base_model": "base_model",
    "reference.few_shot": "few_shot",
    "reference.constant": "constant",
}
FEW_SHOT = ("reference.few_shot", "the untouched language model with eight examples in its prompt", "needs no training")


def reference_recipes(task: TaskSpec) -> tuple[Proposal, ...]:
    """The constant answer, the cheapest classic model, and the untouched base model: an encoder with a
    nearest-prototype answer, a language model as it is and with answered examples in its prompt."""
    constant = Stage(backend="constant")
    if task.kind == "script":
        found = [(*UNTOUCHED_SCRIPT, Recipe(stage=Stage(backend="script")))]
    elif task.kind == "generation":
        found = [(*CONSTANT, Recipe(stage=constant)), (*NEAREST, Recipe(stage=Stage(backend="nearest")))]
    else:
        found = [
            (*CONSTANT, Recipe(stage=constant, inference={"threshold": "reject_all"})),
            (*CLASSIC, Recipe(stage=Stage(backend="classic"))),
        ]
    if task.base_models and speaks(task, task.base_models[0]):
        found += [
            (*UNTOUCHED_LM, lm_recipe(task.base_models[0], UNTOUCHED)),
            (*FEW_SHOT, lm_recipe(task.base_models[0], SHOTS)),
        ]
    elif task.base_models:
        stage = Stage(backend="embedder", params={"tune": "frozen", "head": "prototype", "score": "max_logit"})
        found.append((*UNTOUCHED_ENCODER, Recipe(base_model=task.base_models[0], stage=stage)))
    return tuple(
        Proposal(
            recipe=recipe,
            kind=kind,
            hypothesis=f"A reference: {change} {why}.",
            change=change,
            expected_effect=0.0,
            refuted_by="nothing: it is measured, not tested",
            proposer=PROPOSER,
            seed=task.seed,
        )
        for kind, change, why, recipe in found
    )
