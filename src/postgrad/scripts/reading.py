"""The Python files of a version of a script, as the search for constants reads them."""

from __future__ import annotations

from contextlib import suppress
from typing import Iterator, Sequence

from postgrad.scripts.constants import Constant, constants
from postgrad.scripts.edits import edits_for
from postgrad.scripts.versions import Versions

# Groups of kinds: numbers, and whatever else whoever is asked changes in a file.
CONSTANT, PATCH = "constant", "patch"


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


def kinds_for(versions: Versions, editable: Sequence[str]) -> tuple[str, ...]:
    """The kinds of change that are known for the source: its constants, the edits of the table, and patches by file."""
    found = {f"{PATCH}.{path}" for path in editable}
    for path, source in sources(versions, "", editable):
        found |= {f"{CONSTANT}.{one.name}" for one in constants_of(versions, "", path, source)}
        found |= {edit.kind for edit in edits_for(source)}
    return tuple(sorted(found))
