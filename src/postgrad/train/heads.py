"""Heads over embeddings: from (N, D) unit vectors to label probabilities and an in-scope score."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from postgrad.train import scores
from postgrad.train.base import Outputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCH = 64


@dataclass(frozen=True)
class Head:
    """What is needed to answer from embeddings.

    Attributes:
        labels: K, the width of the answer.
        columns: (K',) label index of each row of `arrays["weight"]`, -1 for the out-of-scope class.
        kind, score, scale, knn_k: as in `EmbedderParams`.
        arrays: `weight` (K', D) and `bias` (K',) for linear kinds; `bank` (M, D) train embeddings with `bank_labels`
            (M,) for neighbours; `means`, `precision` for Mahalanobis.
    """

    labels: int
    columns: tuple[int, ...]
    kind: str
    score: str
    scale: float
    knn_k: int
    arrays: Mapping[str, NDArray[Any]]

    def logits(self, embedded: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, K') logits."""
        import numpy as np

        if self.kind == "knn":
            similar = embedded @ self.arrays["bank"].T
            owner = self.arrays["bank_labels"]
            columns = [similar[:, owner == column].max(1) for column in self.columns]
            return np.asarray(self.scale * np.stack(columns, 1), dtype=np.float32)
        weight, bias = self.arrays["weight"], self.arrays["bias"]
        return np.asarray(self.factor * (embedded @ weight.T) + bias, dtype=np.float32)

    @property
    def factor(self) -> float:
        return 1.0 if self.kind == "logistic" else self.scale

    def answer(self, embedded: NDArray[np.float32]) -> Outputs:
        """Probabilities over the in-scope labels, and the in-scope score."""
        import numpy as np

        logits = self.logits(embedded)
        inside = [i for i, column in enumerate(self.columns) if column >= 0]
        probs = np.zeros((len(embedded), self.labels), dtype=np.float32)
        probs[:, [self.columns[i] for i in inside]] = scores.softmax(logits[:, inside])
        return Outputs(probs, self._score(embedded, logits, inside))

    def _score(
        self, embedded: NDArray[np.float32], logits: NDArray[np.float32], inside: Sequence[int]
    ) -> NDArray[np.float32]:
        import numpy as np

        within = logits[:, inside]
        outside = [i for i, column in enumerate(self.columns) if column < 0]
        # With an out-of-scope class, its logit is what the in-scope ones have to beat.
        rival = np.maximum(logits[:, outside[0]], 0.0) if outside else np.zeros(len(logits), np.float32)
        if self.score == "max_prob":
            return scores.max_prob(scores.softmax(logits)[:, inside])
        if self.score == "energy":
            return (scores.energy(within, self.scale) - rival / self.scale).astype(np.float32)
        if self.score == "mahalanobis":
            return scores.mahalanobis(embedded, self.arrays["means"], self.arrays["precision"])
        top: NDArray[np.float32] = ((within.max(1) - rival) / self.scale).astype(np.float32)
        if self.score == "max_logit":
            return top
        near = scores.nearest(embedded, self.arrays["bank"], self.knn_k)
        return near if self.score == "knn" else ((top + near) / 2).astype(np.float32)


@dataclass(frozen=True)
class EmbedderModel:
    """An encoder with its head."""

    encoder: Any
    head: Head
    max_length: int

    def predict(self, texts: Sequence[str]) -> Outputs:
        return self.head.answer(embed(self.encoder, texts))

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        self.encoder.save(str(folder / "encoder"), create_model_card=False)
        save_file({name: array.copy() for name, array in self.head.arrays.items()}, str(folder / "head.safetensors"))
        facts = {
            "labels": self.head.labels,
            "columns": self.head.columns,
            "kind": self.head.kind,
            "score": self.head.score,
            "scale": self.head.scale,
            "knn_k": self.head.knn_k,
            "max_length": self.max_length,
        }
        (folder / "head.json").write_text(json.dumps(facts, indent=1))


def load_embedder(folder: Path) -> EmbedderModel:
    """Read what `EmbedderModel.save` wrote."""
    from safetensors.numpy import load_file

    facts = json.loads((folder / "head.json").read_text())
    max_length = facts.pop("max_length")
    columns = tuple(facts.pop("columns"))
    head = Head(columns=columns, arrays=load_file(str(folder / "head.safetensors")), **facts)
    return EmbedderModel(load_encoder(folder / "encoder", max_length), head, max_length)


def load_encoder(folder: Path, max_length: int) -> Any:
    """A sentence-transformers model on the CPU, from local files only."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
    )
    encoder.max_seq_length = min(max_length, encoder.max_seq_length or max_length)
    return encoder


def embed(encoder: Any, texts: Sequence[str]) -> NDArray[np.float32]:
    """(N, D) float32 embeddings of unit length."""
    import numpy as np

    if not texts:
        return np.zeros((0, int(encoder.get_embedding_dimension())), np.float32)
    made = encoder.encode(
        list(texts), batch_size=BATCH, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
    )
    return np.asarray(made, dtype=np.float32)
