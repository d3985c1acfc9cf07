"""A node's side of the exchange: where an attempt's job runs, and how what it makes gets to the controller.

On a shared folder there is nothing to do. Below a URL the node fetches the job into a folder of its own, and puts back
what a person looks at, now and then a whole copy of the job's folder to go on from, and at the end the last one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Callable, Mapping, Protocol

from postgrad.engines.remote.exchange import SHOWN, Broken, Shared
from postgrad.engines.remote.laying import copied, left_out
from postgrad.engines.remote.lease import WORK, Files, Told, write
from postgrad.engines.remote.models import Models
from postgrad.engines.remote.posted import (
    FILES,
    GIVEN,
    SHOWN_IN,
    TREE,
    Given,
    Objects,
    merged,
    named_in,
    patience_s,
    with_models,
)
from postgrad.engines.remote.store import Store
from postgrad.engines.remote.trees import Piece, Putting, Tree, entries, fetch, sha256_of

# Where jobs run on a node; the folder for temporary files if not set.
SCRATCH = "POSTGRAD_SCRATCH"
HOME, LOCK, STAGE = "postgrad-node-", "lock", "stage"
# What a node that was killed left behind is removed by the next one, once it is so old.
OLD_S = 60.0
SHOWN_BYTES = 1 << 16
# A copy is begun no sooner than so many times what the last one took, and this share of the lease, after it.
REST, SHARE = 4.0, 1 / 3
# A folder in which files come and go all the time may change while it is looked at.
TRIES = 5
# A store that is away when a node begins.
START_S, LOOK_S = 60.0, 1.0
Marks = Mapping[str, tuple[int, int, int]]


class Desk(Protocol):
    """Where a node works on one attempt.

    Attributes:
        afar: True where files take time to come and go: the node says meanwhile that it lives.
    """

    files: Files
    number: int
    afar: bool

    def told(self) -> Told | None:
        """What is to be done; None where nothing is."""
        ...

    def begin(self, told: Told) -> Path:
        """The job's folder on this node, ready to run. Raises OSError where it cannot be made."""
        ...

    def tend(self, counts: Callable[[], bool]) -> None:
        """Called all the time while the job runs; takes none."""
        ...

    def finish(self) -> None:
        """The job has ended: put everything that it left where the controller finds it. Raises OSError."""
        ...

    def close(self) -> None:
        """Remove what is of this node alone."""
        ...


class Here:
    """A folder that the controller sees as well."""

    afar = False

    def __init__(self, folder: Path) -> None:
        self.number, self._shared = int(folder.name), Shared(folder.parent)
        self.files: Files = self._shared

    def told(self) -> Told | None:
        try:
            return Told.model_validate_json(self.files.read(f"{self.number}/told.json"))
        except (OSError, ValueError):
            return None

    def begin(self, told: Told) -> Path:
        return self._shared.work(told.job, self.number)

    def tend(self, counts: Callable[[], bool]) -> None:
        """It is all there."""

    def finish(self) -> None:
        """It is all there."""

    def close(self) -> None:
        """It stays where it is."""


class Background:
    """Something that is done beside, on a thread that ends with the process."""

    def __init__(self, what: Callable[[], None]) -> None:
        self._what = what
        self._over = threading.Event()
        self._fine = False
        self._problem: OSError | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._what()
            self._fine = True
        except OSError as problem:
            self._problem = problem
        finally:
            self._over.set()

    def wait(self, timeout: float | None = None) -> bool:
        """True once it is over."""
        return self._over.wait(timeout)

    def check(self) -> None:
        """Raise what it ended with, if it ended badly."""
        if not self._fine:
            raise self._problem or OSError(errno.EIO, "it ended with a fault of the program, which is told above")


