"""The tables of `postgrad bench scripts`."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import Any, Mapping, Sequence

from postgrad.bench.scripts_measured import Measured, Version
from postgrad.bench.scripts_rules import BASELINE, EVEN, OURS, PLAIN, Played
from postgrad.records import TaskSpec

Row = dict[str, Any]
TASK_TITLES = (
    *("task", "rule", "true quality", "true gain", "claimed gain", "claimed less true", "to the other rule"),
    *("experiments", "trainings", "failed", "built on", "of these real", "kept", "minutes", "load, cores"),
)
PLANTED_TITLES = (
    *("noise", "rule", "true gain", "claimed gain", "claimed less true", "to the other rule"),
    *("built on, false", "kept, false", "runs with a false keep", "trainings", "runs"),
)


def task_rows(
    task: TaskSpec,
    both: Mapping[str, Played],
    versions: Mapping[str, Mapping[str, Version]],
    drawn: Mapping[str, Sequence[tuple[str, str]]],
    measured: Measured,
) -> list[Row]:
    """A row for each rule. Quality is in the task's own unit; of gains more is better."""
    assert task.script is not None, "the task is a script"
    sign = -1.0 if task.script.direction == "min" else 1.0
    baseline = versions[OURS][BASELINE]
    rows = []
    for rule, out in both.items():
        mine = versions[rule][out.delivered]
        rival = next(versions[other][both[other].delivered] for other in both if other != rule)
        quality, gain, ahead = measured.quality(mine), measured.gap(mine, baseline), measured.gap(mine, rival)
        gaps = [measured.gap(versions[rule][new], versions[rule][old]) for new, old in drawn[rule]]
        ends = sorted((sign * quality.low, sign * quality.high))
        first = measured.quality(baseline)
        rows.append(
            {
                "task": task.name,
                "rule": rule,
                "time_s": task.script.time_s,
                "metric": task.script.metric,
                "quality": round(sign * quality.value, 5),
                "low": round(ends[0], 5),
                "high": round(ends[1], 5),
                "baseline": round(sign * first.value, 5),
                "baseline_low": round(min(sign * first.low, sign * first.high), 5),
                "baseline_high": round(max(sign * first.low, sign * first.high), 5),
                **_named("gain", gain.value, gain.low, gain.high),
                "claimed": round(out.claimed, 5),
                "searched": round(out.searched, 5),
                "claimed_less_true": round(out.claimed - gain.value, 5),
                **_named("ahead", ahead.value, ahead.low, ahead.high),
                "experiments": out.experiments,
                "trainings": out.trainings,
                "failures": out.failures,
                "delivered": out.delivered,
                "built": len(out.built),
                "measured_again": len(gaps),
                "real": sum(gap.value > 0 for gap in gaps),
                "shown": sum(gap.low > 0 for gap in gaps),
                "kept": len(out.kept),
                "seeds": measured.grid(mine).shape[0],
                "wall_s": round(out.wall_s, 1),
            }
        )
    return rows


