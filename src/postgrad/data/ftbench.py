"""The ten tasks of FT-Bench (TREX, Ma et al. 2026, arXiv 2604.14116), each from the official files of its data set.

Every row has `text` and `answer`, and the columns of its official file beside them. Which rows FT-Bench itself trains
and tests on could not be established, so scores are not those of its table. Where a release has no train file, its
rows are split by a hash of the normalised text: equal texts are in one part, whatever the order of the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, Sequence

from postgrad.data.files import Table
from postgrad.data.ftbench_files import RELEASES, File, Release, content
from postgrad.data.text import stable_unit, text_id
from postgrad.errors import UserError, near_miss

PREFIX = "ftbench:"
FTBENCH_INPUT = "text"
FTBENCH_TARGET = "answer"
PARTS = ("train", "dev", "test")
SALT = "ftbench"


def check_ftbench(source: str, root: Path, part: str) -> str:
    """Return the source as it is; `root` plays no part, as names are no paths.

    Raises:
        UserError: no such name, or it has no such part.
    """
    _release(source, part)
    return source


def read_ftbench(source: str, root: Path, part: str, columns: Sequence[str] | None = None) -> Table:
    """Read a part (train, dev, test) of `ftbench:NAME`, in the order of the official files, with all columns.

    Raises:
        UserError: no such name or part, a file is not here and cannot be downloaded, or it is not in its format.
    """
    release = _release(source, part)
    name = f"{source} ({part})"
    rows = [row for file in release.files[part] for row in _rows(file, name)]
    if part in release.slices:
        rows = [row for row in rows if part_of(str(row[FTBENCH_INPUT]), release.slices) == part]
    if not rows:
        raise UserError(f"{name} holds no row: {release.files[part][0].path} is not whole. Remove it, and try again.")
    names = tuple(dict.fromkeys(key for row in rows for key in row))
    return Table(name, names, tuple(enumerate(rows, start=1)), unit="row")


def part_of(text: str, slices: Mapping[str, tuple[float, float]]) -> str | None:
    """The part that a text falls into, by a hash of its normalised form; None for none of them.

    Args:
        slices: part -> the interval of [0, 1) that is its own.
    """
    place = stable_unit(text_id(text), SALT)
    return next((part for part, (low, high) in slices.items() if low <= place < high), None)


def _release(source: str, part: str) -> Release:
    name = source.removeprefix(PREFIX)
    if name not in RELEASES:
        listed = ", ".join(PREFIX + each for each in RELEASES)
        raise UserError(f"There is no built-in data set '{source}'.{near_miss(name, RELEASES)} Known: {listed}.")
    release = RELEASES[name]
    if part not in release.files:
        raise UserError(f"{source} has no {part} part. It has: {', '.join(release.files)}. Leave '{part}' out.")
    return release


def _rows(file: File, name: str) -> list[dict[str, Any]]:
    data = content(file)
    try:
        return list(file.rows(data))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as wrong:
        raise UserError(
            f"{name}: {file.path} is not in the official format ({type(wrong).__name__}: {wrong}). Remove it from the "
            f"folder ftbench under $POSTGRAD_DATA or the cache, and it will be downloaded again."
        ) from wrong
