"""One job of the local engine: a process with its descendants, watched, measured and ended as a whole.

Limits are looked at whenever `wait` is called, so a caller polls its handles several times a second. Memory is the
resident size of the whole process tree, because a limit on the address space would stop torch long before its memory
is used up; a generous RLIMIT_DATA stands behind it for a job that outruns the polling.

In a sandbox the process that was started only watches over the job: its first child is the first process of the job's
own process space, and with it the kernel ends everything in there. Without one, a descendant that leaves the session
and loses its parent between two looks is not found again.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Iterator

import psutil

from postgrad.engines.base import Exit
from postgrad.engines.prices import Meter
from postgrad.engines.sandbox import MOST_PROCESSES, Sandbox
from postgrad.engines.stacks import note_stacks
from postgrad.records import Limits, Usage

GRACE_S = 2.0
SLEEP_S = 0.02
LOOK_S = 0.25
DISK_LOOK_S = 2.0
# Under this share of one core, and with nothing written, a job counts as idle.
IDLE_SHARE = 0.01
IDLE_CPU_S = 0.05
MB = 1 << 20
LOG_MB = 64
MOST_FILES = 20_000
# In the folder of a job of several nodes: a file for each process elsewhere, with its CPU seconds so far.
ELSEWHERE = "elsewhere"
MOST_ELSEWHERE, MOST_DIGITS, ENDLESS_S = 4096, 64, 1e9
# What must stay free on the disk, so that the run can still be recorded.
FREE_MB = 300
SAID_BYTES = 1 << 16


@dataclass(frozen=True)
class Activity:
    """What a job had done at a moment: CPU seconds, and the size and time of what it writes."""

    at: float
    cpu_s: float
    written: tuple[int, ...]


class Line:
    """The controller's end of a job's standard input. The job hears nothing on it but the end of its controller, and
    says what it was refused: what is said cannot be taken back."""

    def __init__(self, ours: socket.socket) -> None:
        self._ours = ours
        self._ours.setblocking(False)
        self._said = b""

    def go(self) -> None:
        """Let the job begin: its limits are set."""
        with suppress(OSError):
            self._ours.send(b"\n")

    def listen(self) -> None:
        with suppress(OSError):
            while len(self._said) < SAID_BYTES and (more := self._ours.recv(SAID_BYTES)):
                self._said += more

    def close(self) -> tuple[tuple[str, str], ...]:
        """Everything that was said, as (kind, what)."""
        self.listen()
        self._ours.close()
        lines = self._said[:SAID_BYTES].decode("ascii", errors="replace").splitlines()
        found = (line.partition(" ")[::2] for line in lines if line.strip())
        return tuple(dict.fromkeys((kind, what.strip("'")) for kind, what in found))


class LocalHandle:
    """One process with its descendants."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        folder: Path,
        limits: Limits,
        sandbox: Sandbox,
        line: Line,
        meter: Meter,
    ) -> None:
        self._process = process
        self._folder = folder
        self._limits = limits
        self._watched = sandbox.watched
        self._line = line
        self._meter = meter
        self._started = time.monotonic()
        self._tree = {process.pid: psutil.Process(process.pid)}
        self._active = Activity(self._started, 0.0, ())
        self._looked = 0.0
        self._looked_at_disk = self._started
        self._cpu_s = self._elsewhere_s = 0.0
        self._rss_mb = 0.0
        self._exit: Exit | None = None

    def wait(self, timeout: float) -> Exit | None:
        deadline = time.monotonic() + timeout
        while self._exit is None:
            now = time.monotonic()
            if self._ended():
                self._finish(None)
            elif now - self._looked >= LOOK_S and (cause := self._overrun(now)):
                self._end(cause)
            elif now >= deadline:
                break
            else:
                time.sleep(min(SLEEP_S, deadline - now))
        return self._exit

    def stop(self, grace_s: float = GRACE_S) -> None:
        """End it.

        Args:
            grace_s: how long it may go on after it was asked to end.
        """
        if self._exit is None:
            if self._ended():
                self._finish(None)
            else:
                self._end("stopped", grace_s)

    def used(self) -> Usage:
        """What it has used so far, as of the last look."""
        return self._meter.used(time.monotonic() - self._started, self._cpu_s + self._elsewhere_s, self._rss_mb)

    # --- limits -------------------------------------------------------------------------------------------------------

    def _ended(self) -> bool:
        """True when the process is dead. It is not reaped yet, so its number still belongs to its group."""
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _overrun(self, now: float) -> str | None:
        self._looked = now
        self._line.listen()
        if self._found() > MOST_PROCESSES:
            return "processes"
        rss_mb, cpu_s = self._measure()
        self._rss_mb = max(self._rss_mb, rss_mb)
        self._cpu_s = max(self._cpu_s, cpu_s)
        self._hear_elsewhere()
        if now - self._started > self._limits.wall_s:
            return "timeout"
        if self._limits.allowed is not None and self._limits.allowed.over(self.used()):
            return "budget"
        if rss_mb > self._limits.memory_mb:
            return "memory"
        if now - self._looked_at_disk > DISK_LOOK_S:
            self._looked_at_disk = now
            if self._too_much_written():
                return "disk"
        latest = Activity(now, cpu_s + self._elsewhere_s, self._written())
        idle_cpu_s = IDLE_CPU_S + IDLE_SHARE * (now - self._active.at)
        # It becomes less where a process ends that had computed: nobody counts on from what is no more.
        if abs(latest.cpu_s - self._active.cpu_s) > idle_cpu_s or latest.written != self._active.written:
            self._active = latest
        return "hung" if now - self._active.at > self._limits.hung_s else None

    def _found(self) -> int:
        """Look for descendants that are new; return how many live."""
        children: list[psutil.Process] = []
        with suppress(psutil.Error):
            children = self._tree[self._process.pid].children(recursive=True)
        for child in children[: 2 * MOST_PROCESSES]:
            self._tree.setdefault(child.pid, child)
        return len(children)

    def _measure(self) -> tuple[float, float]:
        """Resident megabytes of the living processes, and CPU seconds of all that were seen alive at this look."""
        rss, cpu_s = 0, 0.0
        for process in self._tree.values():
            with suppress(psutil.Error):
                rss += process.memory_info().rss
                times = process.cpu_times()
                cpu_s += times.user + times.system
        return rss / MB, cpu_s

    def _hear_elsewhere(self) -> None:
        """Add up what the job's processes on other nodes, which are nobody's children here, say of their CPU time."""
        if self._meter.hardware.nodes > 1:
            self._elsewhere_s = max(self._elsewhere_s, seconds_in(self._folder / ELSEWHERE))

    def _written(self) -> tuple[int, ...]:
        found: list[int] = []
        for name in ("log.txt", "progress.json"):
            with suppress(OSError):
                status = (self._folder / name).stat()
                found += [status.st_size, status.st_mtime_ns]
        return tuple(found)

    def _too_much_written(self) -> bool:
        """True when the job's folder is over its limit, or the disk is nearly full."""
        with suppress(OSError):
            if shutil.disk_usage(self._folder).free < FREE_MB * MB:
                return True
            if (self._folder / "log.txt").lstat().st_size > LOG_MB * MB:
                return True
        total = 0
        for number, size in enumerate(sizes_under(self._folder)):
            total += size
            if number > MOST_FILES or total > self._limits.disk_mb * MB:
                return True
        return False

    # --- the end ------------------------------------------------------------------------------------------------------

    def _end(self, cause: str, grace_s: float = GRACE_S) -> None:
        """Ask the job to stop, then make it."""
        if cause != "processes":
            self._found()
            self._measure()
            if cause == "hung":
                note_stacks(list(self._tree.values()), self._folder / "log.txt")
            self._ask()
            self._until_ended(grace_s)
        self._finish(cause)

    def _until_ended(self, grace_s: float = GRACE_S) -> None:
        patience = time.monotonic() + grace_s
        while not self._ended() and time.monotonic() < patience:
            time.sleep(SLEEP_S)

    def _ask(self) -> None:
        """SIGTERM for the job. The watching process would take everything down at once, so it does not get it; the
        first process of a process space does not listen to it."""
        if not self._watched:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGTERM)
        self._signal_descendants(signal.SIGTERM)

    def _finish(self, cause: str | None) -> None:
        """Kill what is left of the tree, then reap the process: in this order its number cannot be somebody else's."""
        left = () if self._watched or cause else self._left_behind()
        if self._watched and not self._ended():
            # The first process inside goes first: the watching one then waits for all, and knows what they used.
            self._signal_descendants(signal.SIGKILL)
            self._until_ended()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._signal_descendants(signal.SIGKILL)
        _, status, used = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        unit = 1 if sys.platform == "darwin" else 1024
        self._hear_elsewhere()
        usage = self._meter.used(
            time.monotonic() - self._started,
            max(self._cpu_s, used.ru_utime + used.ru_stime) + self._elsewhere_s,
            max(self._rss_mb, used.ru_maxrss * unit / MB),
        )
        refused = (*self._line.close(), *left)
        if cause is not None:  # Whatever outlived a job that was ended did so because it was ended.
            refused = tuple(found for found in refused if found[0] != "left_behind")
        self._exit = Exit(code=self._code(), cause=cause, usage=usage, refused=refused)

    def _code(self) -> int:
        """The exit code; minus the number of the signal that ended the job."""
        code = self._process.returncode
        by_signal = self._watched and code - 128 in set(signal.Signals)
        return 128 - code if by_signal else code

    def _left_behind(self) -> tuple[tuple[str, str], ...]:
        """Descendants that outlive a job which ended by itself, where no process space of its own ends them."""
        alive = [p for p in self._tree.values() if p.pid != self._process.pid and p.is_running()]
        with suppress(psutil.Error):
            _, alive = psutil.wait_procs(alive, timeout=1.0 if alive else 0.0)
        return (("left_behind", f"{len(alive)} processes"),) if alive else ()

    def _signal_descendants(self, number: signal.Signals) -> None:
        """psutil checks that a number is still the same process."""
        for process in self._tree.values():
            if process.pid != self._process.pid:
                with suppress(psutil.Error):
                    process.send_signal(number)


def seconds_in(folder: Path) -> float:
    """The sum of the numbers in the files of a folder; what is none, or cannot be, counts as nothing, and so does what
    begins with a dot: it is being written."""
    total = 0.0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in islice(entries, MOST_ELSEWHERE):
            with suppress(OSError, ValueError):
                if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                    with open(entry.path, encoding="ascii") as file:
                        seconds = float(file.read(MOST_DIGITS))
                    total += seconds if 0.0 <= seconds < ENDLESS_S else 0.0
    return total


def sizes_under(folder: Path) -> Iterator[int]:
    """Sizes of everything in a folder, links not followed. What vanishes meanwhile is left out."""
    waiting = [folder]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    yield entry.stat(follow_symlinks=False).st_size
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
