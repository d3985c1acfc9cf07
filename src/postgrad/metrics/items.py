"""Per-item results as a file: what every experiment answered to every item, so that any two can be paired later."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postgrad.metrics.base import Answers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Items:
    """N items in a fixed order.

    Attributes:
        keys: (N,) str, `UNIT/ITEM_ID`: the same key is the same question in every experiment of a run.
        groups: (N,) str, the row an item was made from; items of one group are not independent.
        answers: the answers.
    """

    keys: NDArray[np.str_]
    groups: NDArray[np.str_]
    answers: Answers

    def take(self, index: NDArray[np.int64]) -> Items:
        """The items at `index`, in that order."""
        a = self.answers
        chosen = Answers(a.truth[index], a.predicted[index], a.argmax[index], a.score[index], a.labels)
        return Items(self.keys[index], self.groups[index], chosen)

    def __len__(self) -> int:
        return len(self.keys)


def dump_items(items: Items) -> bytes:
    """Serialise; equal items give equal bytes."""
    import numpy as np

    buffer = io.BytesIO()
    a = items.answers
    np.savez_compressed(
        buffer,
        keys=items.keys,
        groups=items.groups,
        truth=a.truth,
        predicted=a.predicted,
        argmax=a.argmax,
        score=a.score,
        labels=np.array([a.labels]),
    )
    return buffer.getvalue()


def load_items(data: bytes) -> Items:
    """Read what `dump_items` wrote."""
    import numpy as np

    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        answers = Answers(
            file["truth"], file["predicted"], file["argmax"], file["score"].astype(np.float64), int(file["labels"][0])
        )
        return Items(file["keys"], file["groups"], answers)


def shared_items(first: Items, second: Items) -> tuple[Items, Items]:
    """Both restricted to the items that both answered, in one order."""
    import numpy as np

    _, left, right = np.intersect1d(first.keys, second.keys, assume_unique=True, return_indices=True)
    return first.take(left), second.take(right)
