"""What an experiment's result says, in words and as a verdict."""

from __future__ import annotations

from typing import Literal, Protocol

from postgrad.records import Analysis, Confusion, Difference, Evaluation, Failure, Race, RootCause

Verdict = Literal["keep", "discard", "retest", "tie", "raced", "failed", "unscored", "rejected", "better", "worse"]


class Believed(Protocol):
    """The posterior of an effect: its mean, and the probability that it is above zero."""

    @property
    def mean(self) -> float: ...

    @property
    def better(self) -> float: ...


class Judgement(Protocol):
    """What the decision rule says of an experiment; `evaluate.statistics.known` has the whole."""

    @property
    def rival(self) -> str | None: ...

    @property
    def verdict(self) -> Literal["keep", "discard", "retest", "tie"]: ...

    @property
    def belief(self) -> Believed: ...

    @property
    def leads(self) -> bool: ...

    @property
    def seeds(self) -> int: ...


CAUSES = {
    "nan": "the loss became NaN or only rose: the learning rate is too high for this recipe",
    "oom": "the job needed more memory than it may use",
    "disk": "the disk is full",
    "timeout": "the job ran into its wall-clock limit",
    "budget": "the job used up what budgets left it",
    "other_hardware": "it was trained on another kind of hardware than what it would be compared with",
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


def failed(failure: Failure, root: RootCause | None = None) -> Analysis:
    """An experiment that gave no score, and why where a job of it failed."""
    cause = CAUSES.get(failure.kind, failure.kind)
    words = f"{failure.boundary}: {cause}. {failure.message}"
    return Analysis(verdict="failed", against=None, difference=None, cause=words, root=root)


def cut_off(reason: str) -> Analysis:
    """An experiment that the end of the search overtook: unscored, which is not zero."""
    return Analysis(verdict="unscored", against=None, difference=None, cause=reason)


def rejected(by: str, reason: str) -> Analysis:
    """An experiment that a person did not want: it was not tried, and says nothing of its recipe."""
    words = f"{by} rejected it before it was tried" + (f": {reason}" if reason else "")
    return Analysis(verdict="rejected", against=None, difference=None, cause=words)


def raced(
    evaluation: Evaluation,
    against: str | None,
    gap: Difference | None,
    shown: tuple[Confusion, ...],
    race: Race | None = None,
) -> Analysis:
    """An experiment that was stopped after its first units: hardly anything speaks for its beating the champion."""
    words = f"stopped after {evaluation.units} of {evaluation.units_planned} folds"
    if gap is not None:
        words += f", where it is at {_interval(gap)} against {against}"
    if race is not None:
        words += (
            f": it would have come near or ahead with probability {race.chance:.3f} (rank correlation of such a part "
            f"with the whole: {race.correlation:.2f} over {race.ended} experiments)"
        )
    return Analysis(verdict="raced", against=against, difference=gap, cause=words, confusions=shown, race=race)


def cut_short(race: Race, against: str | None) -> Analysis:
    """An experiment whose only training was ended on its way: there is no score of it, and no difference."""
    likely = race.expected
    words = (
        f"stopped after {race.share:.0%} of its time: by what it printed it would have come to {likely.value:.3f} "
        f"[{likely.low:.3f}, {likely.high:.3f}], and near or ahead of {against} with probability {race.chance:.3f} "
        f"(rank correlation of what is printed then with the score: {race.correlation:.2f} over {race.ended} "
        "experiments)"
    )
    return Analysis(verdict="raced", against=against, difference=None, cause=words, race=race)


def unmeasured(evaluation: Evaluation, shown: tuple[Confusion, ...]) -> Analysis:
    """An experiment whose metric is not defined on its answers."""
    words = f"{evaluation.metric} is not defined on these answers, so there is nothing to compare"
    return Analysis(verdict="tie", against=None, difference=None, cause=words, confusions=shown)


def same_again(subject: str, shown: tuple[Confusion, ...]) -> Analysis:
    """A recipe and seed that were trained before: nothing new was learnt."""
    words = f"the same recipe and seed as {subject}: nothing new"
    return Analysis(verdict="tie", against=None, difference=None, cause=words, confusions=shown, subject=subject)


def said(found: Judgement, gap: Difference | None, against: str | None, subject: str | None) -> Analysis:
    """What the decision rule said, in words."""
    if found.rival is None:
        words = f"{subject} with {found.seeds} seeds" if subject else "the first of the run"
        words += "; trained again to learn how much a seed matters" if found.verdict == "retest" else ""
        return Analysis(
            verdict="retest" if found.verdict == "retest" else "tie",
            against=None,
            difference=None,
            cause=words,
            subject=subject,
        )
    name = f"{subject} with {found.seeds} seeds" if subject else "this"
    words = {
        "keep": f"{name} was kept before",
        "retest": f"another training seed of {subject or 'it'} says more than a new recipe",
        "discard": f"{name} is worse than {found.rival}, or does nothing",
        "tie": f"{name} leads, and is not shown to be better than {found.rival} yet"
        if found.leads
        else f"{name} does not lead, and is not shown to be worse than {found.rival}",
    }[found.verdict]
    belief = found.belief
    words += f" (believed gain {belief.mean:+.3f}, better with probability {belief.better:.2f})"
    return Analysis(verdict=found.verdict, against=against, difference=gap, cause=words, subject=subject)


def _interval(gap: Difference) -> str:
    return f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
