"""One structural move of the playbook, and the words its table is written in: when a move applies, and what it edits.

`moves.py` is the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from postgrad.records import Recipe, Stage, TaskSpec, Value
from postgrad.research import edit
from postgrad.train.models import model_kind

Applies = Callable[[Recipe, TaskSpec], bool]
Apply = Callable[[Recipe, TaskSpec], Recipe]


@dataclass(frozen=True)
class Play:
    """One structural move.

    Attributes:
        kind: "<group>.<name>"; what is learnt about the move is learnt under this name.
        change: the one change, in words that follow "with this change: ".
        hypothesis: why it should help.
        refuted_by: what would show that the reason is wrong.
        gain, spread: prior mean and standard deviation of the effect.
        applies: whether the recipe and the task allow it and the recipe does not have it yet.
        apply: the edit.
    """

    kind: str
    change: str
    hypothesis: str
    refuted_by: str
    gain: float
    spread: float
    applies: Applies
    apply: Apply


FROZEN = Stage(backend="embedder", params={"tune": "frozen", "head": "logistic", "score": "knn"})
CLASSIC = Stage(backend="classic", params={"score": "log_prob"})
TUNED = Stage(backend="embedder", params={"tune": "full", "epochs": 3, "score": "blend"})

SHORT_EPOCHS = 3
LONG_EPOCHS = 10
NEGATIVE_STEPS = ("near_misses", "background", "held_out_intents")

# --- when a move applies ----------------------------------------------------------------------------------------------


def every(*checks: Applies) -> Applies:
    """All of these hold."""
    return lambda recipe, task: all(check(recipe, task) for check in checks)


def rejects(recipe: Recipe, task: TaskSpec) -> bool:
    """The task has questions to reject, and the recipe learns."""
    return task.data.out_of_scope is not None and learns(recipe, task)


def learns(recipe: Recipe, task: TaskSpec) -> bool:
    """The main member is trained on rows; the constant answer is not."""
    stage = edit.main_stage(recipe)
    # Training Hub's encoders get a head over rows, as the embedder's do; its language models do not.
    hub_encoder = stage.backend == "training_hub" and edit.setting(stage, "algorithm") == "embedding_sft"
    return hub_encoder or edit.family(stage) in ("classic", "embedder")


def main_is(backend: str, **wanted: Value) -> Applies:
    """The main member has this backend, or is a soup of it, and these settings."""

    def check(recipe: Recipe, task: TaskSpec) -> bool:
        stage = edit.main_stage(recipe)
        return edit.family(stage) == backend and all(edit.setting(stage, key) == value for key, value in wanted.items())

    return check


def main_is_not(backend: str, key: str, value: Value) -> Applies:
    """The main member has this backend, or is a soup of it, and another value of this setting."""

    def check(recipe: Recipe, task: TaskSpec) -> bool:
        stage = edit.main_stage(recipe)
        return edit.family(stage) == backend and edit.setting(stage, key) != value

    return check


def epochs_between(low: int, high: int) -> Applies:
    """The main member is a tuned encoder with this many epochs."""
    return lambda r, t: trained(r, t) and low <= edit.number(edit.main_stage(r), "epochs") <= high


def no_step(op: str) -> Applies:
    """The recipe learns and has no such data step."""
    return lambda recipe, task: learns(recipe, task) and not edit.has_step(recipe, op)


def has_negatives(recipe: Recipe, task: TaskSpec) -> bool:
    """A data step makes out-of-scope rows."""
    return any(edit.has_step(recipe, op) for op in NEGATIVE_STEPS)


def room(recipe: Recipe, task: TaskSpec) -> bool:
    """The recipe learns and may have one more member."""
    return learns(recipe, task) and len(edit.members(recipe)) < edit.MAX_MEMBERS


def no_member(added: Stage) -> Applies:
    """No member has this stage's backend and tuning yet, and there is room for one."""

    def check(recipe: Recipe, task: TaskSpec) -> bool:
        if not room(recipe, task) or (added.backend == "embedder" and recipe.base_model is None):
            return False
        same = [stage for stage in edit.stages(recipe) if edit.family(stage) == added.backend]
        return not any(added.backend == "classic" or _tuning(stage) == _tuning(added) for stage in same)

    return check


def no_soup(recipe: Recipe, task: TaskSpec) -> bool:
    """The weights of the main member are those of one training."""
    return not edit.is_soup(edit.main_stage(recipe))


def alone(recipe: Recipe, task: TaskSpec) -> bool:
    """The recipe has one member, and its weights are those of one training."""
    return len(edit.members(recipe)) == 1 and no_soup(recipe, task)


def _tuning(stage: Stage) -> Value:
    return edit.setting(stage, "tune")


def other_base(recipe: Recipe, task: TaskSpec) -> str | None:
    """The next base model of the task of the same kind, where there is another."""
    if recipe.base_model not in task.base_models:
        return None
    kind = model_kind(recipe.base_model)
    names = [name for name in task.base_models if model_kind(name) == kind]
    return names[(names.index(recipe.base_model) + 1) % len(names)] if len(names) > 1 else None


trained = main_is_not("embedder", "tune", "frozen")

# --- edits ------------------------------------------------------------------------------------------------------------


def set_main(**changes: Value) -> Apply:
    """Set parameters of the main member."""
    return lambda recipe, task: edit.with_main(recipe, **changes)


def add_step(op: str, **params: Value) -> Apply:
    """Add a data step."""
    return lambda recipe, task: edit.with_step(recipe, op, **params)


def add_negatives(op: str, **params: Value) -> Apply:
    """Add a data step that makes negatives, and train them as a class of their own."""
    return lambda recipe, task: edit.with_main(edit.with_step(recipe, op, **params), negatives="class")


def add_member(stage: Stage, weight: float = 1.0) -> Apply:
    """Add a member."""
    return lambda recipe, task: edit.with_member(recipe, stage, weight, weight)


def second_seed(recipe: Recipe, task: TaskSpec) -> Recipe:
    """Add the main member once more: members train with seeds of their own."""
    return edit.with_member(recipe, edit.main_stage(recipe), 2.0, 2.0)


def averaged_seeds(recipe: Recipe, task: TaskSpec) -> Recipe:
    """Train the main member twice with seeds of their own, and average the weights."""
    return edit.with_soup(recipe, {}, {})


def averaged_rates(recipe: Recipe, task: TaskSpec) -> Recipe:
    """Train the main member twice, the second time with half or twice the learning rate, whichever lies nearer the
    middle of the usual range, and average the weights."""
    stage = edit.main_stage(recipe)
    usual = edit.space_of(recipe)["lr"]
    factor = 0.5 if edit.number(stage, "lr") ** 2 > usual.low * usual.high else 2.0
    return edit.with_soup(recipe, {}, {"lr_factor": factor})


def times_epochs(factor: float) -> Apply:
    """Multiply the epochs of the main member."""

    def apply(recipe: Recipe, task: TaskSpec) -> Recipe:
        return edit.with_main(recipe, epochs=max(1, round(factor * edit.number(edit.main_stage(recipe), "epochs"))))

    return apply


def score_play(name: str, words: str, why: str, gain: float) -> Play:
    """The move to another rejection score of the embedder."""
    return Play(
        kind=f"score.{name}",
        change=f"decide rejection by {words}",
        hypothesis=why,
        refuted_by="out-of-scope questions are ranked no lower among in-scope ones than before (AUROC)",
        gain=gain,
        spread=0.03,
        applies=every(rejects, main_is_not("embedder", "score", name)),
        apply=set_main(score=name),
    )
