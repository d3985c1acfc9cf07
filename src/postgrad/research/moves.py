"""The table of structural moves: each is one change to a recipe, with why it should help and what would refute it.

`gain` and `spread` are the prior mean and standard deviation of the effect on the task's metric; the playbook learns
from there within a run. They are judgements from the literature named and from out-of-fold experience with several
small intent sets, not fitted to any benchmark. To add a move, add an entry.
"""

from __future__ import annotations

from postgrad.records import TaskSpec
from postgrad.research import edit, hub, language
from postgrad.research.moves_data import DATA
from postgrad.research.play import (
    CLASSIC,
    FROZEN,
    LONG_EPOCHS,
    SHORT_EPOCHS,
    TUNED,
    Play,
    add_member,
    alone,
    averaged_rates,
    averaged_seeds,
    epochs_between,
    every,
    main_is,
    main_is_not,
    no_member,
    no_soup,
    other_base,
    rejects,
    room,
    score_play,
    second_seed,
    set_main,
    times_epochs,
    trained,
)

METHOD: tuple[Play, ...] = (
    Play(
        "method.full_finetune",
        "fine-tune the whole encoder",
        "The base model's space was not made for these labels; moving it should separate near intents.",
        "intents that are confused with each other stay confused",
        0.06,
        0.04,
        main_is_not("embedder", "tune", "full"),
        set_main(tune="full", head="linear", epochs=SHORT_EPOCHS, lr=1e-4),
    ),
    Play(
        "method.partial",
        "fine-tune the last two layers only",
        "Few rows overfit a whole encoder; the upper layers are enough and keep the base model's knowledge.",
        "answers to disturbed copies of train rows get worse",
        0.0,
        0.02,
        every(trained, main_is_not("embedder", "tune", "partial")),
        set_main(tune="partial", layers=2, lr=3e-4),
    ),
    Play(
        "method.lora",
        "train low-rank adapters in place of all weights",
        "Adapters move the encoder less, so answers to unseen wordings stay closer to the base model's.",
        "answers to disturbed copies of train rows get worse",
        -0.01,
        0.03,
        every(trained, main_is_not("embedder", "tune", "lora")),
        set_main(tune="lora", lr=1e-3),
    ),
    Play(
        "method.contrastive",
        "three contrastive epochs before the head",
        "Pulling rows of an intent together first gives a better start than the prototypes (SetFit, 2022).",
        "in-scope answers are no better than without them",
        0.0,
        0.03,
        every(trained, main_is("embedder", contrastive_epochs=0)),
        set_main(contrastive_epochs=3),
    ),
    Play(
        "head.linear",
        "a linear head trained together with the encoder",
        "A head that moves with the encoder fits it better than one made afterwards.",
        "in-scope answers are no better",
        0.01,
        0.02,
        every(trained, main_is_not("embedder", "head", "linear")),
        set_main(head="linear"),
    ),
    Play(
        "head.cosine",
        "class weights of unit length, so that the answer is a cosine",
        "Without lengths, frequent intents cannot win by a longer weight vector.",
        "rare intents are answered no better",
        0.0,
        0.02,
        main_is_not("embedder", "head", "cosine"),
        set_main(head="cosine"),
    ),
    Play(
        "head.logistic",
        "a logistic head on the final embeddings",
        "A convex head does not depend on the order of training.",
        "in-scope answers are no better",
        0.0,
        0.02,
        main_is_not("embedder", "head", "logistic"),
        set_main(head="logistic"),
    ),
    Play(
        "head.prototype",
        "answer with the nearest class mean",
        "With a handful of rows a class, a mean is steadier than a fitted boundary.",
        "in-scope answers get worse",
        -0.01,
        0.03,
        main_is_not("embedder", "head", "prototype"),
        set_main(head="prototype"),
    ),
    Play(
        "train.longer",
        "train four times as long",
        "A few epochs leave near intents mixed.",
        "intents that are confused with each other stay confused",
        0.0,
        0.015,
        epochs_between(1, LONG_EPOCHS - 1),
        times_epochs(4),
    ),
    Play(
        "train.shorter",
        "train a quarter as long",
        "Fewer passes move the encoder less, keep more of the base model, and cost less.",
        "in-scope answers get worse",
        0.0,
        0.01,
        epochs_between(LONG_EPOCHS, 1000),
        times_epochs(0.25),
    ),
    Play(
        "train.label_smoothing",
        "label smoothing of 0.05",
        "Softer targets keep scores from saturating, which separates out-of-scope questions better.",
        "out-of-scope questions are ranked no lower among in-scope ones than before (AUROC)",
        0.0,
        0.02,
        every(trained, main_is("embedder", label_smoothing=0.0)),
        set_main(label_smoothing=0.05),
    ),
    Play(
        "base.next",
        "another base model of the task",
        "Base models differ in what they were trained to tell apart; the encoder is often the largest lever.",
        "the same recipe on the other base model is no better",
        0.0,
        0.05,
        lambda r, t: other_base(r, t) is not None,
        lambda r, t: edit.checked(r.model_copy(update={"base_model": other_base(r, t)})),
    ),
    Play(
        "classic.svm",
        "a support vector machine in place of the logistic model",
        "A margin looks at the hard rows only, which suits sparse text features.",
        "in-scope answers are no better",
        0.005,
        0.015,
        main_is_not("classic", "head", "svm"),
        set_main(head="svm"),
    ),
    Play(
        "classic.chars_only",
        "character n-grams without words",
        "Mistyped words still share most of their character n-grams with the right ones.",
        "answers to copies with typing errors are no better",
        -0.005,
        0.02,
        every(main_is_not("classic", "word_max", 0), main_is_not("classic", "char_max", 0)),
        set_main(word_max=0),
    ),
    Play(
        "classic.unweighted",
        "no class weights",
        "Where the test shares are those of train, weights trade frequent intents for rare ones.",
        "frequent intents are answered no better",
        0.0,
        0.01,
        every(main_is_not("classic", "head", "nb"), main_is_not("classic", "class_weight", "none")),
        set_main(class_weight="none"),
    ),
)

