"""The search tree as a drawing: experiments from left to right as they were proposed, a line to what each extends.

Lanes as in a drawing of a version history: an experiment keeps its lane until its last child, which takes the lane
over; other children branch off into the nearest free one. So a chain is a straight line, many children of one parent
cost one lane, and 150 experiments fit a page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Iterable

from markupsafe import Markup

from postgrad.report import wording
from postgrad.report.svg import cross, dot, line, picture, round_step, tag, text, titled
from postgrad.tree import Experiment, State, Tree

if TYPE_CHECKING:
    from postgrad.report.view import RunView

WIDTH = 960.0
SIDE, TOP, BOTTOM = 22.0, 22.0, 30.0
SHADES = 7
LABEL = 80.0


@dataclass(frozen=True)
class _Place:
    x: float
    y: float


def lanes(tree: Tree) -> dict[str, int]:
    """Experiment -> lane, 0 at the top."""
    last = {node.id: node.index for node in tree.all()}
    for node in tree.all():
        if node.parent is not None:
            last[node.parent] = node.index
    found: dict[str, int] = {}
    busy: dict[int, int] = {}
    for node in tree.all():
        parent = node.parent
        if parent is not None and last[parent] == node.index:
            lane = found[parent]
        else:
            lane = _nearest_free(found[parent] if parent is not None else 0, busy, node.index)
        found[node.id] = lane
        busy[lane] = last[node.id]
    lowest = min(found.values(), default=0)
    return {name: lane - lowest for name, lane in found.items()}


def _nearest_free(wanted: int, busy: dict[int, int], index: int) -> int:
    for distance in count():
        for lane in (wanted + distance, wanted - distance):
            if busy.get(lane, -1) < index:
                return lane
    raise AssertionError("lanes are endless")


def shade(score: float | None, worst: float, best: float) -> int:
    """0 (worst) to 6 (best)."""
    if score is None or not math.isfinite(score) or best <= worst:
        return SHADES - 1 if score is not None and score >= best else 0
    share = (score - worst) / (best - worst)
    return max(0, min(SHADES - 1, int(share * SHADES)))


def score_bounds(tree: Tree) -> tuple[float, float]:
    """The scores that get the lightest and the darkest shade; far misses share the lightest."""
    scores = sorted(node.score for node in tree.all() if node.score is not None and math.isfinite(node.score))
    if not scores:
        return 0.0, 1.0
    typical = scores[len(scores) // 5]
    return max(scores[0], typical - (scores[-1] - typical)), scores[-1]


def search_tree(view: RunView, about: str = "Search tree") -> Markup:
    """The tree with the champion's path in bold."""
    tree = view.tree
    if not len(tree):
        return picture(WIDTH, 40, "No experiment yet", text(SIDE, 24, "no experiment yet", "tick"), class_="tree")
    of = lanes(tree)
    width = max(WIDTH, len(tree) * 6.5)
    step = (width - 2 * SIDE - 20) / max(1, len(tree) - 1)
    step = min(step, 96.0)
    rows = max(of.values()) + 1
    height_of_lane = 30.0 if rows <= 12 else 22.0 if rows <= 24 else 16.0
    places = {
        node.id: _Place(SIDE + node.index * step, TOP + (of[node.id] + 0.5) * height_of_lane) for node in tree.all()
    }
    path = {node.id for node in tree.path(view.champion.id)} if view.champion else set()
    height = TOP + rows * height_of_lane + BOTTOM
    marks = [*_scale(tree, step, height), *_edges(tree, places, path, step), *_nodes(view, places, path, step)]
    return picture(width, height, f"{about}: {wording.plural(len(tree), 'experiment')}", *marks, class_="tree")


def _scale(tree: Tree, step: float, height: float) -> Iterable[Markup]:
    every = max(1, round(round_step(len(tree), 12 if step > 8 else 10)))
    for index in range(0, len(tree), every):
        x = SIDE + index * step
        yield line(x, TOP - 6, x, height - BOTTOM + 6, "grid")
        yield text(x, height - 8, str(index), "tick", "middle")


def _edges(tree: Tree, places: dict[str, _Place], path: set[str], step: float) -> Iterable[Markup]:
    """Ordinary edges first, so that the champion's path lies on top."""
    ordinary: list[Markup] = []
    bold: list[Markup] = []
    for node in tree.all():
        other = node.proposed.choice.other
        if other in places:
            ordinary.append(_edge(places[other], places[node.id], "edge second", step))
        if node.parent is not None:
            chosen = node.id in path
            edge = _edge(places[node.parent], places[node.id], "edge best" if chosen else "edge", step)
            (bold if chosen else ordinary).append(edge)
    return (*ordinary, *bold)


def _edge(start: _Place, end: _Place, class_: str, step: float) -> Markup:
    """Along the parent's lane, then over to the child's."""
    bend = max(start.x, end.x - max(8.0, min(0.95 * step, 26.0)))
    if start.y == end.y:
        return tag("path", d=f"M{start.x:.1f} {start.y:.1f}H{end.x:.1f}", class_=class_)
    middle = (bend + end.x) / 2
    curve = f"C{middle:.1f} {start.y:.1f} {middle:.1f} {end.y:.1f} {end.x:.1f} {end.y:.1f}"
    return tag("path", d=f"M{start.x:.1f} {start.y:.1f}H{bend:.1f}{curve}", class_=class_)


def _nodes(view: RunView, places: dict[str, _Place], path: set[str], step: float) -> Iterable[Markup]:
    radius = max(2.6, min(7.0, 0.42 * step))
    worst, best = score_bounds(view.tree)
    for node in view.tree.all():
        place = places[node.id]
        mark = _node(node, place, radius, shade(node.score, worst, best))
        chosen = view.champion is not None and node.id == view.champion.id
        extra = [dot(place.x, place.y, radius + 3.5, "ring")] if chosen else []
        yield tag("a", *titled(wording.about(node)), *extra, mark, href=f"#{node.id}")
        if chosen:
            x, y, anchor = _free_corner(place, tuple(places.values()), radius, SIDE + (len(view.tree) - 1) * step)
            yield text(x, y, f"{node.id}  {wording.number(node.score)}", "name halo", anchor)
        elif node.id in path and step > 24:
            yield text(place.x, place.y - radius - 5, str(node.index), "tick halo", "middle")


def _free_corner(
    place: _Place, others: tuple[_Place, ...], radius: float, right_end: float
) -> tuple[float, float, str]:
    """Where the champion's name covers no other mark: above or below it, to the right or to the left."""
    room = max(right_end + 20.0, WIDTH)
    corners = []
    for below in (False, True):
        y = place.y + radius + 15 if below else place.y - radius - 5
        for left in (False, True):
            x = place.x - radius - 8 if left else place.x + radius + 8
            start = x - LABEL if left else x
            hits = sum(start - 8 < other.x < start + LABEL + 8 and y - 16 < other.y < y + 6 for other in others)
            outside = start < 0 or start + LABEL > room
            corners.append((hits + 100 * outside, x, y, "end" if left else "start"))
    _, x, y, anchor = min(corners, key=lambda corner: corner[0])
    return x, y, anchor


def _node(node: Experiment, place: _Place, radius: float, shade_: int) -> Markup:
    if node.state in (State.FAILED, State.UNSCORED):
        return cross(place.x, place.y, 0.7 * radius, "failed")
    if node.state is State.RACED:
        return dot(place.x, place.y, 0.75 * radius, "node raced")
    if node.state is State.PENDING:
        return dot(place.x, place.y, radius, "node pending")
    return dot(place.x, place.y, radius, f"node s{shade_}")
