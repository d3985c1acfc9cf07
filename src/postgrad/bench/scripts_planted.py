"""A script whose true quality is known, for `postgrad bench scripts`: seven constants, of which some matter.

`world.py` is protected and holds the truth: a parabola in the logarithm of each constant, and noise that a training
adds, drawn from its seed and its constants, as another seed or another number makes another training. The script prints
its true loss; the referee, whose number alone counts, never sees it.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from math import log2
from pathlib import Path
from random import Random
from statistics import median

from postgrad.engines.base import Exit
from postgrad.records import EngineSpec, Limits, TaskSpec, Usage
from postgrad.scripts.constants import constants
from postgrad.scripts.tuning import neighbours
from postgrad.scripts.worker import environment_of
from postgrad.spec import load_task

START = {
    "LEARNING_RATE": 0.01,
    "BATCH_SIZE": 32,
    "N_LAYER": 4,
    "N_EMBD": 64,
    "WEIGHT_DECAY": 0.1,
    "WARMUP_STEPS": 20,
    "GRAD_CLIP": 1.0,
}
# How many constants could be better, and by how many factors of two; the others are right, but for a little.
WRONG, FURTHEST, RIGHT = 3, (0.5, 1.0), 0.15
WEIGHT = (0.005, 0.02)
IDLE = 2
SEARCHED, SEALED, BETWEEN_ITEMS = 40, 40, 0.05
# Noise of one item, as a share of that of a training.
ITEM_SHARE = 0.5
TRUE = re.compile(r"^true loss (\S+)$", re.MULTILINE)

WORLD = """
import json, os, random
from math import log2
from pathlib import Path

START = {start!r}
BEST = {best!r}
WEIGHT = {weight!r}
NOISE = {noise!r}


def true_loss(values):
    told = {{**START, **values}}
    return 1.0 + sum(WEIGHT[name] * log2(told[name] / BEST[name]) ** 2 for name in BEST)


def train(**values):
    loss = true_loss(values)
    print("true loss", loss, flush=True)
    noise = random.Random(repr((os.environ["POSTGRAD_SEED"], sorted(values.items())))).gauss(0, NOISE)
    Path("out").mkdir()
    Path("out/model.json").write_text(json.dumps({{"loss": loss + noise}}))
"""
TRAIN = """from world import train

{constants}

train(
{arguments}
)
"""
REFEREE = """
import json, os, random
from pathlib import Path
from world import NOISE

loss = json.loads(Path("out/model.json").read_text())["loss"]
names = next(Path(os.environ["POSTGRAD_HIDDEN"]).iterdir()).read_text().split()
shared, own = random.Random(repr(names)), random.Random(repr((names, loss)))
items = {{name: loss + shared.gauss(0, {between}) + own.gauss(0, {share} * NOISE) for name in names}}
Path("score.json").write_text(json.dumps({{"value": sum(items.values()) / len(items), "items": items}}))
"""
TASK = """
name: planted
kind: script
objective: Lower the loss.
script:
  source: source
  editable: [train.py]
  run: python train.py
  time: 1s
  kill: 60s
  leaves: [out]
  metric: loss
  direction: min
  referee: python referee.py
  hidden: {search: search.txt, sealed: sealed.txt}
