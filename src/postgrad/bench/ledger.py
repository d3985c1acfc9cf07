"""`postgrad bench ledger`: the public autoresearch ledger as a worked example, with one and with three seeds.

Simulated ledgers of the published size, whose truth is known: what the session's rule keeps, what the project's test
says of those keeps, and what the project's rule makes of the same changes. Nothing is trained, and it does not say
which of the published keeps are real.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from typing import Any, Callable, Sequence

from postgrad.bench.base import BenchSpec, whole_number
from postgrad.bench.keep_rules import Ours, Outcome
from postgrad.bench.ledger_arithmetic import arithmetic
from postgrad.bench.ledger_rules import Line, Seeded, ledger_of, shown
from postgrad.bench.ledger_table import markdown
from postgrad.bench.ledger_world import (
    BIG_SHARE,
    BLOCK_SD,
    BLOCKS,
    CRASHES,
    DISCARDS,
    EXPERIMENTS,
    FIRST_BIG,
    GAIN,
    KEEPS,
    KEEPS_BELOW_NO_OP,
    KEEPS_BELOW_SEED,
    NEAR,
    NEAR_DISCARDS,
    NO_OP_GAP,
    SEED_GAP,
    SIZES,
    SMALLEST_KEEP,
    Pretraining,
    Size,
)
from postgrad.bench.noise_table import false_share, mean_and_error
from postgrad.bench.worlds import Setting

QUICK_RUNS, QUICK_SIZES = 20, (1,)
PROPOSALS = EXPERIMENTS - CRASHES
# The same blocks, but as unlike each other as documents are.
UNEVEN = 4 * BLOCK_SD
SETTING = Setting(items=BLOCKS, seed_noise="low", experiments=EXPERIMENTS, better=0.0)
PUBLISHED = {
    "keeps": KEEPS,
    "gain": GAIN,
    "big_share": BIG_SHARE,
    "near_discards": round(NEAR_DISCARDS / DISCARDS, 3),
    "below_no_op": KEEPS_BELOW_NO_OP,
    "below_seed": KEEPS_BELOW_SEED,
    "smallest_keep": SMALLEST_KEEP,
}
ANY_NUMBER = 10**9
SHOWN = ("seed_sd", "rule", "trainings", "leads", "keeps", "false_keeps", "gain", "optimism", "ahead")
PUBLIC_RULE = "autoresearch, 1 seed"


class Ledger:
    """The benchmark."""

    options = {"runs": ("200", "simulated ledgers for each size of noise"), "processes": ("2", "side by side")}

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        """Play every rule on every simulated ledger; one table row for each size of noise and rule."""
        runs = QUICK_RUNS if spec.quick else whole_number(spec.options, "runs")
        sizes = [SIZES[i] for i in QUICK_SIZES] if spec.quick else SIZES
        rows: list[dict[str, Any]] = []
        calibration: list[dict[str, Any]] = []
        tests: list[dict[str, Any]] = []
        with ProcessPoolExecutor(whole_number(spec.options, "processes")) as pool:
            for size in sizes:
                played = list(pool.map(play, [size] * runs, range(runs)))
                calibration.append({"seed_sd": size.seed_sd, **_summary([one["summary"] for one in played])})
                tests += _tests(size, [one["shown"] for one in played])
                rows += table_of(size, [one["rules"] for one in played])
                say(f"seed sd {size.seed_sd}: {runs} ledgers")
        facts = arithmetic(tuple(size.seed_sd for size in SIZES))
        result = {
            "published": PUBLISHED,
            "calibration": calibration,
            "tests": tests,
            "arithmetic": facts,
            "rules": rows,
        }
        short = [{key: row[key] for key in SHOWN} for row in rows]
        return {"runs": runs, "table": short, **result, "markdown": markdown(result)}


def play(size: Size, seed: int) -> dict[str, Any]:
    """One simulated ledger under every rule."""
    world = Pretraining(size)
    public, lines = ledger_of(world, SETTING, seed, proposals=PROPOSALS)
    tested = {str(seeds): shown(world, lines, seeds) for seeds in (1, 3)}
    rules = {PUBLIC_RULE: _facts(world, public)}
    third = EXPERIMENTS // 3
    for name, proposals in (("autoresearch, 3 seeds, 42 recipes", third), ("autoresearch, 3 seeds, all", PROPOSALS)):
        rules[name] = _facts(world, ledger_of(world, SETTING, seed, proposals=proposals, seeds=3)[0])
    ours = {
        "postgrad, 1 seed": Seeded(1, PROPOSALS, EXPERIMENTS),
        "postgrad, 3 seeds, 126 trainings": Seeded(3, PROPOSALS, 3 * (third + 1)),
        "postgrad, 3 seeds, all": Seeded(3, PROPOSALS, ANY_NUMBER),
    }
    for name, rule in ours.items():
        rules[name] = _facts(world, rule.play(world, SETTING, seed))
    rules["postgrad, retests"] = _facts(world, Ours().play(world, SETTING, seed))
    uneven = Pretraining(size, UNEVEN)
    rules["postgrad, retests, uneven items"] = _facts(uneven, Ours().play(uneven, SETTING, seed))
    return {"summary": summary(lines), "shown": tested, "rules": rules}


def summary(lines: Sequence[Line]) -> dict[str, float]:
    """What is published of the ledger, of a simulated one."""
    gaps = sorted((line.gap for line in lines if line.kept), reverse=True)
    discards = [line.gap for line in lines if not line.kept]
    return {
        "keeps": len(gaps),
        "gain": sum(gaps),
        "big_share": sum(gaps[:FIRST_BIG]) / sum(gaps),
        "near_discards": sum(gap >= -NEAR for gap in discards) / max(1, len(discards)),
        "below_no_op": sum(gap < NO_OP_GAP for gap in gaps),
        "below_seed": sum(gap < SEED_GAP for gap in gaps),
        "smallest_keep": gaps[-1],
    }


def _facts(world: Pretraining, out: Outcome) -> dict[str, float]:
    gain = world.truth(out.final) - world.truth(out.first)
    return {
        "recipes": len(out.proposals) + 1,
        "trainings": out.trainings,
        "leads": len(out.leads),
        "false_leads": len(out.leads) - sum(out.leads),
        "keeps": len(out.keeps),
        "false_keeps": len(out.keeps) - sum(out.keeps),
        "recorded": out.claimed_gain,
        "gain": gain,
        "optimism": out.claimed_gain - gain,
    }


def _summary(found: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """Of each published figure: the mean over the simulated ledgers, and the middle 95 % of them."""
    import numpy as np

    told = {}
    for key in found[0]:
        values = np.array([one[key] for one in found])
        told[key] = [float(values.mean()), *map(float, np.quantile(values, [0.025, 0.975]))]
    return told


def _tests(size: Size, found: Sequence[dict[str, tuple[float, float]]]) -> list[dict[str, Any]]:
    """How many of a ledger's keeps the project's test shows."""
    rows = []
    for seeds in found[0]:
        facts = {"keeps": [one[seeds][0] for one in found], "false_keeps": [one[seeds][1] for one in found]}
        shown_keeps, error = mean_and_error(facts["keeps"])
        share, upper = false_share(facts)
        row = {"seed_sd": size.seed_sd, "seeds": int(seeds), "shown": shown_keeps, "shown_error": error}
        rows.append({**row, "false_share": share, "false_upper": upper})
    return rows


def table_of(size: Size, ledgers: Sequence[dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """One line a rule: means over the ledgers with half their 95 % intervals. `ahead` is the true gain less that of the
    session's rule, ledger by ledger."""
    rows = []
    for rule in ledgers[0]:
        facts = {key: [ledger[rule][key] for ledger in ledgers] for key in ledgers[0][rule]}
        facts["ahead"] = [ledger[rule]["gain"] - ledger[PUBLIC_RULE]["gain"] for ledger in ledgers]
        row: dict[str, Any] = {"seed_sd": size.seed_sd, "rule": rule}
        row |= {key: round(mean_and_error(facts[key])[0], 2) for key in ("recipes", "trainings", "leads", "keeps")}
        leads = {"false_keeps": facts["false_leads"], "keeps": facts["leads"]}
        row["false_leads"] = round(false_share(leads)[0], 4)
        row["false_keeps"], row["false_keeps_upper"] = (round(share, 4) for share in false_share(facts))
        for key in ("recorded", "gain", "optimism", "ahead"):
            mean, error = mean_and_error(facts[key])
            row |= {key: round(mean, 6), f"{key}_error": round(error, 6)}
        rows.append(row)
    return rows
