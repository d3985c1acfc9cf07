"""What was measured, what it means, and what is remembered of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from postgrad.records.base import Record, Split
from postgrad.records.estimates import Difference, Estimate, Race
from postgrad.records.failed import RootCause


class Evaluation(Record):
    """What the referee measured of one experiment on one split. Per-item results are in the artefact `items`.

    `guards` holds the guards that answers decide, by `guard_names`; none in runs of older versions.
    """

    experiment: str
    split: Split
    seed: int
    metric: str
    estimate: Estimate
    metrics: dict[str, float]
    threshold: float | None
    items: str
    units: int
    units_planned: int
    guards: dict[str, Estimate] = Field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """False when racing stopped the experiment after its first units."""
        return self.units == self.units_planned


class Confusion(Record):
    """A bad case: items of `truth` that were answered `predicted`, with the ids of some."""

    truth: str
    predicted: str
    count: int
    ids: tuple[str, ...]


class Lesson(Record):
    """A claim with the experiments that support it."""

    claim: str
    experiments: tuple[str, ...]
    effect: Estimate
    scope: str


class Blame(Record):
    """A cause of an experiment's bad cases, as its search items show it.

    Attributes:
        cause: a kind of the table in `analyze/causes.py`.
        share: of the search items, from 0 to 1, that it is about; for a cause in the whole training, all wrong ones.
        moves: kinds of change that address it.
    """

    cause: str
    share: float
    moves: tuple[str, ...]


class Analysis(Record):
    """What happened and why. Every experiment ends in one, failures too.

    Attributes:
        verdict: keep, discard, retest and tie are the decision rule's, `rejected` is a person's; `better` and `worse`
            are of older versions.
        against, difference: the paired difference to the parent (raced: to the champion), its interval with seed noise.
        rival, gain: the posterior of the true gain over the champion it was proposed against, with a 95 % interval.
        subject: the first experiment with this recipe, where this one only trained it again with another seed.
        seed_sd: standard deviation of a whole score over training seeds, as known then.
        race: of an experiment that was stopped early.
        blamed: causes of its bad cases, the largest first; none in runs of older versions.
        root: why its job failed; None where none did, and in runs of older versions.
    """

    verdict: Literal["keep", "discard", "retest", "tie", "raced", "failed", "unscored", "rejected", "better", "worse"]
    against: str | None
    difference: Difference | None
    cause: str
    rival: str | None = None
    gain: Estimate | None = None
    subject: str | None = None
    seed_sd: float | None = None
    race: Race | None = None
    confusions: tuple[Confusion, ...] = ()
    blamed: tuple[Blame, ...] = ()
    root: RootCause | None = None
    lesson: Lesson | None = None


class SealedScore(Record):
    """One model in the sealed read. `gap` is champion minus this one; None for the champion itself, and in the reads of
    older versions."""

    role: Literal["champion", "baseline", "base_model", "few_shot", "constant"]
    experiment: str
    estimate: Estimate
    metrics: dict[str, float]
    threshold: float | None
    outputs: str
    guards: dict[str, Estimate] = Field(default_factory=dict)
    gap: Difference | None = None


class Transfer(Record):
    """What the changes of a script are worth in a larger setting than that of the search.

    Attributes:
        command, time_s: of the larger setting.
        trainings: how many gave a number, of the champion and of the baseline.
        estimates: of the champion and of the baseline on the sealed file; None, with `said`, where there is none.
        difference: champion minus baseline.
        said: why nothing was measured, or what went wrong.
    """

    command: tuple[str, ...]
    time_s: float
    trainings: tuple[int, int] = (0, 0)
    estimates: tuple[Estimate, Estimate] | None = None
    difference: Difference | None = None
    said: str = ""


class SealedRead(Record):
    """One read of the sealed split: champion and baselines together.

    `confidence` is that of its intervals: 0.95 for a first read, more for a later one. `texts` counts different texts
    among the `n` rows; `smallest_effect` is the difference they show four times in five, `discordant`
    the share of rows on which exactly one of champion and baseline is right. `refused` says why the result
    is not certified; the numbers are there all the same. `transfer` is of scripts that name a larger setting, `remarks`
    are what a reader has to know besides, in words.
    """

    metric: str
    scores: tuple[SealedScore, ...]
    difference: Difference
    mcnemar_p: float
    n: int
    confidence: float = 0.95
    texts: int | None = None
    smallest_effect: float | None = None
    discordant: float | None = None
    refused: str | None = None
    transfer: Transfer | None = None
    remarks: tuple[str, ...] = ()


class JudgeControl(Record):
    """What a judge said where the right answer is known: references against references of other rows, in both orders.

    Attributes:
        n: questions that were asked; 0 where there were no two different references to compare.
        right: share of them of which both orders preferred the right one, with its 95 % interval (Wilson).
        agreement: share of them of which both orders said the same.
        first: share of all verdicts that went to the first place.
    """

    n: int
    right: float
    low: float
    high: float
    agreement: float
    first: float

    @property
    def believed(self) -> bool:
        """False where the judge is not shown to prefer the right answer more often than not."""
        return self.n > 0 and self.low > 0.5


class DataCard(Record):
    """What the data looks like, made before anything is spent."""

    rows: dict[str, int]
    labels: dict[str, int]
    out_of_scope: dict[str, int]
    duplicates: int
    leaked: dict[str, int]
    words_median: float
    warnings: tuple[str, ...]
