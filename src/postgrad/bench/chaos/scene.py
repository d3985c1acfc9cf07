"""What a round needs on the disk: a small task of real jobs, or a script, and what its controller is started with."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import postgrad
from postgrad.bench.chaos import scripted
from postgrad.bench.chaos.cluster import KIND

NAME = "chaos"
VERBS, NOUNS = ("open", "close", "find", "send"), ("account", "card", "order")
EXTRAS = ("now", "today", "please", "again", "quickly", "for me", "tonight", "if possible")
TASK = """
name: {name}
objective: tell verbs apart
base_models: []
budget: {experiments} experiments
data: {{train: train.csv, test: test.csv, out_of_scope: none}}
engine: {engine}
"""
# A controller whose clock of the wall jumps: only what asks for the time of day sees it.
CLOCK = """
import time
from pathlib import Path

_real, _place = time.time, Path(__file__).with_name("clock")


def _shifted():
    try:
        return _real() + float(_place.read_text())
    except (OSError, ValueError):
        return _real()


time.time = _shifted
"""
ENTRY = f"[postgrad.engines]\n{KIND} = postgrad.bench.chaos.cluster:ShakyEngine\n"
LEASE_S, WORKERS, RETRIES = 3.0, 2, 30


@dataclass(frozen=True)
class Scene:
    """One run, in a folder of its own.

    Args:
        remote: on the cluster of processes, instead of the local engine.
        script: the task is a script.
    """

    folder: Path
    remote: bool
    script: bool = False
    experiments: int = 6

    @property
    def run(self) -> Path:
        return self.folder / "runs" / f"{NAME}-001"

    @property
    def cluster(self) -> Path:
        return self.folder / "cluster"

    @property
    def clock(self) -> Path:
        """Seconds that the clock of the wall is off."""
        return self.folder / "plug" / "clock"

    def write(self) -> None:
        """Make everything."""
        plug, told = self.folder / "plug", self.folder / "plug" / "chaos-1.dist-info"
        told.mkdir(parents=True)
        self.cluster.mkdir()
        (plug / "sitecustomize.py").write_text(CLOCK)
        (told / "METADATA").write_text("Metadata-Version: 2.1\nName: chaos\nVersion: 1\n")
        (told / "entry_points.txt").write_text(ENTRY)
        if self.script:
            scripted.write_source(self.folder)
        rows = [f"{verb} my {noun} {extra},{verb}" for verb in VERBS for noun in NOUNS for extra in EXTRAS]
        test = [f"pls {verb} the {noun},{verb}" for verb in VERBS for noun in ("box", "card", "order")]
        test += [f"{text},none" for text in ("weather tomorrow", "hello", "tell a joke", "who won", "42", "la la la")]
        for name, lines in (("train.csv", rows), ("test.csv", test)):
            (self.folder / name).write_text("\n".join(["text,label", *lines]) + "\n")
        engine = f"{{workers: {WORKERS}, threads: 1"
        if self.remote:
            engine += f", kind: {KIND}, address: {self.cluster!s}, lease_s: {LEASE_S}, retries: {RETRIES}"
        task = scripted.TASK if self.script else TASK
        filled = task.format(name=NAME, experiments=self.experiments, engine=engine + "}")
        (self.folder / "task.yaml").write_text(filled)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "postgrad", *words, "--json"]

    def environment(self) -> dict[str, str]:
        """Of a controller: nothing of it is remembered by later runs of this person."""
        source = str(Path(postgrad.__file__).parents[1])
        more = {"PYTHONPATH": os.pathsep.join([str(self.folder / "plug"), source]), "POSTGRAD_MEMORY": "off"}
        return {**os.environ, **more, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
