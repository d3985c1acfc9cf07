"""The contract of a training backend. Backends run inside a worker process only, and never see an evaluation label."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Mapping, Protocol, Sequence

from postgrad.records import Dimension, Generation, Record, Row, Value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Outputs:
    """What a model says about N inputs, K in-scope labels.

    Attributes:
        probs: (N, K) float32, rows sum to 1: the share of each in-scope label, given that the input is in scope.
        score: (N,) float32: how surely the input is in scope. Higher is surer. An input is rejected when score < t.
    """

    probs: NDArray[np.float32]
    score: NDArray[np.float32]


@dataclass(frozen=True)
class Texts:
    """What a model answers to N inputs in its own words.

    Attributes:
        texts: the answers, without stop texts.
        tokens: (N,) int64: how many tokens each answer took, the end token included.
    """

    texts: tuple[str, ...]
    tokens: NDArray[np.int64]


def cut(answer: str, most_tokens: int) -> str:
    """An answer that was not generated, within the limit of those that are: so many words."""
    words = answer.split(" ")
    return answer if len(words) <= most_tokens else " ".join(words[:most_tokens])


def labelled(found: Outputs | Texts) -> Outputs:
    """What a model says of a job with labels."""
    assert isinstance(found, Outputs), "a job with labels is answered with them"
    return found


Grade = Callable[[Sequence[Row], Sequence[str]], Sequence[float]]


@dataclass(frozen=True)
class FitJob:
    """Everything a backend may use to train one model.

    Attributes:
        rows: training rows after the recipe's data steps; rows whose label is `out_of_scope` are negatives.
        labels: the in-scope labels, in the order of the columns of `Outputs.probs`. Some may have no row. Empty where
            answers are texts: then the rows' labels are what is to be answered.
        out_of_scope: the label of negatives, or None where the task has none.
        params: validated `Backend.Params`.
        base_model: local folder of the base model, or None.
        seed: the only source of randomness; same seed, same rows, same machine: same outputs.
        threads: how many CPU threads may be used.
        checkpoint: folder for checkpoints; a killed training that is started again with the same folder goes on.
        report: called with (step, loss) now and then.
        generation: how a language model is asked.
        grade: what answers in words to some of the rows are worth, in [0, 1], as the task's metric has it for each by
            itself; NaN where it has nothing to say. None where answers are labels.
        models: folders of other models that the recipe names, by their names.
        environments: folders of the isolated environments that were built for the recipe.
        calibration: what earlier jobs of this backend measured, by name, where it reckons with that.
        most_s: seconds that there are for this training; None for no limit.
        measure: called with (name, value) for what the next jobs are to reckon with; None where this is not the first
            training of its process, which finds memory that the one before it gave back.
    """

    rows: tuple[Row, ...]
    labels: tuple[str, ...]
    out_of_scope: str | None
    params: Record
    base_model: Path | None
    seed: int
    threads: int
    checkpoint: Path
    report: Callable[[int, float], None] = field(default=lambda step, loss: None)
    generation: Generation = Generation()
    grade: Grade | None = None
    models: Mapping[str, Path] = field(default_factory=dict)
    environments: tuple[Path, ...] = ()
    calibration: Mapping[str, float] = field(default_factory=dict)
    most_s: float | None = None
    measure: Callable[[str, float], None] | None = None


class Fitted(Protocol):
    """A trained model, alive inside the worker."""

    def predict(self, texts: Sequence[str]) -> Outputs | Texts:
        """Score texts, or answer them where the job had no labels. Deterministic."""
        ...

    def save(self, folder: Path) -> None:
        """Write the model to `folder`: data files (safetensors, JSON), never a pickle. `load` reads it back."""
        ...


def digest_of(path: Path) -> str:
    """32 hex digits that name what a file holds: torch reads a changed weight without a word."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


class TrainingDiverged(Exception):
    """The loss or a weight is not a number any more, or the loss has only risen. Becomes Failure(train, nan)."""


def is_out_of_memory(error: BaseException) -> bool:
    """True for Python's, numpy's and torch's ways to say it. torch has no type for it on a CPU, only a text."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory")
    return isinstance(error, RuntimeError | OSError) and any(text in str(error).lower() for text in said)


class CheckFailed(Exception):
    """A check before the compute found what would spoil a training. Becomes Failure(train, `kind`).

    The message says what was found and names the fix.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Backend(Protocol):
    """Trains one kind of model.

    A backend may have `seeded`: False, or a function of the parameters that is, where training with another seed gives
    the same model. Without it, every training is taken to depend on its seed. It may have `answers`: a set of "labels"
    and "words", where it is not labels alone; `environments`, a function of the parameters, where it needs isolated
    ones (see `environments.py`); and `unable`, another, that says why this machine cannot train it, or returns None.
    """

    @property
    def Params(self) -> type[Record]:  # noqa: N802 - a class attribute in every backend
        """The class of its parameters: frozen, with defaults, unknown names refused."""
        ...

    def space(self, params: Mapping[str, Value]) -> dict[str, Dimension]:
        """The numbers that are worth tuning inside the structure that `params` describes."""
        ...

    def nominal_cost(self, params: Mapping[str, Value], rows: int, texts: int) -> float:
        """Rough seconds on one core for training on `rows` and predicting `texts`. Deterministic: a function of its
        arguments only, so that decisions which use it can be replayed."""
        ...

    def fit(self, job: FitJob) -> Fitted:
        """Train.

        Raises:
            TrainingDiverged: the loss is not finite, or has only risen.
        """
        ...

    def load(self, folder: Path) -> Fitted:
        """Read a model that `Fitted.save` wrote."""
        ...
