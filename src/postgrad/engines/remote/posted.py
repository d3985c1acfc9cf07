"""The exchange below a URL, for a controller and nodes that share no folder (`exchange.py` is that of a folder).

    STORAGE/jobs/JOB/grant.json, N/told.json, N/lease.json, N/beat.json, N/exit.json     as in `lease.py`
    STORAGE/jobs/JOB/N/given.json      what attempt N begins with: its inputs, what the last one kept, its models
    STORAGE/jobs/JOB/N/tree.json       the last whole copy of the job's folder that attempt N has put here
    STORAGE/jobs/JOB/N/shown/          what a person looks at while it runs
    STORAGE/jobs/JOB/inputs/, N/files/ contents of files
    STORAGE/models/DIGEST/             base models (`models.py`)

In the job's own folder the controller keeps the name JOB, and how the job ended once everything was fetched: only then
is it removed from the store, so that a controller that is killed in between neither loses nor doubles a result.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Mapping, TypeVar

from pydantic import Field

from postgrad.engines.remote.exchange import SHOWN, Shared
from postgrad.engines.remote.laying import move_over, stays_here
from postgrad.engines.remote.lease import BEAT, EXIT, LEASE, REMOTE, Ended, Files, read, write
from postgrad.engines.remote.models import Model, Models
from postgrad.engines.remote.store import Store, opened
from postgrad.engines.remote.trees import Putting, Tree, fetch
from postgrad.records import EngineSpec, Record

JOBS, INPUTS, FILES = "jobs", "inputs", "files"
GIVEN, TREE, SHOWN_IN = "given.json", "tree.json", "shown"
POSTED, DONE, FETCHED = "posted.json", "done.json", "fetched.part"
# Names of jobs in the store, as they are made here: one part of a key, and never empty.
NAMED = r"^[A-Za-z0-9_.-]{1,140}-[0-9a-f]{12}$"
# What is in every job's folder, and folders of a script's experiment that are jobs.
JOB, PARTS = "job.json", ("run", "referee")
# Where a node's program starts: any folder that every machine has.
ANYWHERE = "/tmp"
# Shares of a lease. A node says ten times a lease that it lives.
POLL, SHOW, PATIENCE = 1 / 30, 1 / 10, 1 / 3
POLL_S, MOST_POLL_S, SHOW_S, LEAST_PATIENCE_S = 0.25, 5.0, 1.0, 5.0
R = TypeVar("R", bound=Record)


class Given(Record):
    """What an attempt begins with.

    Attributes:
        inputs: the job's files as they were handed out.
        kept: what the last attempt had kept; None where it had kept nothing. Inputs lie over it.
        models: path on the controller's machine -> the model.
    """

    inputs: Tree
    kept: Tree | None = None
    models: dict[str, Model] = {}


class Posted(Record):
    """The name of a job in the store."""

    job: str = Field(pattern=NAMED)


class Objects:
    """Files of one job, as controller and node see them."""

    def __init__(self, store: Store, job: str) -> None:
        self.store, self.key = store, f"{JOBS}/{job}"

    def read(self, name: str) -> bytes:
        return self.store.read(f"{self.key}/{name}")

    def write(self, name: str, data: bytes) -> None:
        self.store.write(f"{self.key}/{name}", data)

    def take(self, name: str, data: bytes) -> bool:
        return self.store.take(f"{self.key}/{name}", data)

    def exists(self, name: str) -> bool:
        try:
            self.read(name)
        except FileNotFoundError:
            return False
        return True


class Looks:
    """Signs of life of all jobs under way, read together: one after the other, those of hundreds would take minutes."""

    def __init__(self, store: Store, fresh_s: float) -> None:
        self._store, self._fresh_s = store, fresh_s
        self._found: dict[str, bytes | OSError] = {}
        self._at = 0.0
        self._away: OSError | None = None

    def read(self, key: str) -> bytes:
        """What an object holds, or held a moment ago. One that was not looked at before is looked at alone."""
        if time.monotonic() - self._at > self._fresh_s:
            self._look([*dict.fromkeys([*self._found, key])])
            self._at = time.monotonic()
        elif key not in self._found and self._away is not None:  # Each job would wait as long.
            self._found[key] = self._away
        elif key not in self._found:
            self._look([key])
        found = self._found[key]
        if isinstance(found, OSError):
            raise found
        return found

    def _look(self, keys: list[str]) -> None:
        found: dict[str, bytes | OSError] = {}
        try:
            found |= self._store.read_all(keys)
        except OSError as problem:
            found |= dict.fromkeys(keys, problem)
        self._found |= found
        problems = (each for each in found.values() if isinstance(each, OSError))
        self._away = next((each for each in problems if not isinstance(each, FileNotFoundError)), None)
        if self._away is not None:
            self._at = time.monotonic()

    def forget(self, prefix: str) -> None:
        """Look no more at objects whose keys begin so."""
        self._found = {key: found for key, found in self._found.items() if not key.startswith(prefix)}


class Office:
    """The store of a run's engine.

    Raises:
        UserError: it cannot be used.
    """

    def __init__(self, spec: EngineSpec) -> None:
        assert spec.storage is not None, "asked for with a storage alone"
        self.store = opened(spec.storage, patience_s(spec.lease_s))
        self.models = Models(self.store)
        self.poll_s = min(MOST_POLL_S, max(POLL_S, POLL * spec.lease_s))
        self.show_s = max(SHOW_S, SHOW * spec.lease_s)
        self.looks = Looks(self.store, self.poll_s / 2)

    def exchange(self, job: Path) -> PostedJob:
        """That of the job in a folder; the one that a controller before this one has begun, if there is one."""
        own = Shared(job / REMOTE)
        own.root.mkdir(exist_ok=True)
        posted = record(own, POSTED, Posted)
        if posted is None:
            words = [re.sub(r"[^\w.-]", "-", part, flags=re.ASCII)[-40:] for part in (*job.parts[-3:-1], job.name)]
            posted = Posted(job="-".join([*words, uuid.uuid4().hex[:12]]))
            write(own, POSTED, posted)
        return PostedJob(self, own, posted.job)

    def forget(self, folder: Path) -> None:
        """Remove all jobs whose folders lie here from the store."""
        for job in jobs_in(folder):
            own = Shared(job / REMOTE)
            with suppress(OSError):  # The store is away. What lies there goes by its own rules.
                if (posted := record(own, POSTED, Posted)) is not None:
                    PostedJob(self, own, posted.job).close(None)


class PostedJob(Objects):
    """The exchange of one job, for the controller."""

    begun = True

    def __init__(self, office: Office, own: Shared, job: str) -> None:
        super().__init__(office.store, job)
        self._own, self._models, self._looks = own, office.models, office.looks
        self.poll_s, self.show_s = office.poll_s, office.show_s

    def read(self, name: str) -> bytes:
        of_node = name.rpartition("/")[2] in (EXIT, BEAT, LEASE)
        return self._looks.read(f"{self.key}/{name}") if of_node else super().read(name)

    def refresh(self) -> None:
        self._looks.forget(f"{self.key}/")

    def address(self, number: int) -> str:
        return f"{self.store.url}/{self.key}/{number}"

    def start_folder(self, number: int) -> str:
        return ANYWHERE

    # --- the job's files ------------------------------------------------------------------------------------------

    def give(self, job: Path, number: int, *, anew: bool) -> None:
        earlier = record(self, f"{number - 1}/{GIVEN}", Given)
        known = earlier.inputs.pieces if earlier is not None else ()
        inputs = Putting(self.store, f"{self.key}/{INPUTS}", known).tree(job, stays_here)
        if anew:
            inputs = Tree(pieces=tuple(piece for piece in inputs.pieces if piece.name not in SHOWN))
        given = Given(inputs=inputs, kept=None if anew else self._kept(number - 1), models=self._models_of(job))
        write(self, f"{number}/{GIVEN}", given)

    def _models_of(self, job: Path) -> dict[str, Model]:
        """Base models that the job reads; put in the store if they are not there."""
        named = named_in(job / JOB, "base_model", "models")
        return {name: self._models.put(Path(name)) for name in named if Path(name).is_dir()}

    def _kept(self, number: int) -> Tree | None:
        """What an attempt has kept; what it was given where it has kept nothing."""
        if (tree := record(self, f"{number}/{TREE}", Tree)) is not None:
            return tree
        given = record(self, f"{number}/{GIVEN}", Given)
        return given.kept if given is not None else None

    def tidy(self, number: int) -> None:
        """Remove contents that the attempt does not begin with. None of those before it counts any more."""
        self.refresh()
        if number == 1:
            return
        with suppress(OSError):  # It goes with the job.
            if (given := record(self, f"{number}/{GIVEN}", Given)) is None:
                return
            needed = given.inputs.keys | (given.kept.keys if given.kept is not None else frozenset())
            holds = re.compile(rf"{re.escape(self.key)}/(\d+)/{FILES}/")
            there = ((key, holds.match(key)) for key in self.store.names(self.key))
            old = [key for key, found in there if found and int(found[1]) < number and key not in needed]
            self.store.remove(old)

    def show(self, job: Path, number: int) -> None:
        for name in SHOWN:
            with suppress(OSError):
                data = self.read(f"{number}/{SHOWN_IN}/{name}")
                (job / f".{name}.part").write_bytes(data)
                (job / f".{name}.part").replace(job / name)

    def hand_over(self, job: Path, number: int) -> None:
        tree, over = self._kept(number), self.exists(f"{number}/{EXIT}")
        if tree is not None:
            given, place = record(self, f"{number}/{GIVEN}", Given), self._own.root / FETCHED
            have = {piece.sha256: job / piece.name for piece in given.inputs.pieces if piece.size} if given else {}
            shutil.rmtree(place, ignore_errors=True)
            fetch(self.store, tree, place, have)
            move_over(place, job)
            shutil.rmtree(place, ignore_errors=True)
        if not over:
            self.show(job, number)  # It said more than it kept.

    # --- the end --------------------------------------------------------------------------------------------------

    def closed(self) -> Ended | None:
        return read(self._own, DONE, Ended)

    def close(self, ended: Ended | None) -> None:
        if ended is not None:
            write(self._own, DONE, ended)
        (self._own.root / POSTED).unlink(missing_ok=True)
        self.refresh()
        with suppress(OSError):
            self.store.remove(self.store.names(self.key))


def record(files: Files, name: str, kind: type[R]) -> R | None:
    """What a file says; None where there is none, or none of ours.

    Raises:
        OSError: nobody can tell now.
    """
    try:
        return kind.model_validate_json(files.read(name))
    except (FileNotFoundError, ValueError):
        return None


def jobs_in(folder: Path, *, below: bool = True) -> list[Path]:
    """The job in a folder, those of a script's experiment in it, or those in the folders right below. Nowhere else:
    what lies in a job's folder the job may have made itself, but for `remote`, in place of which nothing is put."""
    if any(os.path.lexists(folder / name) for name in (JOB, REMOTE)):
        return [] if (folder / REMOTE).is_symlink() else [folder]
    parts = [folder / name for name in PARTS if _is_folder(folder / name)]
    if parts or not below:
        return [job for part in parts for job in jobs_in(part, below=False)]
    inner = sorted(folder.iterdir()) if folder.is_dir() else []
    return [job for each in inner if _is_folder(each) for job in jobs_in(each, below=False)]


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def patience_s(lease_s: float) -> float:
    """Seconds for one question to the store: a node must be able to ask again within its lease."""
    return max(LEAST_PATIENCE_S, PATIENCE * lease_s)


def named_in(job: Path, *keys: str) -> list[str]:
    """Paths that a job's `job.json` names under these keys; none where it is of another form."""
    try:
        facts = json.loads(job.read_bytes())
        values = [facts.get(key) for key in keys]
    except (OSError, ValueError, AttributeError):
        return []
    found: list[object] = []
    for value in values:
        found += value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return [name for name in found if isinstance(name, str) and name]


def with_models(text: bytes, places: Mapping[str, Path]) -> bytes:
    """A `job.json` with folders of this machine in place of the controller's."""
    facts = json.loads(text)
    if (base := facts.get("base_model")) in places:
        facts["base_model"] = str(places[base])
    if models := facts.get("models"):
        facts["models"] = {name: str(places.get(path, path)) for name, path in models.items()}
    return json.dumps(facts, indent=1, ensure_ascii=False).encode()


def merged(given: Given) -> Tree:
    """What an attempt finds in its folder: inputs over what was kept, but for what a person looks at."""
    kept = {piece.name: piece for piece in given.kept.pieces} if given.kept is not None else {}
    over = {piece.name: piece for piece in given.inputs.pieces if piece.name not in SHOWN or piece.name not in kept}
    return Tree(pieces=tuple((kept | over).values()))
