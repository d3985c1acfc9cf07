"""Artefacts: bytes named by their own SHA-256, in a folder. What is stored is never changed.

A folder is stored as a manifest, an artefact that lists relative paths and the hashes of their contents. The artefacts
know nothing of events. Nothing is deleted here but half-written files, and what `remove` is told to.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from postgrad.errors import PostgradError, UserError
from postgrad.store.checked import FILE, FOLDER, Checked

CHUNK = 1 << 20
_HASH = re.compile(r"[0-9a-f]{64}")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MANIFEST = b'{"postgrad_folder":1,"files":'


class Artifacts:
    """Content-addressed files in `folder`, as `ab/cdef...`.

    A file appears under its name only when it is complete and on the disk: it is written beside, synced, and renamed.
    So a process that is killed leaves a temporary file at most; `sweep` removes those. Reading writes nothing, but that
    something is damaged.

    Args:
        folder: made when the first artefact is put.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: Bytes that were put since this was made, in files that were not there before.
        self.written = 0
        self._checked = Checked(folder)

    @property
    def _unfinished(self) -> Path:
        return self.folder / "unfinished"

    # --- putting ------------------------------------------------------------------------------------------------------

    def put_bytes(self, data: bytes) -> str:
        """Store bytes; return their hash, 64 hex digits.

        Raises:
            PostgradError: the disk is full or fails. What was stored before is still there.
        """
        return self._put(lambda: iter((data,)), "an artefact")

    def put_file(self, path: Path) -> str:
        """Store a copy of a file's contents; return their hash. Mode and times are not kept.

        Raises:
            PostgradError: the file cannot be read, or the disk is full or fails.
        """
        return self._put(lambda: _chunks(path), f"the file {path.name}")

    def put_folder(self, path: Path) -> str:
        """Store every file under a folder; return the hash of the manifest. The same contents give the same hash.

        Links to files are followed; empty folders are not kept.

        Raises:
            PostgradError: a file is neither a plain file nor a link to one, or cannot be read, or the disk fails.
        """
        with self._explained(f"the folder {path}"):
            names = _names_under(path)
        files = {name: self.put_file(path / name) for name in names}
        return self.put_bytes(_manifest_of(files))

    def _put(self, read: Callable[[], Iterator[bytes]], what: str) -> str:
        with self._explained(what):
            self._unfinished.mkdir(parents=True, exist_ok=True)
            number, name = tempfile.mkstemp(dir=self._unfinished)
            temporary = Path(name)
            try:
                with os.fdopen(number, "wb") as file:
                    digest = _copy(read(), file)
                    file.flush()
                    os.fchmod(file.fileno(), 0o444)
                    os.fsync(file.fileno())
                if not self.verify_bytes(digest):
                    self._publish(temporary, digest)
                    self._checked.add(digest, self._kind(digest), self._place(digest))
                return digest
            finally:
                temporary.unlink(missing_ok=True)

    def _publish(self, temporary: Path, digest: str) -> None:
        final = self._place(digest)
        if not final.parent.is_dir():
            final.parent.mkdir(exist_ok=True)
            sync_folder(self.folder)
        self.written += temporary.stat().st_size
        temporary.replace(final)
        sync_folder(final.parent)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            run = self.folder.parent
            advice = f"Free space on the disk of {run}" if error.errno in _NO_SPACE else "Put that right"
            raise PostgradError(
                f"Cannot store {what} of the run '{run.name}': {error.strerror or error}. Nothing that was stored "
                f"before is lost. {advice}, then go on with: postgrad resume {run.name}"
            ) from error

    def sweep(self) -> int:
        """Remove what a killed process left half-written; return how many files. Only for the run's one writer."""
        left = list(self._unfinished.glob("*")) if self._unfinished.is_dir() else []
        for path in left:
            path.unlink()
        return len(left)

    # --- losing and getting back --------------------------------------------------------------------------------------

    def remove(self, digest: str) -> None:
        """Delete the bytes of this one artefact, where they are there. Nothing that is needed may name it.

        Raises:
            PostgradError: the disk fails.
        """
        with self._explained(f"what became of the artefact {digest[:12]}"):
            self._place(digest).unlink(missing_ok=True)

    def heal(self, digest: str, folder: Path) -> bool:
        """Put back what is missing or damaged of a stored folder from a copy of it; True where it is whole afterwards.

        Only files whose contents have the hash that is missing are taken.
        """
        if not folder.is_dir():
            return False
        with self._explained(f"the folder {folder}"):
            found = {name: _hash_of(folder / name) for name in _names_under(folder)}
        manifest = _manifest_of(found)
        if hashlib.sha256(manifest).hexdigest() == digest:
            self.put_bytes(manifest)
        for name, content in (self.files(digest) or {}).items():
            if found.get(name) == content and not self.verify_bytes(content):
                self.put_file(folder / name)
        return self.verify(digest)

    def files(self, digest: str) -> dict[str, str] | None:
        """Relative path -> hash of what a stored folder holds; None for a file, and for what is missing or damaged."""
        return self._manifest(digest) if self.verify_bytes(digest) else None

    def sizes(self) -> dict[str, int]:
        """Hash -> bytes of everything that lies here, whether somebody needs it or not."""
        found = {}
        for place in self.folder.glob("[0-9a-f][0-9a-f]/*"):
            with suppress(OSError):
                found[place.parent.name + place.name] = place.stat().st_size
        return found

    # --- reading ------------------------------------------------------------------------------------------------------

    def path(self, digest: str) -> Path:
        """Return where the bytes are. Read only: a change there damages the artefact. The contents are not checked.

        Raises:
            PostgradError: there is no such artefact.
        """
        if not _HASH.fullmatch(digest):
            raise PostgradError(f"'{digest}' is no artefact hash: that is 64 hex digits.")
        path = self._place(digest)
        if not path.is_file():
            raise PostgradError(f"The artefact {digest} is missing from {self.folder}. {self._advice}")
        return path

    def has(self, digest: str) -> bool:
        """True when the artefact is there, and for a folder every file of it; contents are not checked."""
        if not _HASH.fullmatch(digest) or not self._place(digest).is_file():
            return False
        with self._place(digest).open("rb") as file:
            if file.read(len(_MANIFEST)) != _MANIFEST:
                return True
        return all(self._place(content).is_file() for content in (self._manifest(digest) or {}).values())

    def read(self, digest: str) -> bytes:
        """Return the bytes, checked against their hash.

        Raises:
            PostgradError: the artefact is missing or damaged.
        """
        path = self.path(digest)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise PostgradError(f"The artefact {digest} cannot be read: {error.strerror or error} ({path}).") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise self._damaged(digest)
        return data

    def restore_folder(self, digest: str, to: Path) -> None:
        """Write the folder that `put_folder` stored to `to`. Nothing is written unless every file is unharmed.

        Raises:
            UserError: `to` is not empty or cannot be written.
            PostgradError: the manifest or a file is missing or damaged.
        """
        files = self._manifest(digest)
        if files is None:
            raise PostgradError(f"The artefact {digest} is a file, not a folder.")
        for content in files.values():
            if not self.verify_bytes(content):
                self.path(content)
                raise self._damaged(content)
        try:
            to.mkdir(parents=True, exist_ok=True)
            if next(to.iterdir(), None) is not None:
                raise UserError(f"The folder {to} is not empty. Name a new or an empty folder.")
            for name, content in files.items():
                target = to / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    _copy(_chunks(self.path(content)), file)
        except OSError as error:
            raise UserError(
                f"Cannot write to {to}: {error.strerror or error}. Name a folder that can be written and has space."
            ) from error

    def verify(self, digest: str) -> bool:
        """True when the artefact is there and unharmed; for a folder, every file of it too."""
        if not self.verify_bytes(digest):
            return False
        files = self._manifest(digest)
        return files is None or all(self.verify_bytes(content) for content in files.values())

    def whole(self, digest: str) -> bool:
        """As `verify`; what was hashed before, and whose file nobody touched since, is not hashed again."""
        if not _HASH.fullmatch(digest):
            return False
        kind = self._whole_bytes(digest)
        if kind != FOLDER:
            return kind is not None
        if not self.verify_bytes(digest):  # A list is small, and there are few.
            self._checked.drop(digest)
            return False
        files = self._manifest(digest)
        return files is None or all(self._whole_bytes(content) is not None for content in files.values())

    def _whole_bytes(self, digest: str) -> str | None:
        """FOLDER or FILE where the bytes of this one artefact are whole, else None."""
        path = self._place(digest)
        if (kind := self._checked.kind(digest, path)) is None and self.verify_bytes(digest):
            kind = self._kind(digest)
            self._checked.add(digest, kind, path)
        return kind

    def _kind(self, digest: str) -> str:
        with self._place(digest).open("rb") as file:
            return FOLDER if file.read(len(_MANIFEST)) == _MANIFEST else FILE

    def forget_checks(self) -> None:
        """Let go of what `whole` holds in memory."""
        self._checked.forget()

    def verify_bytes(self, digest: str) -> bool:
        """True when the bytes of this one artefact are there and unharmed."""
        if not _HASH.fullmatch(digest):
            return False
        state = hashlib.sha256()
        try:
            for chunk in _chunks(self._place(digest)):
                state.update(chunk)
        except OSError:
            return False
        return state.hexdigest() == digest

    @property
    def _advice(self) -> str:
        """What to do where bytes are gone."""
        return (
            f"`postgrad resume {self.folder.parent.name}` makes it again where it can be made again; else bring back "
            "the folder from a copy of the run, or start a new run."
        )

    def _damaged(self, digest: str) -> PostgradError:
        self._checked.drop(digest)
        return PostgradError(
            f"The artefact {digest} is damaged: its contents do not match its hash ({self._place(digest)}). "
            f"{self._advice}"
        )

    def _place(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest[2:]

    def _manifest(self, digest: str) -> dict[str, str] | None:
        """Return relative path -> hash, or None when the artefact is no folder."""
        with self.path(digest).open("rb") as file:
            if file.read(len(_MANIFEST)) != _MANIFEST:
                return None
        files = _files_in(self.read(digest))
        for name in files or ():
            pure = PurePosixPath(name)
            if pure.is_absolute() or ".." in pure.parts:
                raise PostgradError(f"The artefact {digest} names a file outside its folder: {name}")
        return files


def _files_in(data: bytes) -> dict[str, str] | None:
    """Read a manifest: relative path -> hash; None when the bytes only begin like one."""
    try:
        files = json.loads(data)["files"]
    except ValueError:
        return None
    if not isinstance(files, dict):
        return None
    return files if all(isinstance(name, str) and _HASH.fullmatch(name) for name in files.values()) else None


def _manifest_of(files: Mapping[str, str]) -> bytes:
    return _MANIFEST + json.dumps(files, separators=(",", ":")).encode() + b"}"


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _copy(chunks: Iterator[bytes], file: BinaryIO) -> str:
    """Write chunks to a file; return the hash of what was written."""
    state = hashlib.sha256()
    for chunk in chunks:
        state.update(chunk)
        file.write(chunk)
    return state.hexdigest()


def _names_under(folder: Path) -> list[str]:
    """Return the relative POSIX paths of all files under a folder, sorted."""
    if not folder.is_dir():
        raise PostgradError(f"Cannot store the folder {folder}: there is none.")
    names = []
    for parent, folders, files in os.walk(folder, onerror=_raise):
        for name in (*folders, *files):
            path = Path(parent, name)
            if name in folders and not path.is_symlink():
                continue
            if not path.is_file():
                raise PostgradError(f"Cannot store the folder {folder}: {path} is neither a file nor a plain folder.")
            names.append(path.relative_to(folder).as_posix())
    return sorted(names)


def _raise(error: OSError) -> None:
    raise error


def sync_folder(folder: Path) -> None:
    """Put a folder's list of names on the disk: a rename is lost in a power cut before that."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
