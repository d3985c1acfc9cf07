"""The table of `postgrad bench search`: a row for each cell and policy, one over all cells for each policy, and the
same as Markdown. It reads results and plays nothing."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from postgrad.bench.noise_table import mean_and_error

CURVE = 25
ALL = "all"

Run = dict[str, Any]


def best_known(runs: Sequence[Run], oracles: Mapping[str, Sequence[float]]) -> dict[tuple[str, int], float]:
    """(landscape, seed) -> the best true value known of it: the oracle's, or that of a recipe which some run tried."""
    best = {(name, seed): value for name, values in oracles.items() for seed, value in enumerate(values)}
    for run in runs:
        key = run["landscape"], run["seed"]
        best[key] = max(best[key], run["best"], run["final"])
    return best


def rows_of(runs: Sequence[Run], oracles: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """One row for each cell and policy, after one over all cells for each policy, best first."""
    best = best_known(runs, oracles)
    cells: dict[tuple[str, float], dict[str, list[Run]]] = {}
    for run in runs:
        regret = best[run["landscape"], run["seed"]] - run["final"]
        cell = cells.setdefault((run["landscape"], run["budget"]), {})
        cell.setdefault(run["policy"], []).append({**run, "regret": regret})
    rows = [row for (name, budget), cell in cells.items() for row in _cell_rows(name, budget, cell)]
    return [*_overall(cells, rows), *rows]


def _cell_rows(name: str, budget: float, cell: Mapping[str, list[Run]]) -> list[dict[str, Any]]:
    means = {policy: _mean(runs, "final") for policy, runs in cell.items()}
    first = max(means, key=lambda policy: means[policy])
    return [
        {"landscape": name, "budget": budget, "policy": policy, **_figures(cell[policy], cell[first])}
        for policy in sorted(cell, key=lambda policy: -means[policy])
    ]


def _mean(runs: Sequence[Run], key: str) -> float:
    return float(sum(run[key] for run in runs)) / len(runs)


def _figures(runs: list[Run], first: list[Run]) -> dict[str, Any]:
    """The figures of one policy in one cell; `first` are the runs of the policy with the best mean there."""
    regret, regret_error = mean_and_error([run["regret"] for run in runs])
    behind, error = mean_and_error([b["final"] - a["final"] for a, b in zip(runs, first, strict=True)])
    keeps = sum(run["keeps"] for run in runs)
    return {
        "final": round(_mean(runs, "final"), 4),
        "regret": round(regret, 4),
        "regret_error": round(regret_error, 4),
        "behind_best": round(behind, 4),
        "behind_error": round(error, 4),
        "tied": behind <= error,
        "auc": round(_mean(runs, "auc"), 4),
        "keeps": round(keeps / len(runs), 2),
        "false_keeps": round(sum(run["false_keeps"] / max(1, run["keeps"]) for run in runs) / len(runs), 4),
        "optimism": round(_mean(runs, "claimed"), 4),
        "trainings": round(_mean(runs, "trainings"), 1),
        "cost_s": round(_mean(runs, "cost_s"), 1),
        "failures": round(_mean(runs, "failures"), 2),
        "raced": round(_mean(runs, "raced"), 2),
        "choose_ms": round(_mean(runs, "choose_ms"), 3),
        "choose_p95_ms": round(max(run["choose_p95_ms"] for run in runs), 3),
        "wall_ms": round(1000 * sum(run["wall_s"] for run in runs) / sum(run["trainings"] for run in runs), 2),
    }


def _overall(
    cells: Mapping[tuple[str, float], Mapping[str, list[Run]]], rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """A line for each policy: means over all cells, and intervals over seeds, each seed averaged over the cells."""
    policies = list(next(iter(cells.values())))
    totals = {
        policy: [
            {key: sum(run[key] for run in seed) / len(seed) for key in seed[0] if isinstance(seed[0][key], int | float)}
            for seed in zip(*(cell[policy] for cell in cells.values()), strict=True)
        ]
        for policy in policies
    }
    ranked = sorted(policies, key=lambda policy: _mean(totals[policy], "regret"))
    found = []
    for policy in ranked:
        figures = _figures(totals[policy], totals[ranked[0]])
        own = [row for row in rows if row["policy"] == policy]
        figures["false_keeps"] = round(_mean(own, "false_keeps"), 4)
        figures["first_or_tied"] = f"{sum(row['tied'] for row in own)} of {len(own)}"
        found.append({"landscape": ALL, "budget": ALL, "policy": policy, **figures})
    return found


def markdown(rows: Sequence[dict[str, Any]], seeds: int, unit: str) -> str:
    """The table for people: true values and regrets in points (hundredths)."""
    head = (
        f"{seeds} runs of each cell, paired by seed; budgets in {unit}. True values in points of accuracy, with 95 % "
        "intervals. *Regret*: the best known true value less that of what is delivered. *Behind*: the paired "
        "difference to the policy with the best mean in the cell. *Along the way*: mean true value of what the search "
        "built on, over the whole budget. *False keeps*: mean share of a run's keeps. *Cost*: simulated seconds of a "
        "run.\n"
    )
    overall = [row for row in rows if row["landscape"] == ALL]
    text = [head, "## All cells\n", *_lines(overall, overall=True)]
    for name in dict.fromkeys(row["landscape"] for row in rows if row["landscape"] != ALL):
        text += [f"\n## {name}\n", *_lines([row for row in rows if row["landscape"] == name], overall=False)]
    return "\n".join(text) + "\n"


def _lines(rows: Sequence[dict[str, Any]], *, overall: bool) -> list[str]:
    first = "first or tied" if overall else "budget"
    titles = f"policy | {first} | final | regret | behind | along the way | false keeps | keeps | failures | cost"
    lines = [f"| {titles} |", "| " + " | ".join("---" for _ in titles.split(" | ")) + " |"]
    for row in rows:
        where = row["first_or_tied"] if overall else f"{row['budget']:g}"
        behind = f"{100 * row['behind_best']:.2f} ± {100 * row['behind_error']:.2f}" if row["behind_best"] else "-"
        cells = [
            row["policy"],
            where,
            f"{100 * row['final']:.2f}",
            f"{100 * row['regret']:.2f} ± {100 * row['regret_error']:.2f}",
            behind,
            f"{100 * row['auc']:.2f}",
            f"{100 * row['false_keeps']:.1f} %",
            f"{row['keeps']:.2f}",
            f"{row['failures']:.1f}",
            f"{row['cost_s']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines
