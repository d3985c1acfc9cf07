"""The contract of a kind of guard. A kind checks what the task file says and measures; it decides nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from postgrad.metrics.items import Items
from postgrad.records import EngineSpec, Estimate, Guard


@dataclass(frozen=True)
class Answered:
    """N answers. `items` has them as numbers; the threshold is applied. `texts` has them as a reader gets them."""

    items: Items
    texts: tuple[str, ...]


@dataclass(frozen=True)
class SavedModel:
    """A final model on the disk.

    Attributes:
        folder: a copy of what the worker saved.
        texts: inputs to ask it, at least one.
        engine: where and under which limits it may run.
        scratch: an empty folder that does not exist yet, for what a measurement needs.
    """

    folder: Path
    texts: tuple[str, ...]
    engine: EngineSpec
    scratch: Path


class Unmeasured(Exception):
    """A guard has no value. The text says why."""


class GuardKind(ABC):
    """One kind of guard. `unit` is written behind its values; `low` and `high` are the values it can have;
    with `takes_folder` its `data` is a folder."""

    unit = ""
    low = 0.0
    high = float("inf")
    takes_data = False
    takes_slice = False
    takes_folder = False

    @abstractmethod
    def title(self, guard: Guard) -> str:
        """What is measured, in a few words: the name of a guard that has none."""

    def problems(self, guard: Guard, rejects: bool) -> Iterator[str]:
        """What is wrong with a guard of the task file, its bounds apart. `rejects`: it has out-of-scope inputs."""
        yield from ()

    def range(self, guard: Guard) -> tuple[float, float]:
        """The lowest and the highest value there can be."""
        return self.low, self.high


class AnswersKind(GuardKind):
    """Measured on answers, of every experiment."""

    takes_data = True
    takes_slice = True

    @abstractmethod
    def measured(self, guard: Guard, answered: Answered, seed: int) -> Estimate:
        """The value over these answers, with its 95 % interval; `n` counts different texts."""


class ModelKind(GuardKind):
    """Measured on the saved model, once for each model that would be the champion."""

    def title(self, guard: Guard) -> str:
        return str(guard.measure)

    @abstractmethod
    def measured(self, guard: Guard, model: SavedModel) -> Estimate:
        """The value, with its 95 % interval where it has one; `n` counts observations.

        Raises:
            Unmeasured: the model could not be loaded, or did not answer.
        """


def about(guard: Guard) -> str:
    """Which answers a guard is about, to be put behind what it measures."""
    if guard.data is not None:
        return f" on {Path(guard.data).stem}"
    if guard.slice is not None:
        return f" where {guard.slice.column} is {guard.slice.equals}"
    return ""
