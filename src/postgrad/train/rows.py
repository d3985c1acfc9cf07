"""Training rows sorted into classes, and heads that are computed from their embeddings rather than trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Sequence

from postgrad.records import Row
from postgrad.train import scores
from postgrad.train.base import FitJob, TrainingDiverged
from postgrad.train.embedder import EmbedderParams
from postgrad.train.heads import Head

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class TrainingSet:
    """In-scope texts with class numbers 0..K'-1, and negatives."""

    texts: tuple[str, ...]
    classes: NDArray[np.int64]
    negatives: tuple[str, ...]
    columns: tuple[int, ...]


def training_set(rows: Sequence[Row], labels: Sequence[str], out_of_scope: str | None, negatives: str) -> TrainingSet:
    """Sort rows into classes; negatives become the last class (`class`), a side set (`uniform`), or nothing."""
    import numpy as np

    index = {label: i for i, label in enumerate(labels)}
    inside = [row for row in rows if row.label in index]
    outside = tuple(row.text for row in rows if row.label == out_of_scope) if negatives != "none" else ()
    columns = sorted({index[row.label] for row in inside})
    number = {column: i for i, column in enumerate(columns)}
    classes = [number[index[row.label]] for row in inside]
    texts = tuple(row.text for row in inside)
    if negatives == "class" and outside:
        classes += [len(columns)] * len(outside)
        texts, outside, columns = (*texts, *outside), (), [*columns, -1]
    return TrainingSet(texts, np.array(classes, dtype=np.int64), outside, tuple(columns))


def prototypes(embedded: NDArray[np.float32], classes: NDArray[np.int64], count: int) -> dict[str, Any]:
    """Unit-length class means as a linear map."""
    import numpy as np

    means = np.stack([embedded[classes == k].mean(0) for k in range(count)])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
    return {"weight": means.astype(np.float32), "bias": np.zeros(count, np.float32)}


def finished_head(
    job: FitJob, params: EmbedderParams, data: TrainingSet, embedded: NDArray[np.float32], arrays: dict[str, Any]
) -> Head:
    """The head over the final embeddings of `data.texts`, with what its score needs.

    `arrays` is the linear map of a head that was trained, or the prototypes.

    Raises:
        TrainingDiverged: an embedding is not finite.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    if not np.isfinite(embedded).all():
        raise TrainingDiverged("the tuned encoder's embeddings are not finite")
    inside = np.array([data.columns[k] >= 0 for k in data.classes])
    if params.head == "prototype":
        arrays = prototypes(embedded, data.classes, len(data.columns))
    elif params.head == "cosine":
        norms = np.linalg.norm(arrays["weight"], axis=1, keepdims=True)
        arrays = {"weight": arrays["weight"] / np.maximum(norms, 1e-9), "bias": np.zeros_like(arrays["bias"])}
    elif params.head == "logistic" and len(data.columns) > 1:
        model = LogisticRegression(C=params.C, class_weight="balanced", max_iter=1000).fit(embedded, data.classes)
        weight, bias = model.coef_, model.intercept_
        if len(weight) == 1:
            weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        arrays = {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
    if params.head == "knn" or params.score in ("knn", "blend"):
        owners = np.array(data.columns)[data.classes]
        keep = inside if params.head != "knn" else np.ones(len(inside), bool)
        arrays = {**arrays, "bank": embedded[keep], "bank_labels": owners[keep].astype(np.int64)}
    if params.score == "mahalanobis":
        own = data.classes[inside]
        means = np.stack([embedded[inside][own == k].mean(0) for k in np.unique(own)])
        precision = scores.shared_precision(embedded[inside], own)
        arrays = {**arrays, "means": means.astype(np.float32), "precision": precision}
    return Head(
        labels=len(job.labels),
        columns=data.columns,
        kind=params.head,
        score=params.score,
        scale=params.scale,
        knn_k=params.knn_k,
        arrays=arrays,
    )
