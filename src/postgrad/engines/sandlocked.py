"""Runs a command under sandlock: `python sandlocked.py PACKAGES RULES COMMAND...`. Started as a file, without Postgrad,
because importing that takes longer than the sandbox itself.

The exit code is the command's, 128 + N for one that signal N ended. Dies with its parent; SIGTERM is for the command.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import Sequence

_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str]) -> int:
    packages, rules, *command = arguments
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.path.append(packages)
    from sandlock import ExitReason, Sandbox

    process = Sandbox(**json.loads(rules)).popen(command)
    ended = process.wait()
    if ended.error:
        print(ended.error, file=sys.stderr)
    if ended.reason is ExitReason.KILLED:
        return 128 + signal.SIGKILL
    return int(128 + ended.signal if ended.signal > 0 else ended.exit_code)


if __name__ == "__main__":
    # Not sys.exit: threads of the supervisor would be waited for.
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)