def planted_rows(noise: float, lines: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row for each rule at one size of noise: means over the runs, with t intervals at 95 %."""
    rows = []
    for rule, other in ((OURS, PLAIN), (PLAIN, OURS), (EVEN, OURS)):
        mine = [line[rule] for line in lines]
        less = [one["claimed"] - one["gain"] for one in mine]
        ahead = [line[rule]["gain"] - line[other]["gain"] for line in lines]
        totals = {key: sum(one[key] for one in mine) for key in ("built", "false_built", "kept", "false_kept")}
        rows.append(
            {
                "task": "planted",
                "rule": rule,
                "noise": noise,
                "runs": len(lines),
                "effect": round(fmean(line["effect"] for line in lines), 5),
                **_mean("gain", [one["gain"] for one in mine]),
                "best": round(fmean(one["best"] for one in mine), 5),
                "claimed": round(fmean(one["claimed"] for one in mine), 5),
                "searched": round(fmean(one["searched"] for one in mine), 5),
                **_mean("claimed_less_true", less),
                **_mean("ahead", ahead),
                **totals,
                "runs_with_false_keeps": sum(one["false_kept"] > 0 for one in mine),
                "trainings": round(fmean(one["trainings"] for one in mine), 1),
                "failures": sum(one["failures"] for one in mine),
                "wall_s": round(fmean(one["wall_s"] for one in mine), 1),
            }
        )
    return rows


def _mean(key: str, values: Sequence[float]) -> Row:
    """The mean with Student's t interval; of one value it has no width."""
    from scipy.stats import t

    mean, half = fmean(values), 0.0
    if len(values) > 1:
        half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return _named(key, mean, mean - half, mean + half)


def _named(key: str, value: float, low: float, high: float) -> Row:
    return {key: round(value, 5), f"{key}_low": round(low, 5), f"{key}_high": round(high, 5)}


# --- markdown ---------------------------------------------------------------------------------------------------------


def markdown(rows: Sequence[Row], told: Mapping[str, Any]) -> str:
    """Both tables, those that have rows."""
    own = [row for row in rows if row["task"] != "planted" or "noise" not in row]
    stand_ins = [row for row in rows if "noise" in row]
    each = told.get("budget") if own and told.get("budget") else f"{told['experiments']} experiments"
    parts = [f"{each} for each rule, from the same proposers and the same seeds."]
    if own:
        first = own[0]
        parts.append(
            f"{first['task']}, {first['time_s']:g} s for each experiment. Quality is {first['metric']} on the sealed "
            f"file, from {first['seeds']} fresh trainings of each version; the baseline has {first['baseline']:.4f} "
            f"[{first['baseline_low']:.4f}, {first['baseline_high']:.4f}]. Intervals at 95 % hold the noise of items "
            "and of seeds. *Claimed*: by autoresearch the difference of two numbers of its search, by Postgrad that "
            "of its own sealed read. *Of these real*: changes of what was built on, drawn by chance, whose fresh "
            "trainings are better than those of what they replaced (in brackets: shown to be, by the interval)."
        )
        parts.append(_table(TASK_TITLES, [_own(row) for row in own]))
    if stand_ins:
        first = stand_ins[0]
        parts.append(
            "Planted stand-ins: the truth is known. Noise is the standard deviation of a training in typical true "
            f"effects (one step of one constant that matters: {first['effect']:.4f} on average). Means of the runs "
            "with 95 % t intervals, gains in thousandths of the loss. False: truly no better than what was replaced. "
            "*Kept* are what a rule says is better: of autoresearch all that it builds on, of Postgrad what a test of "
            "fresh trainings showed."
        )
        parts.append(_table(PLANTED_TITLES, [_stand_in(row) for row in stand_ins]))
    return "\n\n".join(parts) + "\n"


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(titles)
    return "\n".join(f"| {' | '.join(line)} |" for line in (titles, rule, *lines))


def _own(row: Row) -> list[str]:
    return [
        row["task"],
        row["rule"],
        f"{row['quality']:.4f} [{row['low']:.4f}, {row['high']:.4f}]",
        _between(row, "gain", 1, 4),
        f"{row['claimed']:+.4f}",
        f"{row['claimed_less_true']:+.4f}",
        _between(row, "ahead", 1, 4),
        str(row["experiments"]),
        str(row["trainings"]),
        str(row["failures"]),
        str(row["built"]),
        f"{row['real']} of {row['measured_again']} ({row['shown']})",
        str(row["kept"]),
        f"{row['wall_s'] / 60:.1f}",
        f"{row['load'] if row['load'] is not None else '-'}, {row['cores']}",
    ]


def _stand_in(row: Row) -> list[str]:
    return [
        f"{row['noise']:g}",
        row["rule"],
        _between(row, "gain", 1000, 1),
        f"{1000 * row['claimed']:+.1f}",
        _between(row, "claimed_less_true", 1000, 1),
        _between(row, "ahead", 1000, 1),
        f"{row['built']}, {row['false_built']}",
        f"{row['kept']}, {row['false_kept']}",
        f"{row['runs_with_false_keeps']}",
        f"{row['trainings']:.1f}",
        str(row["runs"]),
    ]


def _between(row: Row, key: str, times: float, digits: int) -> str:
    value, low, high = (f"{times * row[name]:+.{digits}f}" for name in (key, f"{key}_low", f"{key}_high"))
    return f"{value} [{low}, {high}]"
