"""Base models below a URL: put once for each contents, whoever runs, and kept on each node."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from postgrad.engines.remote.exchange import Broken
from postgrad.engines.remote.store import Store
from postgrad.engines.remote.trees import Putting, Tree, entries, fetch, sha256_of
from postgrad.records import Record

MODELS, TREE = "models", "tree.json"
# Where a node keeps them; the folder of caches of its user if not set.
CACHE = "POSTGRAD_CACHE"


class Model(Record):
    """A model that is there: the digest of its files and the name of its folder, which some models are known by."""

    digest: str
    name: str


class Models:
    """The models below one URL."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._put: dict[tuple[object, ...], Model] = {}

    def put(self, folder: Path) -> Model:
        """Put a model, unless it is there.

        Raises:
            OSError: it cannot be read, or the store cannot be written.
        """
        found = [(name, status) for name, status in entries(folder, _hidden, follow=True)]
        state = (str(folder), *((name, status.st_size, status.st_mtime_ns) for name, status in found))
        if state not in self._put:
            facts = [(name, sha256_of(folder / name)) for name, status in found if (folder / name).is_file()]
            digest = hashlib.sha256(repr(sorted(facts)).encode()).hexdigest()[:32]
            key = f"{MODELS}/{digest}"
            if not self._is_there(key):
                tree = Putting(self._store, key).tree(folder, _hidden, follow=True)
                self._store.write(f"{key}/{TREE}", tree.model_dump_json().encode())
            self._put[state] = Model(digest=digest, name=folder.name)
        return self._put[state]

    def _is_there(self, key: str) -> bool:
        try:
            return bool(self._store.read(f"{key}/{TREE}"))
        except FileNotFoundError:
            return False

    def fetched(self, model: Model) -> Path:
        """The folder of a model on this machine, which is fetched if it is not here yet.

        Raises:
            Broken: it is not there whole.
            OSError: nobody can tell now, or there is no room.
        """
        place = cache_folder() / model.digest
        if (place / model.name).is_dir():
            return place / model.name
        try:
            tree = Tree.model_validate_json(self._store.read(f"{MODELS}/{model.digest}/{TREE}"))
        except (FileNotFoundError, ValueError) as wrong:
            raise Broken(f"the base model {model.name} is not in the store") from wrong
        unfinished = place.with_name(f"{model.digest}.{os.getpid()}.part")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            fetch(self._store, tree, unfinished / model.name)
            try:
                unfinished.rename(place)
            except OSError:  # Another job has just brought it, perhaps under another name.
                if not place.is_dir():
                    raise
                if not (place / model.name).is_dir():
                    (unfinished / model.name).rename(place / model.name)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return place / model.name


def cache_folder() -> Path:
    """Where models are kept on this node."""
    told = os.environ.get(CACHE) or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "postgrad"
    )
    return Path(told) / MODELS


def _hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".")
