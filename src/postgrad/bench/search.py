"""`postgrad bench search`: which policy finds the best recipe, on simulated landscapes whose truth is known.

Every policy plays the same landscapes with the same seeds and the same budget, with the real researcher and the real
decision rule. What was played is kept in the work folder, one line a run, so the benchmark goes on where it was stopped
and more seeds add to what is there; after a change of a policy, delete its folder there. It trains nothing real.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

from postgrad.bench.base import BenchSpec, whole_number
from postgrad.bench.landscapes import LANDSCAPES, landscape
from postgrad.bench.landscapes_oracle import oracle
from postgrad.bench.players import Player, player
from postgrad.bench.search_meta import OFF, OWN, RECORDED, taught, taught_by_recordings
from postgrad.bench.search_plot import drawing
from postgrad.bench.search_table import CURVE, markdown, rows_of
from postgrad.bench.simulated import SimulatedRun
from postgrad.bench.simulated_parts import Grant, Outcome, Unit
from postgrad.errors import UserError
from postgrad.records import Prior
from postgrad.search import POLICIES

QUICK = {"landscapes": "additive,mostly_noise", "budgets": "20", "seeds": "4"}
LEAST_BUDGET = {"experiments": 5.0, "seconds": 60.0}


class Cell(NamedTuple):
    """One policy on one landscape with one budget, and how many seeds of it."""

    folder: Path
    landscape: str
    policy: Player
    grant: Grant
    seeds: int
    meta: str = OFF

    @property
    def path(self) -> Path:
        racing = "-racing" if self.grant.racing else ""
        pare = "" if self.grant.pare else "-unpared"
        name = f"{self.grant.amount:g}-{self.grant.unit}{racing}{pare}.jsonl"
        return self.folder / _plain(self.player) / _plain(self.landscape) / name

    @property
    def player(self) -> str:
        """The policy, and whose finished runs taught it."""
        return self.policy.written if self.meta == OFF else f"{self.policy.written}+{self.meta}"


class Search:
    """The benchmark."""

    options = {
        "policies": ("all", "names with commas, or all; with settings: posterior[numbers=0;priced=false]"),
        "landscapes": (
            ",".join(name for name in LANDSCAPES if name != "kindred"),
            "names with commas; package.module:Name of your own",
        ),
        "budgets": ("20,50,100,200", "trainings of a run, or seconds"),
        "unit": ("experiments", "experiments or seconds: what a budget counts"),
        "meta": (OFF, "whose finished runs taught a run: off, own, recorded, a landscape; several with commas"),
        "racing": ("off", "on: dear proposals that hardly have a chance left at a rung are stopped there"),
        "pare": ("on", "off: no change of the leader is left out before the budget ends"),
        "seeds": ("200", "runs of each cell"),
        "processes": ("2", "side by side"),
    }

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        """Play every policy in every cell; return one table row for each, and one over all for each policy."""
        options = spec.options | (_asked(spec.options) if spec.quick else {})
        cells = _cells(spec.folder, options)
        names, seeds = list(dict.fromkeys(cell.landscape for cell in cells)), whole_number(options, "seeds")
        played: list[tuple[Cell, list[dict[str, Any]]]] = []
        with ProcessPoolExecutor(whole_number(options, "processes")) as pool:
            found = pool.map(_oracles, ((spec.folder, name, seeds) for name in names))
            for number, (cell, runs) in enumerate(zip(cells, pool.map(_played, cells), strict=True), 1):
                played.append((cell, runs))
                mean = sum(run["final"] for run in runs) / len(runs)
                done = f"{cell.landscape}, {cell.player}, {cell.grant.amount:g} {cell.grant.unit}"
                say(f"{number} of {len(cells)}: {done}: true value {mean:.3f}")
            oracles = dict(zip(names, found, strict=True))
        flat = [{**_named(cell), **run} for cell, runs in played for run in runs]
        rows = rows_of(flat, oracles)
        return {
            "seeds": seeds,
            "unit": options["unit"],
            "racing": options["racing"],
            "pare": options["pare"],
            "table": rows,
            "markdown": markdown(rows, seeds, options["unit"]),
            "svg": drawing(flat, oracles),
        }


def _asked(options: dict[str, str]) -> dict[str, str]:
    """The small version of what was left at its default."""
    return {key: value for key, value in QUICK.items() if options[key] == Search.options[key][0]}


def _cells(folder: Path, options: dict[str, str]) -> list[Cell]:
    policies = POLICIES.names() if options["policies"] == "all" else tuple(options["policies"].split(","))
    players = [player(name) for name in policies]
    names = options["landscapes"].split(",")
    for name in names:
        landscape(name)
    try:
        budgets = [float(text) for text in options["budgets"].split(",")]
    except ValueError as wrong:
        raise UserError(f"Budgets cannot be read ({wrong}). Expected for example: --budgets 20,50") from wrong
    unit, racing, pare, seeds = options["unit"], options["racing"], options["pare"], whole_number(options, "seeds")
    if unit not in ("experiments", "seconds") or not {racing, pare} <= {"on", "off"}:
        got = f"--unit {unit} --racing {racing} --pare {pare}"
        raise UserError(f"Got {got}. Expected experiments or seconds, and on or off.")
    if min(budgets) < LEAST_BUDGET[unit]:
        raise UserError(f"A budget of {min(budgets):g} {unit} is too small: expected {LEAST_BUDGET[unit]:g} or more.")
    metas = options["meta"].split(",")
    for name in metas:
        if name not in (OFF, OWN, RECORDED):
            landscape(name)
    counted: Unit = "seconds" if unit == "seconds" else "experiments"
    grants = [Grant(amount, counted, racing == "on", pare == "on") for amount in budgets]
    return [
        Cell(folder, name, policy, grant, seeds, meta)
        for grant in grants
        for name in names
        for policy in players
        for meta in metas
    ]


def _plain(name: str) -> str:
    return name.replace(":", ".")


def _named(cell: Cell) -> dict[str, Any]:
    return {"landscape": cell.landscape, "policy": cell.player, "budget": cell.grant.amount}


def _played(cell: Cell) -> list[dict[str, Any]]:
    """The runs of a cell by seed: read from its file, and played where they are not there."""
    made = landscape(cell.landscape)

    def play(seed: int) -> dict[str, Any]:
        started = time.perf_counter()
        known = _priors(cell, seed)
        name, params = cell.policy.policy, cell.policy.params
        out = SimulatedRun(made(seed), name, cell.grant, seed, priors=known, params=params).play()
        return facts_of(out, cell.grant) | {"wall_s": round(time.perf_counter() - started, 4)}

    return list(kept(cell.path, cell.seeds, play))


def _priors(cell: Cell, seed: int) -> dict[str, Prior] | None:
    if cell.meta == OFF:
        return None
    if cell.meta == RECORDED:
        return taught_by_recordings(cell.landscape)
    return taught(cell.landscape if cell.meta == OWN else cell.meta, cell.policy.policy, cell.grant, seed)


def _oracles(task: tuple[Path, str, int]) -> list[float]:
    """The best true value of a landscape as found, by seed."""
    folder, name, seeds = task
    made = landscape(name)
    found = kept(folder / "oracle" / f"{_plain(name)}.jsonl", seeds, lambda seed: {"best": oracle(made(seed))})
    return [float(one["best"]) for one in found]


def kept(path: Path, seeds: int, play: Callable[[int], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One line of the file for each seed; those that are missing are played and added. A line that a kill cut short is
    played again."""
    known: dict[int, dict[str, Any]] = {}
    if path.exists():
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            path.write_text(whole, encoding="utf-8")
        known = {one["seed"]: one for one in map(json.loads, whole.splitlines())}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for seed in range(seeds):
            if seed not in known:
                known[seed] = {"seed": seed, **play(seed)}
                file.write(json.dumps(known[seed]) + "\n")
                file.flush()
            yield known[seed]


