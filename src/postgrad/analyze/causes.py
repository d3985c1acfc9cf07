"""Why an experiment errs on its bad cases: in the data, in the training, or in the inference.

Each cause is a kind with the items it is about, and a table links the kind to moves of the playbook that address it.
A cause is evidence and no proof: which move helps is what the next experiment is for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Literal, Mapping, Sequence

from postgrad.metrics.base import Graded

if TYPE_CHECKING:
    from postgrad.analyze.matrix import ItemMatrix
    from postgrad.metrics.items import Items

Where = Literal["data", "training", "inference"]
CauseKind = Literal[
    "mislabelled",
    "conflict",
    "missing",
    "divergence",
    "underfit",
    "overfit",
    "forgetting",
    "unstable",
    "rejected",
    "accepted",
    "truncated",
    "wrong_form",
]


@dataclass(frozen=True)
class Known:
    """What is known of a kind of cause: where it lies, what it means, and kinds of moves that address it.

    `moves` is empty where the playbook has none; `otherwise` is what a person can do.
    """

    where: Where
    meaning: str
    moves: tuple[str, ...]
    otherwise: str = ""


CAUSES: Mapping[CauseKind, Known] = {
    "mislabelled": Known(
        "data",
        "another label is ten times as likely for the text as the one it has",
        ("data.relabel", "data.clean_labels", "train.label_smoothing", "train.shorter"),
        "look at these labels, and correct those that are wrong",
    ),
    "conflict": Known(
        "data",
        "train rows say nearly the same under another label",
        ("data.clean_labels", "train.label_smoothing", "data.dedup"),
        "decide which of the labels is right, or join the two",
    ),
    "missing": Known(
        "data",
        "no train row of the label is like the text",
        ("data.word_dropout", "data.typos", "base.next", "ensemble.frozen", "lm.more_rows"),
        "add train rows like these",
    ),
    "divergence": Known(
        "training",
        "the loss became NaN, or ended above where it began",
        ("method.partial", "method.lora", "soup.rates", "lm.shorter"),
        "bound the learning rate in the task's space",
    ),
    "underfit": Known(
        "training",
        "the loss was still falling when the training ended",
        ("train.longer", "method.full_finetune", "lm.longer", "hub.longer"),
    ),
    "overfit": Known(
        "training",
        "the train rows are learnt by heart, and search items are not answered",
        ("train.shorter", "train.label_smoothing", "method.lora", "lm.shorter", "hub.shorter"),
    ),
    "forgetting": Known(
        "training",
        "what an experiment before it on its path solved is answered wrong, more often than the other way round",
        ("ensemble.frozen", "method.lora", "method.partial", "train.shorter", "lm.interpolate"),
    ),
    "unstable": Known(
        "training",
        "trainings of the same recipe with other seeds solve it",
        ("ensemble.seeds", "soup.seeds"),
    ),
    "rejected": Known(
        "inference",
        "the answer was right and the threshold rejected it",
        ("inference.threshold_rule", "score.blend", "score.knn", "negatives.uniform", "score.log_prob"),
    ),
    "accepted": Known(
        "inference",
        "an out-of-scope question was answered",
        ("score.knn", "score.blend", "data.near_misses", "data.background", "inference.threshold_rule"),
    ),
    "truncated": Known(
        "inference",
        "the answer was cut at the limit of tokens",
        ("lm.shots", "lm.tune"),
        "raise generation.max_new_tokens",
    ),
    "wrong_form": Known(
        "inference",
        "the right answer is in it, among other words",
        ("lm.shots", "lm.tune", "lm.learn_prompt"),
        "say in generation.prompt what form an answer has",
    ),
}

# A loss that fell by this share over the last quarter was still falling; one under this share of the first is learnt.
FALLING, LEARNT, LONG_ENOUGH = 0.1, 0.05, 16
ERRING = 0.1
UNLIKELY = 0.05


@dataclass(frozen=True)
class Cause:
    """One cause of bad cases of an experiment.

    Attributes:
        keys: the items it is about, `UNIT/ITEM_ID`; empty for what concerns the whole training.
        evidence: figures, or ids of train rows by item.
    """

    kind: CauseKind
    keys: tuple[str, ...]
    words: str
    evidence: Mapping[str, str]

    @property
    def known(self) -> Known:
        return CAUSES[self.kind]


# --- inference ------------------------------------------------------------------------------------------------------


def inference_causes(items: Items, max_new_tokens: int | None = None) -> tuple[Cause, ...]:
    """What the last step of answering did: rejections of right answers, answers to what is out of scope, cut answers,
    and answers in the wrong form.

    Args:
        max_new_tokens: where answers in words are cut; None where they are not.
    """
    if isinstance(items.answers, Graded):
        return _of_words(items, items.answers, max_new_tokens)
    a = items.answers
    rejected = (a.truth >= 0) & (a.predicted < 0) & (a.argmax == a.truth)
    accepted = (a.truth < 0) & (a.predicted >= 0)
    return (
        *_cause("rejected", [str(key) for key in items.keys[rejected]], "right answers were rejected"),
        *_cause("accepted", [str(key) for key in items.keys[accepted]], "out-of-scope questions were answered"),
    )


def _of_words(items: Items, graded: Graded, max_new_tokens: int | None) -> tuple[Cause, ...]:
    cut, form = [], []
    for key, answer in zip(items.keys, graded.answered, strict=True):
        said, wanted = _plain(answer.answer), _plain(answer.reference)
        if max_new_tokens is not None and answer.tokens >= max_new_tokens and said != wanted:
            cut.append(str(key))
        elif wanted and said != wanted and f" {wanted} " in f" {said} ":
            form.append(str(key))
    return (
        *_cause("truncated", cut, f"answers were cut at {max_new_tokens} tokens"),
        *_cause("wrong_form", form, "answers hold the right one among other words"),
    )


def _plain(text: str) -> str:
    """Letters and digits in lower case, with single spaces."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


