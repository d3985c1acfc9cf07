"""Whether a champion's weights take the place of the base: one answer, with the reason, from the sealed read alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

from postgrad.evaluate.sealed import Questions, sealed_items
from postgrad.evaluate.statistics import difference
from postgrad.metrics import metric_of
from postgrad.metrics.items import Items
from postgrad.records import Difference, Guard, Recipe, Record, SealedScore, TaskSpec
from postgrad.session import Session
from postgrad.train.lm_model import WEIGHTS

BACKEND = "causal_lm"
GUARD = "holds the weights of a language model"
# Below the weights alone, above what a model without them weighs.
SIZE_SHARE = 0.9
BYTES_SAVED = 2


class Verdict(Record):
    """What a run comes to in a contest.

    Attributes:
        take: the champion's weights become the final model.
        why: in words.
        experiment: the champion; None where there is none.
        metric: of the sealed scores.
        base, champion: sealed scores.
        difference: champion minus untouched base, paired.
        weights: the folder of the champion's weights.
    """

    take: bool
    why: str
    experiment: str | None = None
    metric: str | None = None
    base: float | None = None
    champion: float | None = None
    difference: Difference | None = None
    weights: str | None = None


def only_language_models(task: TaskSpec, base: Path) -> TaskSpec:
    """The task with a guard that no model without the base's weights keeps: one that looks answers up cannot be handed
    in, so that it may not be the champion either."""
    size = SIZE_SHARE * BYTES_SAVED * _weights_count(base) / 1e6
    return task.model_copy(update={"guards": (*task.guards, Guard(name=GUARD, measure="model_mb", min=round(size, 6)))})


def _weights_count(base: Path) -> int:
    """How many numbers the safetensors of a folder hold, by their headers."""
    total = 0
    for path in base.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        total += sum(math.prod(facts["shape"]) for name, facts in header.items() if name != "__metadata__")
    return total


def verdict_of(session: Session, reference: str) -> Verdict:
    """Judge a run that has ended. `reference` is the contest's base model: weights of another are not taken."""
    certified, sealed = session.certified, session.sealed
    if certified is None or sealed is None:
        return Verdict(take=False, why="the run has no sealed read")
    read, name = sealed.read, certified.champion
    weights = session.store.folder / "model" / WEIGHTS
    known = Verdict(take=False, why="", experiment=name, metric=read.metric, weights=str(weights))
    if why := _cannot_be_taken(session.tree[name].proposed.proposal.recipe, reference, weights):
        return known.model_copy(update={"why": why})
    if read.refused is not None:
        return known.model_copy(update={"why": f"the sealed split cannot certify anything: {read.refused}"})
    roles: dict[str, SealedScore] = {score.role: score for score in read.scores}
    if "base_model" not in roles:
        return known.model_copy(update={"why": "the untouched base was not measured on the sealed split"})
    items = [_items(session, roles[role]) for role in ("champion", "base_model")]
    gap = difference(metric_of(read.metric), *items, seed=session.task.seed, confidence=read.confidence)
    scores = {role: roles[role].estimate.value for role in ("champion", "base_model")}
    better = gap.low > 0
    words = f"{read.metric} {scores['champion']:.3f} against {scores['base_model']:.3f} of the untouched base"
    why = f"{name} is {'better' if better else 'not shown to be better'} on the sealed split: {words}"
    told = {"base": scores["base_model"], "champion": scores["champion"], "difference": gap}
    return known.model_copy(update={"take": better, "why": why, **told})


def _cannot_be_taken(recipe: Recipe, reference: str, weights: Path) -> str:
    """Why a champion is no folder of plain weights of the contest's base; "" where it is."""
    stage = recipe.stage
    if stage.backend != BACKEND:
        return f"the champion is no language model but {stage.backend}"
    if recipe.base_model != reference:
        return f"the champion was tuned from {recipe.base_model}, and only {reference} may be"
    if stage.params.get("tune") == "none":
        return "the champion is the untouched base with examples in its prompt, and a prompt cannot be handed in"
    if stage.params.get("shots"):
        return "the champion was measured with examples in its prompt, and a prompt cannot be handed in"
    return "" if weights.is_dir() else f"the champion's weights are not in {weights}"


def _items(session: Session, score: SealedScore) -> Items:
    plan = session.plan
    questions = Questions(
        rows=tuple(session.rows("sealed").values()),
        labels=plan.labels,
        out_of_scope=plan.out_of_scope,
        graded=plan.graded,
    )
    return sealed_items(session.outputs(score.outputs), questions, score.threshold, session.judge)