def facts_of(out: Outcome, grant: Grant) -> dict[str, Any]:
    """What is kept of a run. `curve` is the true value of what the search builds on after each of `CURVE` equal parts
    of the budget, `auc` its mean over the whole budget."""
    ends = [*(at for at, _ in out.curve[1:]), max(grant.amount, out.curve[-1][0])]
    starts = [0.0, *(at for at, _ in out.curve[1:])]
    parts = zip(starts, ends, out.curve, strict=True)
    area = sum(value * max(0.0, min(end, grant.amount) - start) for start, end, (_, value) in parts)
    marks = [grant.amount * (part + 1) / CURVE for part in range(CURVE)]
    curve = [next((v for at, v in reversed(out.curve) if at <= mark), out.curve[0][1]) for mark in marks]
    choices = sorted(out.choose_s) or [0.0]
    return {
        "final": round(out.final, 6),
        "auc": round(area / grant.amount, 6),
        "best": round(out.best, 6),
        "claimed": round(out.claimed, 6),
        "keeps": out.keeps,
        "false_keeps": out.false_keeps,
        "leads": out.leads,
        "false_leads": out.false_leads,
        "trainings": out.trainings,
        "final_trainings": out.final_trainings,
        "parts": out.parts,
        "pared": [[round(brings, 6), dropped] for brings, dropped in out.pared],
        "cost_s": round(out.cost_s, 2),
        "failures": out.failures,
        "raced": out.raced,
        "choose_ms": round(1000 * sum(choices) / len(choices), 4),
        "choose_p95_ms": round(1000 * choices[int(0.95 * (len(choices) - 1))], 4),
        "propose_ms": round(1000 * sum(out.propose_s) / max(1, len(out.propose_s)), 4),
        "weigh_ms": round(1000 * sum(out.weigh_s) / max(1, len(out.weigh_s)), 4),
        "curve": [round(value, 5) for value in curve],
    }