def _cause(kind: CauseKind, keys: Sequence[str], words: str, evidence: Mapping[str, str] | None = None) -> list[Cause]:
    """One cause, or none where it is about nothing."""
    return [Cause(kind, tuple(keys), f"{len(keys)} {words}", evidence or {})] if keys else []


# --- training -------------------------------------------------------------------------------------------------------


def curve_causes(histories: Sequence[Sequence[tuple[int, float]]], error: float) -> tuple[Cause, ...]:
    """What the loss curves of an experiment's units say; nothing of curves with fewer than `LONG_ENOUGH` points.

    Args:
        histories: (step, loss) points of each unit.
        error: the share of search items that are answered wrong, 0 to 1.
    """
    curves = [[loss for _, loss in points] for points in histories if len(points) >= LONG_ENOUGH]
    shapes = [_shape(curve) for curve in curves]
    found: list[Cause] = []
    for kind in dict.fromkeys(shape for shape in shapes if shape):
        if kind == "overfit" and error < ERRING:
            continue
        count = shapes.count(kind)
        if 2 * count > len(curves):
            figures = {"units": f"{count} of {len(curves)}", "search error": f"{error:.3f}"}
            found.append(Cause(kind, (), f"in {count} of {len(curves)} trainings {CAUSES[kind].meaning}", figures))
    return tuple(found)


def _shape(losses: Sequence[float]) -> Literal["divergence", "underfit", "overfit"] | None:
    """What is wrong with one loss curve. Averages of an eighth stand for its points, which are single batches."""
    if not all(math.isfinite(loss) for loss in losses):
        return "divergence"
    part = max(1, len(losses) // 8)
    first, last = fmean(losses[:part]), fmean(losses[-part:])
    before = fmean(losses[-3 * part : -2 * part])
    if last > first:
        return "divergence"
    if last <= LEARNT * first:
        return "overfit"
    return "underfit" if last < (1 - FALLING) * before else None


def path_causes(matrix: ItemMatrix, experiment: str, before: Sequence[str]) -> tuple[Cause, ...]:
    """Items that the experiment it extends solved and it does not, where more are lost than won (one-sided sign test),
    and items that other seeds of its recipe solve.

    Args:
        before: the experiments on the path to it, the nearest last.
    """
    import numpy as np

    mine = matrix.row(experiment)
    found: list[Cause] = []
    older = [name for name in before if name in matrix.experiments]
    if older:
        theirs = matrix.row(older[-1])
        lost, won = (theirs == 1) & (mine == 0), (theirs == 0) & (mine == 1)
        p = sign_test(int(lost.sum()), int(won.sum()))
        if p < UNLIKELY:
            words = f"items that {older[-1]} solved are answered wrong, {int(won.sum())} the other way round"
            found += _cause("forgetting", [str(k) for k in matrix.keys[lost]], words, {"p": f"{p:.2g}"})
    recipe = matrix.recipes[matrix.experiments.index(experiment)]
    seeds = [n for n, h in zip(matrix.experiments, matrix.recipes, strict=True) if h == recipe and n != experiment]
    if seeds:
        solved = np.any([matrix.row(name) == 1 for name in seeds], axis=0) & (mine == 0)
        words = "items are solved by other seeds of the same recipe"
        found += _cause("unstable", [str(k) for k in matrix.keys[solved]], words, {"seeds": ", ".join(seeds)})
    return tuple(found)


def sign_test(lost: int, won: int) -> float:
    """P(at least `lost` of the differing items) where losing and winning are equally likely (exact McNemar)."""
    from scipy.stats import binom

    return float(binom.sf(lost - 1, lost + won, 0.5)) if lost + won else 1.0
