"""What an experiment changed in the files of a script, and what became of the source since, read off the run's
repository."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Iterator

from postgrad.quoting import escaped, inlined
from postgrad.records import Recipe, ScriptSpec
from postgrad.scripts.session import tree_of
from postgrad.scripts.workspace import HIDDEN, REPO, Workspace

LONGEST = 20_000
# Files that are named when the source is not what it was.
SHOWN = 5


def is_script(recipe: Recipe) -> bool:
    """True for a version of a script's files."""
    return recipe.stage.backend == "script"


def diff_of(folder: Path, run: str, before: Recipe | None, after: Recipe) -> str:
    """The difference for a screen: its control characters are escaped, and it is cut; "" where the files are the same.

    Args:
        folder: of the run.
        before: None for the source as it was given.

    Raises:
        UserError: the run has no repository, or git is missing.
    """
    lines = patch_of(folder, run, before, after).splitlines()
    return "\n".join(escaped(line) for line in lines)[:LONGEST]


def patch_of(folder: Path, run: str, before: Recipe | None, after: Recipe) -> str:
    """The same as `git apply` takes it.

    Raises:
        UserError: as `diff_of`.
    """
    workspace = Workspace.open(folder.resolve(), run)
    old = (tree_of(before) if before is not None else "") or workspace.baseline
    new = tree_of(after) or workspace.baseline
    return workspace.diff(workspace.tree_of(old), workspace.tree_of(new))


def source_since(folder: Path, run: str, script: ScriptSpec) -> str:
    """What became of the source since it was imported, and what that means for the run; "" where its files are the
    same, or it was not imported yet. New files beside them are left out.

    Args:
        folder: of the run.

    Raises:
        UserError: git is missing.
    """
    source, kept = Path(script.source), folder / REPO
    if not kept.is_dir():
        return ""
    if not source.is_dir():
        what = f"The source {source} is gone."
    elif differs := list(_differing(folder.resolve(), run, script)):
        more = f" and {len(differs) - SHOWN} more" if len(differs) > SHOWN else ""
        what = f"The source {source} is not what it was: {', '.join(differs[:SHOWN])}{more}."
    else:
        return ""
    return (
        f"{what} This run keeps to the files that it began with, which lie in {kept}: nothing of it depends on the "
        "source any more. A new run begins with what the source is now."
    )


def _differing(folder: Path, run: str, script: ScriptSpec) -> Iterator[str]:
    """The files of the source that are not as they were imported, with what became of them."""
    source, workspace = Path(script.source), Workspace.open(folder, run)
    known = dict(workspace.files(workspace.baseline))
    for split, name in script.hidden.items():
        place = folder / HIDDEN / split / Path(name).name
        for file in [place] if place.is_file() else sorted(each for each in place.rglob("*") if each.is_file()):
            known[(Path(name) / file.relative_to(place)).as_posix()] = _blob(file)
    for path, blob in sorted(known.items()):
        now = _blob(source / path)
        if now != blob:
            yield f"{inlined(path, 100)} {'was changed' if now else 'is gone'}"


def _blob(path: Path) -> str:
    """git's hash of a file or link; "" where it cannot be read."""
    try:
        data = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
    except OSError:
        return ""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
