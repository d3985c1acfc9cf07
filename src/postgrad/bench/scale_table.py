"""The tables of `bench scale-loop`."""

from __future__ import annotations

from typing import Any, Callable

GOAL_MS, GOAL_MB, GOAL_BUSY = 20.0, 1024.0, 0.9
Rows = list[dict[str, Any]]
Column = tuple[str, Callable[[dict[str, Any]], str]]


def markdown(found: dict[str, Rows]) -> str:
    """A table for each part that was done."""
    tables = {
        "growth": ("CPU time of the controller per experiment between one length and the next", GROWTH),
        "speed": ("Workers that are kept busy by jobs that really take their time", SPEED),
        "regret": ("Simple regret against workers", REGRET),
    }
    said = []
    for part, (title, columns) in tables.items():
        if found[part]:
            lines = ["| " + " | ".join(name for name, _ in columns) + " |", "| --- " * len(columns) + "|"]
            lines += ["| " + " | ".join(cell(row) for _, cell in columns) + " |" for row in found[part]]
            said.append(f"{title}.\n\n" + "\n".join(lines) + "\n")
    return "\n".join(said)


def _plain(name: str, digits: int | None = None) -> Callable[[dict[str, Any]], str]:
    def cell(row: dict[str, Any]) -> str:
        value = row[name]
        if isinstance(value, str):
            return value
        return f"{value:,}" if digits is None else f"{value:,.{digits}f}"

    return cell


def _held(name: str, holds: Callable[[float], bool], digits: int) -> Callable[[dict[str, Any]], str]:
    """A number in bold where it misses its goal."""

    def cell(row: dict[str, Any]) -> str:
        text = f"{row[name]:,.{digits}f}"
        return text if holds(row[name]) else f"**{text}**"

    return cell


GROWTH: list[Column] = [
    ("policy", _plain("policy")),
    ("workers", _plain("workers")),
    ("experiments", _plain("experiments")),
    (f"CPU, ms (goal {GOAL_MS:g})", _held("cpu_ms", lambda value: value < GOAL_MS, 1)),
    ("choose and propose, ms", _plain("propose_ms", 1)),
    ("collect and measure, ms", _plain("collect_ms", 1)),
    ("analyse, ms", _plain("analyse_ms", 1)),
    ("start, ms", _plain("start_ms", 1)),
    ("last 100, ms", _plain("latest_ms", 1)),
    ("decisions a second", _plain("decisions_per_s", 1)),
    (f"peak memory, MB (goal {GOAL_MB:g})", _held("peak_mb", lambda value: value < GOAL_MB, 0)),
    ("events", _plain("events")),
    ("event log, MB", _plain("log_mb", 1)),
]
SPEED: list[Column] = [
    ("policy", _plain("policy")),
    ("workers", _plain("workers")),
    ("seconds of a job", _plain("job_s")),
    ("jobs a second", _plain("jobs_per_s", 2)),
    ("ideal", _plain("ideal_per_s", 2)),
    ("workers busy", _plain("busy_workers", 1)),
    (f"share (goal {GOAL_BUSY:g})", _held("busy_share", lambda value: value >= GOAL_BUSY, 3)),
    ("CPU per experiment, ms", _plain("cpu_ms", 1)),
    ("experiments", _plain("experiments")),
]
REGRET: list[Column] = [
    ("policy", _plain("policy")),
    ("workers", _plain("workers")),
    ("experiments", _plain("experiments")),
    ("regret then", _plain("regret", 4)),
    ("simulated seconds", _plain("simulated_s", 1)),
    ("regret when the most workers have ended", _plain("regret_at_equal_time", 4)),
    ("runs", _plain("seeds")),
]
