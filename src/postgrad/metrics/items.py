"""Per-item results as a file: what every experiment answered to every item, so that any two can be paired later."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Sequence

from postgrad.metrics import metric_of
from postgrad.metrics.base import Answered, Answers, Graded, Metric, TextMetric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PART = "part:"


@dataclass(frozen=True)
class Items:
    """N items in a fixed order.

    Attributes:
        keys: (N,) str, `UNIT/ITEM_ID`: the same key is the same question in every experiment of a run.
        groups: (N,) str, the row an item was made from; items of one group are not independent.
        answers: the answers, as labels or in words.
    """

    keys: NDArray[np.str_]
    groups: NDArray[np.str_]
    answers: Answers | Graded

    def take(self, index: NDArray[np.int64]) -> Items:
        """The items at `index`, in that order."""
        return Items(self.keys[index], self.groups[index], self.answers.take(index))

    @property
    def labelled(self) -> Answers:
        """The answers of a task with labels. Whoever reads labels asks for this."""
        assert isinstance(self.answers, Answers), "answers in words have no labels"
        return self.answers

    def __len__(self) -> int:
        return len(self.keys)


# --- metrics over either form -----------------------------------------------------------------------------------------


def values_of(
    metric: Metric | TextMetric, answers: Answers | Graded, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(B,) values of a metric over answers of its form, under (B, N) weights."""
    if isinstance(answers, Graded):
        return as_text_metric(metric).values(answers.parts[as_text_metric(metric).name], weights)
    return as_label_metric(metric).values(answers, weights)


def as_text_metric(metric: Any) -> TextMetric:
    assert hasattr(metric, "grade"), f"{type(metric).__name__} is about labels, and the answers are in words"
    found: TextMetric = metric
    return found


def as_label_metric(metric: Any) -> Metric:
    assert not hasattr(metric, "grade"), f"{type(metric).__name__} is about words, and the answers are labels"
    found: Metric = metric
    return found


def differing(metric: Metric | TextMetric, first: Items, second: Items) -> NDArray[np.bool_]:
    """(N,) whether two models' answers to the same items differ, as far as a metric can see."""
    import numpy as np

    if isinstance(first.answers, Graded) and isinstance(second.answers, Graded):
        name = as_text_metric(metric).name
        a, b = first.answers.parts[name], second.answers.parts[name]
        same: NDArray[np.bool_] = ((a == b) | (np.isnan(a) & np.isnan(b))).all(axis=1)
        return ~same
    one, two = first.labelled, second.labelled
    differ: NDArray[np.bool_] = one.predicted != two.predicted
    if getattr(metric, "reads_score", False):
        differ = differ | (one.score != two.score)
    return differ


def grade(answered: Sequence[Answered], metrics: Sequence[str]) -> Graded:
    """Let metrics grade answers in words, all together."""
    return Graded(tuple(answered), {name: as_text_metric(metric_of(name)).grade(answered) for name in metrics})


def each(metric: TextMetric, answered: Sequence[Answered]) -> NDArray[np.float64]:
    """(N,) what a metric makes of each answer by itself, graded alone; NaN where it has nothing to say."""
    import numpy as np

    one = np.ones((1, 1))
    return np.array([metric.values(metric.grade([answer]), one)[0] for answer in answered], dtype=np.float64)


# --- joining, and the file --------------------------------------------------------------------------------------------


def join(parts: Sequence[Items]) -> Items:
    """Items of several units as one."""
    import numpy as np

    keys, groups = (np.concatenate(found) for found in zip(*((p.keys, p.groups) for p in parts), strict=True))
    graded = [part.answers for part in parts if isinstance(part.answers, Graded)]
    if graded:
        return Items(keys, groups, grade([one for each in graded for one in each.answered], tuple(graded[0].parts)))
    found = [part.labelled for part in parts]
    whole = Answers(
        np.concatenate([a.truth for a in found]),
        np.concatenate([a.predicted for a in found]),
        np.concatenate([a.argmax for a in found]),
        np.concatenate([a.score for a in found]),
        max(a.labels for a in found),
    )
    return Items(keys, groups, whole)


def dump_items(items: Items) -> bytes:
    """Serialise; equal items give equal bytes."""
    import numpy as np

    buffer = io.BytesIO()
    a = items.answers
    if isinstance(a, Graded):
        answered = np.frombuffer(json.dumps(a.answered).encode(), dtype=np.uint8)
        parts = {f"{PART}{name}": part for name, part in a.parts.items()}
        arrays: dict[str, Any] = {"keys": items.keys, "groups": items.groups, "answered": answered, **parts}
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()
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
        if "answered" in file:
            parts = {name.removeprefix(PART): file[name] for name in file.files if name.startswith(PART)}
            graded = Graded(tuple(map(_answered, json.loads(file["answered"].tobytes()))), parts)
            return Items(file["keys"], file["groups"], graded)
        answers = Answers(
            file["truth"], file["predicted"], file["argmax"], file["score"].astype(np.float64), int(file["labels"][0])
        )
        return Items(file["keys"], file["groups"], answers)


def _answered(stored: Sequence[Any]) -> Answered:
    """One item as JSON gives it back, which knows lists only. Older files hold no verdicts."""
    found = Answered(*stored)
    return found._replace(verdicts=tuple(found.verdicts))


def shared_items(first: Items, second: Items) -> tuple[Items, Items]:
    """Both restricted to the items that both answered, in one order."""
    import numpy as np

    _, left, right = np.intersect1d(first.keys, second.keys, assume_unique=True, return_indices=True)
    return _taken(first, left), _taken(second, right)


def _taken(items: Items, index: NDArray[np.int64]) -> Items:
    """Some of the items, graded anew where they are not all: what a column is depends on what was graded together."""
    taken = items.take(index)
    if not isinstance(taken.answers, Graded) or len(taken) == len(items):
        return taken
    return Items(taken.keys, taken.groups, grade(taken.answers.answered, tuple(taken.answers.parts)))
