"""Isolated environments: a virtual environment of its own for a library that cannot live beside Postgrad's.

Built on demand, outside of any job: that is a download and needs the network. A job only reads one. Each lies in a
folder named after what is pinned in it, so that other pins are another environment and nothing is changed in place.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable, Iterator, Sequence

from postgrad.errors import UserError
from postgrad.records import content_hash

# Written last, with the versions of all packages. Not a rename: programs in `bin` know the folder by its full path.
READY = "ready.txt"
LOG = "build.log"
MB = 1_000_000
SAID_LINES = 6
Say = Callable[[str], None]


@dataclass(frozen=True)
class Environment:
    """What an isolated environment holds.

    Attributes:
        name: a short word; the folder is called NAME-HASH.
        python: the lowest version that will do, and the lowest that will not.
        steps: the requirement lines of each call of pip, in order, each with an exact version.
        constraints: versions of whatever these bring along.
        without: packages that are taken out again.
        probe: a Python statement that works in a good one.
        megabytes: what it takes on the disk, roughly.
    """

    name: str
    python: tuple[tuple[int, int], tuple[int, int]]
    steps: tuple[tuple[str, ...], ...]
    constraints: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    probe: str = "pass"
    megabytes: int = 100

    @property
    def folder_name(self) -> str:
        """NAME-HASH: equal for equal pins."""
        return f"{self.name}-{content_hash([self.python, self.steps, self.constraints, self.without])[:12]}"


def environments_folder() -> Path:
    """Where environments are kept: $XDG_CACHE_HOME/postgrad/environments, else under ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "postgrad" / "environments"


def python_of(folder: Path) -> Path:
    """The Python program of an environment."""
    return folder / "bin" / "python"


def find(environment: Environment, cache: Path | None = None) -> Path | None:
    """The folder of an environment that was built to its end, or None."""
    place = (cache or environments_folder()) / environment.folder_name
    return place if (place / READY).is_file() and python_of(place).exists() else None


def among(environment: Environment, folders: Iterable[Path]) -> Path | None:
    """The one of these folders that holds an environment: what a job was given. None where none does."""
    return next((folder for folder in folders if folder.name == environment.folder_name), None)


def build(environment: Environment, say: Say = print, cache: Path | None = None) -> Path:
    """Return the folder of an environment, building it first where it is not there.

    A build that was cut off has no mark of its end, and is begun again. Two at once wait for each other.

    Args:
        say: is told what is going on, in lines.
        cache: instead of `environments_folder()`.

    Raises:
        UserError: there is no fitting Python, too little room, or pip could not install what is pinned.
    """
    if (found := find(environment, cache)) is not None:
        return found
    place = (cache or environments_folder()) / environment.folder_name
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _locked(place.parent / f"{environment.folder_name}.lock"):
            if (found := find(environment, cache)) is None:
                _build(environment, place, say)
    except OSError as wrong:
        raise UserError(
            f"The environment of {environment.name} is built in {place}, which failed: {wrong}. Make room there, or "
            "name another folder in XDG_CACHE_HOME."
        ) from wrong
    return place


def _build(environment: Environment, place: Path, say: Say) -> None:
    free = shutil.disk_usage(place.parent).free // MB
    if free < 2 * environment.megabytes:
        raise UserError(
            f"The environment of {environment.name} takes about {environment.megabytes:,} MB and as much again while "
            f"it is built, and {free:,} MB are free in {place.parent}. Make room there, or name another folder in "
            "XDG_CACHE_HOME."
        )
    say(
        f"building the environment of {environment.name} in {place}: a download that takes some minutes, about "
        f"{environment.megabytes:,} MB on the disk, once"
    )
    shutil.rmtree(place, ignore_errors=True)
    _run(environment, place, [interpreter(environment), "-m", "venv", str(place)])
    pip = [str(python_of(place)), "-m", "pip"]
    pinned = place / "constraints.txt"
    pinned.write_text("".join(f"{line}\n" for line in environment.constraints), encoding="utf-8")
    for step in environment.steps:
        say(f"building the environment of {environment.name}: installing {', '.join(step)}")
        _run(environment, place, [*pip, "install", "--no-input", "--constraint", str(pinned), *step])
    if environment.without:
        _run(environment, place, [*pip, "uninstall", "--yes", *environment.without])
    _run(environment, place, [str(python_of(place)), "-P", "-c", environment.probe])
    frozen = subprocess.run([*pip, "freeze"], env=_clean(), capture_output=True, text=True, check=False)
    (place / READY).write_text(frozen.stdout, encoding="utf-8")


def interpreter(environment: Environment) -> str:
    """The Python that the environment is made with: this one where its version will do, else one on the PATH.

    Raises:
        UserError: there is none.
    """
    low, high = environment.python
    if low <= sys.version_info[:2] < high:
        return sys.executable
    names = [f"python{low[0]}.{minor}" for minor in reversed(range(low[1], high[1]))]
    found = next((place for name in names if (place := shutil.which(name))), None)
    if found is None:
        raise UserError(
            f"The environment of {environment.name} needs Python {low[0]}.{low[1]} or later and older than "
            f"{high[0]}.{high[1]}. This is Python {sys.version_info[0]}.{sys.version_info[1]}, and none of "
            f"{', '.join(names)} is on the PATH. Install one of them."
        )
    return found


def _run(environment: Environment, place: Path, command: Sequence[str]) -> None:
    """Run one step of a build; its output is kept beside the environment.

    Raises:
        UserError: it failed. Says what it said last.
    """
    place.mkdir(exist_ok=True)
    with (place / LOG).open("a", encoding="utf-8") as log:
        done = subprocess.Popen(
            command, env=_clean(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.stdout is not None
        last: deque[str] = deque(maxlen=SAID_LINES)
        for line in done.stdout:
            log.write(line)
            if line.strip():
                last.append(line.strip()[:300])
        code = done.wait()
    if code:
        raise UserError(
            f"The environment of {environment.name} could not be built: `{' '.join(command[1:])[:300]}` ended with "
            f"exit code {code}. It said last: {' | '.join(last) or 'nothing'}. Put that right (most often the network "
            f"or the disk) and start again: what was downloaded is kept. All of its words are in {place / LOG}."
        )


def _clean() -> dict[str, str]:
    """This process's environment without what would lead Python or pip to other packages."""
    dropped = (
        "PYTHONPATH",
        "PYTHONHOME",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_USER",
        "PIP_REQUIRE_VIRTUALENV",
        "VIRTUAL_ENV",
    )
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold a lock that the kernel gives back when this process ends."""
    with file.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
