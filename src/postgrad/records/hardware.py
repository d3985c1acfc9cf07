"""What a job ran on, as the machine says it itself: small, and recorded with every job."""

from __future__ import annotations

from postgrad.records.base import Record

MOST_LETTERS = 100


class Hardware(Record):
    """The machine of one job, and the job's part of it. "" and 0 where it is not known.

    Attributes:
        host: the name of the machine. The only field that names one; a kind is told without it.
        cpu: kind of processor, in the words of its maker.
        cores: of the machine that Postgrad may use; `threads` of them are the job's, `bound` says whether it was bound
            to cores that no other job has.
        memory_mb: of the machine.
        device: kind of accelerator that the job saw, with the profile of an instance of MIG; several kinds with "+".
        devices: how many of them it saw. `held`: of these, what counts as its own, in whole devices: an instance of
            MIG is its share of the card's compute slices, a share by MPS its share of the threads.
        device_mb: memory of the first of them.
        driver: version of the accelerator's driver.
        nodes: how many machines like this one it had.
        load: processes that wanted a core when it began, averaged over a minute.
    """

    host: str = ""
    cpu: str = ""
    cores: int = 0
    threads: int = 0
    bound: bool = False
    memory_mb: int = 0
    device: str = ""
    devices: int = 0
    held: float = 0.0
    device_mb: int = 0
    driver: str = ""
    nodes: int = 1
    load: float = 0.0

    @property
    def kind(self) -> str:
        """What decides how fast a training is, in words: the same for two machines of one kind."""
        parts = [
            f"{self.cpu or 'a processor of unknown kind'}, {self.threads} thread{'' if self.threads == 1 else 's'}"
        ]
        if self.devices:
            share = f" ({self.held:g} of one)" if 0 < self.held < self.devices else ""
            parts.append(f"{self.devices} x {self.device}{share}")
        if self.nodes > 1:
            parts.append(f"{self.nodes} nodes")
        return ", ".join(parts)

    @property
    def alike(self) -> Hardware:
        """The same without what differs from job to job."""
        return self.model_copy(update={"load": 0.0})


def joined(first: tuple[Hardware, ...], second: tuple[Hardware, ...]) -> tuple[Hardware, ...]:
    """The machines of two parts of a job in order, each once."""
    seen = {each.alike for each in first}
    return (*first, *(each for each in second if each.alike not in seen))
