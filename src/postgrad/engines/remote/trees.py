"""Folders of files as objects of a store: put, named by their contents, and fetched whole or not at all.

A tree is a list of pieces that is written when all of them are there, so one that was cut off by a kill is never seen.
Small files lie together in one object; what an earlier tree holds already is not put again.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
from pathlib import Path, PurePosixPath
from typing import Callable, Iterable, Iterator, Literal, Mapping, Sequence

from postgrad.engines.remote.exchange import Broken
from postgrad.engines.remote.store import Store
from postgrad.records import Record

SMALL, PACK = 1 << 18, 16 << 20
Skip = Callable[[str], bool]


class Piece(Record):
    """One entry of a tree: a file, a link, or a folder with nothing in it.

    Attributes:
        key: of the object that holds a file, from byte `at` on.
        target: of a link.
    """

    name: str
    kind: Literal["file", "link", "folder"] = "file"
    size: int = 0
    sha256: str = ""
    mode: int = 0o644
    key: str = ""
    at: int = 0
    target: str = ""


class Tree(Record):
    """What a folder holds."""

    pieces: tuple[Piece, ...] = ()

    @property
    def keys(self) -> frozenset[str]:
        """Objects that it needs."""
        return frozenset(piece.key for piece in self.pieces if piece.key)


def entries(folder: Path, skip: Skip, *, follow: bool = False) -> Iterator[tuple[str, os.stat_result]]:
    """(name, what it is) of files, links and folders with nothing in them, by name. What vanishes meanwhile is left
    out.

    Args:
        follow: links are what they lead to.
    """
    look = os.stat if follow else os.lstat
    for place, folders, files in os.walk(folder, followlinks=follow):
        inside = PurePosixPath(Path(place).relative_to(folder).as_posix())
        links = [name for name in folders if not follow and (Path(place) / name).is_symlink()]
        folders[:] = sorted(name for name in folders if name not in links and not skip(str(inside / name)))
        names = [name for name in (*files, *links) if not skip(str(inside / name))]
        if not folders and not names and place != str(folder):
            yield str(inside), os.lstat(place)
        for name in sorted(names):
            try:
                yield str(inside / name), look(Path(place) / name)
            except FileNotFoundError:
                continue


class Putting:
    """Puts files of one folder, and makes their tree.

    Args:
        prefix: of keys of new objects.
        known: pieces of earlier trees, whose objects are there.
        instead: sha256 -> the piece that stands for a file of these contents.
        hashes: sha256 of large files that were read before, by what tells whether they changed; more are added.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        known: Iterable[Piece] = (),
        instead: Mapping[str, Piece] | None = None,
        hashes: dict[tuple[int, int, int], str] | None = None,
    ) -> None:
        self._store, self._prefix = store, prefix
        self._known = {(piece.sha256, piece.size): piece for piece in known if piece.kind == "file"}
        self._instead = dict(instead or {})
        self._hashes = hashes if hashes is not None else {}
        self._pieces: list[Piece] = []
        self._waiting: list[tuple[Piece, bytes]] = []

    def tree(self, folder: Path, skip: Skip = lambda name: False, *, follow: bool = False) -> Tree:
        """Put a folder; what `skip` says is left out, and with `follow` links are put as what they lead to.

        Raises:
            OSError: a file cannot be read, or the store cannot be written.
        """
        for name, status in entries(folder, skip, follow=follow):
            self._entry(name, folder / name, status)
        self._flush()
        return Tree(pieces=tuple(sorted(self._pieces, key=lambda piece: piece.name)))

    def _entry(self, name: str, path: Path, status: os.stat_result) -> None:
        mode = stat.S_IMODE(status.st_mode) & 0o777
        if stat.S_ISLNK(status.st_mode):
            self._pieces.append(Piece(name=name, kind="link", target=os.readlink(path)))
        elif stat.S_ISDIR(status.st_mode):
            self._pieces.append(Piece(name=name, kind="folder"))
        elif stat.S_ISREG(status.st_mode) and status.st_size <= SMALL:
            data = path.read_bytes()
            piece = Piece(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest(), mode=mode)
            if not self._there(piece):
                self._waiting.append((piece, data))
            if sum(len(data) for _, data in self._waiting) > PACK:
                self._flush()
        elif stat.S_ISREG(status.st_mode):
            state = (status.st_ino, status.st_size, status.st_mtime_ns)
            if (digest := self._hashes.get(state)) is None:
                digest = self._hashes[state] = sha256_of(path)
            piece = Piece(name=name, size=status.st_size, sha256=digest, mode=mode)
            if not self._there(piece):
                self._put(piece.model_copy(update={"key": f"{self._prefix}/{piece.sha256}"}), path)

    def _there(self, piece: Piece) -> bool:
        """True where an object holds it already."""
        if (other := self._instead.get(piece.sha256)) is not None:
            self._pieces.append(other.model_copy(update={"name": piece.name}))
            return True
        if (known := self._known.get((piece.sha256, piece.size))) is not None:
            self._pieces.append(piece.model_copy(update={"key": known.key, "at": known.at}))
            return True
        return False

    def _put(self, piece: Piece, path: Path) -> None:
        self._store.put(path, piece.key)
        self._add(piece)

    def _add(self, piece: Piece) -> None:
        self._known[piece.sha256, piece.size] = piece
        self._pieces.append(piece)

    def _flush(self) -> None:
        """Put small files that wait, as one object."""
        if not self._waiting:
            return
        whole = io.BytesIO()
        placed = []
        for piece, data in self._waiting:
            placed.append(piece.model_copy(update={"at": whole.tell()}))
            whole.write(data)
        key = f"{self._prefix}/{hashlib.sha256(whole.getvalue()).hexdigest()}"
        self._store.write(key, whole.getvalue())
        for piece in placed:
            self._add(piece.model_copy(update={"key": key}))
        self._waiting.clear()