"""


@dataclass(frozen=True)
class World:
    """Where the best constants lie, and how much each of them matters."""

    best: dict[str, float]
    weight: dict[str, float]

    @classmethod
    def drawn(cls, seed: int) -> World:
        """The world of a seed."""
        rng = Random(f"{seed}/world")
        names = list(START)
        rng.shuffle(names)
        wrong, idle = names[:WRONG], names[WRONG : WRONG + IDLE]
        off = {
            name: rng.choice((-1, 1)) * rng.uniform(*FURTHEST) if name in wrong else rng.uniform(-RIGHT, RIGHT)
            for name in START
        }
        best = {name: value * 2 ** off[name] for name, value in START.items()}
        return cls(best, {name: 0.0 if name in idle else rng.uniform(*WEIGHT) for name in START})

    def true_loss(self, values: dict[str, float]) -> float:
        """The loss without noise."""
        return 1.0 + sum(self.weight[name] * log2(values[name] / self.best[name]) ** 2 for name in START)

    @property
    def effect(self) -> float:
        """The typical true effect: the median size of what one step of one constant that matters does."""
        first = self.true_loss(START)
        steps = [
            abs(self.true_loss({**START, one.name: float(value)}) - first)
            for one in constants("train.py", source())
            for value in neighbours(one)
            if self.weight[one.name]
        ]
        return median(steps)


def source() -> str:
    """The script that is edited."""
    lines = "\n".join(f"{name} = {value!r}" for name, value in START.items())
    return TRAIN.format(constants=lines, arguments="\n".join(f"    {name}={name}," for name in START))


def planted(folder: Path, seed: int, noise: float, experiments: int) -> TaskSpec:
    """Write a stand-in and its task.

    Args:
        noise: standard deviation of a training, in typical true effects.
    """
    world, place = World.drawn(seed), folder / "source"
    place.mkdir(parents=True, exist_ok=True)
    files = {
        "train.py": source(),
        "world.py": WORLD.format(start=START, best=world.best, weight=world.weight, noise=noise * world.effect),
        "referee.py": REFEREE.format(between=BETWEEN_ITEMS, share=ITEM_SHARE),
        "search.txt": " ".join(f"search-{number}" for number in range(SEARCHED)),
        "sealed.txt": " ".join(f"sealed-{number}" for number in range(SEALED)),
    }
    for name, text in files.items():
        (place / name).write_text(text, encoding="utf-8")
    (folder / "task.yaml").write_text(TASK, encoding="utf-8")
    engine = {"workers": 1, "threads": 1}
    wanted = {"budget": f"{experiments} experiments", "seed": seed, "engine": engine}
    return load_task(folder / "task.yaml", wanted)


def truth(said: str) -> float:
    """The true quality of an experiment, where more is better, from the log of its training."""
    found = TRUE.search(said)
    assert found is not None, "the stand-in prints its true loss"
    return -float(found[1])


class Child:
    """A script under way in a copy of this process."""

    def __init__(self, folder: Path) -> None:
        self._began = time.monotonic()
        self._pid = os.fork()
        self._exit: Exit | None = None
        if self._pid == 0:
            _become(folder)

    def wait(self, timeout: float) -> Exit | None:
        """The exit. A stand-in ends within milliseconds, so this waits for it."""
        if self._exit is None:
            _, status = os.waitpid(self._pid, 0)
            usage = Usage(wall_s=time.monotonic() - self._began)
            self._exit = Exit(os.waitstatus_to_exitcode(status), None, usage)
        return self._exit

    def stop(self) -> None:
        """Wait for the end."""
        self.wait(0)


class Beside:
    """An engine for stand-ins of our own, some thousand of which are run: each in a fork of this process, without a
    sandbox and without limits."""

    slots = threads = threads_alone = 1
    memory_mb: float | None = None
    sandbox = "none"

    def open(self, spec: EngineSpec) -> None:
        """Nothing has to be there."""

    def start(self, folder: Path, limits: Limits) -> Child:
        """Start the script of a job."""
        return Child(folder)

    def close(self) -> None:
        """Every child was waited for."""


def _become(folder: Path) -> None:
    """Run the script of a job, and end."""
    code = 1
    try:
        told = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        with (folder / "log.txt").open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.environ.update(environment_of(folder.resolve(), told["environment"]))
        os.chdir(folder / "work")
        sys.path.insert(0, os.getcwd())
        with open(1, "w", encoding="utf-8", closefd=False) as out, redirect_stdout(out):
            runpy.run_path(told["command"][1], run_name="__main__")
        code = 0
    finally:
        os._exit(code)
