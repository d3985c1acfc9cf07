"""The Python files of a version of a script, as the search for constants reads them."""

from __future__ import annotations

from contextlib import suppress
from typing import Iterator, Sequence

from postgrad.scripts.constants import Constant, constants
from postgrad.scripts.versions import Versions


def sources(versions: Versions, tree: str, editable: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(path, text) of the editable Python files that a version has."""
    changes = versions.changes(tree)
    blobs = {
        path: changes[path][1] if path in changes else versions.source.get(path, "")
        for path in editable
        if path.endswith(".py")
    }
    there = {path: blob for path, blob in blobs.items() if blob}
    for path, data in zip(there, versions.workspace.contents(list(there.values())), strict=True):
        with suppress(UnicodeDecodeError):
            yield path, data.decode("utf-8")


def constants_of(versions: Versions, tree: str, path: str, source: str) -> tuple[Constant, ...]:
    """The constants of one file of a version; its other Python files say which words a constant may be."""
    return constants(path, source, tuple(versions.texts(versions.beside(tree, path)[1:])))
