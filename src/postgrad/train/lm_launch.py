"""torchrun that ends with whoever started it, and takes its processes along: a job that was killed in the middle leaves
nothing that trains on, where no sandbox ends it either."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
#: Environment variable with the number of the process that starts this one, which may well be 1 in a sandbox.
PARENT = "POSTGRAD_PARENT"


def main() -> None:
    """Run torchrun with the arguments of this program."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if str(os.getppid()) != os.environ.get(PARENT, str(os.getppid())):  # It is gone already.
        raise SystemExit(128 + signal.SIGTERM)
    from torch.distributed.run import main as torchrun

    torchrun()


if __name__ == "__main__":
    main()
