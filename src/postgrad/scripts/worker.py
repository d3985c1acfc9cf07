"""The first program of a script's job, inside the sandbox: it goes to the checkout and becomes the command."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Mapping

CHECKOUT = "work"
NOT_FOUND = 127
# Before the name of a variable: its value is a name in the job's folder, which a cluster puts elsewhere.
PLACE = "place:"


def environment_of(folder: Path, told: Mapping[str, str]) -> dict[str, str]:
    """What a job's command is told, in the folder that the job has."""
    return {
        name.removeprefix(PLACE): str(folder / value) if name.startswith(PLACE) else value
        for name, value in told.items()
    }


def main() -> None:
    folder = Path(sys.argv[1])
    told = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    os.environ.update(environment_of(folder, told["environment"]))
    os.chdir(folder / CHECKOUT)
    try:
        os.execvp(told["command"][0], told["command"])
    except OSError as wrong:
        print(f"{told['command'][0]} cannot be started: {wrong.strerror}", file=sys.stderr)
        sys.exit(NOT_FOUND)


if __name__ == "__main__":
    main()
