"""Training Hub in the playbook: starting points and moves of its recipes, for tasks that ask for it.

They take the place of the usual starting points where a task has `backends: [training_hub]`. Moves that are about rows,
rejection or further members are those of `moves.py`. `gain` and `spread` are judgements, as there.
"""

from __future__ import annotations

from postgrad.records import Recipe, Stage, TaskSpec, Value
from postgrad.research import edit
from postgrad.research.play import Applies, Apply, Play, every, main_is, main_is_not, rejects, set_main
from postgrad.train.models import model_kind

BACKEND = "training_hub"
MOST_EPOCHS = 8
Start = tuple[str, str, Stage]


def _embedding(**settings: Value) -> Stage:
    return Stage(backend=BACKEND, params={"algorithm": "embedding_sft", "learning_rate": 5e-5, **settings})


#: Starting points: kind, change, stage. The cheapest first.
ENCODERS: tuple[Start, ...] = (
    (
        "draft.hub_triplet",
        "Training Hub's embedding_sft with all triplets of a batch, and a logistic head",
        _embedding(loss_type="batch_all_triplet", num_epochs=2),
    ),
    (
        "draft.hub_hard_triplet",
        "Training Hub's embedding_sft with the hardest triplets of a batch, and a logistic head",
        _embedding(loss_type="batch_hard_triplet", num_epochs=2),
    ),
    (
        "draft.hub_pairs",
        "Training Hub's embedding_sft with pairs of rows of one label, and a logistic head",
        _embedding(loss_type="mnrl", num_epochs=1),
    ),
)
SPEAKERS: tuple[Start, ...] = (
    (
        "draft.hub_sft_cpu",
        "Training Hub's sft with a small trainer for CPUs",
        Stage(backend=BACKEND, params={"algorithm": "sft", "backend": "postgrad-trl", "learning_rate": 5e-5}),
    ),
    ("draft.hub_lora", "Training Hub's lora_sft", Stage(backend=BACKEND, params={"algorithm": "lora_sft"})),
    ("draft.hub_sft", "Training Hub's sft", Stage(backend=BACKEND, params={"algorithm": "sft"})),
    ("draft.hub_osft", "Training Hub's osft", Stage(backend=BACKEND, params={"algorithm": "osft"})),
)


def wanted(task: TaskSpec) -> bool:
    """True where a task asks for recipes of Training Hub."""
    return BACKEND in task.backends


def starts(task: TaskSpec, base: str | None) -> tuple[tuple[str, str, Recipe], ...]:
    """The starting points of one base model as (kind, change, recipe); none without a base model."""
    if base is None:
        return ()
    speaks = model_kind(base) == "causal_lm"
    if task.kind == "generation" and not speaks:
        return ()
    table = SPEAKERS if speaks else ENCODERS
    return tuple((kind, change, Recipe(base_model=base, stage=stage)) for kind, change, stage in table)


# --- moves ------------------------------------------------------------------------------------------------------------


def encodes(recipe: Recipe, task: TaskSpec) -> bool:
    """The main member is an encoder that Training Hub trains."""
    return main_is(BACKEND, algorithm="embedding_sft")(recipe, task)


def _epochs(low: int, high: int) -> Applies:
    def check(recipe: Recipe, task: TaskSpec) -> bool:
        stage = edit.main_stage(recipe)
        epochs = edit.setting(stage, "num_epochs") if stage.backend == BACKEND else None
        return isinstance(epochs, int) and low <= epochs <= high

    return check


def _times_epochs(factor: float) -> Apply:
    def apply(recipe: Recipe, task: TaskSpec) -> Recipe:
        epochs = edit.number(edit.main_stage(recipe), "num_epochs")
        return edit.with_main(recipe, num_epochs=max(1, round(factor * epochs)))

    return apply


def _loss(name: str, words: str, why: str, gain: float) -> Play:
    return Play(
        f"hub.{name}",
        f"train the encoder with {words}",
        why,
        "in-scope answers are no better",
        gain,
        0.03,
        every(encodes, main_is_not(BACKEND, "loss_type", name)),
        set_main(loss_type=name),
    )


def _score(name: str, words: str, why: str) -> Play:
    return Play(
        f"hub.score_{name}",
        f"decide rejection by {words}",
        why,
        "out-of-scope questions are ranked no lower among in-scope ones than before (AUROC)",
        0.0,
        0.03,
        every(encodes, rejects, main_is_not(BACKEND, "score", name)),
        set_main(score=name),
    )


def _head(name: str, words: str, why: str) -> Play:
    return Play(
        f"hub.head_{name}",
        words,
        why,
        "in-scope answers are no better",
        0.0,
        0.02,
        every(encodes, main_is_not(BACKEND, "head", name)),
        set_main(head=name),
    )


PLAYS: tuple[Play, ...] = (
    _loss(
        "mnrl",
        "pairs of one label against all other rows of a batch",
        "Every other row of a batch is a contrast.",
        0.01,
    ),
    _loss("batch_all_triplet", "all triplets of a batch", "Easy triplets keep what is far apart already.", 0.0),
    _loss("batch_hard_triplet", "the hardest triplets of a batch", "Only what is confused has anything to teach.", 0.0),
    Play(
        "hub.longer",
        "train twice as long",
        "A few epochs leave near intents mixed.",
        "intents that are confused with each other stay confused",
        0.005,
        0.02,
        _epochs(1, MOST_EPOCHS),
        _times_epochs(2.0),
    ),
    Play(
        "hub.shorter",
        "train half as long",
        "Fewer passes move the encoder less, keep more of the base model, and cost less.",
        "in-scope answers get worse",
        0.0,
        0.015,
        _epochs(2, 200),
        _times_epochs(0.5),
    ),
    _head("prototype", "answer with the nearest class mean", "With a handful of rows a class, a mean is steadier."),
    _head("logistic", "a logistic head on the final embeddings", "A fitted boundary uses every row."),
    _score("knn", "the nearest train row", "A question far from every train row is out of scope."),
    _score("max_logit", "the largest logit", "Logits keep the distance that a softmax throws away."),
    _score("blend", "largest logit and nearest train row together", "The two scores err on different questions."),
)

# --- repairs ----------------------------------------------------------------------------------------------------------


def slower(recipe: Recipe) -> tuple[str, Recipe] | None:
    """A tenth of the learning rate."""
    rate = edit.setting(edit.main_stage(recipe), "learning_rate")
    if not isinstance(rate, float):
        return None
    return f"a tenth of the learning rate ({rate / 10:.2g})", edit.with_main(recipe, learning_rate=round(rate / 10, 10))


def smaller(recipe: Recipe) -> tuple[str, Recipe] | None:
    """Half the rows a step."""
    for name in ("batch_size", "effective_batch_size"):
        rows = edit.full_params(edit.with_members(recipe, [edit.members(recipe)[edit.main_index(recipe)]])).get(name)
        if isinstance(rows, int) and rows > 4:
            return f"batches of {rows // 2} in place of {rows}", edit.with_main(recipe, **{name: rows // 2})
    return None


def shorter(recipe: Recipe) -> tuple[str, Recipe] | None:
    """Half the epochs."""
    epochs = edit.setting(edit.main_stage(recipe), "num_epochs")
    if not isinstance(epochs, int) or epochs < 2:
        return None
    return f"{epochs // 2} epochs in place of {epochs}", edit.with_main(recipe, num_epochs=epochs // 2)
