"""What an experiment's result says, in words and as a verdict."""

from __future__ import annotations

from typing import Literal

from postgrad.records import Analysis, Confusion, Difference, Evaluation, Failure

Verdict = Literal["better", "worse", "tie", "raced", "failed", "unscored"]

CAUSES = {
    "nan": "the loss or a weight became NaN: the learning rate is too high for this recipe",
    "oom": "the job needed more memory than it may use",
    "disk": "the disk is full",
    "timeout": "the job ran into its wall-clock limit",
    "hung": "the job used no processor and made no progress",
    "empty": "a data step removed every row",
    "invalid": "the recipe's parameters are not valid",
    "crash": "the training program ended with an error",
    "invalid_output": "the predictions were missing, incomplete or not numbers",
}


def failed(failure: Failure) -> Analysis:
    """An experiment that gave no score."""
    cause = CAUSES.get(failure.kind, failure.kind)
    return Analysis(
        verdict="failed", against=None, difference=None, cause=f"{failure.boundary}: {cause}. {failure.message}"
    )


def cut_off(reason: str) -> Analysis:
    """An experiment that the end of the search overtook: unscored, which is not zero."""
    return Analysis(verdict="unscored", against=None, difference=None, cause=reason)


def judged(
    evaluation: Evaluation,
    against: str | None,
    difference: Difference | None,
    confusions: tuple[Confusion, ...],
    raced: bool,
) -> Analysis:
    """An experiment with a score, compared with its parent, or with the champion where it has none."""
    if difference is None or against is None:
        return Analysis(
            verdict="tie",
            against=None,
            difference=None,
            cause=f"first of its kind: {evaluation.metric} {evaluation.estimate.value:.3f}",
            confusions=confusions,
        )
    verdict = _verdict(difference, raced)
    words = {
        "better": "better, and the interval excludes zero",
        "worse": "worse, and the interval excludes zero",
        "tie": "no difference shown: the interval holds zero",
        "raced": f"stopped after {evaluation.units} of {evaluation.units_planned} folds: clearly behind",
    }[verdict]
    cause = f"{words} ({difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] against {against})"
    return Analysis(verdict=verdict, against=against, difference=difference, cause=cause, confusions=confusions)


def _verdict(difference: Difference, raced: bool) -> Literal["better", "worse", "tie", "raced"]:
    if raced:
        return "raced"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "tie"
