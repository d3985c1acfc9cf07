"""How much memory and time a training of a language model will take: reckoned before it, measured in its first steps.

What was measured goes back to the controller, and the next job of the run reckons with it.
"""

from __future__ import annotations

import gc
import os
import resource
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Callable

from postgrad.train.base import CheckFailed, FitJob, is_out_of_memory
from postgrad.train.lm_tuning import Tuning

# The engine sets the kernel's limit on a job's data at twice its memory and a gigabyte (engines/local.py).
SPARE_MB = 1024
MEMORY_SHARE = 0.6
# Floats that a layer keeps for each token until the backward pass, by the widths of a Llama layer: inputs of two norms,
# of four attention matrices, of attention and of its output; three intermediate values of the feed-forward part.
HIDDEN_FLOATS, INNER_FLOATS, LOGIT_FLOATS = 12, 4, 3
# Steps that are measured, and how far the time they foretell may be over what is left before the training is given up.
PROBED, PATIENCE = 5, 1.25
# What was measured corrects the reckoning within these bounds: a first step alone can say odd things.
LEAST_FACTOR, MOST_FACTOR = 0.5, 4.0
#: Under this name, a job measures what its memory grew by against what was reckoned.
MEMORY = "memory_factor"


@dataclass(frozen=True)
class Needs:
    """Megabytes that a training takes.

    Attributes:
        model: the weights.
        moments: gradients and what the optimizer keeps of each trained weight.
        row: what one row keeps until its backward pass.
    """

    model: float
    moments: float
    row: float

    def grown(self, at_once: int) -> float:
        """What is taken beside the weights with so many rows at once."""
        return self.moments + at_once * self.row

    def micro(self, batch: int, room_mb: float, factor: float = 1.0) -> int:
        """The most rows that go through the model at once: the largest divisor of `batch` that fits, at least 1."""
        fits = int((room_mb - self.model - factor * self.moments) // (factor * self.row))
        return max(size for size in range(1, batch + 1) if batch % size == 0 and size <= max(1, fits))


def needs_of(params: Tuning, model: Any, tokens: int, asked: int) -> Needs:
    """What a training of `model` takes.

    Args:
        tokens: of the longest row.
        asked: tokens of it that carry loss, at most.
    """
    config = model.config.get_text_config()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    inner = getattr(config, "intermediate_size", 4 * config.hidden_size)
    floats = HIDDEN_FLOATS * config.hidden_size + INNER_FLOATS * inner
    if params.gradient_checkpointing:
        floats = config.hidden_size
    row = 4 * (tokens * config.num_hidden_layers * floats + asked * LOGIT_FLOATS * config.vocab_size)
    return Needs(4 * sum(p.numel() for p in model.parameters()) / 1e6, 12 * trained / 1e6, row / 1e6)


def room_mb(device: str) -> float:
    """What a training may use of the memory of this machine."""
    return MEMORY_SHARE * memory_mb(device)


def memory_mb(device: str) -> float:
    """What a job may use on this machine: its own limit, or half of what there is. On a CPU its processes share that;
    torchrun tells each how many there are on this node."""
    import psutil

    if device == "cuda":
        import torch

        return float(torch.cuda.get_device_properties(0).total_memory / 1e6)
    physical = float(psutil.virtual_memory().total / 2e6)
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    whole = physical if limit == resource.RLIM_INFINITY else min(physical, (limit / 2**20 - SPARE_MB) / 2)
    return whole / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


class Probe:
    """The first steps of a training, against what was reckoned of it."""

    def __init__(self, job: FitJob, needs: Needs, at_once: int, steps: int, device: str = "cpu") -> None:
        self.job, self.needs, self.at_once, self.steps, self.device = job, needs, at_once, steps, device
        self.before_mb = held_mb(device)
        self.ends: list[float] = [time.monotonic()]
        forget_peak(device)
        print(
            f"reckoned: {needs.model + needs.grown(at_once):,.0f} MB with {at_once} rows at once, {steps} steps",
            flush=True,
        )

    def stepped(self) -> None:
        """Called after every step.

        Raises:
            CheckFailed: the training would take far longer than the job may.
        """
        if len(self.ends) > PROBED:
            return
        self.ends.append(time.monotonic())
        if len(self.ends) <= PROBED:
            return
        # The first step holds what is done once.
        each = median(after - before for before, after in zip(self.ends[1:-1], self.ends[2:], strict=True))
        left = each * (self.steps - PROBED)
        print(f"measured: {each:.2f} s a step, about {left:,.0f} s to go", flush=True)
        self._measure_memory()
        most = self.job.most_s
        if most is not None and (whole := self.ends[-1] - self.ends[0] + left) > PATIENCE * most:
            raise CheckFailed(
                "too_slow",
                f"a step takes {each:.1f} s here, so {self.steps} steps take {whole:,.0f} s, and this job has "
                f"{most:,.0f} left. Take fewer epochs or rows, a smaller base model, or raise engine.job_wall_s.",
            )

    def _measure_memory(self) -> None:
        if self.job.measure is None:
            return
        grown, reckoned = peak_mb(self.device) - self.before_mb, self.needs.grown(self.at_once)
        self.job.measure(MEMORY, min(MOST_FACTOR, max(LEAST_FACTOR, grown / max(1.0, reckoned))))
        print(f"measured: {grown:,.0f} MB beside the weights, {reckoned:,.0f} were reckoned", flush=True)


def within_memory(at_once: int, batch: int, train: Callable[[int], None], keep: Callable[[], None]) -> None:
    """Train; where memory runs out, once more with half as many rows at once, which gives the same gradients.

    Args:
        at_once: rows that go through the model at once, a divisor of `batch`.
        train: trains with so many rows at once, from the newest checkpoint.
        keep: makes a checkpoint of the steps that were done before memory ran out.
    """
    try:
        train(at_once)
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error) or at_once == 1:
            raise
        fewer = max(size for size in range(1, at_once // 2 + 1) if batch % size == 0)
        said = f"out of memory with {at_once} rows at once ({error}): once more with {fewer}"
        # What the traceback holds on to is what there was no room for.
        error.__traceback__ = None
        print(said[:500], flush=True)
        keep()
        gc.collect()
    else:
        return
    train(fewer)


def held_mb(device: str) -> float:
    """What this process holds now."""
    import psutil

    if device == "cuda":
        import torch

        return torch.cuda.memory_allocated() / 1e6
    return float(psutil.Process().memory_info().rss / 1e6)


def forget_peak(device: str) -> None:
    """Let the peak of memory be that of what comes from here on, where the system lets us."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mb(device: str) -> float:
    """The most that this process held since `forget_peak`, or since it began."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e6
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