class Outpost:
    """A node that has the URL alone.

    Args:
        address: of the attempt: STORAGE/jobs/JOB/N.
    """

    afar = True

    def __init__(self, address: str) -> None:
        url, _, job, number = address.rsplit("/", 3)
        self.number = int(number)
        self._store = Store(url, patience_s(START_S))
        self._objects = Objects(self._store, job)
        self.files: Files = self._objects
        self._home: Path | None = None
        self._work = Path()
        self._given = Given(inputs=Tree())
        self._instead: dict[str, Piece] = {}
        self._trees: list[Tree] = []
        self._hashes: dict[tuple[int, int, int], str] = {}
        self._marks: Marks = {}
        self._showing: Background | None = None
        self._keeping: Background | None = None
        self._show_s = self._rest_s = self._least_rest_s = 1.0
        self._shown_at = self._kept_at = time.monotonic()
        self._shown: dict[str, tuple[int, int]] = {}

    def told(self) -> Told | None:
        patience = time.monotonic() + START_S
        while True:
            try:
                return Told.model_validate_json(self.files.read(f"{self.number}/told.json"))
            except (FileNotFoundError, ValueError):
                return None
            except OSError as problem:
                if isinstance(problem, PermissionError) or time.monotonic() > patience:
                    raise
                time.sleep(LOOK_S)

    def begin(self, told: Told) -> Path:
        self._store.patience_s = patience_s(told.lease_s)
        self._show_s = max(1.0, told.lease_s / 10)
        self._rest_s = self._least_rest_s = SHARE * told.lease_s
        self._home = self._home or own_folder()
        self._given = Given.model_validate_json(self.files.read(f"{self.number}/{GIVEN}"))
        self._work = self._home / WORK / told.job
        shutil.rmtree(self._work, ignore_errors=True)  # Of a try that the store broke off.
        try:
            fetch(self._store, merged(self._given), self._work)
        except Broken as problem:
            if self._given.kept is None:
                raise
            print(f"What the last attempt kept is not whole, so the job begins anew: {problem}", flush=True)
            shutil.rmtree(self._work)
            self._given = self._given.model_copy(update={"kept": None})
            fetch(self._store, self._given.inputs, self._work)
        self._name_models()
        self._shown_at = self._kept_at = time.monotonic()
        self._marks = marks(self._work)
        return self._work

    def _name_models(self) -> None:
        """Fetch base models, and have the job look for them where they lie here. What is put back is the job's own
        `job.json`, unless somebody changes this one."""
        self._environments()
        models = Models(self._store)
        places = {path: models.fetched(model) for path, model in self._given.models.items()}
        original = next((piece for piece in self._given.inputs.pieces if piece.name == "job.json"), None)
        if places and original is not None:
            job = self._work / "job.json"
            job.write_bytes(with_models(job.read_bytes(), places))
            self._instead[sha256_of(job)] = original

    def _environments(self) -> None:
        """Environments of backends are not brought here: they are made for one machine."""
        for name in named_in(self._work / "job.json", "environments"):
            if not Path(name).is_dir():
                raise Broken(f"the environment {name} of a backend is not on this node; it has to lie there as well")

    # --- while it runs --------------------------------------------------------------------------------------------

    def tend(self, counts: Callable[[], bool]) -> None:
        now = time.monotonic()
        if now - self._shown_at >= self._show_s and (self._showing is None or self._showing.wait(0)):
            self._shown_at, self._showing = now, Background(self._show)
        if now - self._kept_at >= self._rest_s and (self._keeping is None or self._keeping.wait(0)):
            self._kept_at, self._keeping = now, Background(lambda: self._keep(counts))

    def _show(self) -> None:
        """Put what a person looks at: of a long log its end."""
        for name in SHOWN:
            with suppress(FileNotFoundError):
                status = os.lstat(self._work / name)
                state = (status.st_size, status.st_mtime_ns)
                if not stat.S_ISREG(status.st_mode) or self._shown.get(name) == state:
                    continue
                with open(os.open(self._work / name, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
                    file.seek(max(0, status.st_size - SHOWN_BYTES))
                    data = file.read(SHOWN_BYTES)
                self.files.write(f"{self.number}/{SHOWN_IN}/{name}", data)
                self._shown[name] = state

    def _keep(self, counts: Callable[[], bool]) -> None:
        """Put a whole copy of the job's folder as it is at one moment, if it changed. An attempt that does not count
        any more leaves the store as it is."""
        assert self._home is not None
        began = time.monotonic()
        if marks(self._work) == self._marks or not counts():
            return
        stage = self._home / STAGE
        if (state := staged(self._work, stage)) is None:
            return
        tree = self._putting().tree(stage)
        if marks(stage) == state and counts():  # Else a file was written in its place while it was put.
            write(self.files, f"{self.number}/{TREE}", tree)
            self._marks = state
            self._drop(tree)
        shutil.rmtree(stage)
        self._kept_at = time.monotonic()
        self._rest_s = max(self._least_rest_s, REST * (self._kept_at - began))

    def _putting(self) -> Putting:
        kept = self._given.kept.pieces if self._given.kept is not None else ()
        last = self._trees[-1].pieces if self._trees else ()
        prefix = f"{self._objects.key}/{self.number}/{FILES}"
        return Putting(self._store, prefix, (*self._given.inputs.pieces, *kept, *last), self._instead, self._hashes)

    def _drop(self, tree: Tree) -> None:
        """Remove what only copies before the last two needed. The one before this may just be read by the controller,
        which has then granted another attempt: this one puts no more."""
        own = f"{self._objects.key}/{self.number}/{FILES}/"
        old = self._trees[:-1]
        self._trees = [*self._trees[-1:], tree]
        needed = frozenset[str]().union(*(each.keys for each in self._trees))
        self._store.remove(sorted(key for each in old for key in each.keys - needed if key.startswith(own)))

    # --- the end --------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        for beside in (self._keeping, self._showing):
            if beside is not None:
                beside.wait()
        write(self.files, f"{self.number}/{TREE}", self._putting().tree(self._work, left_out))

    def close(self) -> None:
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)


def desk_at(address: str) -> Desk:
    """The desk of the attempt that a node was told."""
    return Outpost(address) if "://" in address else Here(Path(address))


def own_folder() -> Path:
    """A new folder of this process. Those of processes that are gone are removed."""
    place = Path(os.environ.get(SCRATCH) or tempfile.gettempdir())
    place.mkdir(parents=True, exist_ok=True)
    for folder in place.glob(f"{HOME}*"):
        with suppress(OSError), (folder / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - os.fstat(lock.fileno()).st_mtime > OLD_S:
                shutil.rmtree(folder, ignore_errors=True)
    own = Path(tempfile.mkdtemp(prefix=HOME, dir=place))
    held = os.open(own / LOCK, os.O_CREAT | os.O_RDWR, 0o600)  # Open as long as this process lives.
    fcntl.flock(held, fcntl.LOCK_EX)
    return own.resolve()


def marks(folder: Path) -> Marks:
    """What tells whether files changed; what a person looks at changes all the time and is left out."""
    found = dict(entries(folder, lambda name: left_out(name) or name in SHOWN))
    plain = {name: stat.S_ISREG(status.st_mode) for name, status in found.items()}
    return {
        name: (status.st_mode, status.st_size, status.st_mtime_ns) if plain[name] else (status.st_mode, 0, 0)
        for name, status in found.items()
    }


def staged(work: Path, stage: Path) -> Marks | None:
    """Make a second folder of the same files by hard links, as they were at one moment: a file that is replaced later
    stays as it was. None where the folder never stands still."""
    for _ in range(TRIES):
        shutil.rmtree(stage, ignore_errors=True)
        before = marks(work)
        with suppress(FileNotFoundError):
            _link(work, stage)
            if marks(work) == before == marks(stage):
                return before
    return None


def _link(work: Path, stage: Path) -> None:
    for name, status in entries(work, left_out):
        place = stage / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISDIR(status.st_mode):
            place.mkdir()
        elif stat.S_ISLNK(status.st_mode):
            place.symlink_to(os.readlink(work / name))
        elif stat.S_ISREG(status.st_mode) and name in SHOWN:  # Grows where it is.
            copied(work / name, place)
        elif stat.S_ISREG(status.st_mode):
            os.link(work / name, place, follow_symlinks=False)
