"""The experiments that every run begins with, and that stand beside the champion in its report."""

from __future__ import annotations

from postgrad.records import Proposal, Recipe, Stage, TaskSpec


def reference_recipes(task: TaskSpec) -> tuple[Proposal, ...]:
    """The constant answer, the cheapest classic model, and the untouched base model with a nearest-prototype answer."""
    found = [
        (
            "reference.constant",
            Recipe(stage=Stage(backend="constant"), inference={"threshold": "reject_all"}),
            "one answer to everything",
            "scores about 0",
        ),
        (
            "reference.classic",
            Recipe(stage=Stage(backend="classic")),
            "TF-IDF and logistic regression",
            "is the bar that a tuned model has to clear",
        ),
    ]
    if task.base_models:
        stage = Stage(backend="embedder", params={"tune": "frozen", "head": "prototype", "score": "max_logit"})
        recipe = Recipe(base_model=task.base_models[0], stage=stage)
        found.append(
            ("reference.base_model", recipe, "the untouched base model, nearest prototype", "needs no training")
        )
    return tuple(
        Proposal(
            recipe=recipe,
            kind=kind,
            hypothesis=f"A reference: {change} {why}.",
            change=change,
            expected_effect=0.0,
            refuted_by="nothing: it is measured, not tested",
            proposer="reference",
            seed=task.seed,
        )
        for kind, recipe, change, why in found
    )
