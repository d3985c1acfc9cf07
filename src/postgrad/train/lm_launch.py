"""torchrun that ends with whoever started it, and takes its processes along: a job that was killed in the middle leaves
nothing that trains on, where no sandbox ends it either."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run torchrun with the arguments of this program."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:  # It is gone already.
        raise SystemExit(128 + signal.SIGTERM)
    from torch.distributed.run import main as torchrun

    torchrun()


if __name__ == "__main__":
    main()
