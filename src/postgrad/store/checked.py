"""Which artefacts were hashed and found whole, and how their files were then: what was not touched since is not hashed
again when a run goes on.

Size, times and inode of a file are what the file system says of it: whoever writes to a file, cuts it off or puts
another one in its place changes them, also where he sets the time of the last change himself. What they cannot show is
a disk that gives other bytes back than were written: that is found when an artefact is read, which always takes its
hash, and then it counts as not checked.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

NAME = "checked"
FOLDER, FILE, GONE = "d", "f", "-"
LETTERS = 64


def state_of(path: Path) -> str:
    """What the file system says of a file.

    Raises:
        OSError: there is none.
    """
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


class Checked:
    """Lines of `artifacts/checked`: a hash, whether it is the list of a folder, and the state of its file. The last
    line of a hash holds; a line that was cut off is none. It is a help and no record: without it everything is hashed.

    Args:
        folder: of the artefacts.
    """

    def __init__(self, folder: Path) -> None:
        self._place = folder / NAME
        self._known: dict[str, tuple[str, str]] | None = None

    def kind(self, digest: str, path: Path) -> str | None:
        """FOLDER or FILE, where the artefact was whole and nobody touched its file since; else None."""
        if self._known is None:
            self._known = self._read()
        kind, state = self._known.get(digest, (GONE, ""))
        with suppress(OSError):
            if kind != GONE and state_of(path) == state:
                return kind
        return None

    def add(self, digest: str, kind: str, path: Path) -> None:
        """It is whole now: its bytes have been hashed, or written by us."""
        with suppress(OSError):
            self._write(digest, kind, state_of(path))

    def drop(self, digest: str) -> None:
        """It is not, whatever its file looks like."""
        self._write(digest, GONE, "")

    def forget(self) -> None:
        """Hold nothing in memory any more; the file stays."""
        self._known = None

    def _write(self, digest: str, kind: str, state: str) -> None:
        with suppress(OSError), self._place.open("a", encoding="ascii") as file:
            file.write(f"{digest} {kind} {state}\n")
        if self._known is not None:
            self._known[digest] = (kind, state)

    def _read(self) -> dict[str, tuple[str, str]]:
        known: dict[str, tuple[str, str]] = {}
        with suppress(OSError, ValueError), self._place.open(encoding="ascii") as file:
            for line in file:
                digest, _, rest = line.partition(" ")
                kind, _, state = rest.partition(" ")
                if len(digest) == LETTERS and kind in (FOLDER, FILE, GONE) and state.endswith("\n"):
                    known[digest] = (kind, state.rstrip("\n"))
        return known
