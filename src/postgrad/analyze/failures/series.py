"""Numbers that a training printed, and what their course says: NaN, divergence, a spike, a reward that is dead.

Every detector needs a course of some length and says nothing of a shorter one. They look at what was logged, which may
be every tenth step only, so each is held to what a sparse course shows as well.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from statistics import fmean, median
from typing import Iterable, Sequence

from postgrad.records import Cause, LogLine

SHORTEST = 6
#: A loss that ended at so many times its first value, and above all it had been after its lowest, has diverged.
RISEN = 2.0
#: OLMo 2's number of standard deviations.
SPIKE_SD = 7.0
SPIKE_BEFORE = 8
SPIKE_RISE = 1.5
#: As many groups without spread as a training may have and still learn from the others.
DEAD_SHARE = 0.9
_NUMBER = r"(nan|[-+]?inf(?:inity)?|[-+]?\d{1,30}(?:\.\d{1,30})?(?:[eE][-+]?\d{1,3})?)"
_PAIR = re.compile(rf"([A-Za-z_][\w/ .-]{{0,40}}?)['\"]?\s*[:=|]?\s*['\"]?{_NUMBER}\b", re.IGNORECASE)
_LOSS = re.compile(r"(?:^|[\W_])(?:loss|objective|nll|perplexity)$", re.IGNORECASE)
_HELD_OUT = re.compile(r"eval|valid|test|best|final|policy|value|kl|aux", re.IGNORECASE)
_SPREAD = re.compile(r"reward[\w/ ]*std|std[\w/ ]*reward", re.IGNORECASE)
_FLAT = re.compile(r"frac_reward_zero_std$", re.IGNORECASE)
_REWARD = re.compile(r"(?:^|[\W_])(?:rewards?|return|score)(?:[/_ ]mean)?$|mean_reward$", re.IGNORECASE)
_GRADIENT = re.compile(r"grad(?:ient)?[_ ]norm$", re.IGNORECASE)


@dataclass(frozen=True)
class Point:
    """One number of a course, with the line that it stands in."""

    value: float
    line: LogLine


@dataclass(frozen=True)
class Courses:
    """What was logged, each in order: losses, norms of gradients, rewards, their spread within a group, and the share
    of groups without any."""

    losses: tuple[Point, ...] = ()
    gradients: tuple[Point, ...] = ()
    rewards: tuple[Point, ...] = ()
    spreads: tuple[Point, ...] = ()
    flat: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Found:
    """What a detector says: the cause, and the lines that show it."""

    cause: Cause
    lines: tuple[LogLine, ...]


def courses_of(lines: Iterable[LogLine], history: Sequence[tuple[int, float]] = ()) -> Courses:
    """The courses that lines and a known history hold. Where several losses are logged, the one with most points."""
    losses: dict[str, list[Point]] = {}
    others: dict[str, list[Point]] = {"gradients": [], "rewards": [], "spreads": [], "flat": []}
    for line in lines:
        for name, said in _PAIR.findall(line.text):
            point, key = Point(float(said), line), name.strip()
            if _LOSS.search(key) and not _HELD_OUT.search(key):
                losses.setdefault(key.split()[-1].lower(), []).append(point)
            else:
                kind = _kind(key)
                others.get(kind, []).append(point)
    best = max(losses.values(), key=len, default=[])
    if len(history) > len(best):
        told = ((step, value) for step, value in history)
        best = [Point(v, LogLine(source="history", number=n, text=f"step {n}, loss {v:.4g}")) for n, v in told]
    return Courses(tuple(best), **{kind: tuple(points) for kind, points in others.items()})


def _kind(name: str) -> str:
    if _FLAT.search(name):
        return "flat"
    if _SPREAD.search(name):
        return "spreads"
    if _GRADIENT.search(name):
        return "gradients"
    return "rewards" if _REWARD.search(name) else ""


def detected(courses: Courses) -> Found | None:
    """The first that holds, the surest first."""
    for detector in (diverged_to_infinity, not_a_number, dead_reward, divergence, loss_spike):
        if (found := detector(courses)) is not None:
            return found
    return None


def not_a_number(courses: Courses) -> Found | None:
    """A loss or a norm of a gradient that is not finite. One such gradient alone is what loss scaling skips
    (Micikevicius et al. 2018, "Mixed Precision Training", section 3.2), so of gradients the last has to be one."""
    bad = [point for point in courses.losses if not math.isfinite(point.value)]
    if courses.losses and not math.isfinite(courses.losses[-1].value):
        return Found("nan", (bad[0].line, courses.losses[-1].line))
    if courses.gradients and not math.isfinite(courses.gradients[-1].value):
        return Found("nan", (courses.gradients[-1].line,))
    return None


def diverged_to_infinity(courses: Courses) -> Found | None:
    """A loss that rose and rose before it left the range of numbers: it diverged, and NaN is only where that ended."""
    finite = [point for point in courses.losses if math.isfinite(point.value)]
    if len(finite) == len(courses.losses) or len(finite) < 4:
        return None
    first, last = finite[0], finite[-1]
    rises = sum(b.value > a.value for a, b in zip(finite, finite[1:], strict=False))
    if last.value > 10 * abs(first.value) and rises >= 0.7 * (len(finite) - 1):
        return Found("divergence", (first.line, last.line))
    return None


def divergence(courses: Courses) -> Found | None:
    """A loss that ended at twice its first value, or more, after rising from its lowest.

    Training at too high a rate leaves the region where a step makes the loss smaller (Cohen et al. 2021, "Gradient
    Descent on Neural Networks Typically Occurs at the Edge of Stability", section 2); Wortsman et al. 2023,
    "Small-scale proxies for large-scale Transformer training instabilities", section 2.1, call a training diverged
    whose final loss is above that of its start. Twice is for losses of small batches, which differ by chance.
    """
    values = [point.value for point in courses.losses]
    if len(values) < SHORTEST or not all(map(math.isfinite, values)):
        return None
    part = max(2, len(values) // 8)
    start, end = fmean(values[:part]), fmean(values[-part:])
    if start > 0 and end > RISEN * start and median(values[-part:]) > RISEN * start:
        return Found("divergence", (courses.losses[0].line, courses.losses[-1].line))
    return None


def loss_spike(courses: Courses) -> Found | None:
    """A loss seven standard deviations above the mean of what came before, and half as large again as any of it.

    Seven standard deviations from a rolling mean is the spike score of OLMo 2 (Walsh et al. 2024, arXiv:2501.00656,
    section 3). Chowdhery et al. 2022, "PaLM", section 5.1, trained on from a checkpoint before each spike without the
    batches around it.
    """
    values = [point.value for point in courses.losses]
    if len(values) < SHORTEST or not all(map(math.isfinite, values)):
        return None
    for i in range(SPIKE_BEFORE, len(values)):
        before = values[max(0, i - 50) : i]
        mean = fmean(before)
        spread = max(math.sqrt(fmean((value - mean) ** 2 for value in before)), 1e-3 * abs(mean), 1e-12)
        if values[i] > max(mean + SPIKE_SD * spread, SPIKE_RISE * max(before)):
            return Found("loss_spike", (courses.losses[i - 1].line, courses.losses[i].line))
    return None


def dead_reward(courses: Courses) -> Found | None:
    """Rewards that do not differ within their groups, so that no advantage is left and nothing can be learnt.

    Yu et al. 2025, "DAPO", section 3.2: a group whose answers are all right or all wrong has zero advantage and gives
    no gradient; TRL logs the share of such groups as `frac_reward_zero_std`.
    """
    if len(courses.flat) >= 3 and _share(courses.flat, 1.0) >= DEAD_SHARE:
        return Found("dead_reward", (courses.flat[0].line, courses.flat[-1].line))
    if len(courses.spreads) >= 3 and _share(courses.spreads, 0.0) >= DEAD_SHARE:
        return Found("dead_reward", (courses.spreads[0].line, courses.spreads[-1].line))
    rewards = courses.rewards
    if len(rewards) >= 10 and len({point.value for point in rewards}) == 1 and not courses.spreads:
        return Found("dead_reward", (rewards[0].line, rewards[-1].line))
    return None


def _share(points: Sequence[Point], value: float) -> float:
    return fmean(abs(point.value - value) < 1e-6 for point in points)
