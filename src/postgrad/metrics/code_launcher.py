"""Runs a command under sandlock: `python code_launcher.py PACKAGES RULES COMMAND...`, started by `code_box.py`.

Dies with its parent; the exit code says nothing, because nobody believes it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import Sequence

_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str]) -> None:
    packages, rules, *command = arguments
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.path.append(packages)
    from sandlock import Sandbox

    Sandbox(**json.loads(rules)).popen(command).wait()


if __name__ == "__main__":
    main(sys.argv[1:])
    os._exit(0)  # threads of the supervisor would be waited for
