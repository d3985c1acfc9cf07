"""From the entries of finished runs to the prior of a later one: a normal hierarchical model for each kind of change.

A kind's effect in a run is drawn around the kind's own mean, which the playbook's table has a prior about: half of the
table's variance is taken for what is not known of that mean, the rest for how much runs differ. The spread between runs
is integrated out on a grid (A. Gelman et al., "Bayesian Data Analysis", 3rd edition (2013), section 5.4), under a half
Cauchy prior (A. Gelman, Bayesian Analysis 1 (2006) 515-534). A run on another type of task counts for less: its
likelihood is raised to a power below 1 (power prior, J. Ibrahim and M.-H. Chen, Statistical Science 15 (2000) 46-60).
"""

from __future__ import annotations

from math import exp, log, sqrt
from typing import Mapping, NamedTuple, Sequence

from postgrad.memory.effects import BETWEEN_PARENTS, FAILED_EFFECT
from postgrad.memory.entries import LABELS, ROWS, KindEntry, RunEntry, TaskType
from postgrad.records import Prior

# The share of the table's variance that is about the kind's mean, and what its spread counts for at least.
ABOUT_MEAN, LEAST_TABLE_SD = 0.5, 0.01
# A prior is worth at most so many of the run's own experiments, each with this standard error.
MOST_WORTH, ONE_EXPERIMENT_SD = 4.0, 0.025
LEAST_SD = ONE_EXPERIMENT_SD / sqrt(MOST_WORTH)
MOST_EFFECT = 0.1
# No entry is believed to be more exact than this, whatever it says of itself.
LEAST_VARIANCE = 1e-5
# Weights of a run on a task that differs in one thing; differences multiply.
OTHER_METRIC, OTHER_REJECTION, SIZE_STEP, LABELS_STEP = 0.5, 0.5, 0.7, 0.8
GRID = tuple(0.1 * 30 ** (step / 19) for step in range(20))


class Normal(NamedTuple):
    """A normal belief about an effect."""

    mean: float
    sd: float


class Observation(NamedTuple):
    """What one run saw of a kind: a mean, its variance, and what the run counts for, from 0 to 1."""

    mean: float
    variance: float
    weight: float


def likeness(one: TaskType, other: TaskType) -> float:
    """What a run on one type of task counts for on another: 1 for the same type, 0 for another kind of task."""
    if one.kind != other.kind:
        return 0.0
    metric = 1.0 if one.metric == other.metric else OTHER_METRIC
    rejects = 1.0 if one.rejects == other.rejects else OTHER_REJECTION
    rows = abs(ROWS.index(one.rows) - ROWS.index(other.rows))
    labels = abs(LABELS.index(one.labels) - LABELS.index(other.labels))
    return float(metric * rejects * SIZE_STEP**rows * LABELS_STEP**labels)


def priors(entries: Sequence[RunEntry], about: TaskType, table: Mapping[str, Normal]) -> dict[str, Prior]:
    """Kind -> the prior of a run on this type of task, for the kinds of the table that any run tried."""
    seen: dict[str, list[Observation]] = {}
    for entry in entries:
        weight = likeness(entry.task, about)
        for kind in entry.kinds:
            if weight > 0 and kind.kind in table and kind.count + kind.failures:
                seen.setdefault(kind.kind, []).append(observed(kind, weight))
    found = {}
    for name, observations in sorted(seen.items()):
        belief, alone = shrunk(table[name], observations), shown(table[name], observations)
        found[name] = Prior(
            mean=round(belief.mean, 5),
            sd=round(belief.sd, 5),
            runs=len(observations),
            effect=round(alone.mean, 5),
            error=round(alone.sd, 5),
        )
    return found


def observed(kind: KindEntry, weight: float) -> Observation:
    """Measured effects and failures of one run together."""
    precision = total = 0.0
    if kind.count:
        precision = 1 / max(kind.variance, LEAST_VARIANCE)
        total = precision * kind.mean
    failed = kind.failures / BETWEEN_PARENTS**2
    return Observation((total + failed * FAILED_EFFECT) / (precision + failed), 1 / (precision + failed), weight)


def shrunk(table: Normal, seen: Sequence[Observation]) -> Normal:
    """What the kind is expected to bring in a new run. Never surer than `MOST_WORTH` of its experiments, except where
    the table is, and never less sure than the table: finished runs are no reason to gamble more."""
    scale = max(table.sd, LEAST_TABLE_SD)
    mean, spread = _expected(scale, Normal(table.mean, sqrt(ABOUT_MEAN) * scale), seen)
    return Normal(mean, min(table.sd, max(sqrt(spread), LEAST_SD)))


def shown(table: Normal, seen: Sequence[Observation]) -> Normal:
    """What the runs alone say of a new one: nothing was known of the mean before, and only how much runs may differ is
    the table's. Never surer than `MOST_WORTH` of its experiments, and never more than `MOST_EFFECT`: it is tried first
    then in any case, and a run soon sees for itself. Needs an observation."""
    alone = anew(table, seen)
    return Normal(min(MOST_EFFECT, max(-MOST_EFFECT, alone.mean)), alone.sd)


def anew(table: Normal, seen: Sequence[Observation]) -> Normal:
    """The same, however large."""
    mean, spread = _expected(max(table.sd, LEAST_TABLE_SD), None, seen)
    return Normal(mean, max(sqrt(spread), LEAST_SD))


def _expected(scale: float, about: Normal | None, seen: Sequence[Observation]) -> tuple[float, float]:
    """(mean, variance) of a new run's effect, given what is known of the kind's mean; runs differ by about `scale`."""
    parts = [_given(factor * scale, about, seen) for factor in GRID]
    highest = max(likelihood - log(1 + factor**2) for factor, (likelihood, _, _) in zip(GRID, parts, strict=True))
    # Equal steps of the grid are equal steps of the logarithm: the density of the scale is times the scale.
    shares = [
        factor * exp(likelihood - log(1 + factor**2) - highest)
        for factor, (likelihood, _, _) in zip(GRID, parts, strict=True)
    ]
    total = sum(shares)
    mean = sum(share * part[1] for share, part in zip(shares, parts, strict=True)) / total
    spread = sum(share * (part[2] + (part[1] - mean) ** 2) for share, part in zip(shares, parts, strict=True)) / total
    return mean, spread


def _given(between: float, about: Normal | None, seen: Sequence[Observation]) -> tuple[float, float, float]:
    """(log likelihood, mean, variance of a new run's effect) where runs differ by `between`."""
    precision = 1 / about.sd**2 if about else 0.0
    total = precision * about.mean if about else 0.0
    for one in seen:
        weight = one.weight / (one.variance + between**2)
        precision, total = precision + weight, total + weight * one.mean
    centre = total / precision
    likelihood = -0.5 * log(precision)
    likelihood -= 0.5 * ((centre - about.mean) / about.sd) ** 2 if about else 0.0
    for one in seen:
        variance = one.variance + between**2
        likelihood -= 0.5 * one.weight * (log(variance) + (one.mean - centre) ** 2 / variance)
    return likelihood, centre, 1 / precision + between**2
