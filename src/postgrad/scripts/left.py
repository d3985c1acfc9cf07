"""Files that a script left, as the referee may have them: plain files, no links, bounded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Iterator, Sequence

from postgrad.execute.collect import isolation
from postgrad.records import Failure

MOST_FILES, MOST_BYTES = 5_000, 4 << 30


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
            if path.is_symlink() or not path.is_file() or path.stat().st_nlink != 1:
                return isolation("planted_link", f"The script left {name}, which is a link or no plain file")
            total, count = total + path.stat().st_size, count + 1
            if total > MOST_BYTES or count > MOST_FILES:
                said = f"The script left more than {MOST_FILES:,} files or {MOST_BYTES >> 30} GiB for the referee"
                return isolation("oversized", said)
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to / name)
    return None


def _files(place: Path) -> Iterator[Path]:
    if place.is_symlink() or not place.is_dir():
        yield place
        return
    for root, folders, names in os.walk(place):
        yield from (Path(root) / name for name in names)
        yield from (Path(root) / name for name in folders if (Path(root) / name).is_symlink())
