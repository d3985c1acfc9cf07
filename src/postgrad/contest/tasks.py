"""A task for a contest of which only the training data is given."""

from __future__ import annotations

from pathlib import Path

import yaml

from postgrad.contest.folder import read_contest
from postgrad.errors import UserError

NAME = "task.yaml"


def data_task(folder: Path, data: Path, base_model: str | None, columns: tuple[str, str]) -> Path:
    """Write a task file that trains for answers in words, into the contest's work folder; return it.

    Args:
        data: the rows to train on.
        base_model: a folder or a reference.
        columns: of the input and of the answer.

    Raises:
        UserError: the folder is no contest folder, or no base model is named.
    """
    work = read_contest(folder, ()).work
    if base_model is None:
        raise UserError("Name the base model of the contest: --base-model FOLDER. Only that one may be fine-tuned.")
    is_folder = Path(base_model).expanduser().is_dir()
    fields = {
        "name": "contest",
        "objective": f"Answer as the rows of {data.name} do.",
        "kind": "generation",
        "data": {"train": str(data.absolute()), "input": columns[0], "target": columns[1]},
        "base_models": [f"path:{Path(base_model).expanduser().absolute()}" if is_folder else base_model],
    }
    work.mkdir(exist_ok=True)
    (work / NAME).write_text(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return work / NAME
