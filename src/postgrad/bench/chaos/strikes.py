"""Faults, done to the real thing: signals to real processes, limits of the kernel, files that vanish."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import psutil

from postgrad.bench.chaos.cluster import AWAY, Shaky
from postgrad.bench.chaos.faults import Fault
from postgrad.bench.chaos.scene import LEASE_S, Scene
from postgrad.engines.remote.lease import GRANT, REMOTE
from postgrad.testing.nodes import DAEMON

WORKERS = ("postgrad.execute.worker", "postgrad.scripts.worker")
KEPT = "grant.kept"


@dataclass
class Strikes:
    """What is done to one run. What passes is undone when its time is over.

    Attributes:
        lost: artefacts that were deleted.
    """

    scene: Scene
    lost: list[str] = field(default_factory=list)
    _undo: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    @property
    def cluster(self) -> Shaky:
        return Shaky(self.scene.cluster)

    def strike(self, fault: Fault, controller: subprocess.Popen[bytes] | None) -> bool:
        """Let it happen; False where there is nothing that it could strike."""
        done: Callable[[Fault], bool] | None = getattr(self, f"_{fault.kind}", None)
        if fault.kind == "disk_full":
            return controller is not None and self._disk_full(fault, controller.pid)
        assert done is not None, f"there is no fault '{fault.kind}'"
        return done(fault)

    def undo(self, *, all_of_them: bool = False) -> None:
        """End what has lasted long enough."""
        now = time.monotonic()
        due = [undo for at, undo in self._undo if all_of_them or at <= now]
        self._undo = [] if all_of_them else [(at, undo) for at, undo in self._undo if at > now]
        for undo in due:
            undo()

    def _later(self, for_s: float, undo: Callable[[], None]) -> None:
        self._undo.append((time.monotonic() + for_s, undo))

    # --- anywhere -------------------------------------------------------------------------------------------------

    def _disk_full(self, fault: Fault, controller: int) -> bool:
        """No file of the controller may grow: what the kernel says is what a full disk says, but for the number."""
        with suppress(ProcessLookupError):
            _, hard = resource.prlimit(controller, resource.RLIMIT_FSIZE)
            resource.prlimit(controller, resource.RLIMIT_FSIZE, (0, hard))

            def undo() -> None:
                with suppress(ProcessLookupError):
                    resource.prlimit(controller, resource.RLIMIT_FSIZE, (hard, hard))

            self._later(fault.for_s, undo)
            return True
        return False

    def _clock_jump(self, fault: Fault) -> bool:
        self.scene.clock.write_text(f"{fault.jump_s:.0f}")
        return True

    def _artefact_lost(self, fault: Fault) -> bool:
        there = sorted(self.scene.run.glob("artifacts/??/*"))
        if not there:
            return False
        path = there[fault.of(len(there))]
        path.unlink()
        self.lost.append(path.parent.name + path.name)
        return True

    def workers(self) -> list[psutil.Process]:
        """The Python processes of jobs of this run. A script's worker becomes the script and no more says what it is:
        it is below what watches over its sandbox."""
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter(["cmdline", "name", "status"]):
            words = process.info["cmdline"] or []
            ours = any(word.startswith(f"{self.scene.run}{os.sep}") for word in words)
            if not ours or not set(words) & set(WORKERS):
                continue
            with suppress(psutil.Error):
                for each in (process, *(process.children(recursive=True) if self.scene.script else ())):
                    if each.name().startswith("python"):
                        found[each.pid] = each
        return [found[number] for number in sorted(found)]

    def _worker_killed(self, fault: Fault) -> bool:
        return self._signalled(self.workers(), fault, signal.SIGKILL)

    def _worker_slow(self, fault: Fault) -> bool:
        return self._signalled(self.workers(), fault, signal.SIGSTOP)

    def _signalled(self, those: list[psutil.Process], fault: Fault, number: signal.Signals) -> bool:
        if not those:
            return False
        victim = those[fault.of(len(those))]
        with suppress(psutil.Error):
            victim.send_signal(number)
            if number == signal.SIGSTOP:
                self._later(fault.for_s, lambda: _go_on([victim]))
            return True
        return False

    # --- on the cluster -------------------------------------------------------------------------------------------

    def _job(self, fault: Fault) -> str | None:
        there = [name for name in self.cluster.names() if self.cluster.alive(name)]
        return there[fault.of(len(there))] if there else None

    def _node_lost(self, fault: Fault) -> bool:
        if (name := self._job(fault)) is not None:
            self.cluster.lose(name)
        return name is not None

    def _node_frozen(self, fault: Fault) -> bool:
        """For less than its lease, or for longer: then it comes back from the dead."""
        if (name := self._job(fault)) is None:
            return False
        stopped = self.cluster.tree(name)
        self.cluster.freeze(name)
        self._later(fault.for_s * LEASE_S / 2, lambda: _go_on(stopped))
        return True

    def _preempted(self, fault: Fault) -> bool:
        if (name := self._job(fault)) is not None:
            self.cluster.signal_first(name)
        return name is not None

    def _cluster_away(self, fault: Fault) -> bool:
        away = self.scene.cluster / AWAY
        away.touch()
        self._later(fault.for_s, lambda: away.unlink(missing_ok=True))
        return True

    def _cluster_restarted(self, fault: Fault) -> bool:
        """It is away, and knows no job when it is back; its jobs live on, or do not."""
        if fault.pick < 0.5:
            for name in self.cluster.names():
                self.cluster.lose(name)
        self.cluster.forget()
        return self._cluster_away(fault)

    def _network_cut(self, fault: Fault) -> bool:
        """Neither the cluster nor what was granted can be reached, by the controller or by a node."""
        for grant in self.scene.run.glob(f"scratch/**/{REMOTE}/{GRANT}"):
            with suppress(OSError):
                grant.rename(grant.with_name(KEPT))
                grant.mkdir()
        self._later(fault.for_s, lambda: _mended(self.scene.run))
        return self._cluster_away(fault)

    def _delivered_twice(self, fault: Fault) -> bool:
        told = sorted(self.scene.cluster.glob("*.json"))
        if not told:
            return False
        chosen = told[fault.of(len(told))]
        if not Path(json.loads(chosen.read_text())["folder"]).is_dir():
            return False
        subprocess.run([sys.executable, "-c", DAEMON, str(chosen)], capture_output=True, check=False)
        return True


def _go_on(those: list[psutil.Process]) -> None:
    for process in those:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGCONT)


def _mended(run: Path) -> None:
    """What was granted can be read again, but where something newer was granted meanwhile."""
    for kept in run.glob(f"scratch/**/{REMOTE}/{KEPT}"):
        grant = kept.with_name(GRANT)
        with suppress(OSError):
            grant.rmdir()
        with suppress(OSError):
            kept.unlink() if grant.exists() else kept.rename(grant)
