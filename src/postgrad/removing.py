"""Removing what a job left, whatever it is."""

from __future__ import annotations

import os
from contextlib import suppress
from glob import escape
from pathlib import Path


def remove_tree(folder: Path) -> None:
    """Remove a folder whatever is in it: folders that cannot be opened, or lie deeper than a path can say.

    Inner folders are moved up before they are emptied, so that no path gets long; those that a killed process had moved
    up go as well. What cannot be removed is left.
    """
    if folder.is_symlink() or not folder.is_dir():
        with suppress(OSError):
            folder.unlink()
        return
    # The first to be emptied lie last.
    waiting = [folder, *(left for left in folder.parent.glob(f"{escape(folder.name)}.*.gone") if left.is_dir())]
    moved = 0
    with suppress(OSError):
        while waiting:
            place = waiting[-1]
            os.chmod(place, 0o700)
            inner = None
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        inner = entry.path
                        break
                    os.unlink(entry.path)
            if inner is None:
                os.rmdir(waiting.pop())
            else:
                moved += 1
                while (raised := folder.with_name(f"{folder.name}.{moved}.gone")).exists():
                    moved += 1
                os.chmod(inner, 0o700)
                os.rename(inner, raised)
                waiting.append(raised)
