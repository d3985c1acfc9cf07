"""A small training repository for the tests of script tasks, and git as a person has it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

TRAIN = "import json\n\nRATE = 0.1\nSTEPS = 10\n\n\ndef main():\n    print(RATE * STEPS)\n\n\nmain()\n"
FILES = {
    "train.py": TRAIN,
    "prepare.py": "VALUE = 1\n",
    "lib/model.py": "class Model:\n    pass\n",
    "text/val.txt": "a hidden line\n",
    "text/sealed.txt": "a sealed line\n",
    "text/train.txt": "a line to learn from\n",
}
HIDDEN = {"search": "text/val.txt", "sealed": "text/sealed.txt"}


def write_source(folder: Path) -> Path:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def git(folder: Path, *arguments: str) -> str:
    """A person's own git: its settings are those of the machine, but for a name."""
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always"]
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(
        [*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
