"""What a contest folder is: an evaluator, perhaps a timer and test data, and files that nobody may touch."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Mapping

from postgrad.errors import UserError

EVALUATOR, TIMER, FINAL_MODEL, RESULT, WORK = "evaluate.py", "timer.sh", "final_model", "contest.json", "postgrad"
NEEDED_OPTIONS = ("--model-path", "--json-output-file")
# What evaluators and Python leave behind, and what no evaluator reads.
LEFT_BEHIND = ("__pycache__", "logs", ".git", ".cache")
# What an evaluator would run or render if it appeared beside it.
CODE = (".py", ".pth", ".so", ".sh", ".jinja", ".jinja2")
_OPTION = re.compile(r"""["'](--[a-z][a-z0-9-]*)["']""")


@dataclass(frozen=True)
class Contest:
    """A folder that a contestant is put into.

    Attributes:
        root: the folder, absolute.
        options: the command-line options that its evaluator names.
        own: folders and files below `root` that are the contestant's: final model, base model, work, data.
    """

    root: Path
    options: frozenset[str]
    own: tuple[Path, ...]

    @property
    def evaluator(self) -> Path:
        return self.root / EVALUATOR

    @property
    def work(self) -> Path:
        return self.root / WORK


def read_contest(folder: Path, own: Iterable[Path]) -> Contest:
    """Look at a folder without running anything in it.

    Args:
        own: what is the contestant's besides the folder's usual places.

    Raises:
        UserError: it is no contest folder; the message says what was expected.
    """
    expected = f"Expected a folder with an {EVALUATOR} that takes {' and '.join(NEEDED_OPTIONS)}."
    root = folder.absolute()
    if not root.is_dir():
        raise UserError(f"There is no folder {folder}. {expected}")
    evaluator = root / EVALUATOR
    if not evaluator.is_file():
        raise UserError(f"{folder} is no contest folder: there is no {EVALUATOR} in it. {expected}")
    options = frozenset(_OPTION.findall(evaluator.read_text(encoding="utf-8", errors="replace")))
    if missing := [name for name in NEEDED_OPTIONS if name not in options]:
        raise UserError(f"{folder} is no contest folder: its {EVALUATOR} has no {' and no '.join(missing)}. {expected}")
    places = [root / FINAL_MODEL, root / RESULT, root / WORK, *(path.absolute() for path in own)]
    return Contest(root, options, tuple(dict.fromkeys(places)))


def protected(contest: Contest) -> dict[str, str]:
    """Relative path -> SHA-256 of every file that is not the contestant's: evaluator, templates, timer, test data."""
    found = {}
    for path in sorted(contest.root.rglob("*")):
        parts = path.relative_to(contest.root).parts
        if not path.is_file() or set(parts) & set(LEFT_BEHIND) or is_own(contest, path):
            continue
        with path.open("rb") as file:
            found["/".join(parts)] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def is_own(contest: Contest, path: Path) -> bool:
    """True for what belongs to the contestant, halves of a final model included."""
    if path.relative_to(contest.root).parts[0].startswith(f".{FINAL_MODEL}"):
        return True
    return any(path == own or own in path.parents for own in contest.own)


def touched(before: Mapping[str, str], contest: Contest) -> list[str]:
    """What was changed, removed, or added as code since `before`, in words; empty for nothing."""
    now = protected(contest)
    found = [
        f"{name} was {'changed' if name in now else 'removed'}" for name in before if now.get(name) != before[name]
    ]
    return found + [f"{name} was added" for name in now if name not in before and name.endswith(CODE)]
