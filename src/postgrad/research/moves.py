"""The table of structural moves: each is one change to a recipe, with why it should help and what would refute it.

`gain` and `spread` are the prior mean and standard deviation of the effect on the task's metric; the playbook learns
from there within a run. They are judgements from the literature named and from experience with small intent sets, not
fitted to any benchmark. To add a move, add a line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from postgrad.records import Recipe, Stage, TaskSpec
from postgrad.research import edit

Applies = Callable[[Recipe, TaskSpec], bool]
Apply = Callable[[Recipe], Recipe]


@dataclass(frozen=True)
class Play:
    """One structural move."""

    kind: str
    change: str
    hypothesis: str
    gain: float
    spread: float
    applies: Applies
    apply: Apply


def _rejects(recipe: Recipe, task: TaskSpec) -> bool:
    return task.data.out_of_scope is not None


def _main_is(backend: str, **wanted: str) -> Applies:
    def check(recipe: Recipe, task: TaskSpec) -> bool:
        stage = edit.main_stage(recipe)
        return stage.backend == backend and all(edit.setting(stage, key) == value for key, value in wanted.items())

    return check


def _both(*checks: Applies) -> Applies:
    return lambda recipe, task: all(check(recipe, task) for check in checks)


def _not_yet(key: str, value: str, backend: str = "embedder") -> Applies:
    def check(recipe: Recipe, task: TaskSpec) -> bool:
        stage = edit.main_stage(recipe)
        return stage.backend == backend and edit.setting(stage, key) != value

    return check


def _trained(recipe: Recipe, task: TaskSpec) -> bool:
    stage = edit.main_stage(recipe)
    return stage.backend == "embedder" and edit.setting(stage, "tune") != "frozen"


def _no_step(op: str) -> Applies:
    return lambda recipe, task: not edit.has_step(recipe, op) and recipe.stage.backend != "constant"


def _no_member(stage: Stage) -> Applies:
    """True where no member has this stage's backend and tuning yet, and the ensemble is still small."""

    def check(recipe: Recipe, task: TaskSpec) -> bool:
        if recipe.stage.backend == "constant" or (stage.backend == "embedder" and recipe.base_model is None):
            return False
        found = [Stage.model_validate(member["stage"]) for member in edit.members(recipe)]
        same = [s for s in found if s.backend == stage.backend and s.params.get("tune") == stage.params.get("tune")]
        return not same and len(found) < 4

    return check


def _second_seed(recipe: Recipe) -> Recipe:
    return edit.with_member(recipe, edit.main_stage(recipe), weight=2.0, score_weight=2.0)


FROZEN = Stage(backend="embedder", params={"tune": "frozen", "head": "logistic", "score": "knn"})
CLASSIC = Stage(backend="classic", params={"score": "log_prob"})
TUNED = Stage(backend="embedder", params={"tune": "full", "epochs": 3, "score": "blend"})

