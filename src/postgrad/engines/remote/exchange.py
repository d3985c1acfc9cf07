"""Where controller and nodes lay down what they say to each other about one job: a folder that both see. `posted.py` is
the same below a URL, for machines that share no folder."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from postgrad.engines.remote.laying import copied, lay_over, left_out, move, move_over, remove, stays_here
from postgrad.engines.remote.lease import WORK, Ended, Files
from postgrad.removing import remove_tree

MOST_BYTES = 1 << 26
# What a person looks at while a job runs.
SHOWN = ("progress.json", "log.txt")


class Broken(OSError):
    """What was laid down is not whole: a part is missing, or is not what was put there. It will not come back."""


class Exchange(Files, Protocol):
    """What the controller needs of it. Names are relative, such as `grant.json` and `2/beat.json`.

    Attributes:
        poll_s, show_s: seconds between two looks at a job, and at what a person sees of it.
    """

    poll_s: float
    show_s: float

    @property
    def begun(self) -> bool:
        """False where nothing was laid down yet, for certain."""
        ...

    def address(self, number: int) -> str:
        """How a node finds this attempt: its argument. It holds no secret."""
        ...

    def start_folder(self, number: int) -> str:
        """Where a node's program starts, as the node sees it."""
        ...

    def give(self, job: Path, number: int, *, anew: bool) -> None:
        """Lay down what the attempt begins with: what the last one left, unless it is to begin anew, under the inputs
        as they were handed out."""
        ...

    def tidy(self, number: int) -> None:
        """This attempt was granted: what only earlier ones needed may go."""
        ...

    def show(self, job: Path, number: int) -> None:
        """Copy what a person looks at to the job's folder."""
        ...

    def hand_over(self, job: Path, number: int) -> None:
        """Put what an attempt left in the job's folder, over what lies there: also its inputs, so that changed ones are
        seen.

        Raises:
            Broken: it is not there whole.
            OSError: the machine refuses.
        """
        ...

    def refresh(self) -> None:
        """What is read from now on was not read before."""
        ...

    def closed(self) -> Ended | None:
        """How the job ended, where a controller before this one had seen it and put everything in the job's folder."""
        ...

    def close(self, ended: Ended | None) -> None:
        """Everything is in the job's folder: nothing here is needed any more.

        Args:
            ended: how the job ended; None for one that was stopped, and may begin anew.
        """
        ...


class Shared:
    """A folder that controller and nodes see under the same path."""

    poll_s, show_s = 0.25, 1.0

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def begun(self) -> bool:
        return self.root.is_dir()

    def address(self, number: int) -> str:
        return str(self.root / str(number))

    def start_folder(self, number: int) -> str:
        return self.address(number)

    # --- files ----------------------------------------------------------------------------------------------------

    def read(self, name: str) -> bytes:
        try:
            with (self.root / name).open("rb") as file:
                return file.read(MOST_BYTES)
        except FileNotFoundError:
            if self.root.is_dir():
                raise
            raise OSError(errno.ESTALE, "the shared folder is away", str(self.root)) from None

    def write(self, name: str, data: bytes) -> None:
        """It is on the disk before it has its name."""
        path = self.root / name
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with unfinished.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            with suppress(OSError):
                unfinished.unlink()

    def take(self, name: str, data: bytes) -> bool:
        """Holds on a shared folder: the name is a hard link, which exists once."""
        path = self.root / name
        own = path.with_name(f"{path.name}.{os.getpid()}.own")
        own.write_bytes(data)
        try:
            os.link(own, path)
        except FileExistsError:
            return False
        finally:
            own.unlink()
        return True

    def exists(self, name: str) -> bool:
        return (self.root / name).exists()

    # --- the job's files --------------------------------------------------------------------------------------------

    def work(self, job: str, number: int) -> Path:
        """The folder in which an attempt runs."""
        return self.root / str(number) / WORK / job

    def give(self, job: Path, number: int, *, anew: bool) -> None:
        remove_tree(self.root / str(number))
        work, before = self.work(job.name, number), self.work(job.name, number - 1)
        work.mkdir(parents=True, exist_ok=True)
        if before.is_dir() and not anew:
            lay_over(before, work, left_out)
        shown = frozenset(name for name in SHOWN if anew or os.path.lexists(work / name))
        lay_over(job, work, lambda name: stays_here(name) or name in shown)

    def tidy(self, number: int) -> None:
        """Two copies of a checkpoint are enough: this one and that of the last attempt, in case this is lost early."""
        remove_tree(self.root / str(number - 2) / WORK)

    def show(self, job: Path, number: int) -> None:
        for name in SHOWN:
            unfinished = job / f".{name}.part"
            with suppress(OSError):
                copied(self.work(job.name, number) / name, unfinished)
                move(unfinished, job / name)
            remove(unfinished)

    def hand_over(self, job: Path, number: int) -> None:
        move_over(self.work(job.name, number), job)

    def refresh(self) -> None:
        """It is read each time."""

    def closed(self) -> Ended | None:
        return None

    def close(self, ended: Ended | None) -> None:
        """It stays, and goes with the job's folder: a controller that comes back finds it once more."""
