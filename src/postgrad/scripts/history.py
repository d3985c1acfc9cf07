"""What an experiment changed in the files of a script, read off the run's repository."""

from __future__ import annotations

from pathlib import Path

from postgrad.quoting import escaped
from postgrad.records import Recipe
from postgrad.scripts.session import tree_of
from postgrad.scripts.workspace import Workspace

LONGEST = 20_000


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