PLAYS: tuple[Play, ...] = (
    Play(
        "method.full",
        "fine-tune the whole encoder",
        "The base model's space was not made for these labels; moving it should separate near intents.",
        0.06,
        0.04,
        _not_yet("tune", "full"),
        lambda r: edit.with_main(r, tune="full", head="linear", epochs=3),
    ),
    Play(
        "method.partial",
        "fine-tune the last two layers only",
        "Few rows overfit a whole encoder; the upper layers are enough and keep the base model's knowledge.",
        0.01,
        0.03,
        _both(_trained, _not_yet("tune", "partial")),
        lambda r: edit.with_main(r, tune="partial", layers=2),
    ),
    Play(
        "method.lora",
        "train low-rank adapters instead of all weights",
        "Adapters move less, so answers to unseen wordings stay closer to the base model's.",
        0.0,
        0.03,
        _both(_trained, _not_yet("tune", "lora")),
        lambda r: edit.with_main(r, tune="lora", lr=1e-3),
    ),
    Play(
        "method.contrastive",
        "three contrastive epochs before the head",
        "Pulling rows of an intent together first gives a better start than the prototypes (SetFit, 2022).",
        0.01,
        0.03,
        _both(_trained, lambda r, t: not edit.setting(edit.main_stage(r), "contrastive_epochs")),
        lambda r: edit.with_main(r, contrastive_epochs=3),
    ),
    Play(
        "method.seeds",
        "two trainings with different seeds, averaged",
        "Averaging removes a part of the training noise.",
        0.01,
        0.015,
        _both(_trained, lambda r, t: len(edit.members(r)) < 4),
        _second_seed,
    ),
    Play(
        "head.logistic",
        "a logistic head on the final embeddings",
        "A convex head cannot overfit the order of training.",
        0.0,
        0.02,
        _not_yet("head", "logistic"),
        lambda r: edit.with_main(r, head="logistic"),
    ),
    Play(
        "head.prototype",
        "answer with the nearest class mean",
        "With a handful of rows a class, a mean is steadier than a fitted boundary.",
        -0.01,
        0.03,
        _not_yet("head", "prototype"),
        lambda r: edit.with_main(r, head="prototype"),
    ),
    Play(
        "train.longer",
        "train four times as long",
        "A few epochs leave near intents mixed.",
        0.0,
        0.02,
        _both(_trained, lambda r, t: int(str(edit.setting(edit.main_stage(r), "epochs"))) < 10),
        lambda r: edit.with_main(r, epochs=4 * int(str(edit.setting(edit.main_stage(r), "epochs")))),
    ),
    Play(
        "train.label_smoothing",
        "label smoothing of 0.05",
        "Softer targets keep scores from saturating, which separates out-of-scope inputs better.",
        0.0,
        0.02,
        _both(_trained, lambda r, t: not edit.setting(edit.main_stage(r), "label_smoothing")),
        lambda r: edit.with_main(r, label_smoothing=0.05),
    ),
    *(
        Play(
            f"score.{name}",
            f"decide rejection by {words}",
            why,
            gain,
            0.03,
            _both(_rejects, _not_yet("score", name)),
            lambda r, name=name: edit.with_main(r, score=name),  # type: ignore[misc]
        )
        for name, words, why, gain in (
            ("blend", "largest logit and nearest train row together", "The two err on different inputs.", 0.02),
            ("knn", "the nearest train row", "An input far from every train row is out of scope.", 0.01),
            ("max_logit", "the largest logit", "Logits keep the distance that a softmax throws away.", 0.0),
            ("energy", "the energy of the logits", "Energy uses all logits and not the largest alone.", 0.0),
            ("mahalanobis", "the distance to the nearest class mean", "Distances know the shape of classes.", -0.01),
        )
    ),
    Play(
        "score.classic_log_prob",
        "decide rejection by the log probability",
        "A log scale keeps apart what a probability squeezes together near 1.",
        0.0,
        0.01,
        _both(_rejects, _not_yet("score", "log_prob", "classic")),
        lambda r: edit.with_main(r, score="log_prob"),
    ),
    Play(
        "ensemble.classic",
        "add a TF-IDF model to the answer",
        "Surface features and embeddings err on different inputs; each also sees other inputs as strange.",
        0.03,
        0.02,
        _no_member(CLASSIC),
        lambda r: edit.with_member(r, CLASSIC),
    ),
    Play(
        "ensemble.frozen",
        "add the untouched encoder to the answer",
        "Fine-tuning forgets; the base model still knows what the train rows did not show.",
        0.03,
        0.02,
        _no_member(FROZEN),
        lambda r: edit.with_member(r, FROZEN),
    ),
    Play(
        "ensemble.tuned",
        "add a fine-tuned encoder to the answer",
        "A space made for these labels separates near intents.",
        0.05,
        0.03,
        _no_member(TUNED),
        lambda r: edit.with_member(r, TUNED, weight=2.0, score_weight=2.0),
    ),
    Play(
        "data.word_dropout",
        "add shortened and fragmentary copies of train rows",
        "Customers write fragments; train rows are whole sentences.",
        0.01,
        0.02,
        _no_step("word_dropout"),
        lambda r: edit.with_step(r, "word_dropout", share=0.5),
    ),
    Play(
        "data.typos",
        "add copies of train rows with typing errors",
        "Customers mistype; train rows are clean.",
        0.005,
        0.02,
        _no_step("typos"),
        lambda r: edit.with_step(r, "typos", share=0.5),
    ),
    Play(
        "data.balance",
        "repeat rows of rare intents",
        "Rare intents lose against frequent ones in the loss.",
        0.0,
        0.015,
        _no_step("balance"),
        lambda r: edit.with_step(r, "balance", ratio=0.5),
    ),
    Play(
        "data.normalise",
        "lower-case and clean the text",
        "Case and spacing carry no intent here.",
        0.0,
        0.01,
        _both(_no_step("normalise"), _main_is("classic")),
        lambda r: edit.with_step(r, "normalise"),
    ),
    Play(
        "data.near_misses",
        "negatives: train rows without the words that carry their intent",
        "A model that has seen near misses learns where an intent ends (Arora et al. 2024, negative augmentation).",
        0.01,
        0.03,
        _both(_rejects, _no_step("near_misses")),
        lambda r: edit.with_negatives(edit.with_step(r, "near_misses", share=0.2)),
    ),
    Play(
        "data.background",
        "negatives: everyday utterances of other domains",
        "A class for everything else takes the inputs that no intent covers.",
        0.0,
        0.03,
        _both(_rejects, _no_step("background")),
        lambda r: edit.with_negatives(edit.with_step(r, "background", share=0.5)),
    ),
    Play(
        "inference.percentile",
        "reject a fixed tenth of in-scope questions",
        "A fixed share needs no made-up out-of-scope questions.",
        -0.01,
        0.02,
        _both(_rejects, lambda r, t: r.inference.get("threshold") != "percentile"),
        lambda r: edit.with_inference(r, threshold="percentile", q=0.1),
    ),
)


def drafts(base_model: str | None) -> tuple[tuple[str, str, Recipe], ...]:
    """Structurally different starting points, cheapest first: (kind, change, recipe)."""
    classic = Recipe(stage=CLASSIC)
    if base_model is None:
        svm = Recipe(stage=Stage(backend="classic", params={"head": "svm", "score": "log_prob"}))
        bayes = Recipe(stage=Stage(backend="classic", params={"head": "nb", "score": "log_prob"}))
        return (
            ("draft.classic", "TF-IDF, rejection by log probability", classic),
            ("draft.classic_svm", "TF-IDF with a support vector machine", svm),
            ("draft.classic_nb", "TF-IDF with complement naive Bayes", bayes),
        )
    frozen = Recipe(base_model=base_model, stage=FROZEN)
    tuned = Recipe(base_model=base_model, stage=TUNED)
    mixed = edit.with_member(frozen, CLASSIC, weight=1.0)
    full = edit.with_member(edit.with_member(tuned, FROZEN), CLASSIC)
    lora = edit.with_main(tuned, tune="lora", lr=1e-3)
    return (
        ("draft.frozen", "frozen encoder with a logistic head, rejection by nearest row", frozen),
        ("draft.frozen_classic", "frozen encoder and TF-IDF together", mixed),
        ("draft.everything", "fine-tuned encoder, frozen encoder and TF-IDF together", full),
        ("draft.tuned", "fine-tuned encoder alone", tuned),
        ("draft.classic", "TF-IDF, rejection by log probability", classic),
        ("draft.lora", "low-rank adapters", lora),
    )
