"""Files that a script left, as the referee may have them: plain files, no links, no code, bounded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Iterator, Sequence

from postgrad.execute.collect import isolation
from postgrad.execute.files import plain_text
from postgrad.records import Failure
from postgrad.scripts.paths import fault

MOST_FILES, MOST_BYTES = 5_000, 4 << 30
# What the referee could run without knowing: a folder `out` with an `__init__.py` goes before a module `out`.
CODE = (".py", ".pyc", ".so", ".pyd", ".dylib")


def hand_over(checkout: Path, leaves: Sequence[str], to: Path) -> Failure | None:
    """Copy what a script was to leave; the failure that it is where it is missing or no data.

    Args:
        to: another checkout, without these files.
    """
    total = count = 0
    for leaf in leaves:
        place = checkout / leaf
        if not place.exists() and not place.is_symlink():
            return Failure(boundary="predict", kind="nothing_left", message=f"The script ended and left no {leaf}.")
        for path in _files(place):
            name = path.relative_to(checkout)
            if (wrong := _fault(checkout, path, leaf)) is not None:
                return wrong
            total, count = total + path.stat().st_size, count + 1
            if total > MOST_BYTES or count > MOST_FILES:
                said = f"The script left more than {MOST_FILES:,} files or {MOST_BYTES >> 30} GiB for the referee"
                return isolation("oversized", said)
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(path, to / name)
            except PermissionError:
                said = f"The script left {name}, which nobody may read."
                return Failure(boundary="predict", kind="nothing_left", message=said)
    return None


def _fault(checkout: Path, path: Path, leaf: str) -> Failure | None:
    """What is wrong with one of the files."""
    name = path.relative_to(checkout)
    shown = plain_text(str(name), 200)
    if fault(name.as_posix()) is not None:
        return isolation("planted_name", f"The script left {shown}, a name that no repository may have")
    above = [place for place in path.parents if place.is_relative_to(checkout) and place != checkout]
    if any(place.is_symlink() for place in (path, *above)) or not path.is_file() or path.stat().st_nlink != 1:
        return isolation(
            "planted_link", f"The script left {shown}, which is a link, lies behind one, or is no plain file"
        )
    if path.suffix.lower() in CODE and name != Path(leaf):
        said = f"The script left {shown}, which is code, and the referee reads data. Name it in script.leaves"
        return isolation("planted_code", said)
    return None


def _files(place: Path) -> Iterator[Path]:
    if place.is_symlink() or not place.is_dir():
        yield place
        return
    for root, folders, names in os.walk(place):
        yield from (Path(root) / name for name in names)
        yield from (Path(root) / name for name in folders if (Path(root) / name).is_symlink())
