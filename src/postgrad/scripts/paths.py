"""Names of files that come from outside: which may stand in a repository, and which edits of it hold together."""

from __future__ import annotations

import unicodedata
from typing import Mapping, NamedTuple

from postgrad.quoting import inlined

LONGEST_PATH, LONGEST_NAME = 1_000, 255
REGULAR, EXECUTABLE, LINK, SUBMODULE = "100644", "100755", "120000", "160000"
# Control and format characters, halves of characters, and ends of lines; file systems drop some of them, so that
# another name could turn into ".git".
_REFUSED_KINDS = {"Cc", "Cf", "Cs", "Zl", "Zp"}


class EditRefused(Exception):
    """An edit that cannot be made on a commit. The text says why, for whoever wrote the edit."""


class Entry(NamedTuple):
    """What a commit has at a path: git's mode and the name of the contents."""

    mode: str
    blob: str


def fault(path: str) -> str | None:
    """Why a name cannot stand in the repository of a run, or None: relative, with "/", plain, and not git's own."""
    shown = inlined(path, 200)
    if not path or len(path.encode("utf-8", "replace")) > LONGEST_PATH:
        return f"the path {shown} is empty or longer than {LONGEST_PATH} bytes"
    if any(unicodedata.category(one) in _REFUSED_KINDS for one in path):
        return f"the path {shown} has control or invisible characters"
    if "\\" in path:
        return f"the path {shown} has a backslash; folders are parted with '/'"
    if path.startswith("/"):
        return f"the path {shown} is absolute; paths are relative to the repository"
    for name in path.split("/"):
        if name in ("", ".", ".."):
            return f"the path {shown} has the part '{name}', which may lead out of the repository"
        if len(name.encode("utf-8")) > LONGEST_NAME:
            return f"a part of the path {shown} is longer than {LONGEST_NAME} bytes"
        if name.lower().rstrip(". ").split(":")[0] in (".git", "git~1"):
            return f"the path {shown} is in git's own folder"
        if name.lower() == ".gitmodules":
            return f"{shown} declares submodules, which are not supported: put their files into the repository itself"
    return None


def check_edit(entries: Mapping[str, Entry], files: Mapping[str, bytes | None]) -> None:
    """Refuse an edit that git would take, and that would not leave what it says.

    Args:
        entries: the files of the parent.
        files: path -> new contents, None for a file that goes.

    Raises:
        EditRefused: a path that may not be, a link, a file that is not there, or a file where a folder is.
    """
    for path, data in files.items():
        if (wrong := fault(path)) is not None:
            raise EditRefused(f"{wrong[0].upper()}{wrong[1:]}.")
        before = entries.get(path)
        if before is None and data is None:
            raise EditRefused(f"There is no file {inlined(path, 200)} to delete.")
        if before is not None and before.mode == LINK:
            raise EditRefused(f"{inlined(path, 200)} is a link. Edits change files, never links.")
    after = {path for path in entries if files.get(path, b"") is not None}
    after |= {path for path, data in files.items() if data is not None}
    for path in sorted(after):
        for folder in _folders(path):
            if folder in after:
                raise EditRefused(f"{inlined(folder, 200)} cannot be a file and the folder of {inlined(path, 200)}.")


def _folders(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
