"""`postgrad bench scale`: what one step of a policy costs on trees of up to 100,000 experiments, in time and memory.

A step is what the loop does for one more experiment: the events of one that ends and of one that begins are folded into
the tree, the view is made, and the policy chooses. Every step is on a tree that has grown by one experiment since the
last; each policy and size has a fresh process, so that memory can be compared. The policy's choices are not carried
out: the tree grows as `scale_trees.py` draws it. What was measured is kept in the work folder, one file for each policy
and size; after a change of a policy, delete its files there.
"""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from math import log
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, Callable, Mapping, NamedTuple

from postgrad.bench.base import BenchSpec, whole_number
from postgrad.bench.landscapes import TASK
from postgrad.bench.scale_trees import Growth
from postgrad.bench.simulated_parts import nominal_s
from postgrad.budget import Remaining
from postgrad.errors import UserError
from postgrad.records import Move
from postgrad.research.binding import bound
from postgrad.search import POLICIES
from postgrad.tree import Tree

QUICK = {"sizes": "100,1000"}
LEAST, FEW = 20, 10
#: The limits hold at this many experiments; growth is judged from the smallest size to the largest.
JUDGED = 10_000
P95_MS, MEMORY_MB = 50.0, 300.0
LOOKAHEAD = 2
REMAINING = Remaining(experiments=1_000, fraction=0.5)
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Case(NamedTuple):
    """One policy on one size, and how many steps are timed."""

    policy: str
    experiments: int
    calls: int


class Scale:
    """The benchmark."""

    options = {
        "policies": ("posterior,greedy", "names with commas"),
        "sizes": ("100,1000,10000,100000", "experiments of the tree, with commas"),
        "calls": ("60", f"timed steps of each; {FEW} above {JUDGED} experiments"),
    }

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        """Measure every policy on every size; return a row for each, and how each policy stands to the limits."""
        options = dict(spec.options)
        if spec.quick:
            options |= {key: value for key, value in QUICK.items() if options[key] == self.options[key][0]}
        rows = [_kept(spec.folder, case, say) for case in _cases(options)]
        for before, after in pairwise(rows):
            if before["policy"] == after["policy"]:
                after["exponent"] = _exponent(before, after)
        names = list(dict.fromkeys(row["policy"] for row in rows))
        verdicts = [_verdict(name, [row for row in rows if row["policy"] == name]) for name in names]
        return {"table": rows, "verdicts": verdicts, "markdown": _markdown(rows, verdicts)}


def measured(case: Case) -> dict[str, Any]:
    """Time the steps of one case. For a process of its own: it reads the peak memory of the whole process."""
    policy = bound(POLICIES.get(case.policy), TASK, nominal_s)
    params = policy.Params()
    policy.choose(Tree.from_events(Growth().events(LEAST)), REMAINING, Random(0), params)
    base_mb = peak_mb()
    growth = Growth()
    started = time.process_time()
    tree = Tree.from_events(growth.events(case.experiments))
    build_s = time.process_time() - started
    seconds: list[tuple[float, float]] = []
    for call in range(1 + case.calls):
        events = growth.step()
        started = time.process_time()
        for event in events:
            tree = tree.with_event(event)
        view = tree.view(len(tree) + 1 - LOOKAHEAD)
        seen = time.process_time()
        choice = policy.choose(view, REMAINING, Random(call), params)
        seconds.append((seen - started, time.process_time() - seen))
        if choice.move is Move.STOP:
            break
    peak = peak_mb()
    first, later = seconds[0], seconds[1:] or seconds
    steps = [tree_s + choose_s for tree_s, choose_s in later]
    return {
        "policy": case.policy,
        "experiments": case.experiments,
        "step_ms_p50": _ms(steps, 0.5),
        "step_ms_p95": _ms(steps, 0.95),
        "choose_ms_p50": _ms([choose_s for _, choose_s in later], 0.5),
        "tree_ms_p50": _ms([tree_s for tree_s, _ in later], 0.5),
        "first_ms": _ms([sum(first)], 0.5),
        "peak_mb": round(peak, 1),
        "over_base_mb": round(peak - base_mb, 1),
        "exponent": None,
        "calls": len(later),
        "build_s": round(build_s, 2),
    }


