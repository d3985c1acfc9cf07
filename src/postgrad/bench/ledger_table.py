"""The tables of `postgrad bench ledger` as Markdown. It reads results and plays nothing."""

from __future__ import annotations

from typing import Any, Sequence

_UNITS = {"keeps": 1, "gain": 4, "big_share": 2, "near_discards": 2, "below_no_op": 1, "below_seed": 1}


def markdown(result: dict[str, Any]) -> str:
    """All tables: calibration, the arithmetic of the published gaps, tests of keeps, and rules."""
    parts = (
        ("Simulated ledgers beside the published one", _calibration(result)),
        ("Smallest gap that can be shown", _limits(result["arithmetic"]["limits"])),
        ("Trainings of each side until a gap shows (one look)", _needed(result["arithmetic"]["trainings_needed"])),
        ("The session's keeps, put to the test", _tests(result["tests"])),
        ("Rules on the same changes (gains in 0.001 bits per byte)", _rules(result["rules"])),
    )
    return "\n".join(f"## {title}\n{table}" for title, table in parts)


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    table = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in table)


def _calibration(result: dict[str, Any]) -> str:
    published, found = result["published"], result["calibration"]
    head = ["", "published", *(f"seed sd {one['seed_sd']}" for one in found)]
    rows = []
    for key, digits in {**_UNITS, "smallest_keep": 6}.items():
        cells = [
            f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})" for mean, low, high in (o[key] for o in found)
        ]
        there = published[key]
        told = f"{there:.{digits}f}" if isinstance(there, float) else str(there)
        rows.append([key.replace("_", " "), told, *cells])
    return _lines(head, rows)


def _limits(limits: Sequence[dict[str, Any]]) -> str:
    head = ["seed sd", "looks", "1 training each", "keeps that large", "3 trainings each", "keeps that large"]
    rows = []
    for one in limits:
        cells = [str(one["seed_sd"]), str(one["looks"])]
        for seeds in (1, 3):
            low, high = one[f"keeps_{seeds}"]
            cells += [f"{one[f'shows_{seeds}']:.6f}", str(low) if low == high else f"{low} to {high}"]
        rows.append(cells)
    return _lines(head, rows)


def _needed(needed: Sequence[dict[str, Any]]) -> str:
    sizes = [key for key in needed[0] if key != "gap"]
    return _lines(
        ["gap", *(f"seed sd {size}" for size in sizes)],
        [[f"{one['gap']:.6f}", *(str(one[size]) for size in sizes)] for one in needed],
    )


def _tests(tests: Sequence[dict[str, Any]]) -> str:
    head = ["seed sd", "trainings of each", "keeps shown", "false among the shown (up to)"]
    return _lines(
        head,
        [
            [
                str(one["seed_sd"]),
                str(one["seeds"]),
                f"{one['shown']:.2f} ± {one['shown_error']:.2f}",
                _share(one["false_share"], one["false_upper"]),
            ]
            for one in tests
        ],
    )


def _rules(rows: Sequence[dict[str, Any]]) -> str:
    head = "seed sd|rule|recipes|trainings|built on|not better|claimed|false (up to)"
    head += "|recorded gain|true gain|optimism|true gain less the session's"
    gains = ("recorded", "gain", "optimism", "ahead")
    return _lines(
        head.split("|"),
        [
            [
                str(row["seed_sd"]),
                row["rule"],
                f"{row['recipes']:.0f}",
                f"{row['trainings']:.0f}",
                f"{row['leads']:.1f}",
                f"{100 * row['false_leads']:.0f} %",
                f"{row['keeps']:.1f}",
                _share(row["false_keeps"], row["false_keeps_upper"]),
                *(f"{1000 * row[key]:.2f} ± {1000 * row[f'{key}_error']:.2f}" for key in gains),
            ]
            for row in rows
        ],
    )


def _share(share: float, upper: float) -> str:
    return f"{100 * share:.1f} % ({100 * upper:.1f} %)"
