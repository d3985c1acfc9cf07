"""Versions of a script's files: what each changes of the source, and which of them are the same but for their seeds.

A version is told by what differs from the source, and what is under one of git's names for contents never changes: of
thousands of files only those are read that an experiment touched, each once.
"""

from __future__ import annotations

from functools import cached_property
from heapq import nsmallest
from typing import Mapping, Sequence

from postgrad.records.base import content_hash
from postgrad.scripts.seeds import unseeded
from postgrad.scripts.workspace import Workspace

# Of a repository's other files, so many are looked at for words.
MOST_BESIDE = 20


class Versions:
    """The versions of one run.

    Args:
        protected: paths of the source that no experiment may change.
    """

    def __init__(self, workspace: Workspace, protected: Sequence[str]) -> None:
        self.workspace = workspace
        self._protected = frozenset(protected)
        self._changes: dict[str, Mapping[str, tuple[str, str]]] = {"": {}}
        self._apart: dict[str, frozenset[tuple[str, str]]] = {}
        self._plain: dict[str, str] = {}
        self._first: dict[str, tuple[str, ...]] = {}

    @cached_property
    def source(self) -> Mapping[str, str]:
        """Path -> git's name of the contents, of every file of the source that is no link."""
        return self.workspace.files(self.workspace.baseline, links=False)

    def changes(self, tree: str) -> Mapping[str, tuple[str, str]]:
        """Path -> names of the contents in the source and in a version, "" where a file is missing, of what differs.

        Args:
            tree: the hash of its files; "" for the source.
        """
        if tree not in self._changes:
            self._changes[tree] = self.workspace.differing(self.workspace.baseline, tree)
        return self._changes[tree]

    def apart_from_seeds(self, tree: str) -> frozenset[tuple[str, str]]:
        """What tells a version from the source apart from seeds, comments and layout of its programs: equal for two
        versions that do the same."""
        if tree not in self._apart:
            changes = {path: pair for path, pair in self.changes(tree).items() if path not in self._protected}
            self._read([blob for path, pair in changes.items() if path.endswith(".py") for blob in pair])
            found = set()
            for path, pair in changes.items():
                before, after = map(self._plain.__getitem__, pair) if path.endswith(".py") else pair
                if before != after:
                    found.add((path, after))
            self._apart[tree] = frozenset(found)
        return self._apart[tree]

    def beside(self, tree: str, path: str) -> tuple[str, ...]:
        """Git's names of a file of a version and of the first other programs in it; () where it has no such file."""
        changes = self.changes(tree)
        if tree not in self._first:
            names = {name for name in self.source if name.endswith(".py")}
            names |= {name for name, (_, after) in changes.items() if after and name.endswith(".py")}
            names -= {name for name, (_, after) in changes.items() if not after}
            self._first[tree] = tuple(nsmallest(MOST_BESIDE + 1, names))
        mine, *others = (
            changes[name][1] if name in changes else self.source.get(name, "")
            for name in (path, *[name for name in self._first[tree] if name != path][:MOST_BESIDE])
        )
        return (mine, *others) if mine else ()

    def texts(self, blobs: Sequence[str]) -> list[str]:
        """The contents of files as text; what is no UTF-8 in them is replaced."""
        return [data.decode("utf-8", "replace") for data in self.workspace.contents(blobs)]

    def _read(self, blobs: Sequence[str]) -> None:
        """Learn what programs do without their seeds; of a text that is no Python, itself."""
        self._plain[""] = ""
        new = [blob for blob in dict.fromkeys(blobs) if blob not in self._plain]
        for blob, source in zip(new, self.texts(new), strict=True):
            text = unseeded(source)
            self._plain[blob] = blob if text is None else content_hash(text)
