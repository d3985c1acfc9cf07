"""The pictures of the report: champion over budget, intervals, effects. The tree has a file of its own.

Inline SVG without script; what a mark means is in its tooltip and in the tables, so nothing depends on colour alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Iterable, Sequence

from markupsafe import Markup

from postgrad.budget import format_duration
from postgrad.records import Difference, Estimate, SealedScore
from postgrad.report import wording
from postgrad.report.svg import (
    Scale,
    cross,
    decimals,
    dot,
    line,
    picture,
    points,
    round_step,
    tag,
    text,
    ticks,
    time_ticks,
)
from postgrad.report.terminal import champion_sparkline, terminal_tree
from postgrad.report.tree_picture import search_tree
from postgrad.report.tried import Tried
from postgrad.report.view import Moment, RunView
from postgrad.tree import Experiment, State

__all__ = [
    "champion_curve",
    "champion_sparkline",
    "effect_axis",
    "effect_bar",
    "effect_scale",
    "estimate_axis",
    "estimate_bar",
    "estimate_scale",
    "legend",
    "search_tree",
    "terminal_tree",
]

WIDTH, HEIGHT = 960.0, 370.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 14.0, 40.0, 46.0
STRIP = 24.0
METHODS = 7
OUTLYING = 5.0
BAR_WIDTH, BAR_HEIGHT = 300.0, 24.0


# --- methods --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """One entry of a legend: the class of its colour, what it stands for, how many experiments."""

    class_: str
    name: str
    count: int


def legend(view: RunView) -> tuple[Key, ...]:
    """The methods that were used, each with a colour, most used first; what is rarer than the colours share grey."""
    counts: dict[str, int] = {}
    for node in view.tree.all():
        name = wording.method(node.proposed.proposal.recipe)
        counts[name] = counts.get(name, 0) + 1
    ranked = sorted(counts, key=lambda name: -counts[name])
    keys = [Key(f"m{i}", name, counts[name]) for i, name in enumerate(ranked[:METHODS])]
    rest = ranked[METHODS:]
    return (*keys, Key("mx", "others", sum(counts[name] for name in rest))) if rest else tuple(keys)


def _colour(node: Experiment, keys: Sequence[Key]) -> str:
    name = wording.method(node.proposed.proposal.recipe)
    return next((key.class_ for key in keys if key.name == name), "mx")


# --- the champion over budget ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Frame:
    """The axes of the curve: seconds to the right, score upwards, and a strip below for what has no score."""

    x: Scale
    y: Scale
    keys: tuple[Key, ...]

    @property
    def floor(self) -> float:
        return self.y.start + STRIP


def champion_curve(view: RunView) -> Markup:
    """The champion of the search with its interval over budget, and every experiment as a mark."""
    end = max([view.spent.wall_s, *(moment.clock for moment in view.moments)], default=1.0)
    low, high = _score_range(view)
    frame = _Frame(
        x=Scale(0.0, max(end, 1.0), LEFT, WIDTH - RIGHT),
        y=Scale(low, high, HEIGHT - BOTTOM - STRIP, TOP),
        keys=legend(view),
    )
    label = f"Search score of the champion over {format_duration(end)}, and of all {len(view.tree)} experiments"
    return picture(
        WIDTH,
        HEIGHT,
        label,
        *_axes(view, frame),
        *_finish(view, frame),
        *_champion_line(view, frame),
        *_baseline(view, frame),
        *(mark for moment in view.moments for mark in _mark(view, moment, frame)),
        *_name_of_champion(view, frame),
        class_="curve",
    )


def _score_range(view: RunView) -> tuple[float, float]:
    """The scores worth telling apart: the constant answer and early misses must not press the rest flat."""
    scores = sorted(node.score for node in view.tree.all() if node.score is not None and math.isfinite(node.score))
    if not scores:
        return 0.0, 1.0
    highs = [reign.estimate.high for reign in view.reigns if math.isfinite(reign.estimate.high)]
    lows = [reign.estimate.low for reign in view.reigns if math.isfinite(reign.estimate.low)]
    top = max([*scores, *highs])
    low = min([*scores, *lows])
    typical = scores[len(scores) // 5]
    if view.baseline is not None and view.baseline.score is not None:
        typical = min(typical, view.baseline.score)
    if top - low > 2.0 * (top - typical) > 0:
        low = typical - 0.35 * (top - typical)
    pad = 0.06 * (top - low) or 0.05
    return low - pad, top + pad


def _axes(view: RunView, frame: _Frame) -> Iterable[Markup]:
    x, y = frame.x, frame.y
    step = round_step(y.high - y.low, 6)
    for value in ticks(y.low, y.high):
        yield line(x.start, y(value), x.end, y(value), "grid")
        yield text(x.start - 8, y(value) + 4, wording.number(value, max(1, decimals(step))), "tick", "end")
    for seconds in time_ticks(x.high):
        yield text(x(seconds), frame.floor + 18, format_duration(seconds) if seconds else "0", "tick", "middle")
        yield line(x(seconds), frame.floor, x(seconds), frame.floor + 4, "axis")
    yield line(x.start, frame.floor, x.end, frame.floor, "axis")
    yield line(x.start, y.start, x.end, y.start, "grid")
    yield text(x.end, frame.floor + 36, "time", "tick", "end")
    yield text(x.start - 8, frame.floor - 8, "none", "tick", "end")
    yield text(x.start - 42, TOP - 24, f"{wording.metric_name(view.metric)} on the search split", "name")
    yield from _experiment_ticks(view, frame)


def _experiment_ticks(view: RunView, frame: _Frame) -> Iterable[Markup]:
    """How many experiments had ended by then, on the upper edge."""
    if not view.moments:
        return
    step = max(1, round(round_step(len(view.moments), 10)))
    taken = -math.inf
    yield text(frame.x.end, TOP - 24, "experiments ended", "tick", "end")
    for count in range(step, len(view.moments) + 1, step):
        place = frame.x(view.moments[count - 1].clock)
        yield line(place, TOP - 4, place, TOP, "axis")
        if place - taken > 20 and place < frame.x.end - 4:
            yield text(place, TOP - 8, str(count), "tick", "middle")
            taken = place


def _finish(view: RunView, frame: _Frame) -> Iterable[Markup]:
    """The part of the budget that certified and sealed the champion."""
    if view.search_ended is None or not view.moments:
        return
    start = frame.x(view.moments[-1].clock)
    width = frame.x.end - start
    if width < 2:
        return
    yield tag("rect", x=start, y=TOP, width=width, height=frame.floor - TOP, class_="finish")
    if width > 110:
        yield text(start + width / 2, frame.floor - 8, "select and seal", "tick", "middle")


def _steps(view: RunView, frame: _Frame) -> list[tuple[float, float, Estimate]]:
    """(from pixel, to pixel, estimate) of every reign that can be drawn."""
    ends = [*(reign.clock for reign in view.reigns), view.moments[-1].clock if view.moments else 0.0]
    return [
        (frame.x(reign.clock), frame.x(end), reign.estimate)
        for reign, end in zip(view.reigns, ends[1:], strict=True)
        if math.isfinite(reign.estimate.value)
    ]


def _champion_line(view: RunView, frame: _Frame) -> Iterable[Markup]:
    steps = _steps(view, frame)
    if not steps:
        return
    clip = frame.y.clip
    for start, end, found in steps:
        if math.isfinite(found.low) and math.isfinite(found.high) and found.high > frame.y.low:
            top, bottom = clip(found.high), clip(found.low)
            yield tag("rect", x=start, y=top, width=max(0.0, end - start), height=bottom - top, class_="band")
    corners = [(place, clip(found.value)) for start, end, found in steps for place in (start, end)]
    yield tag("polyline", points=points(corners), class_="champion-line")


def _baseline(view: RunView, frame: _Frame) -> Iterable[Markup]:
    node = view.baseline
    if node is None or node.score is None or not frame.y.low <= node.score <= frame.y.high:
        return
    height = frame.y(node.score)
    yield line(frame.x.start, height, frame.x.end, height, "baseline")
    yield text(frame.x.end - 2, height + 14, f"baseline {node.id}", "tick", "end")


def _mark(view: RunView, moment: Moment, frame: _Frame) -> Iterable[Markup]:
    node, place = moment.experiment, frame.x(moment.clock)
    foreseen = math.nan if node.foreseen is None else node.foreseen
    found = node.evaluation.estimate.value if node.evaluation else foreseen
    title = f"{wording.about(node)}\nat {format_duration(moment.clock)}"
    if node.state not in (State.DONE, State.RACED) or not math.isfinite(found):
        yield cross(place, frame.floor - STRIP / 2, 4, "failed", title)
        return
    colour = _colour(node, frame.keys)
    shape = "hollow" if node.state is State.RACED else "mark"
    if found < frame.y.low:
        tip = frame.y.start - 2
        corners = points([(place - 5, tip - 8), (place + 5, tip - 8), (place, tip)])
        yield tag("polygon", tag("title", f"{title}\nbelow the axis"), points=corners, class_=f"{shape} {colour}")
        return
    yield dot(place, frame.y(found), 4.5, f"{shape} {colour}", title)
    if view.champion is not None and node.id == view.champion.id:
        yield dot(place, frame.y(found), 8.5, "ring")


def _name_of_champion(view: RunView, frame: _Frame) -> Iterable[Markup]:
    node = view.champion
    moment = next((one for one in view.moments if node is not None and one.experiment.id == node.id), None)
    if node is None or node.score is None or moment is None or not frame.y.low <= node.score <= frame.y.high:
        return
    place, height = frame.x(moment.clock), frame.y(node.score)
    label = f"{node.id}  {wording.number(node.score)}"
    right = place < 0.75 * frame.x.end
    yield text(place + (12 if right else -12), height - 10, label, "name halo", "start" if right else "end")


# --- intervals in tables --------------------------------------------------------------------------------------------


def estimate_scale(scores: Sequence[SealedScore]) -> Scale:
    """One axis for the sealed intervals. The constant answer, far below the rest, is drawn at its edge."""
    found = [score.estimate for score in scores if score.role != "constant"] or [score.estimate for score in scores]
    ends = [value for one in found for value in (one.low, one.value, one.high) if math.isfinite(value)]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    pad = 0.12 * (high - low) or 0.05
    return Scale(low - pad, high + pad, 6.0, BAR_WIDTH - 6)


def _axis(scale: Scale, values: Sequence[float], show: Sequence[str]) -> Markup:
    marks = [text(scale(value), 14, label, "tick", "middle") for value, label in zip(values, show, strict=True)]
    marks += [line(scale(value), 18, scale(value), BAR_HEIGHT, "axis") for value in values]
    return picture(BAR_WIDTH, BAR_HEIGHT, "axis", *marks, class_="bar")


def estimate_axis(scale: Scale) -> Markup:
    """The axis above a column of intervals."""
    digits = max(1, decimals(round_step(scale.high - scale.low, 6)))
    values = [value for value in ticks(scale.low, scale.high) if 14 < scale(value) < BAR_WIDTH - 14]
    return _axis(scale, values, [wording.number(value, digits) for value in values])


def estimate_bar(found: Estimate, scale: Scale, tone: str, reference: float | None = None) -> Markup:
    """An estimate with its interval; a thin line marks `reference`."""
    middle = BAR_HEIGHT / 2
    marks = []
    if reference is not None and math.isfinite(reference):
        marks.append(line(scale(reference), 0, scale(reference), BAR_HEIGHT, "baseline"))
    if found.high < scale.low or found.low > scale.high:
        marks += _off_axis(found.high < scale.low, wording.number(found.value, 2), tone, scale)
    elif math.isfinite(found.value):
        if math.isfinite(found.low) and math.isfinite(found.high):
            marks.append(line(scale.clip(found.low), middle, scale.clip(found.high), middle, f"whisker {tone}"))
        marks.append(dot(scale.clip(found.value), middle, 5, f"mark {tone}"))
    return picture(BAR_WIDTH, BAR_HEIGHT, wording.estimate(found), *marks, class_="bar")


def _off_axis(left: bool, shown: str, tone: str, scale: Scale) -> tuple[Markup, Markup]:
    """An arrow at the edge of an axis, and the value it points to."""
    middle = BAR_HEIGHT / 2
    x, to = (scale.start - 4, 1) if left else (scale.end + 4, -1)
    corners = [(x, middle), (x + 9 * to, middle - 5), (x + 9 * to, middle + 5)]
    label = text(x + 14 * to, middle + 4, f"{shown}, off the axis", "tick", "start" if left else "end")
    return tag("polygon", points=points(corners), class_=f"mark {tone}"), label


# --- effects --------------------------------------------------------------------------------------------------------


def effect_scale(tried: Sequence[Tried]) -> Scale:
    """One axis for the mean effects, zero always on it. What is many times larger than usual is drawn at its edge."""
    ends = [value for one in tried if one.effect for value in (one.effect.low, one.effect.high)]
    ends = [value for value in ends if math.isfinite(value)] or [-0.1, 0.1]
    usual = OUTLYING * median(abs(value) for value in ends)
    kept = [value for value in ends if abs(value) <= usual] or ends
    low, high = min(*kept, 0.0), max(*kept, 0.0)
    pad = 0.06 * (high - low) or 0.01
    return Scale(low - pad, high + pad, 6.0, BAR_WIDTH - 6)


def effect_axis(scale: Scale) -> Markup:
    """The axis above the column of effects."""
    digits = max(1, decimals(round_step(scale.high - scale.low, 6)))
    values = [value for value in ticks(scale.low, scale.high) if 18 < scale(value) < BAR_WIDTH - 18]
    return _axis(scale, values, [wording.signed(value, digits) for value in values])


def effect_bar(one: Tried, scale: Scale, min_effect: float) -> Markup:
    """Every single effect as a small dot, their mean with its interval as a diamond."""
    middle = BAR_HEIGHT / 2
    left, right = scale.clip(-min_effect), scale.clip(min_effect)
    marks = [
        tag("rect", x=left, y=0, width=right - left, height=BAR_HEIGHT, class_="small-effects"),
        line(scale(0.0), 0, scale(0.0), BAR_HEIGHT, "axis"),
    ]
    found = one.effect
    if found is None:
        return picture(BAR_WIDTH, BAR_HEIGHT, "no effect measured", *marks, class_="bar")
    if len(one.effects) > 1:
        marks += [_single(effect, scale) for effect in one.effects]
    tone = {"helped": "good", "hurt": "bad"}.get(one.outcome, "neutral")
    if found.high < scale.low or found.low > scale.high:
        marks += _off_axis(found.high < scale.low, wording.signed(found.value, 2), tone, scale)
        return picture(BAR_WIDTH, BAR_HEIGHT, wording.estimate(found), *marks, class_="bar")
    marks.append(line(scale.clip(found.low), middle, scale.clip(found.high), middle, f"whisker {tone}"))
    x, reach = scale.clip(found.value), 6.0
    corners = [(x - reach, middle), (x, middle - reach), (x + reach, middle), (x, middle + reach)]
    marks.append(tag("polygon", points=points(corners), class_=f"mark {tone}"))
    return picture(BAR_WIDTH, BAR_HEIGHT, wording.estimate(found), *marks, class_="bar")


def _single(effect: Difference, scale: Scale) -> Markup:
    outside = not scale.low <= effect.value <= scale.high
    x = scale.clip(effect.value)
    return dot(x, BAR_HEIGHT / 2 + 7, 2.2, "single outside" if outside else "single", wording.difference(effect))
