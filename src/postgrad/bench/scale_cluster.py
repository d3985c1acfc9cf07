"""A simulated cluster for `bench scale-loop`: as many workers as asked for, jobs that end after a simulated time, and
answers that a landscape gives. Loop, policy, referee, session and store are the real ones.

The rows are questions with a number each, and a landscape says of a recipe which of them it answers rightly. Answers
are artefacts of the form that the executor stores, so that the referee joins, measures and compares them as it always
does. What is left out is the folder of a job: writing, shipping and reading it is what `bench engines` measures.
"""

from __future__ import annotations

import heapq
import json
import time
from dataclasses import dataclass, field
from math import exp
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Sequence

from postgrad.bench.landscapes import Landscape
from postgrad.engines.base import Handle
from postgrad.errors import PostgradError
from postgrad.execute.answers import Answers, written
from postgrad.execute.executor import Executor, Inputs, RunningJob
from postgrad.records import (
    Budget,
    DataSpec,
    EngineSpec,
    Failure,
    JobResult,
    JobSpec,
    Limits,
    Row,
    SearchSpec,
    TaskSpec,
    UnitResult,
    Usage,
)
from postgrad.store.artifacts import Artifacts
from postgrad.store.sqlite import SqliteStore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LABELS = ("billing", "delivery", "login", "other", "refund", "upgrade")
TRAIN, DEV = "train.csv", "dev.csv"
#: Rows of a data file, as many as planted landscapes have items. Of the train file a fifth is sealed; the dev file is
#: asked, so that an experiment is one training, and there is nothing to race.
ROWS = 400
WORDS, LETTERS = 8, "bcdfghjklmnprstvwxz"
# How much longer than reckoned a job takes, as the standard deviation of a logarithm.
SPREAD = 0.3
RIGHT = 0.9
MEMORY_MB = 200.0


class Clock:
    """Simulated seconds of a run, and the ends that jobs have ahead of them. `real` lets time pass by itself."""

    def __init__(self, real: bool = False) -> None:
        self.real = real
        self._began = time.monotonic()
        self._now = 0.0
        self._ends: list[float] = []

    @property
    def now(self) -> float:
        return time.monotonic() - self._began if self.real else self._now

    def expect(self, end: float) -> None:
        """A job will end then."""
        heapq.heappush(self._ends, end)

    def pause(self, seconds: float) -> None:
        """Let time pass: so many seconds, or up to the next end of a job where that is later."""
        if self.real:
            time.sleep(seconds)
            return
        while self._ends and self._ends[0] <= self._now:
            heapq.heappop(self._ends)
        self._now = max(self._now + seconds, self._ends[0] if self._ends else 0.0)


class SimulatedStore(SqliteStore):
    """The store of a run with a clock of its own: SQLite and artefacts are real."""

    simulated: Clock | None = None

    def clock(self) -> float:
        """Seconds of the run, simulated ones where it has such a clock."""
        return self._clock_before + self.simulated.now if self.simulated is not None else super().clock()


@dataclass
class Cluster:
    """The engine: workers without a machine. `started` counts its jobs; `own_s` is CPU time that simulating took, which
    is none of the controller's. `spans`: (begins at, ends at) of each job, where real time passes."""

    clock: Clock
    slots: int
    threads: int = 1
    threads_alone: int = 1
    memory_mb: float | None = None
    sandbox: str = "none"
    started: int = 0
    own_s: float = 0.0
    spans: list[tuple[float, float]] = field(default_factory=list)

    def busy(self, first: float, last: float) -> float:
        """Workers that were busy on an average, between two times of the clock."""
        worked = sum(max(0.0, min(end, last) - max(began, first)) for began, end in self.spans)
        return worked / (last - first)

    def open(self, spec: EngineSpec) -> None:
        """Nothing to take."""

    def start(self, folder: Path, limits: Limits) -> Handle:
        """Jobs of a simulated cluster have no folder.

        Raises:
            PostgradError: always.
        """
        raise PostgradError(f"A simulated cluster cannot start the job in {folder}: it has no processes.")

    def close(self) -> None:
        """Nothing to give back."""


