"""Runs of a script in processes of their own, and moments at which they are killed: each one is waited for, not hoped
for. The git on the path stops where it is told to, the referee where it finds a file named `hold`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Callable

import psutil

from postgrad.events import Event
from postgrad.scripts.workspace import Workspace
from postgrad.store.sqlite import SqliteStore
from postgrad.tree import Tree
from test_scripts import REFEREE, TRAIN, task_of

RUN = "tiny-001"
SLOW_TRAIN = TRAIN.replace("from math", "import time\nfrom math") + 'print("training", flush=True)\ntime.sleep(0.4)\n'
# The hidden folder is copied for each referee: what is put into it holds the ones that start after that.
HELD_REFEREE = """
import time
folder = __import__("pathlib").Path(__import__("os").environ["POSTGRAD_HIDDEN"])
if (folder / "hold").exists():
    print("held", flush=True)
    time.sleep(300)
""" + REFEREE.replace(".iterdir()", '.glob("*.txt")')
GIT = """#!/bin/sh
case " $* " in
*" fast-import "*) ;;
*) exec {git} "$@" ;;
esac
if [ -e {hold}/before ]; then echo $$ > {hold}/reached; while [ -e {hold}/before ]; do sleep 0.02; done; fi
{git} "$@"
code=$?
if [ -e {hold}/after ]; then echo $$ > {hold}/reached; while [ -e {hold}/after ]; do sleep 0.02; done; fi
exit $code
"""
# What says when something was, how long it took, what else the machine did, or who drove it.
TIMES = {
    "wall_s",
    "cpu_s",
    "max_rss_mb",
    "usage",
    "measured",
    "log_tail",
    "cost_s",
    "task_file",
    "source",
    "reserved_s",
}


@dataclass
class Killed:
    """A run in `folder` whose controller is started again and again."""

    folder: Path

    @classmethod
    def made(cls, folder: Path, experiments: int = 5) -> Killed:
        more = {"referee.py": HELD_REFEREE}
        task_of(folder, SLOW_TRAIN, budget=f"{experiments} experiments", more=more)
        made = cls(folder.resolve())
        (made.hold).mkdir()
        wrapper = folder / "bin" / "git"
        wrapper.parent.mkdir()
        wrapper.write_text(GIT.format(git=shutil.which("git"), hold=made.hold))
        wrapper.chmod(0o755)
        return made

    @property
    def hold(self) -> Path:
        return self.folder / "hold"

    @property
    def run(self) -> Path:
        return self.folder / "runs" / RUN

    # --- the controller -----------------------------------------------------------------------------------------------

    def start(self) -> subprocess.Popen[str]:
        """Begin the run, or go on with it, as a person does: by the command line."""
        with_event = (self.run / "events.sqlite").exists() and self.events()
        words = ["resume", RUN] if with_event else ["run", "task.yaml"]
        if not with_event and self.run.exists():
            shutil.rmtree(self.run)  # Stopped before its first event: `resume` says that it is to be started again.
        return subprocess.Popen(
            [sys.executable, "-m", "postgrad", *words, "--json"],
            cwd=self.folder,
            env={**os.environ, "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ended(self) -> None:
        """Go on to the end."""
        process = self.start()
        out, wrong = process.communicate(timeout=300)
        assert process.returncode == 0, wrong + out
        assert json.loads(out)["experiments"]

    def kill(self, process: subprocess.Popen[str], ended: bool = False) -> bool:
        """SIGKILL for the controller and whatever is in its group; what it started has to go with it.

        Args:
            ended: it may have said its last word: one that is on its way out cannot be killed any more.

        Returns:
            False where it was.
        """
        os.killpg(process.pid, signal.SIGKILL)
        _, wrong = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL or (ended and process.returncode == 0), wrong
        return process.returncode != 0

    def killed_when(self, reached: Callable[[], bool], then: Callable[[], None] = lambda: None) -> None:
        """Start, wait for a moment, kill."""
        process = self.start()
        until(lambda: reached() or process.poll() is not None)
        if process.poll() is not None:
            raise AssertionError("it ended before that moment: " + "".join(process.communicate()))
        self.kill(process)
        then()
        self.alone()

    def killed_after(self, seconds: float) -> bool:
        """Start, wait so long, kill; False where it had ended by then."""
        process = self.start()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            killed = self.kill(process, ended=True)
            self.alone()
            return killed
        _, wrong = process.communicate()
        assert process.returncode == 0, wrong
        return False

    def alone(self) -> None:
        """No job and no git outlives its controller for long."""
        until(lambda: not self.others(), 60.0)

    def others(self) -> list[str]:
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = " ".join(process.info["cmdline"] or ())
            if str(self.run) in line and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(line)
        return found

    # --- moments ------------------------------------------------------------------------------------------------------

    def in_script(self, purpose: str = "search") -> bool:
        """The script of a job trains, and no referee was started."""
        return any(
            "training" in read(job / "run" / "log.txt") and not (job / "referee").exists()
            for job in self.run.glob(f"scratch/*-{purpose}-*")
        )

    def in_referee(self, purpose: str) -> bool:
        return any("held" in read(log) for log in self.run.glob(f"scratch/*-{purpose}-*/referee/log.txt"))

    def in_git(self) -> bool:
        return bool(read(self.hold / "reached").strip())

    def kill_in_referee(self, purpose: str) -> None:
        held = self.run / "hidden" / purpose / "hold"
        held.touch()
        self.killed_when(lambda: self.in_referee(purpose), held.unlink)

    def kill_in_git(self, side: str, *, git_too: bool) -> None:
        """While a commit is made: git ends what it began, or is killed as well and leaves its locks."""
        (self.hold / side).touch()

        def then() -> None:
            if git_too:
                os.killpg(int(read(self.hold / "reached")), signal.SIGKILL)
                self.leave_locks()
            for path in list(self.hold.iterdir()):
                path.unlink()

        self.killed_when(self.in_git, then)

    def leave_locks(self) -> None:
        """What a git that is killed in the middle leaves behind."""
        repository = self.run / "repo"
        if not repository.exists():
            return
        branches = repository / "refs" / "heads" / "postgrad" / RUN
        first = len(list(branches.iterdir()))
        for number in range(first, first + 3):
            (branches / f"e{number:04d}.lock").write_text("half")
        (repository / "packed-refs.lock").touch()
        (repository / "objects" / "tmp_obj_half").touch()

    # --- what is there ------------------------------------------------------------------------------------------------

    def events(self) -> tuple[Event, ...]:
        with SqliteStore.open(self.run, write=False) as store:
            return store.events()

    def log(self) -> list[Any]:
        """Everything that is recorded, up to times and to how often it was begun."""
        kept = [event.body for event in self.events() if event.body.type not in ("run_resumed", "job_started")]
        return [timeless(body.model_dump(mode="json")) for body in kept]

    def in_step(self) -> None:
        """Log, commits, files and account agree, and nothing half done is left."""
        events = self.events()
        tree, workspace = Tree.from_events(events), Workspace.open(self.run, RUN)
        commits, seen = workspace.commits(), {""}
        for node in tree.all():
            made = str(node.proposed.proposal.recipe.stage.params.get("tree", ""))
            assert (node.id in commits) == (made not in seen), f"{node.id} has no commit of its own, or one too many"
            if node.id in commits:
                assert workspace.tree_of(commits[node.id]) == made
            seen.add(made)
        assert set(commits) <= set(tree.experiments), "a commit of no experiment"
        assert workspace.git.ask("fsck", "--strict", "--full", "--no-dangling").status == 0
        bodies = [event.body for event in events]
        jobs = [body.job for body in bodies if body.type == "job_finished"]
        assert len(jobs) == len(set(jobs)), "a training is on the account twice"
        assert len([body for body in bodies if body.type in ("sealed_done", "run_ended")]) == 2
        self._nothing_left()

    def _nothing_left(self) -> None:
        names = [path.relative_to(self.run).as_posix() for path in self.run.rglob("*")]
        half = (".gone", ".lock", ".part", ".unfinished", ".tmp", "-journal")
        left = [name for name in names if name.endswith(half) or "unfinished/" in name or name.startswith("scratch")]
        left += [name for name in names if "/tmp_" in name or "fast_import" in name or name.endswith("/hold")]
        assert left == [] and self.others() == []

    def delivered(self) -> dict[str, bytes]:
        """The champion's files with what it left."""
        folder = self.run / "model"
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def until(true: Callable[[], Any], most_s: float = 120.0) -> None:
    end = time.monotonic() + most_s
    while not true():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.01)


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def timeless(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: timeless(value) for name, value in found.items() if name not in TIMES}
    return [timeless(value) for value in found] if isinstance(found, list) else found


def moments(rng: Random, count: int, length_s: float) -> list[float]:
    """Seconds after a start; half of them early, where it opens and repairs what it finds."""
    return [rng.uniform(0.0, length_s) * (0.4 if number % 2 else 1.0) for number in range(count)]
