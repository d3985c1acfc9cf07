"""The contract of a metric. Metrics belong to the referee and run outside the worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Mapping, NamedTuple, Protocol, Sequence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Answers:
    """N scored items.

    Attributes:
        truth: (N,) int64, index of the true label; -1 is out of scope.
        predicted: (N,) int64, index of the answered label; -1 is a rejection.
        argmax: (N,) int64, the answer had nothing been rejected.
        score: (N,) float64, how surely in scope.
        labels: number of in-scope labels, K.
    """

    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    argmax: NDArray[np.int64]
    score: NDArray[np.float64]
    labels: int

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, index: NDArray[np.int64]) -> Answers:
        """The items at `index`, in that order."""
        return Answers(
            self.truth[index], self.predicted[index], self.argmax[index], self.score[index], labels=self.labels
        )


class Metric(Protocol):
    """One number over items, higher is better, defined for weighted items so that it can be bootstrapped."""

    low: float
    high: float
    needs_out_of_scope: bool

    def values(self, answers: Answers, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (B,) values for (B, N) non-negative item weights. All-ones weights give the plain metric.

        NaN where it is not defined (no in-scope item, one class only): unscored, which is not zero.
        """
        ...


class Answered(NamedTuple):
    """One question, what was to be answered, and what a model answered.

    Attributes:
        tokens: how many tokens the answer took.
        check: what the answer is graded with where that is more than `reference` (`Row.check`), else "".
        verdicts: what a judge said of the answer against the reference, once with the answer in the first place and
            once with the reference there: 1 the answer is better, 0 the reference is, 0.5 neither. Empty where no
            judge was asked.
    """

    input: str
    reference: str
    answer: str
    tokens: int = 0
    check: str = ""
    verdicts: tuple[float, ...] = ()


@dataclass(frozen=True)
class Graded:
    """N answers in words, with what each metric needs to know of each.

    Attributes:
        answered: questions, what was to be answered, and the answers.
        parts: metric name -> (N, S) float64; a row of NaN is an item that the metric leaves unscored. What a column is
            may depend on all references that were graded together, so parts are cut, and never put together.
    """

    answered: tuple[Answered, ...]
    parts: Mapping[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.answered)

    @property
    def texts(self) -> tuple[str, ...]:
        """The answers."""
        return tuple(each.answer for each in self.answered)

    def take(self, index: NDArray[np.int64]) -> Graded:
        """The items at `index`, in that order."""
        parts = {name: part[index] for name, part in self.parts.items()}
        return Graded(tuple(self.answered[i] for i in index), parts)


class TextMetric(Protocol):
    """One number over answers in words, higher is better, defined for weighted items so that it can be bootstrapped.

    Attributes:
        name: its name in the table.
        low, high: the values it can have.
        dear: True where grading takes long or needs more than the answer: it is computed where a task asks for it.
    """

    name: str
    low: float
    high: float
    dear: bool

    def grade(self, items: Sequence[Answered]) -> NDArray[np.float64]:
        """Return (N, S) numbers, what `values` needs to know of each item; a row of NaN where an item cannot be scored,
        which is not zero. Deterministic. No answer, whatever is in it, makes this fail."""
        ...

    def values(self, parts: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (B,) values for (N, S) parts under (B, N) non-negative weights; unscored items do not count. NaN where
        it is not defined. All-ones weights give the plain metric."""
        ...
