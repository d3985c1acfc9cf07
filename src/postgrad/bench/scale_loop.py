"""`postgrad bench scale-loop`: what the controller costs per experiment over a long run with many workers.

Jobs are simulated (`scale_cluster.py`); loop, policy, referee, session and store are the real ones, and so are the
event log and the artefacts. Three parts, each resumable and in processes of their own:

    growth   one long run for each policy; CPU time, memory and log as it grows
    speed    jobs that really take their time, on 2 to 1,000 workers: how many of them the controller keeps busy
    regret   what more workers cost in what is found, at equal experiments and at equal time
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Callable, NamedTuple

from postgrad.bench.base import BenchSpec, whole_number
from postgrad.bench.landscapes import landscape
from postgrad.bench.scale import one_thread, peak_mb
from postgrad.bench.scale_parts import REGRET, SPEED, regret_rows, speed_rows
from postgrad.bench.scale_run import Case, Run
from postgrad.bench.scale_table import markdown
from postgrad.errors import UserError
from postgrad.events import Analysed, Event
from postgrad.search import POLICIES

PARTS = ("growth", "speed", "regret")
QUICK = {"experiments": "120", "workers": "8", "policies": "greedy", "stages": "60,120", "seeds": "1"}
#: How often a long run notes down where it stands, in experiments.
EVERY = 100


class Growth(NamedTuple):
    """One long run."""

    folder: Path
    policy: str
    landscape: str
    workers: int
    experiments: int


class ScaleLoop:
    """The benchmark."""

    options = {
        "parts": (",".join(PARTS), "which of the parts, with commas"),
        "policies": ("posterior,greedy", "policies of the long runs, with commas"),
        "experiments": ("1000", "length of the long runs"),
        "stages": ("1000,3000,10000,30000,100000", "lengths that a row is made for, with commas"),
        "workers": ("1000", "workers of the long runs"),
        "landscape": ("additive", "which simulated world"),
        "speeds": (SPEED, "WORKERS:SECONDS of the jobs that take their time, with commas"),
        "rivals": ("posterior,greedy,uct,random", "policies whose regret is compared, with commas"),
        "sides": ("1,2,8,64", "workers that regret is compared for, with commas"),
        "budget": (REGRET, "experiments of a run whose regret is compared"),
        "seeds": ("3", "runs of each of these"),
    }

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        """Do the parts that were asked for, or go on with them; return a row for each stage, speed and policy."""
        options = dict(spec.options)
        if spec.quick:
            options |= {key: value for key, value in QUICK.items() if options[key] == self.options[key][0]}
        parts = _names(options["parts"], PARTS, "parts")
        found: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
        if "growth" in parts:
            found["growth"] = _growth(spec.folder, options, say)
        if "speed" in parts:
            found["speed"] = speed_rows(spec.folder / "speed", options, spec.quick, say)
        if "regret" in parts:
            found["regret"] = regret_rows(spec.folder / "regret", options, spec.quick, say)
        table = [{"part": part, **row} for part in PARTS for row in found[part]]
        return {"table": table, "markdown": markdown(found), "landscape": options["landscape"]}


def _names(text: str, known: tuple[str, ...], option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if wrong := [name for name in names if name not in known]:
        raise UserError(f"--{option} names '{wrong[0]}'; expected some of {', '.join(known)}.")
    return names


def _growth(folder: Path, options: dict[str, str], say: Callable[[str], None]) -> list[dict[str, Any]]:
    experiments, workers = whole_number(options, "experiments"), whole_number(options, "workers")
    stages = sorted({experiments, *(int(text) for text in options["stages"].split(",") if int(text) < experiments)})
    rows = []
    for policy in _names(options["policies"], POLICIES.names(), "policies"):
        landscape(options["landscape"])
        place = folder / f"{policy}-{workers}-{experiments}"
        case = Growth(place, policy, options["landscape"], workers, experiments)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=one_thread) as pool:
            marks = pool.submit(grown, case).result()
        before = 0
        for stage in stages:
            if (row := _row(case, marks, before, stage)) is not None:
                say(f"{policy}, {stage:,} experiments: {row['cpu_ms']:.1f} ms each, {row['peak_mb']:.0f} MB")
                rows.append(row)
            before = stage
    return rows


def grown(case: Growth) -> list[dict[str, Any]]:
    """Play a long run to its end, or on to it; the marks that it made on its way. For a process of its own: it reads
    CPU time and peak memory of the whole process."""
    path = case.folder / "marks.jsonl"
    case.folder.mkdir(parents=True, exist_ok=True)
    if not (case.folder / "ended").exists():
        began = time.process_time()
        run = Run(case.folder, _case(case), lambda event: watch(event))
        marker = _Marker(run, path, time.process_time() - began)
        watch = marker.watch
        run.play()
        (case.folder / "ended").touch()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _case(case: Growth) -> Case:
    return Case(case.policy, landscape(case.landscape)(0), case.workers, case.experiments)


class _Marker:
    """Notes down, every so many experiments, what the controller took since the last time."""

    def __init__(self, run: Run, path: Path, opened_s: float) -> None:
        self.run, self.path, self.opened_s = run, path, opened_s
        self._last = self._now()

    def _now(self) -> dict[str, float]:
        parts = {f"{part}_s": seconds for part, seconds in self.run.loop.spent.items()}
        own, cpu = self.run.cluster.own_s, time.process_time()
        ended = self.run.session.tree.ended()
        return {"experiments": ended, "cpu_s": cpu - own, "wall_s": time.monotonic(), "own_s": own, **parts}

    def watch(self, event: Event) -> None:
        """An event was written."""
        ended = self.run.session.tree.ended()
        if not isinstance(event.body, Analysed) or ended % EVERY:
            return
        now = self._now()
        took = {key: round(value - self._last.get(key, 0.0), 6) for key, value in now.items()}
        mark = {
            "from": self._last["experiments"],
            "to": ended,
            **took,
            "opened_s": round(self.opened_s, 3),
            "peak_mb": round(peak_mb(), 1),
            "events": event.seq,
            "log_mb": round(self.run.log_mb(), 2),
            "under_way": len(self.run.loop.running),
            "simulated_s": round(self.run.clock.now, 1),
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(mark) + "\n")
        self._last = self._now()


def _row(case: Growth, marks: list[dict[str, Any]], before: int, stage: int) -> dict[str, Any] | None:
    """What experiments between two stages took; None where the run is not there yet."""
    within = [mark for mark in marks if before < mark["to"] <= stage]
    count = sum(mark["to"] - mark["from"] for mark in within)
    if not within or within[-1]["to"] < stage - EVERY + 1 or not count:
        return None

    def each(name: str) -> float:
        total = float(sum(mark.get(name, 0.0) for mark in within))
        return round(1000 * total / float(count), 2)

    last = within[-1]
    return {
        "policy": case.policy,
        "workers": case.workers,
        "experiments": stage,
        "cpu_ms": each("cpu_s"),
        "propose_ms": each("propose_s"),
        "collect_ms": each("collect_s"),
        "analyse_ms": each("analyse_s"),
        "start_ms": each("start_s"),
        "latest_ms": round(1000 * last["cpu_s"] / (last["to"] - last["from"]), 2),
        "decisions_per_s": round(1000 / each("cpu_s"), 1),
        "peak_mb": max(mark["peak_mb"] for mark in within),
        "events": last["events"],
        "log_mb": last["log_mb"],
        "simulated_ms": each("own_s"),
    }
