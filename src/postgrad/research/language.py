"""Causal language models in the playbook: their starting points and the moves on them.

`gain` and `spread` are judgements from the papers named, as in `moves.py`; a run learns from there. They are the same
for labels and for answers in words, except where a move is about labels alone.
"""

from __future__ import annotations

from postgrad.records import Recipe, Stage, TaskSpec, Value
from postgrad.research import edit
from postgrad.research.language_stages import STAGE_PLAYS
from postgrad.research.play import Applies, Apply, Play, every, main_is, main_is_not, set_main
from postgrad.train.models import model_kind

BACKEND = "causal_lm"
UNTOUCHED = Stage(backend=BACKEND, params={"tune": "none"})
SHOTS = Stage(backend=BACKEND, params={"tune": "none", "shots": 8})
# On HINT3, some 36 steps of 16 rows taught 0.42 of the in-scope questions (four folds), 185 of 8 rows 0.92 (one).
SMALL_STEPS: dict[str, Value] = {"batch_size": 8}
ENOUGH_STEPS = 180
FEW_ROWS = Stage(backend=BACKEND, params={"tune": "lora", "share": 1 / 16, **SMALL_STEPS})
PART = Stage(backend=BACKEND, params={"tune": "lora", "share": 1 / 4, **SMALL_STEPS})
LORA = Stage(backend=BACKEND, params={"tune": "lora", "least_steps": ENOUGH_STEPS, **SMALL_STEPS})
FULL = Stage(backend=BACKEND, params={"tune": "full", "lr": 1e-4, "least_steps": ENOUGH_STEPS, **SMALL_STEPS})
FEW = 4
MOST_EPOCHS = 8
LEAST_SHARE = 1 / 64


def speaks(task: TaskSpec, base: str | None) -> bool:
    """True where a task's base model is used as a language model."""
    return task.kind == "generation" or (base is not None and model_kind(base) == BACKEND)


def lm_recipe(base: str | None, stage: Stage) -> Recipe:
    return Recipe(base_model=base, stage=stage)


#: Starting points: kind, change, stage.
STARTS: tuple[tuple[str, str, Stage], ...] = (
    ("draft.lm_lora", "low-rank adapters on the language model", LORA),
    ("draft.lm_full", "all weights of the language model", FULL),
    ("draft.lm_shots", "the untouched language model with eight answered examples in its prompt", SHOTS),
    ("draft.lm_part", "low-rank adapters on a quarter of the rows", PART),
    ("draft.lm_few", "low-rank adapters on a sixteenth of the rows", FEW_ROWS),
)
#: Starting point -> the one that it stands in for where that one cannot be paid.
STANDS_IN = {"draft.lm_part": "draft.lm_lora", "draft.lm_few": "draft.lm_part"}

# --- when a move applies ----------------------------------------------------------------------------------------------

is_tuned = main_is_not(BACKEND, "tune", "none")


def labels_only(recipe: Recipe, task: TaskSpec) -> bool:
    """The answers are labels."""
    return task.kind == "classification"


def rejecting(recipe: Recipe, task: TaskSpec) -> bool:
    """The task has questions to reject."""
    return task.data.out_of_scope is not None


def _epochs(low: int, high: int) -> Applies:
    return lambda r, t: is_tuned(r, t) and low <= edit.number(edit.main_stage(r), "epochs") <= high


def _share(recipe: Recipe) -> float:
    return edit.number(edit.main_stage(recipe), "share")


def _times_epochs(factor: float) -> Apply:
    def apply(recipe: Recipe, task: TaskSpec) -> Recipe:
        epochs, steps = (edit.number(edit.main_stage(recipe), name) for name in ("epochs", "least_steps"))
        changes: dict[str, Value] = {"epochs": max(1, round(factor * epochs))}
        return edit.with_main(recipe, **changes, **({"least_steps": round(factor * steps)} if steps else {}))

    return apply


def _scored_by(score: str, words: str, why: str) -> Play:
    return Play(
        f"lm.score_{score}",
        f"decide rejection by {words}",
        why,
        "out-of-scope questions are ranked no lower among in-scope ones than before (AUROC)",
        0.0,
        0.03,
        every(labels_only, rejecting, main_is_not(BACKEND, "score", score)),
        set_main(score=score),
    )


def _tuned_as(tune: str, words: str, why: str, gain: float, **numbers: Value) -> Play:
    return Play(
        f"lm.{tune}",
        words,
        why,
        "the search score is not above that of the other way to train",
        gain,
        0.03,
        every(is_tuned, main_is_not(BACKEND, "tune", tune)),
        set_main(tune=tune, **numbers),
    )


