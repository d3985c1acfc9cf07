"""What a folder with a training script looks like: a first task file for it. Runs nothing, changes nothing."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postgrad.budget import format_duration
from postgrad.errors import UserError

SCRIPTS = ("train.py", "main.py", "run.py")
REFEREES = ("referee.py", "evaluate.py", "eval.py")
# Numbers that training scripts print, and which way is better.
PRINTED = {
    "val_bpb": "min",
    "val_loss": "min",
    "valid_loss": "min",
    "eval_loss": "min",
    "test_loss": "min",
    "perplexity": "min",
    "val_accuracy": "max",
    "val_acc": "max",
    "accuracy": "max",
}
TIME_NAMES = ("TIME_BUDGET", "TIME_BUDGET_S", "TIME_LIMIT", "MAX_SECONDS")
MOST_BYTES = 2_000_000


@dataclass(frozen=True)
class Layout:
    """What was recognised.

    Attributes:
        autoresearch: the folder has the files of autoresearch: `prepare.py`, `train.py`, `program.md`.
        fields: keys of the section `script`.
        notes: what a person should look at, in sentences.
    """

    autoresearch: bool
    fields: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def objective(self) -> str:
        """A first objective."""
        way = "Lower" if self.fields["direction"] == "min" else "Raise"
        return f"{way} {self.fields['metric']} within the same training time."


def recognised(folder: Path) -> Layout:
    """Look at a folder.

    Raises:
        UserError: there is no such folder, or no training script in it that is known by its name.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. Name the folder or repository of the training script.")
    script = next((name for name in SCRIPTS if (folder / name).is_file()), None)
    if script is None:
        raise UserError(
            f"{folder} has no {', '.join(SCRIPTS)}, so which script trains is not known. Write a task file with kind: "
            "script, and name it in script.editable and script.run; docs/scripts.md has an example."
        )
    texts = {path.name: _text(path) for path in sorted(folder.glob("*.py"))}
    referee = next((name for name in REFEREES if name in texts), None)
    seconds = _time(texts)
    metric, direction = _metric(texts)
    fields: dict[str, Any] = {
        "source": ".",
        "editable": [script],
        "run": f"python {script}",
        "time": format_duration(seconds or 300.0),
        "metric": metric,
        "direction": direction,
    }
    notes = []
    if seconds is None:
        notes.append("The time of one training was not found: 5m is written, and told to it in POSTGRAD_TIME_S.")
    if referee is not None:
        fields |= {"referee": f"python {referee}", "leaves": ["out"]}
        notes.append(f"{referee} is taken for the referee: see docs/scripts.md for what it has to read and write.")
    else:
        fields["printed"] = metric
        notes.append(
            f"The number is what {script} prints as '{metric}:', its own word, so results are marked untrusted. A "
            "referee command makes them evidence."
        )
    autoresearch = all((folder / name).is_file() for name in ("prepare.py", "train.py", "program.md"))
    return Layout(autoresearch, fields, tuple(notes))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _time(texts: dict[str, str]) -> float | None:
    """Seconds of training, from a constant that says so."""
    for text in texts.values():
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError):
            continue
        for node in tree.body:
            if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Constant):
                continue
            target, value = node.targets[0], node.value.value
            is_time = isinstance(target, ast.Name) and target.id in TIME_NAMES
            if is_time and isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                return float(value)
    return None


def _metric(texts: dict[str, str]) -> tuple[str, str]:
    """The number that is printed, and which way is better."""
    whole = "\n".join(texts.values())
    for name, direction in PRINTED.items():
        if re.search(rf"\b{name}\s*:", whole):
            return name, direction
    return "val_loss", "min"
