"""The first program of a script's job, inside the sandbox: it goes to the checkout and becomes the command."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

CHECKOUT = "work"
NOT_FOUND = 127
# Before the name of a variable: its value is a name in the job's folder, which a cluster puts elsewhere.
PLACE = "place:"


def main() -> None:
    folder = Path(sys.argv[1])
    told = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    for name, value in told["environment"].items():
        os.environ[name.removeprefix(PLACE)] = str(folder / value) if name.startswith(PLACE) else value
    os.chdir(folder / CHECKOUT)
    try:
        os.execvp(told["command"][0], told["command"])
    except OSError as wrong:
        print(f"{told['command'][0]} cannot be started: {wrong.strerror}", file=sys.stderr)
        sys.exit(NOT_FOUND)


if __name__ == "__main__":
    main()
