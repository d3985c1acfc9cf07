"""The read of the sealed labels: champion and baselines in the same call, after everything else is decided.

A run has one such read. Where its user reopened it, there are several, and those after the first have wider intervals.
That a read is due is for `seal.py` to know.
"""

from __future__ import annotations

from operator import eq
from typing import TYPE_CHECKING, Callable, Mapping, Sequence

from postgrad.evaluate.evaluator import UnitOutputs, all_metrics, apply_threshold, items_of
from postgrad.evaluate.graded import Judge, UnitTexts, judge_ahead
from postgrad.evaluate.power import CONFIDENCE, refusal, smallest_effect
from postgrad.evaluate.statistics import difference, estimate, sign_test
from postgrad.evaluate.statistics.influence import contributions
from postgrad.metrics import metric_of
from postgrad.metrics.base import Graded, Metric, TextMetric
from postgrad.metrics.items import Items, differing
from postgrad.records import Estimate, Record, Row, SealedRead, SealedScore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Entrant(Record):
    """One model that is read: its role, experiment, frozen threshold, and the artefact with its answers."""

    role: str
    experiment: str
    threshold: float | None
    outputs: str


class Questions(Record):
    """The sealed rows with their labels, and what counts as an answer."""

    rows: tuple[Row, ...]
    labels: tuple[str, ...]
    out_of_scope: str | None
    graded: tuple[str, ...] = ()


def sealed_items(
    outputs: UnitOutputs | UnitTexts, questions: Questions, threshold: float | None, judge: Judge | None = None
) -> Items:
    """Join sealed outputs with sealed labels, judged where the task has a judge, and apply the frozen threshold."""
    rows = {row.id: row for row in questions.rows}
    return apply_threshold(items_of("sealed", outputs, rows, questions, judge=judge), threshold)


def confidence_of(number: int) -> float:
    """The confidence of the intervals of the `number`-th read: 1 - 0.05 / number.

    Bonferroni's correction for that many reads. It does not undo that the recipe of a later read was found by people
    and programs that knew the earlier ones; no interval does.
    """
    return 1 - (1 - CONFIDENCE) / number


def read_sealed(
    metric: str,
    entrants: Sequence[tuple[Entrant, UnitOutputs | UnitTexts]],
    questions: Questions,
    *,
    seed: int,
    number: int = 1,
    guards: Callable[[Items], dict[str, Estimate]] = lambda answered: {},
    judge: Judge | None = None,
) -> SealedRead:
    """Score all entrants on the sealed rows. The first is the champion, the second the baseline.

    Args:
        number: how often the sealed labels have been read in this run, this time included.
        guards: measures the task's guards on answered items; for the record, they decide nothing any more.
        judge: that of the task, where it has one.
    """
    scale = metric_of(metric)
    confidence = confidence_of(number)
    rows = {row.id: row for row in questions.rows}
    judge_ahead(judge, [(outputs, rows) for _, outputs in entrants])
    items = [sealed_items(outputs, questions, entrant.threshold, judge) for entrant, outputs in entrants]
    champion, baseline = items[0], items[1]
    behind = [difference(scale, champion, other, seed=seed, confidence=confidence) for other in items[1:]]
    scores = tuple(
        SealedScore.model_validate(
            {
                **entrant.model_dump(),
                "estimate": estimate(scale, answered, seed=seed, confidence=confidence),
                "metrics": all_metrics(answered),
                "guards": guards(answered),
                "gap": gap,
            }
        )
        for (entrant, _), answered, gap in zip(entrants, items, [None, *behind], strict=True)
    )
    texts = len(set(champion.groups.tolist()))
    return SealedRead(
        metric=metric,
        scores=scores,
        difference=behind[0],
        mcnemar_p=sign_test(gaps(scale, champion, baseline)),
        n=len(champion),
        confidence=confidence,
        texts=texts,
        smallest_effect=smallest_effect(texts),
        discordant=discordance(scale, champion, baseline),
        refused=refusal(texts),
    )


def gaps(metric: Metric | TextMetric, first: Items, second: Items) -> NDArray[np.float64]:
    """(N,) how far one model is ahead of another on each item: right against wrong where answers are labels, else what
    the metric makes of the answers."""
    import numpy as np

    if isinstance(first.answers, Graded):
        ahead = contributions(metric, first.answers) - contributions(metric, second.answers)
        # Equal answers are equal, whatever rounding made of their values.
        found: NDArray[np.float64] = np.nan_to_num(ahead) * differing(metric, first, second)
        return found
    right = [(one.predicted == one.truth).astype(float) for one in (first.labelled, second.labelled)]
    more_right: NDArray[np.float64] = right[0] - right[1]
    return more_right


def discordance(metric: Metric | TextMetric, first: Items, second: Items) -> float:
    """The share of items, the same in both, on which one of two models is ahead; 0.0 for no items."""
    return float((gaps(metric, first, second) != 0).mean()) if len(first) else 0.0


def agreement(
    first: UnitOutputs | UnitTexts, second: UnitOutputs | UnitTexts, threshold: float | None = None
) -> Mapping[str, float]:
    """How far two sets of answers to the same inputs agree, without any label: share of equal answers, rejections
    under the threshold included, largest difference of a score and of a probability."""
    import numpy as np

    if isinstance(first, UnitTexts) or isinstance(second, UnitTexts):
        if not (isinstance(first, UnitTexts) and isinstance(second, UnitTexts)) or first.ids != second.ids:
            return {"same_answer": 0.0, "max_score_difference": float("inf"), "max_prob_difference": float("inf")}
        same_texts = sum(map(eq, first.texts, second.texts)) / max(1, len(first.ids))
        return {"same_answer": same_texts, "max_score_difference": 0.0, "max_prob_difference": 0.0}
    if first.ids != second.ids:
        return {"same_answer": 0.0, "max_score_difference": float("inf"), "max_prob_difference": float("inf")}
    same = first.probs.argmax(1) == second.probs.argmax(1)
    if threshold is not None:
        rejected = [outputs.score.astype(np.float64) < threshold for outputs in (first, second)]
        same = np.where(rejected[0] | rejected[1], rejected[0] == rejected[1], same)
    return {
        "same_answer": float(same.mean()),
        "max_score_difference": float(np.abs(first.score - second.score).max(initial=0.0)),
        "max_prob_difference": float(np.abs(first.probs - second.probs).max(initial=0.0)),
    }
