"""A cluster of processes on this machine, for tests: every job is a real process in a session of its own, nodes can be
lost, the cluster can be out of reach, and jobs can be delivered twice. It keeps no more between two controllers than a
real one would: names and process numbers, in a folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping, Sequence

import psutil

from postgrad.engines.remote.cluster import Capacity, Request, Status, Unreachable
from postgrad.records import EngineSpec

LOG_BYTES = 1 << 16
# Starts a job that outlives whoever asked for it, as with any scheduler.
DAEMON = (
    "import json, os, subprocess, sys; told = json.load(open(sys.argv[1])); log = open(told['log'], 'ab'); "
    "p = subprocess.Popen(told['command'], cwd=told['folder'], env=told['environment'], stdin=subprocess.DEVNULL, "
    "stdout=log, stderr=log, start_new_session=True); print(p.pid)"
)


@dataclass
class Processes:
    """The cluster.

    Args:
        folder: what it remembers: a file for each job.
        cores: what it says that it has.
        preempts: what ends did so because the cluster wanted the node back.
        avoided: what each submission was to leave out.
        own: variables that its nodes have by themselves, such as another HOME.
        before: words before each command, such as those of a sandbox that hides a folder from the nodes.
    """

    folder: Path
    cores: int = 2
    reachable: bool = True
    submitted: list[str] = field(default_factory=list)
    preempts: bool = False
    avoided: list[tuple[str, ...]] = field(default_factory=list)
    own: Mapping[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()

    def open(self, spec: EngineSpec) -> Capacity:
        self.folder.mkdir(parents=True, exist_ok=True)
        return Capacity(nodes=1, cores=self.cores)

    def submit(self, request: Request) -> None:
        self._reach()
        if not (self.folder / request.name).exists():
            self.deliver(request)

    def deliver(self, request: Request) -> int:
        """Start a job, whether or not it was started before; return its process."""
        self.submitted.append(request.name)
        self.avoided.append(request.avoid)
        told = self.folder / f"{request.name}.json"
        base = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"}
        facts = {"command": [*self.before, *request.command], "folder": request.folder, "log": request.log}
        told.write_text(json.dumps({**facts, "environment": {**base, **self.own, **request.environment}}))
        done = subprocess.run([sys.executable, "-c", DAEMON, str(told)], capture_output=True, text=True, check=False)
        if done.returncode != 0:  # Its disk may be full: a scheduler that cannot take a job says so.
            raise Unreachable(f"The job was not taken: {done.stderr.strip()[-LOG_BYTES:]}")
        (self.folder / request.name).write_text(done.stdout.strip())
        return int(done.stdout)

    def statuses(self, names: Sequence[str]) -> Mapping[str, Status]:
        self._reach()
        return {name: self._status(name) for name in names}

    def _status(self, name: str) -> Status:
        if not (self.folder / name).exists():
            return Status("gone")
        return Status("running", "here") if self.alive(name) else Status("ended", "here", preempted=self.preempts)

    def logs(self, name: str) -> str:
        self._reach()
        with suppress(OSError):
            told = json.loads((self.folder / f"{name}.json").read_text())
            return Path(told["log"]).read_text(errors="replace")[-LOG_BYTES:]
        return ""

    def cancel(self, name: str) -> None:
        self._reach()
        self.signal_first(name)

    def close(self) -> None:
        """Jobs go on."""

    # --- what can go wrong ------------------------------------------------------------------------------------------

    def alive(self, name: str) -> bool:
        """True while the first process of a job lives."""
        return bool(self.tree(name))

    def lose(self, name: str) -> None:
        """Kill everything of a job at once, as when a node loses power."""
        for process in self.tree(name):
            with suppress(psutil.Error):
                process.kill()

    def freeze(self, name: str, number: signal.Signals = signal.SIGSTOP) -> None:
        """Stop everything of a job where it stands, or with SIGCONT let it go on."""
        for process in self.tree(name):
            with suppress(psutil.Error):
                process.send_signal(number)

    def signal_first(self, name: str) -> None:
        """Ask the first process of a job to end, as most schedulers do."""
        for process in self.tree(name)[:1]:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGTERM)

    def signal_all(self, name: str) -> None:
        """Ask every process of a job to end, one after the other, as some schedulers do."""
        self.freeze(name, signal.SIGTERM)

    def _reach(self) -> None:
        if not self.reachable:
            raise Unreachable("the cluster is out of reach")

    def tree(self, name: str) -> list[psutil.Process]:
        """The processes of a job, the first one first; none where that has ended."""
        with suppress(OSError, ValueError, psutil.Error):
            first = psutil.Process(int((self.folder / name).read_text()))
            if first.status() != psutil.STATUS_ZOMBIE:
                return [first, *first.children(recursive=True)]
        return []