SCORE: tuple[Play, ...] = (
    score_play(
        "blend", "largest logit and nearest train row together", "The two scores err on different questions.", 0.02
    ),
    score_play("knn", "the nearest train row", "A question far from every train row is out of scope.", 0.01),
    score_play("max_logit", "the largest logit", "Logits keep the distance that a softmax throws away.", 0.01),
    score_play("energy", "the energy of the logits", "Energy uses all logits, not the largest alone.", 0.005),
    score_play("mahalanobis", "the distance to the nearest class", "It knows the shape of the classes.", -0.01),
    Play(
        "score.log_prob",
        "decide rejection by the log probability",
        "A log scale keeps apart what a probability squeezes together near 1.",
        "the search score does not move",
        0.0,
        0.01,
        every(rejects, main_is_not("classic", "score", "log_prob")),
        set_main(score="log_prob"),
    ),
    Play(
        "inference.threshold_rule",
        "reject a fixed tenth of the in-scope questions",
        "A fixed share needs no made-up out-of-scope questions, so it cannot be misled by them.",
        "the threshold lands where fewer out-of-scope questions are rejected for the same in-scope answers",
        -0.01,
        0.02,
        every(rejects, lambda r, t: r.inference.get("threshold") != "percentile"),
        lambda r, t: edit.with_inference(r, threshold="percentile", q=0.1),
    ),
)

SOUP: tuple[Play, ...] = (
    Play(
        "soup.seeds",
        "two trainings with seeds of their own, their weights averaged",
        "Trainings from one start end in one basin; its middle generalises better than a point on its edge, and "
        "answers at the price of one model (model soups, Wortsman et al. 2022).",
        "the search score does not move",
        0.003,
        0.01,
        every(trained, alone),
        averaged_seeds,
    ),
    Play(
        "soup.rates",
        "a second training with another learning rate, weights averaged",
        "Trainings with different settings err on different questions more than seeds do, and their middle keeps what "
        "they agree on (model soups, Wortsman et al. 2022).",
        "the search score does not move",
        0.003,
        0.012,
        every(trained, alone),
        averaged_rates,
    ),
)

ENSEMBLE: tuple[Play, ...] = (
    Play(
        "ensemble.classic",
        "a TF-IDF model answers along",
        "Words and embeddings err on different questions, and each finds other questions strange.",
        "fewer of its answers are right where the others are wrong than the other way round",
        0.03,
        0.02,
        no_member(CLASSIC),
        add_member(CLASSIC),
    ),
    Play(
        "ensemble.frozen",
        "the untouched encoder answers along",
        "Fine-tuning forgets; the base model still knows what the train rows did not show.",
        "out-of-scope questions are ranked no lower among in-scope ones than before (AUROC)",
        0.03,
        0.02,
        no_member(FROZEN),
        add_member(FROZEN),
    ),
    Play(
        "ensemble.tuned",
        "a fine-tuned encoder answers along, with twice the weight",
        "A space made for these labels separates near intents.",
        "intents that are confused with each other stay confused",
        0.05,
        0.03,
        no_member(TUNED),
        add_member(TUNED, 2.0),
    ),
    Play(
        "ensemble.seeds",
        "a second training of the main member with another seed, averaged",
        "Averaging takes out a part of the training noise.",
        "the search score does not move",
        0.005,
        0.01,
        every(trained, room, no_soup),
        second_seed,
    ),
)

ENCODER: tuple[Play, ...] = (*METHOD, *SCORE, *SOUP, *ENSEMBLE, *DATA)
PLAYS: tuple[Play, ...] = (*ENCODER, *language.PLAYS, *hub.PLAYS)


def plays_of(task: TaskSpec) -> tuple[Play, ...]:
    """The moves of a task: those on language models only where it has one, and Training Hub's where it asks for it."""
    bases = task.base_models or (None,)
    spoken = language.PLAYS if any(language.speaks(task, base) for base in bases) else ()
    return (*ENCODER, *spoken, *(hub.PLAYS if hub.wanted(task) else ()))