class SimulatedJob(RunningJob):
    """A job whose answers are known at once and handed over at its end."""

    def __init__(self, spec: JobSpec, inputs: Inputs, executor: SimulatedExecutor) -> None:
        self.spec = spec
        self._inputs = inputs
        self._of = executor
        began = time.process_time()
        recipe = spec.recipe
        rng = Random(f"{spec.job}/lasts")
        mean = executor.seconds or executor.landscape.cost_s(recipe)
        self._lasts = mean * (rng.uniform(0.4, 1.6) if executor.seconds else exp(SPREAD * rng.gauss(0.0, 1.0)))
        clock = executor.cluster.clock
        self._ends_at = clock.now + self._lasts
        clock.expect(self._ends_at)
        self._result: JobResult | None = None
        executor.cluster.started += 1
        executor.cluster.spans += [(self._ends_at - self._lasts, self._ends_at)] if clock.real else []
        executor.cluster.own_s += time.process_time() - began

    def poll(self, timeout: float) -> JobResult | None:
        """The result once the job has ended."""
        if self._result is None and self._of.cluster.clock.now >= self._ends_at:
            self._result = self._ended()
        return self._result

    def stop(self) -> None:
        """Nothing runs."""

    def progress(self) -> str:
        """A job says nothing of how far it is."""
        return "simulated"

    def _ended(self) -> JobResult:
        spec, executor, cluster = self.spec, self._of, self._of.cluster
        began = time.process_time()
        usage = Usage(wall_s=self._lasts, cpu_s=self._lasts, max_rss_mb=MEMORY_MB)
        trained = executor.landscape.train(spec.recipe, spec.units[0].seed)
        if isinstance(trained, Failure):
            cluster.own_s += time.process_time() - began
            return JobResult(job=spec.job, usage=usage, failure=trained, log_tail=trained.message)
        right = (trained.search if "-search-" in spec.job else trained.select) > 0
        files = [written(*_answers(self._inputs[unit.name][1], right)) for unit in spec.units]
        cluster.own_s += time.process_time() - began
        units = tuple(
            UnitResult(name=unit.name, outputs=executor.artifacts.put_bytes(data), wall_s=self._lasts / len(files))
            for unit, data in zip(spec.units, files, strict=True)
        )
        model = executor.artifacts.put_folder(executor.model(spec)) if spec.save_model else None
        return JobResult(job=spec.job, units=units, model=model, usage=usage)


def _answers(rows: Sequence[Row], right: NDArray[np.bool_]) -> tuple[list[str], Answers]:
    """What is answered to these rows; `right[n]` says whether the row with number n is answered rightly."""
    import numpy as np

    known = {label: number for number, label in enumerate(LABELS)}
    numbers = np.array([int(row.text.split(maxsplit=1)[0]) for row in rows])
    truth = np.array([known[row.label] for row in rows])
    given = np.where(right[numbers], truth, (truth + 1) % len(LABELS))
    probs = np.full((len(rows), len(LABELS)), (1 - RIGHT) / (len(LABELS) - 1), dtype=np.float32)
    probs[np.arange(len(rows)), given] = RIGHT
    return [row.id for row in rows], Answers(probs, np.full(len(rows), RIGHT, dtype=np.float32))


class SimulatedExecutor(Executor):
    """Hands jobs to the landscape.

    Args:
        seconds: mean of what a job lasts, whatever its recipe costs; None goes by the recipe.
    """

    def __init__(
        self, cluster: Cluster, artifacts: Artifacts, scratch: Path, landscape: Landscape, seconds: float | None = None
    ) -> None:
        super().__init__(cluster, artifacts, scratch)
        self.cluster, self.landscape, self.seconds = cluster, landscape, seconds

    def start(self, spec: JobSpec, inputs: Inputs) -> SimulatedJob:
        """Start a job; it ends when the clock says so."""
        return SimulatedJob(spec, inputs, self)

    def model(self, spec: JobSpec) -> Path:
        """The folder of a trained model: its recipe."""
        folder = self.scratch / spec.job / "model"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.json").write_text(spec.recipe.model_dump_json(), encoding="utf-8")
        return folder


def _encoder(folder: Path) -> Path:
    """A folder that says what an encoder of six layers would say, with weights of one number."""
    folder.mkdir(exist_ok=True)
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536, "vocab_size": 30_522}
    facts = {"architectures": ["BertModel"], "model_type": "bert", "num_attention_heads": 12, **sizes}
    (folder / "config.json").write_text(json.dumps(facts), encoding="utf-8")
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return folder


def simulated_task(folder: Path, budget: Budget, policy: str, workers: int) -> TaskSpec:
    """A task over made-up questions with a number each, and an encoder in name: nothing reads its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder = _encoder(folder / "encoder")
    rng = Random(0)
    for part in (TRAIN, DEV):
        lines = ["text,label"]
        for number in range(ROWS):
            words = " ".join("".join(rng.choices(LETTERS, k=6)) for _ in range(WORDS))
            lines.append(f"{number} {words},{LABELS[number % len(LABELS)]}")
        (folder / part).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return TaskSpec(
        name="scale",
        objective="Tell what is asked",
        data=DataSpec(train=str(folder / TRAIN), dev=str(folder / DEV)),
        metric="accuracy",
        base_models=(f"path:{encoder}",),
        budget=budget,
        search=SearchSpec(policy=policy),
        engine=EngineSpec(workers=workers),
        memory=False,
    )
