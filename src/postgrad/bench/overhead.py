"""What the controller itself costs: memory and time over many experiments, and how fast `--help` answers.

Jobs are simulated by an engine that answers at once with outputs of a made-up skill, so that everything measured here
is Postgrad's own. The loop, store, referee and policy are the real ones.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any, Callable

import psutil

from postgrad.bench.base import BenchSpec, whole_number
from postgrad.engines.base import Exit
from postgrad.events import Event
from postgrad.execute.collect import model_facts
from postgrad.records import (
    Budget,
    DataSpec,
    EngineSpec,
    JobResult,
    JobSpec,
    Limits,
    TaskSpec,
    UnitResult,
    Usage,
    content_hash,
)
from postgrad.runner import drive, opened, start_run
from postgrad.spec.keys import DEFAULT_BASE_MODEL

LABELS = 12
ROWS_EACH = 20


class DoneHandle:
    """A job that has ended already."""

    def __init__(self, cause: str | None = None) -> None:
        self.cause = cause

    def wait(self, timeout: float) -> Exit | None:
        code = 0 if self.cause is None else -15
        return Exit(code=code, cause=self.cause, usage=Usage(wall_s=0.01, cpu_s=0.01, max_rss_mb=1.0))

    def stop(self) -> None:
        """Nothing runs."""


class SimulatedEngine:
    """Answers every job at once: right with a probability that the recipe's hash decides."""

    slots = 2
    threads = threads_alone = 1
    memory_mb: float | None = None
    sandbox = "none"

    def open(self, spec: EngineSpec) -> None:
        """Nothing to take."""

    def start(self, folder: Path, limits: Limits) -> DoneHandle:
        spec = JobSpec.model_validate_json((folder / "job.json").read_text())
        skill = 0.5 + 0.4 * int(spec.recipe.hash[:4], 16) / 65535
        if spec.loads is not None:
            units = [self._again(folder, folder / spec.loads, unit.name, unit.predict) for unit in spec.units]
        else:
            units = [self._unit(folder, spec, unit.name, unit.predict, unit.seed, skill) for unit in spec.units]
        if spec.save_model:
            self._save(folder, spec)
        result = JobResult(job=spec.job, units=tuple(units))
        (folder / "result.json").write_text(result.model_dump_json())
        return DoneHandle()

    def timed_out(self) -> DoneHandle:
        """A job that ran into its time limit."""
        return DoneHandle("timeout")

    def close(self) -> None:
        """Nothing to give back."""

    def _unit(self, folder: Path, spec: JobSpec, name: str, predict: str, seed: int, skill: float) -> UnitResult:
        import numpy as np

        asked = [json.loads(line) for line in (folder / predict).read_text().splitlines()]
        ids, texts = [item["id"] for item in asked], [item["text"] for item in asked]
        rng = np.random.default_rng([seed, int(content_hash(spec.recipe.model_dump(mode="json"))[:8], 16)])
        true = np.array([_kind(text) for text in texts])
        answer = np.where(rng.random(len(ids)) < skill, true, rng.integers(0, len(spec.labels), len(ids)))
        probs = np.full((len(ids), len(spec.labels)), 0.01, dtype=np.float32)
        probs[np.arange(len(ids)), answer % len(spec.labels)] = 1.0
        file = f"out-{name}.npz"
        score = rng.random(len(ids)).astype(np.float32)
        np.savez(folder / file, ids=np.array(ids), probs=probs / probs.sum(1, keepdims=True), score=score)
        return UnitResult(name=name, outputs=file)

    def _save(self, folder: Path, spec: JobSpec) -> None:
        """A model that knows the answers it has given."""
        import numpy as np

        unit = spec.units[-1]
        asked = [json.loads(line)["text"] for line in (folder / unit.predict).read_text().splitlines()]
        with np.load(folder / f"out-{unit.name}.npz") as file:
            known = dict(zip(asked, zip(file["probs"].tolist(), file["score"].tolist(), strict=True), strict=True))
        (folder / "model").mkdir(exist_ok=True)
        (folder / "model" / "answers.json").write_text(json.dumps(known))
        (folder / "model" / "postgrad.json").write_text(json.dumps(model_facts(spec)))

    def _again(self, folder: Path, model: Path, name: str, predict: str) -> UnitResult:
        """The answers of a saved model."""
        import numpy as np

        known = json.loads((model / "answers.json").read_text())
        asked = [json.loads(line) for line in (folder / predict).read_text().splitlines()]
        probs = np.array([known[item["text"]][0] for item in asked], dtype=np.float32)
        score = np.array([known[item["text"]][1] for item in asked], dtype=np.float32)
        file = f"out-{name}.npz"
        np.savez(folder / file, ids=np.array([item["id"] for item in asked]), probs=probs, score=score)
        return UnitResult(name=name, outputs=file)


def _kind(text: str) -> int:
    """The label number at the end of a text; a copy that lost it counts as label 0."""
    found = re.search(r"(\d+)$", text)
    return int(found.group(1)) % LABELS if found else 0


def simulated_task(folder: Path, experiments: int) -> TaskSpec:
    folder.mkdir(parents=True, exist_ok=True)
    rng = Random(0)
    lines = ["text,label"]
    for label in range(LABELS):
        lines += [f"question {rng.randrange(10**9)} of kind {label},L{label:02d}" for _ in range(ROWS_EACH)]
    train = folder / "train.csv"
    train.write_text("\n".join(lines) + "\n")
    return TaskSpec(
        name="overhead",
        objective="measure the controller",
        data=DataSpec(train=str(train), out_of_scope="none"),
        metric="mcc",
        base_models=(DEFAULT_BASE_MODEL,),
        budget=Budget(experiments=experiments),
        engine=EngineSpec(workers=2),
    )


class Overhead:
    """The benchmark."""

    options = {"experiments": ("500", "how many simulated experiments")}

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        experiments = 60 if spec.quick else whole_number(spec.options, "experiments")
        every = max(1, min(20, experiments // 2))
        memory: list[dict[str, float]] = []
        process = psutil.Process()
        started = time.monotonic()

        def listen(event: Event) -> None:
            if event.body.type == "analysed":
                done = int(event.body.experiment[1:]) + 1
                if done % every == 0:
                    memory.append({"experiments": done, "rss_mb": round(process.memory_info().rss / 2**20, 1)})

        say(f"{experiments} simulated experiments")
        store = start_run(simulated_task(spec.folder, experiments), spec.folder / "runs")
        with opened(store, listen, SimulatedEngine()) as session:
            drive(session)
            events = session.seq
        wall = time.monotonic() - started
        row = {
            "experiments": experiments,
            "events": events,
            "controller_s": round(wall, 2),
            "ms_per_experiment": round(1000 * wall / experiments, 1),
            "rss_mb_at_fifth": _rss_at(memory, 0.2),
            "rss_mb_at_end": memory[-1]["rss_mb"],
            "growth": round(memory[-1]["rss_mb"] / _rss_at(memory, 0.2), 3),
            "help_s": _help_seconds(),
        }
        return {"table": [row], "memory": memory}


def _rss_at(memory: list[dict[str, float]], share: float) -> float:
    return memory[int(share * (len(memory) - 1))]["rss_mb"]


def _help_seconds() -> float:
    """Best of five wall seconds of `postgrad --help`."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "postgrad", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return round(min(times), 3)
