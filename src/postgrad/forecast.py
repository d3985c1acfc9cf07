"""What a run will have used at its end, and what that rests on: before it begins from sizes, later from its own pace.

A straight line, on purpose: what the run used so far for each second, carried on until the first of its limits is
reached. It promises nothing, and says what it was measured on.
"""

from __future__ import annotations

from typing import Literal, Mapping

from postgrad.budget import HOUR, Ledger, Spent, format_duration
from postgrad.engines.prices import rate
from postgrad.records import Budget, Hardware, Record
from postgrad.records.job import sum_of

Limit = Literal["wall", "experiments", "cpu_hours", "gpu_hours", "usd"]
LIMITS: Mapping[Limit, str] = {
    "wall": "wall_s",
    "experiments": "experiments",
    "cpu_hours": "cpu_hours",
    "gpu_hours": "gpu_hours",
    "usd": "usd",
}
CALLED: Mapping[Limit, str] = {
    "wall": "time",
    "experiments": "experiments",
    "cpu_hours": "CPU hours",
    "gpu_hours": "GPU hours",
    "usd": "dollars",
}


class Forecast(Record):
    """A run at its end. `ends_by` is the limit that is reached first, `basis` what the numbers rest on."""

    wall_s: float
    experiments: float
    cpu_hours: float
    gpu_hours: float
    usd: float
    ends_by: Limit
    basis: str


def at_end(ledger: Ledger, clock: float) -> Forecast | None:
    """What a run that searches will have used at its end; None before its first job has ended, and where it has no
    limit that it comes nearer to."""
    spent, wall_s = ledger.spent, max(ledger.charged(clock), ledger.spent.wall_s)
    if not spent.jobs or wall_s <= 0.0:
        return None
    under_way = sum_of(each.until(clock) for each in ledger.open.values())
    now: dict[Limit, float] = {
        "wall": wall_s,
        "experiments": float(spent.experiments),
        "cpu_hours": spent.cpu_s / HOUR,
        "gpu_hours": (spent.gpu_s + under_way.gpu_s) / HOUR,
        "usd": spent.usd + under_way.usd,
    }
    granted = granted_of(ledger.granted)
    times = {name: wall_s * (most - now[name]) / now[name] for name, most in granted.items() if now[name] > 0.0}
    if not times:
        return None
    first = min(times, key=lambda name: times[name])
    grown = {LIMITS[name]: amount * (1 + max(0.0, times[first]) / wall_s) for name, amount in now.items()}
    jobs = "1 job" if spent.jobs == 1 else f"{spent.jobs} jobs"
    basis = f"measured on {jobs} in {format_duration(wall_s)} of this run"
    return Forecast.model_validate({**grown, "ends_by": first, "basis": basis})


def granted_of(budget: Budget) -> dict[Limit, float]:
    """The limits of a budget; a grant of none is no limit: the run does without."""
    found: dict[Limit, float] = {}
    for name, field in LIMITS.items():
        if amount := getattr(budget, field):
            found[name] = float(amount)
    return found


def beforehand(
    budget: Budget,
    seconds: float,
    workers: int,
    where: Hardware,
    prices: Mapping[str, float],
    *,
    basis: str,
    end: float,
) -> Forecast | None:
    """What a run of experiments that take so many wall seconds each will have used; None without a limit.

    Args:
        where: what one job runs on.
        end: share of all trainings that belongs to the end of the run.
    """
    granted, cost = granted_of(budget), rate(where, prices)
    each: dict[Limit, float] = {
        "wall": seconds / max(1, workers),
        "experiments": 1.0 - end,
        "cpu_hours": seconds / HOUR,
        "gpu_hours": seconds * where.held * where.nodes / HOUR,
        "usd": seconds * cost,
    }
    counts = {name: most / each[name] for name, most in granted.items() if each[name] > 0.0}
    if not counts:
        return None
    first = min(counts, key=lambda name: counts[name])
    totals = {LIMITS[name]: amount * counts[first] for name, amount in each.items()}
    return Forecast.model_validate({**totals, "ends_by": first, "basis": basis})


def in_words(found: Forecast, granted: Budget) -> str:
    """The forecast on a line: what is limited or costs something, and what it rests on."""
    limits = granted_of(granted)
    parts = [format_duration(round(found.wall_s)), f"about {round(found.experiments):,} experiments"]
    if found.cpu_hours >= 0.05 or "cpu_hours" in limits:
        parts.append(f"{found.cpu_hours:.1f} CPU hours")
    if found.gpu_hours or "gpu_hours" in limits:
        parts.append(f"{found.gpu_hours:.2f} GPU hours")
    if found.usd or "usd" in limits:
        parts.append(f"${found.usd:.2f}")
    return f"{', '.join(parts)}; {CALLED[found.ends_by]} will run out first ({found.basis})"


def in_short(spent: Spent) -> str:
    """What was spent, on a line."""
    parts = [format_duration(spent.wall_s), f"{spent.experiments} experiment{'' if spent.experiments == 1 else 's'}"]
    parts.append(f"{format_duration(spent.cpu_s)} of CPU")
    if spent.gpu_s:
        parts.append(f"{spent.gpu_s / HOUR:.2f} GPU hours")
    if spent.usd:
        parts.append(f"${spent.usd:.2f}")
    if spent.unpriced_gpu_s:
        parts.append(f"{spent.unpriced_gpu_s / HOUR:.2f} GPU hours without a price")
    return ", ".join(parts)
