"""The two shorter parts of `bench scale-loop`: workers that are kept busy, and regret against workers."""

from __future__ import annotations

import json
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Callable, NamedTuple

from postgrad.bench.base import whole_number
from postgrad.bench.landscapes import landscape
from postgrad.bench.scale import one_thread
from postgrad.bench.scale_run import Case, Run
from postgrad.errors import UserError
from postgrad.events import Analysed, Event
from postgrad.removing import remove_tree
from postgrad.search import POLICIES

#: WORKERS:SECONDS. A job lasts between 0.4 and 1.6 times its seconds.
SPEED = "2:1.25,8:1.25,64:1.25,64:10,1000:1.25,1000:60"
QUICK_SPEED, QUICK_SIDES, QUICK_BUDGET = "2:0.1", "1,4", "20"
REGRET = "100"
# Experiments for each worker, and the least. Those that fill the workers are not counted, nor is the time in which
# nothing is left to propose: twice as many as workers are open then, and the last ones wait for all others.
EACH, LEAST, FILLING, EMPTYING = 5, 100, 0.34, 0.98


class Speed(NamedTuple):
    """One run whose jobs take their time."""

    folder: Path
    policy: str
    landscape: str
    workers: int
    seconds: float


class Side(NamedTuple):
    """One run whose regret is looked at."""

    folder: Path
    policy: str
    landscape: str
    workers: int
    experiments: int
    seed: int


# --- speed ------------------------------------------------------------------------------------------------------------


def speed_rows(folder: Path, options: dict[str, str], quick: bool, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for each policy, number of workers and length of jobs."""
    text = QUICK_SPEED if quick and options["speeds"] == SPEED else options["speeds"]
    pairs = [_pair(each) for each in text.split(",")]
    rows = []
    for policy in options["policies"].split(","):
        POLICIES.get(policy)
        for workers, seconds in pairs:
            case = Speed(folder / f"{policy}-{workers}-{seconds:g}", policy, options["landscape"], workers, seconds)
            row = _kept(case.folder, kept_busy, case)
            busy = f"{row['busy_workers']:.1f} of {workers:,} workers busy"
            say(f"{policy}, jobs of {seconds:g} s: {busy}, {row['jobs_per_s']:.1f} jobs a second")
            rows.append(row)
    return rows


def _pair(text: str) -> tuple[int, float]:
    workers, _, seconds = text.partition(":")
    try:
        found = int(workers), float(seconds)
    except ValueError:
        found = 0, 0.0
    if found[0] < 1 or found[1] <= 0:
        raise UserError(f"--speeds holds '{text}'; expected WORKERS:SECONDS, such as --speeds 2:1,64:10.")
    return found


def kept_busy(case: Speed) -> dict[str, Any]:
    """Play one run in real time, and say how many workers were busy once they could all be."""
    experiments = max(LEAST, EACH * case.workers)
    wanted = Case(case.policy, landscape(case.landscape)(0), case.workers, experiments, case.seconds, real=True)
    run = Run(case.folder, wanted, _unheard)
    began = time.process_time()
    run.play()
    cpu_s = time.process_time() - began - run.cluster.own_s
    counted = [look for look in run.looks if look.ended >= FILLING * experiments]
    first, last = counted[0], next((look for look in counted if look.proposed >= EMPTYING * experiments), counted[-1])
    length = max(last.at - first.at, 1e-9)
    busy = run.cluster.busy(first.at, first.at + length)
    return {
        "policy": case.policy,
        "workers": case.workers,
        "job_s": case.seconds,
        "experiments": experiments,
        "jobs_per_s": round((last.ended - first.ended) / length, 2),
        "ideal_per_s": round(case.workers / case.seconds, 2),
        "busy_workers": round(busy, 2),
        "busy_share": round(busy / case.workers, 3),
        "cpu_ms": round(1000 * cpu_s / experiments, 2),
        "wall_s": round(run.clock.now, 1),
    }


def _unheard(event: Event) -> None:
    """Nobody looks at the events of this run."""


# --- regret -----------------------------------------------------------------------------------------------------------


def regret_rows(folder: Path, options: dict[str, str], quick: bool, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for each policy and number of workers: simple regret after the budget, and when 64 workers, or the most
    there are, have spent theirs."""
    sides = [int(text) for text in (QUICK_SIDES if quick else options["sides"]).split(",")]
    budget = int(QUICK_BUDGET) if quick else whole_number(options, "budget")
    seeds, name = whole_number(options, "seeds"), options["landscape"]
    found: dict[tuple[str, int, int], dict[str, Any]] = {}
    for policy in options["rivals"].split(","):
        POLICIES.get(policy)
        for workers in sides:
            for seed in range(seeds):
                side = Side(folder / f"{policy}-{workers}-{budget}-{seed}", policy, name, workers, budget, seed)
                found[policy, workers, seed] = _kept(side.folder, curve, side)
            say(f"regret of {policy} with {workers} workers")
    best = {seed: max(run["tried"] for key, run in found.items() if key[2] == seed) for seed in range(seeds)}
    rows = []
    for policy, workers in dict.fromkeys(key[:2] for key in found):
        runs = [(found[policy, workers, seed], found[policy, max(sides), seed], seed) for seed in range(seeds)]
        spent = [best[seed] - run["curve"][-1][2] for run, _, seed in runs]
        at_time = [best[seed] - _value(run["curve"], wide["curve"][-1][1]) for run, wide, seed in runs]
        rows.append(
            {
                "policy": policy,
                "workers": workers,
                "experiments": budget,
                "regret": round(sum(spent) / seeds, 4),
                "simulated_s": round(sum(run["curve"][-1][1] for run, _, _ in runs) / seeds, 1),
                "regret_at_equal_time": round(sum(at_time) / seeds, 4),
                "seeds": seeds,
            }
        )
    return rows


def _value(points: list[list[float]], clock: float) -> float:
    """The true value of what led at a time; that of the first thing that led, before."""
    return next((value for _, at, value in reversed(points) if at <= clock), points[0][2])


def curve(side: Side) -> dict[str, Any]:
    """Play one run; (experiments, simulated seconds, true value of what led) as it went, and the best that it tried."""
    world = landscape(side.landscape)(side.seed)
    points: list[tuple[int, float, float]] = []
    case = Case(side.policy, world, side.workers, side.experiments, seed=side.seed)

    def listen(event: Event) -> None:
        if isinstance(event.body, Analysed):
            tree = run.session.tree
            champion = tree[event.body.champion or "e0000"].proposed.proposal.recipe
            points.append((tree.ended(), round(event.clock, 3), world.truth(champion)))

    run = Run(side.folder, case, listen)
    run.play()
    tried = max(world.truth(node.proposed.proposal.recipe) for node in run.session.tree.all() if node.score is not None)
    return {"curve": points, "tried": tried}


# --- both -------------------------------------------------------------------------------------------------------------


def _apart(work: Callable[[Any], dict[str, Any]], case: Any) -> dict[str, Any]:
    """In a process of its own, with one thread."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=one_thread) as pool:
        return pool.submit(work, case).result()


def _kept(folder: Path, work: Callable[[Any], dict[str, Any]], case: Any) -> dict[str, Any]:
    """What was found: read from its file, and worked out where there is none. A run that was cut off begins anew."""
    path = folder.with_name(f"{folder.name}.json")
    if not path.exists():
        remove_tree(folder)
        folder.mkdir(parents=True)
        found = _apart(work, case)
        path.write_text(json.dumps(found), encoding="utf-8")
        remove_tree(folder)
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return kept
