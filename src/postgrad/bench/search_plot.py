"""The picture of `postgrad bench search`: the anytime curve of every policy, one panel a landscape, as one SVG file.

Only the largest budget is drawn. Knows nothing of runs beyond their curves.
"""

from __future__ import annotations

from html import escape
from math import ceil
from typing import Any, Mapping, Sequence

from postgrad.bench.search_table import CURVE, best_known

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, COLUMNS = 250, 190, 44, 26, 30, 4
LEGEND = 30
# Okabe and Ito's colours, which people with colour blindness can tell apart; dashes for what is over eight.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
STYLE = "text{font:11px sans-serif;fill:#222}.t{font-weight:bold}.g{stroke:#ddd}.o{stroke:#888;stroke-dasharray:2 3}"


def drawing(runs: Sequence[dict[str, Any]], oracles: Mapping[str, Sequence[float]]) -> str:
    """The whole picture as SVG text."""
    budget = max(run["budget"] for run in runs)
    largest = [run for run in runs if run["budget"] == budget]
    policies = list(dict.fromkeys(run["policy"] for run in largest))
    names = list(dict.fromkeys(run["landscape"] for run in largest))
    best = best_known(runs, oracles)
    parts = []
    for number, name in enumerate(names):
        curves = {policy: _mean_curve(largest, name, policy) for policy in policies}
        known = [best[name, seed] for seed in {run["seed"] for run in largest}]
        place = number % COLUMNS * WIDTH, LEGEND + number // COLUMNS * HEIGHT
        panel = _panel(name, curves, sum(known) / len(known), budget)
        parts.append(f'<g transform="translate({place[0]},{place[1]})">{panel}</g>')
    width, height = WIDTH * min(COLUMNS, len(names)), LEGEND + HEIGHT * ceil(len(names) / COLUMNS)
    label = "Mean true value of what each policy builds on, over the budget; the dotted line is the best known"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{label}"><style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
        f"{_legend(policies)}{''.join(parts)}</svg>\n"
    )


def _mean_curve(runs: Sequence[dict[str, Any]], name: str, policy: str) -> list[float]:
    curves = [run["curve"] for run in runs if run["landscape"] == name and run["policy"] == policy]
    return [sum(values) / len(values) for values in zip(*curves, strict=True)]


def _stroke(number: int) -> str:
    dashes = ' stroke-dasharray="5 2"' if number >= len(COLOURS) else ""
    return f'stroke="{COLOURS[number % len(COLOURS)]}"{dashes}'


def _legend(policies: Sequence[str]) -> str:
    parts, at = [], LEFT
    for number, policy in enumerate(policies):
        parts.append(f'<line x1="{at}" y1="14" x2="{at + 16}" y2="14" stroke-width="2" {_stroke(number)}/>')
        parts.append(f'<text x="{at + 20}" y="18">{escape(policy)}</text>')
        at += 36 + 7 * len(policy)
    return "".join(parts)


def _panel(name: str, curves: Mapping[str, list[float]], best: float, budget: float) -> str:
    # The first part of the budget holds the constant answer, far below the rest.
    settled = [value for curve in curves.values() for value in curve[CURVE // 5 :]]
    low, high = min(settled), max([*settled, best])
    low, high = low - 0.05 * (high - low) - 1e-4, high + 0.05 * (high - low) + 1e-4
    right, floor = WIDTH - 10, HEIGHT - BOTTOM

    def x(part: float) -> float:
        return LEFT + (right - LEFT) * part

    def y(value: float) -> float:
        return floor - (floor - TOP) * (max(low, value) - low) / (high - low)

    parts = [f'<text x="{LEFT}" y="{TOP - 8}" class="t">{escape(name)}</text>']
    for share in (0.0, 0.5, 1.0):
        value = low + share * (high - low)
        parts.append(f'<line class="g" x1="{LEFT}" y1="{y(value):.1f}" x2="{right}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{LEFT - 4}" y="{y(value) + 4:.1f}" text-anchor="end">{100 * value:.1f}</text>')
        parts.append(f'<text x="{x(share):.1f}" y="{floor + 15}" text-anchor="middle">{budget * share:g}</text>')
    parts.append(f'<line class="o" x1="{LEFT}" y1="{y(best):.1f}" x2="{right}" y2="{y(best):.1f}"/>')
    for number, curve in enumerate(curves.values()):
        points = " ".join(f"{x((part + 1) / CURVE):.1f},{y(value):.1f}" for part, value in enumerate(curve))
        parts.append(f'<polyline points="{points}" fill="none" stroke-width="1.5" {_stroke(number)}/>')
    return "".join(parts)
