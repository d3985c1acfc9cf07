"""What a job may see of this machine: system libraries, Python, installed packages, and what its `job.json` names.

Says what, not how: `sandbox.py` holds jobs to it. The run store, other jobs, data files and home folders are never part
of it, except for the one folder in a home where a Python or a model may lie.
"""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Iterable, Iterator, Mapping, Sequence

# Libraries and programs. Of /etc only what the dynamic linker and the clock need; of /sys only the machine's shape.
SYSTEM = (
    "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/local/lib",
    "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives",
    "/etc/localtime", "/nix/store", "/gnu/store", "/sys/devices/system/cpu", "/sys/devices/system/node",
)  # fmt: skip
TOP = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# A Python that lies in one of these shares them with the whole system: only its libraries are shown.
SHARED_PREFIXES = ("/usr", "/usr/local", "/")
PACKAGE_FOLDERS = ("site-packages", "dist-packages")
PLUGIN_GROUPS = ("postgrad.backends", "postgrad.operators")
CODE = (".py", ".so", ".pyd", ".dist-info", ".egg-info")
PATHS = "import sys; print(chr(10).join(sys.path))"


@dataclass(frozen=True)
class Places:
    """What every job may see of this machine.

    Attributes:
        reads: files and folders that it may read, at their own paths.
        links: (target, name) of links of the top folder.
        lists: folders whose names Python looks through for modules. Not all in them may be read.
    """

    reads: tuple[Path, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    lists: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Reach:
    """What one job may touch.

    Attributes:
        folder: its own folder, where it writes.
        inputs: files and folders inside `folder` that it may read only.
        reads: what else it may read: the machine's places, its base model, its program.
        links, lists: see `Places`.
    """

    folder: Path
    inputs: tuple[Path, ...]
    reads: tuple[Path, ...]
    links: tuple[tuple[str, str], ...] = ()
    lists: tuple[Path, ...] = ()


def machine_places(environment: Mapping[str, str]) -> Places:
    """What jobs with this environment need of the machine. Starts one short Python process to ask it for its path."""
    found = [Path(name) for name in SYSTEM]
    links = []
    for name in TOP:
        if os.path.islink(name):
            links.append((os.readlink(name), name))
        else:
            found.append(Path(name))
    found += _of_python()
    asked = subprocess.run(
        [sys.executable, "-P", "-c", PATHS], env=dict(environment), capture_output=True, text=True, check=True
    )
    path = [Path(entry) for entry in asked.stdout.splitlines() if entry]
    for entry in path:
        found += _importable(entry)
    found += [Path(name) for name in environment.get("LD_LIBRARY_PATH", "").split(os.pathsep) if name]
    found += _of_plugins()
    return Places(outermost(found), tuple(links), tuple(path))


def job_reach(places: Places, folder: Path, command: Sequence[str]) -> Reach:
    """What the job in `folder` needs: its base model, the inputs that it must not change, and files of its command."""
    reads = [*places.reads, *(Path(word) for word in command if os.path.isabs(word) and os.path.isfile(word))]
    inputs: list[Path] = []
    job = folder / "job.json"
    if job.is_file():
        facts = json.loads(job.read_text(encoding="utf-8"))
        names = [
            "job.json",
            facts.get("loads"),
            *facts.get("inputs", ()),
            *(u[key] for u in facts["units"] for key in ("train", "predict")),
        ]
        inputs = [folder / name for name in dict.fromkeys(names) if name and (folder / name).exists()]
        for model in (facts.get("base_model"), *facts.get("models", {}).values()):
            reads += _model(Path(model)) if model else ()
        for name in facts.get("environments", ()):
            reads += _environment(Path(name))
    return Reach(folder, tuple(inputs), outermost(reads), places.links, places.lists)


def outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Existing paths, with where they really lie, without those that lie in another one of them."""
    every = {Path(os.path.abspath(p)) for p in paths if p.exists()}
    every |= {Path(os.path.realpath(p)) for p in every}
    kept: list[Path] = []
    for path in sorted(every, key=lambda p: (len(p.parts), p)):
        if not any(path.is_relative_to(outer) for outer in kept):
            kept.append(path)
    return tuple(kept)


def _of_python() -> Iterator[Path]:
    for prefix in dict.fromkeys((sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix)):
        if prefix in SHARED_PREFIXES:
            yield from (Path(prefix) / name for name in ("bin", "lib", "lib64"))
        else:
            yield Path(prefix)
    # A virtual environment's `python` can be a link to a link to a link.
    step = sys.executable
    while os.path.islink(step):
        step = os.path.join(os.path.dirname(step), os.readlink(step))
        yield Path(step)


def _importable(entry: Path) -> Iterator[Path]:
    """What Python imports from an entry of its path. Of a project's folder that is its packages and modules, and not
    the data or runs that may lie beside them."""
    if entry.name in PACKAGE_FOLDERS or str(entry) in site.getsitepackages() or not entry.is_dir():
        yield entry
        return
    for child in entry.iterdir():
        if child.suffix in CODE or (child / "__init__.py").is_file() or child.name == "sitecustomize.py":
            yield child


def _of_plugins() -> Iterator[Path]:
    """Packages of plug-ins, which an editable install can leave anywhere."""
    for group in PLUGIN_GROUPS:
        for point in entry_points(group=group):
            found = find_spec(point.module.partition(".")[0])
            if found is not None and found.submodule_search_locations:
                yield from (Path(place) for place in found.submodule_search_locations)
            elif found is not None and found.origin:
                yield Path(found.origin)


def _environment(folder: Path) -> Iterator[Path]:
    """A virtual environment, and the Python that it was made with, which can be another one than ours."""
    yield folder
    with suppress(OSError):
        for line in (folder / "pyvenv.cfg").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition("=")
            prefix = Path(value.strip()).parent
            if key.strip() == "home" and str(prefix) not in SHARED_PREFIXES:
                yield prefix


def _model(folder: Path) -> Iterator[Path]:
    """A model's folder, and what its links lead to: the Hub's cache keeps the files elsewhere."""
    yield folder
    for path in folder.rglob("*"):
        if path.is_symlink():
            yield Path(os.path.realpath(path))
