"""Published files: found on this machine or downloaded from their public homes, and verified. The project has none."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from postgrad.errors import UserError


@dataclass(frozen=True)
class Home:
    """Where the files of a collection are looked for.

    Attributes:
        title: what messages call the collection.
        folder: its folder in $POSTGRAD_DATA, in ../shared/data and in the cache.
        instead: what a person without a network can do, as a sentence after "Connect to the internet once, or".
        max_bytes: of one download.
    """

    title: str
    folder: str
    instead: str
    max_bytes: int = 10_000_000

    @property
    def cache(self) -> Path:
        """Where downloaded files are kept: under $XDG_CACHE_HOME/postgrad, else under ~/.cache/postgrad."""
        base = os.environ.get("XDG_CACHE_HOME")
        return (Path(base) if base else Path.home() / ".cache") / "postgrad" / self.folder

    def local(self, relative: Path, expected: str | None) -> Path | None:
        """The file on this machine, verified where its sha256 is known; None where it is not here.

        Raises:
            UserError: it is here and has another hash.
        """
        set_by_user = os.environ.get("POSTGRAD_DATA")
        named = (Path(set_by_user) / self.folder,) if set_by_user else ()
        for folder in (*named, Path("../shared/data") / self.folder, self.cache):
            if (folder / relative).is_file():
                return verified(folder / relative, expected)
        return None

    def find(self, relative: Path, url: str, expected: str | None) -> Path:
        """The file, downloaded into the cache where it is not on this machine.

        Raises:
            UserError: it has another hash, or it is not here and cannot be downloaded or kept.
        """
        return self.local(relative, expected) or self.download(url, self.cache / relative, expected)

    def download(self, url: str, target: Path, expected: str | None) -> Path:
        """Download a file to `target`, verify it, and return its path.

        Raises:
            UserError: it cannot be downloaded or kept, is too large, or has another hash than expected.
        """
        content = self._fetched(url)
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            verified(partial, expected)
            partial.replace(target)
        except OSError as refused:
            raise UserError(
                f"{target} cannot be written: {refused.strerror or refused}. Set XDG_CACHE_HOME to a folder with space "
                f"that you may write to."
            ) from refused
        finally:
            with suppress(OSError):
                partial.unlink()
        return target

    def _fetched(self, url: str) -> bytes:
        try:
            with urlopen(url, timeout=30) as reply:
                content: bytes = reply.read(self.max_bytes + 1)
        except OSError as offline:
            raise UserError(
                f"{self.title} is not on this machine, and {url} cannot be downloaded: "
                f"{getattr(offline, 'reason', offline)}. Connect to the internet once, or {self.instead}"
            ) from offline
        if len(content) > self.max_bytes:
            raise UserError(
                f"{url} is larger than {self.max_bytes:,} bytes, which the published file is not. Look at it."
            )
        return content


def verified(path: Path, expected: str | None) -> Path:
    """The path, where the file has the expected sha256 or none is known.

    Raises:
        UserError: it has another.
    """
    if expected is None:
        return path
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise UserError(
            f"{path} is not the published file: its sha256 is {found[:12]}..., and {expected[:12]}... was expected. "
            f"Scores on it could not be compared with anyone's. Delete it, and it will be downloaded again."
        )
    return path