PLAYS: tuple[Play, ...] = (
    _tuned_as(
        "full",
        "train all weights in place of adapters",
        "Where rows are few and the model is small, adapters may not reach what the task asks for.",
        0.005,
        lr=1e-4,
    ),
    _tuned_as(
        "lora",
        "train low-rank adapters in place of all weights",
        "Adapters forget less of what the model knew (Biderman et al. 2024).",
        0.0,
        lr=5e-4,
    ),
    _tuned_as(
        "dora",
        "split the adapters into length and direction",
        "Length and direction learn at rates of their own, as in full training (Liu et al. 2024).",
        0.002,
    ),
    Play(
        "lm.tune",
        "train low-rank adapters on the rows",
        "What examples in a prompt teach, training teaches better where there are hundreds of rows.",
        "the search score is not above that of the prompt alone",
        0.05,
        0.08,
        main_is(BACKEND, tune="none"),
        set_main(tune="lora", shots=0),
    ),
    Play(
        "lm.shots",
        f"put {FEW} answered examples into the prompt",
        "Examples show the form of an answer (Brown et al. 2020).",
        "the search score does not move",
        0.0,
        0.03,
        main_is(BACKEND, shots=0),
        set_main(shots=FEW),
    ),
    Play(
        "lm.no_shots",
        "no examples in the prompt",
        "A trained model knows the form of an answer, and long prompts distract a small one.",
        "the search score falls",
        0.0,
        0.02,
        every(is_tuned, main_is_not(BACKEND, "shots", 0)),
        set_main(shots=0),
    ),
    Play(
        "lm.longer",
        "train twice as many epochs",
        "A small set of rows is not learnt yet after a few passes.",
        "the search score is no higher, or the loss on train goes on falling without it",
        0.01,
        0.03,
        _epochs(1, MOST_EPOCHS),
        _times_epochs(2.0),
    ),
    Play(
        "lm.more_rows",
        "train on four times as many rows",
        "What a part of the rows has taught, more of them teach better.",
        "the search score is no higher",
        0.02,
        0.03,
        every(is_tuned, lambda r, t: _share(r) < 1.0),
        lambda r, t: edit.with_main(r, share=min(1.0, 4 * _share(r))),
    ),
    Play(
        "lm.fewer_rows",
        "train on a quarter of the rows",
        "A small model needs few rows to learn the form of an answer, and what is saved pays for other experiments.",
        "the search score falls",
        -0.01,
        0.02,
        every(is_tuned, lambda r, t: _share(r) > LEAST_SHARE),
        lambda r, t: edit.with_main(r, share=_share(r) / 4),
    ),
    Play(
        "lm.shorter",
        "train half as many epochs",
        "A model that repeats its rows has been trained for too long.",
        "the search score falls",
        0.0,
        0.02,
        _epochs(4, 200),
        _times_epochs(0.5),
    ),
    Play(
        "lm.smaller_batch",
        "half the rows in a step",
        "Twice as many steps over the same rows.",
        "the search score does not move",
        0.003,
        0.02,
        every(is_tuned, lambda r, t: edit.number(edit.main_stage(r), "batch_size") >= 8),
        lambda r, t: edit.with_main(r, batch_size=int(edit.number(edit.main_stage(r), "batch_size")) // 2),
    ),
    Play(
        "lm.words",
        "write labels in words (card_arrival as card arrival)",
        "The model has seen words before, and no underscores between them.",
        "the search score does not move",
        0.005,
        0.02,
        every(labels_only, main_is(BACKEND, labels_as="given")),
        set_main(labels_as="words"),
    ),
    Play(
        "lm.calibrate",
        "take off each label what it scores without any input",
        "A model prefers some labels whatever it is asked (Zhao et al. 2021).",
        "the search score falls",
        0.0,
        0.03,
        every(labels_only, main_is(BACKEND, calibrate=False)),
        set_main(calibrate=True),
    ),
    Play(
        "lm.by_token",
        "divide each label's log-likelihood by its tokens",
        "Long labels are less likely for being long.",
        "the search score falls",
        0.0,
        0.03,
        every(labels_only, main_is(BACKEND, normalise="none")),
        set_main(normalise="tokens"),
    ),
    _scored_by("mass", "the likelihood of any label", "A question of another kind makes every label unlikely."),
    _scored_by("max_prob", "the share of the best label among all", "A question between two labels is no clear one."),
    _scored_by("margin", "the lead of the best label over the next", "A question between two labels is no clear one."),
    *STAGE_PLAYS,
)