def fetch(store: Store, tree: Tree, folder: Path, have: Mapping[str, Path] | None = None) -> None:
    """Make a new folder of a tree.

    Args:
        have: sha256 -> a file here that should hold the same.

    Raises:
        Broken: an object is missing or not what was put, or a name leads out of the folder.
        OSError: nobody can tell now, or the machine refuses.
    """
    files = [piece for piece in tree.pieces if piece.kind == "file"]
    for piece in tree.pieces:
        if not _stays_inside(piece.name):
            raise Broken(f"a name leads out of the folder: {piece.name!r}")
    folder.mkdir(parents=True, exist_ok=True)
    by_key: dict[str, list[Piece]] = {}
    for piece in files:
        path = folder / piece.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _copied((have or {}).get(piece.sha256), path, piece):
            by_key.setdefault(piece.key, []).append(piece)
    for key, pieces in by_key.items():
        try:
            _fetch_object(store, key, pieces, folder)
        except FileNotFoundError as missing:
            raise Broken(f"an object is missing: {key}") from missing
    for piece in files:
        (folder / piece.name).chmod(piece.mode & 0o777 | 0o600)
    for piece in tree.pieces:
        path = folder / piece.name
        if piece.kind == "folder":
            path.mkdir(parents=True, exist_ok=True)
        elif piece.kind == "link":  # Last, so that nothing is written through one.
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(piece.target)


def _fetch_object(store: Store, key: str, pieces: Sequence[Piece], folder: Path) -> None:
    if len(pieces) == 1 and pieces[0].size > SMALL:
        path = folder / pieces[0].name
        store.get(key, path, pieces[0].size)
        if path.stat().st_size != pieces[0].size or sha256_of(path) != pieces[0].sha256:
            raise Broken(f"an object is not what was put: {key}")
        return
    data = store.read(key)
    for piece in pieces:
        part = data[piece.at : piece.at + piece.size]
        if hashlib.sha256(part).hexdigest() != piece.sha256:
            raise Broken(f"an object is not what was put: {key}")
        (folder / piece.name).write_bytes(part)


def _copied(path: Path | None, place: Path, piece: Piece) -> bool:
    """True where a file of this machine holds the piece, and was copied."""
    if path is None or path.is_symlink() or not path.is_file() or path.stat().st_size != piece.size:
        return False
    shutil.copyfile(path, place)
    return sha256_of(place) == piece.sha256


def _stays_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and "\0" not in name


def sha256_of(path: Path) -> str:
    """Of a file's contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
