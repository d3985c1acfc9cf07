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
    "flood": "the job wrote too much or started too many processes",
    "forbidden_file": "the job tried to touch a file that is not its own",
    "network": "the job tried to reach the network",
    "signal": "the job tried to signal a process that is not its own",
    "left_behind": "the job left processes behind",
    "changed_inputs": "the job changed what it was given",
    "planted_link": "the job left a link in place of a file",
    "special_file": "the job left a pipe, a device or a folder in place of a file",
    "outside": "the job named outputs outside its folder",
    "forged_result": "the job's result is not that of what was asked",
    "oversized": "the job left a file that is too large or unpacks to too much",
    "pickle": "the job left a file that runs code when it is read",
    "model_file": "the saved model holds a file that is no part of a model",
    "model_facts": "the saved model says that it is another one",
    "swapped_weights": "the saved model does not give the answers that the job gave",
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
