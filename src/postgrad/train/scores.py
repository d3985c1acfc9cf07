"""In-scope scores: how surely an input belongs to any of the labels. Higher is surer.

All scores are brought to about the spread of a cosine, so that scores of different models can be averaged with plain
weights: on out-of-fold in-scope rows of five intent sets the spread (standard deviation) of a cosine to the nearest
train row was 0.13 to 0.17, of a largest logit over its scale 0.12 to 0.15, and of a log probability 0.46 to 0.51.
Sources: maximum probability, Hendrycks and Gimpel 2017; energy, Liu et al. 2020; nearest neighbour, Sun et al. 2022;
Mahalanobis distance, Lee et al. 2018.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LOG_PROB_SCALE = 0.3
_CHUNK = 512


def log_prob(probs: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) scaled log of the largest of (N, K) probabilities."""
    import numpy as np

    score: NDArray[np.float32] = (LOG_PROB_SCALE * np.log(np.maximum(probs.max(1), 1e-9))).astype(np.float32)
    return score


def max_prob(probs: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) largest of (N, K) probabilities."""
    score: NDArray[np.float32] = probs.max(1)
    return score


def energy(logits: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """(N,) log-sum-exp of (N, K) logits over their scale."""
    import numpy as np

    top = logits.max(1, keepdims=True)
    score: NDArray[np.float32] = ((top[:, 0] + np.log(np.exp(logits - top).sum(1))) / scale).astype(np.float32)
    return score


def nearest(embedded: NDArray[np.float32], bank: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """(N,) mean cosine to the `k` nearest of (M, D) bank rows; both sides have unit length."""
    import numpy as np

    parts = []
    k = min(k, len(bank))
    for start in range(0, len(embedded), _CHUNK):
        similar = embedded[start : start + _CHUNK] @ bank.T
        parts.append(np.partition(similar, -k, axis=1)[:, -k:].mean(1))
    score: NDArray[np.float32] = np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)
    return score


def mahalanobis(
    embedded: NDArray[np.float32], means: NDArray[np.float32], precision: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(N,) minus the distance to the nearest class mean under a shared precision matrix, over the root of D."""
    import numpy as np

    gap = embedded[:, None, :] - means[None, :, :]
    squared = np.einsum("nkd,de,nke->nk", gap, precision, gap, optimize=True)
    score: NDArray[np.float32] = -np.sqrt(np.maximum(squared.min(1), 0.0) / embedded.shape[1]).astype(np.float32)
    return score


def shared_precision(embedded: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float32]:
    """(D, D) inverse of the pooled within-class covariance, shrunk as Ledoit and Wolf 2004."""
    import numpy as np
    from sklearn.covariance import LedoitWolf

    centred = embedded.copy()
    for name in np.unique(classes):
        centred[classes == name] -= embedded[classes == name].mean(0)
    precision: NDArray[np.float32] = LedoitWolf(assume_centered=True).fit(centred).precision_.astype(np.float32)
    return precision


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of (N, K) logits as probabilities."""
    import numpy as np

    powers = np.exp(logits - logits.max(1, keepdims=True))
    probs: NDArray[np.float32] = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    return probs
