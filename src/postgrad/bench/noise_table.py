"""The table of `postgrad bench noise`: one row a cell, and the same as Markdown. It reads results and plays nothing."""

from __future__ import annotations

from math import sqrt
from typing import Any, Sequence

OURS = "postgrad"


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """(mean, half of its 95 % interval), by the normal approximation."""
    count = len(values)
    mean = sum(values) / count
    variance = sum((value - mean) ** 2 for value in values) / max(1, count - 1)
    return mean, 1.96 * sqrt(variance / count)


def false_share(rule: dict[str, list[float]]) -> tuple[float, float]:
    """(mean share of false keeps among the keeps of a run, upper end of its 95 % interval). A run without a keep has
    none. The end is that of the normal interval, and never under 3 / runs."""
    shares = [false / max(1, keeps) for false, keeps in zip(rule["false_keeps"], rule["keeps"], strict=True)]
    mean, error = mean_and_error(shares)
    return mean, max(mean + error, 3 / len(shares))


def row_of(cell: dict[str, Any]) -> dict[str, Any]:
    """The figures of a cell: our rule, beside the fixed rules and the best of them."""
    rules, setting = cell["rules"], cell["setting"]
    ours = rules[OURS]
    gains = {name: mean_and_error(rule["gain"])[0] for name, rule in rules.items()}
    best = max((name for name in rules if name != OURS), key=lambda name: gains[name])
    ahead = [mine - theirs for mine, theirs in zip(ours["gain"], rules[best]["gain"], strict=True)]
    more, error = mean_and_error(ahead)
    share, upper = false_share(ours)
    row: dict[str, Any] = {
        "experiments": setting["experiments"],
        "items": setting["items"],
        "seed_noise": setting["seed_noise"],
        "better": setting["better"],
        "false_keeps": round(share, 4),
        "false_keeps_upper": round(upper, 4),
        "keeps": round(mean_and_error(ours["keeps"])[0], 2),
        "gain": round(gains[OURS], 4),
        "best_fixed": best,
        "ahead_of_best": round(more, 4),
        "ahead_error": round(error, 4),
        "missed": _ratio(ours["missed"], ours["better"]),
        "optimism": round(mean_and_error(ours["optimism"])[0], 4),
        "coverage": round(mean_and_error(ours["covers"])[0], 3),
        "coverage_recipes": round(mean_and_error(ours["covers_recipes"])[0], 3),
        "trainings": round(mean_and_error(ours["trainings"])[0], 1),
        "leads": round(mean_and_error(ours["leads"])[0], 1),
        "leads_not_better": _ratio(ours["false_leads"], ours["leads"]),
        "decide_ms": round(1000 * sum(ours["decide_s"]) / max(1, sum(ours["trainings"])), 2),
    }
    for name, rule in rules.items():
        if name != OURS:
            short = name.replace(" ", "_")
            row |= {
                f"false_keeps_{short}": round(false_share(rule)[0], 3),
                f"missed_{short}": _ratio(rule["missed"], rule["better"]),
                f"gain_{short}": round(gains[name], 4),
                f"optimism_{short}": round(mean_and_error(rule["optimism"])[0], 4),
            }
    return row


def _ratio(part: Sequence[float], whole: Sequence[float]) -> float | None:
    return round(sum(part) / sum(whole), 3) if sum(whole) else None


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table for people: shares in percent, scores in points."""
    head = (
        "trainings | items | seed noise | truly better | false keeps: ours (up to) / autoresearch / 1s / 2s | keeps | "
        "gain: ours / autoresearch / 1s / 2s | ours less best fixed | missed: ours / autoresearch | "
        "optimism: ours / autoresearch | coverage: models / recipes"
    )
    lines = [f"| {head} |", "| " + " | ".join("---" for _ in head.split(" | ")) + " |"]
    for row in rows:
        cells = [
            str(row["experiments"]),
            str(row["items"]),
            row["seed_noise"],
            f"{row['better']:.0%}",
            f"{_percent(row['false_keeps'])} ({_percent(row['false_keeps_upper'])}) / " + _fixed(row, "false_keeps_"),
            f"{row['keeps']:.2f}",
            f"{_points(row['gain'])} / " + _fixed(row, "gain_", _points),
            f"{100 * row['ahead_of_best']:+.2f} ± {100 * row['ahead_error']:.2f}",
            f"{_percent(row['missed'])} / {_percent(row['missed_autoresearch'])}",
            f"{_points(row['optimism'])} / {_points(row['optimism_autoresearch'])}",
            f"{_percent(row['coverage'])} / {_percent(row['coverage_recipes'])}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _points(value: float) -> str:
    return f"{100 * value:.2f}"


def _fixed(row: dict[str, Any], prefix: str, shown: Any = None) -> str:
    form = shown or _percent
    return " / ".join(form(row[f"{prefix}{name}"]) for name in ("autoresearch", "1_sigma", "2_sigma"))