def _cases(options: dict[str, str]) -> list[Case]:
    policies, calls = options["policies"].split(","), whole_number(options, "calls")
    for name in policies:
        POLICIES.get(name)
    sizes = [int(text) for text in options["sizes"].split(",") if text.strip().isdecimal()]
    if len(sizes) != len(options["sizes"].split(",")) or min(sizes) < LEAST:
        raise UserError(
            f"--sizes is '{options['sizes']}'; expected whole numbers of {LEAST} or more, such as --sizes 100,1000."
        )
    return [
        Case(name, size, calls if size <= JUDGED else min(FEW, calls))
        for name in policies
        for size in sorted(set(sizes))
    ]


def _kept(folder: Path, case: Case, say: Callable[[str], None]) -> dict[str, Any]:
    """The row of a case: read from its file, and measured where there is none."""
    path = folder / f"{case.policy}-{case.experiments}-{case.calls}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # A fresh process each: the next one must not start with what this one holds.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=one_thread) as pool:
            row = pool.submit(measured, case).result()
        path.write_text(json.dumps(row), encoding="utf-8")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    step, memory = f"{found['step_ms_p95']:.1f} ms a step (p95)", f"{found['peak_mb']:.0f} MB"
    say(f"{case.policy}, {case.experiments:,} experiments: {step}, {memory}")
    return found


def one_thread() -> None:
    """Libraries read these when they are first imported."""
    os.environ.update(dict.fromkeys(THREADS, "1"))


def peak_mb() -> float:
    """The most memory that this process has held; where the system does not say, what it holds now."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    import psutil

    return float(psutil.Process().memory_info().rss) / 2**20


def _ms(seconds: list[float], share: float) -> float:
    """A quantile in milliseconds, from above: the slowest of 19 or fewer is their p95."""
    ranked = sorted(seconds)
    return round(1000 * ranked[min(len(ranked) - 1, int(share * len(ranked)))], 3)


def _exponent(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """The power of the number of experiments by which the median step has grown."""
    grown = log(after["step_ms_p50"] / before["step_ms_p50"])
    return round(grown / log(after["experiments"] / before["experiments"]), 2)


def _verdict(policy: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How a policy stands to the limits: None where the sizes that decide were not measured."""
    at = next((row for row in rows if row["experiments"] == JUDGED), None)
    grown = allowed = None
    if len(rows) > 1:
        small, big = rows[0]["experiments"], rows[-1]["experiments"]
        grown = rows[-1]["step_ms_p50"] / rows[0]["step_ms_p50"]
        allowed = big * log(big) / (small * log(small))
    return {
        "policy": policy,
        "fast": at and at["step_ms_p95"] < P95_MS,
        "small": at and at["peak_mb"] < MEMORY_MB,
        "grown": grown and round(grown, 1),
        "n_log_n": allowed and round(allowed, 1),
        "grows_well": None if grown is None or allowed is None else grown <= allowed,
    }


def _markdown(rows: list[dict[str, Any]], verdicts: list[dict[str, Any]]) -> str:
    lines = [
        "| policy | experiments | step p50, ms | step p95, ms | choose p50, ms | events and view p50, ms | first, ms "
        "| peak memory, MB | over an empty tree, MB | growth exponent |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        exponent = "-" if row["exponent"] is None else f"{row['exponent']:.2f}"
        times = [row[key] for key in ("step_ms_p50", "step_ms_p95", "choose_ms_p50", "tree_ms_p50", "first_ms")]
        cells = [f"{each:.3g}" if each < 100 else f"{each:,.0f}" for each in times]
        cells += [f"{row['peak_mb']:,.0f}", f"{row['over_base_mb']:,.0f}", exponent]
        lines.append(f"| {row['policy']} | {row['experiments']:,} | {' | '.join(cells)} |")
    words = {True: "yes", False: "**no**", None: "not measured"}
    lines += [
        "",
        f"| policy | p95 under {P95_MS:g} ms at {JUDGED:,} | under {MEMORY_MB:g} MB at {JUDGED:,} "
        "| grows no faster than n log n |",
        "| --- | --- | --- | --- |",
    ]
    for found in verdicts:
        growth = words[found["grows_well"]]
        if found["grown"]:
            growth += f": {found['grown']:g} times, n log n is {found['n_log_n']:g}"
        lines.append(f"| {found['policy']} | {words[found['fast']]} | {words[found['small']]} | {growth} |")
    return "\n".join(lines) + "\n"
