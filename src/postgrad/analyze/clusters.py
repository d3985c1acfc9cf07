"""What bad cases are about: clusters of their texts by embedding, named by the words that tell them from each other.

k-means on unit vectors, with as many clusters as the silhouette (P. Rousseeuw (1987)) likes best above chance; names
are the terms with the highest class-based TF-IDF (M. Grootendorst, "BERTopic" (2022), section 3.3). Deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Sequence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SMALLEST, MOST = 4, 12
# How far the mean silhouette has to lie above that of the same coordinates dealt anew among the texts: what k-means
# finds there is no structure (the idea of the gap statistic, R. Tibshirani, G. Walther and T. Hastie (2001)).
STRUCTURE = 0.02
DIMENSIONS, TERMS, STARTS = 50, 4, 5
# Of more texts the first ones make the clusters: a silhouette takes memory with the square of their number.
LARGEST = 2000


@dataclass(frozen=True)
class Cluster:
    """Some texts that belong together.

    Attributes:
        name: its most telling words, with commas.
        members: places of its texts in what was given, the most central first.
        silhouette: mean over its texts, -1 to 1; 0.0 where there is one cluster only.
    """

    name: str
    members: tuple[int, ...]
    silhouette: float


def clusters_of(
    texts: Sequence[str], vectors: NDArray[np.float64] | None = None, others: Sequence[str] = ()
) -> tuple[Cluster, ...]:
    """Cluster texts; the largest first. One cluster where there is no structure, none where there is no text.

    Args:
        vectors: (N, D) embeddings; without them, TF-IDF of words and character n-grams reduced by an SVD.
        others: texts that are no bad cases. Words that they share name no cluster.
    """
    import numpy as np

    texts = texts[:LARGEST]
    if not texts:
        return ()
    points = _unit(_tfidf(texts) if vectors is None else np.asarray(vectors, dtype=np.float64)[: len(texts)])
    groups, widths = _grouped(points)
    classes = [" ".join(texts[int(i)] for i in np.flatnonzero(groups == g)) for g in range(groups.max() + 1)]
    names = class_terms([*classes, *([" ".join(others)] if others else [])])[: len(classes)]
    found = []
    for g, terms in enumerate(names):
        members = np.flatnonzero(groups == g)
        near = points[members] @ points[members].mean(axis=0)
        order = members[np.lexsort((members, -near))]
        found.append(Cluster(", ".join(terms), tuple(int(i) for i in order), float(widths[members].mean())))
    return tuple(sorted(found, key=lambda cluster: (-len(cluster.members), cluster.members)))


def encoded(texts: Sequence[str], model: Path) -> NDArray[np.float64]:
    """(N, D) embeddings under the sentence encoder in the folder `model`. Loads torch."""
    import numpy as np
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(
        str(model), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
    )
    return np.asarray(encoder.encode(list(texts), normalize_embeddings=True, show_progress_bar=False), dtype=np.float64)


def class_terms(documents: Sequence[str], terms: int = TERMS) -> list[tuple[str, ...]]:
    """The words of each document, one for each class, with the highest c-TF-IDF: sqrt(tf(t, c)) * log(1 + A / f(t)),
    with A the mean number of words in a class and f(t) how often a word is in all of them. The root is the remedy of
    BERTopic for words that are frequent everywhere."""
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(token_pattern=r"(?u)\b[^\W\d_]{2,}\b")
    try:
        counts = vectorizer.fit_transform(documents).toarray().astype(np.float64)
    except ValueError:
        # "empty vocabulary": there is no word to name a class with.
        return [("(no words)",) for _ in documents]
    words = vectorizer.get_feature_names_out()
    weight = np.sqrt(counts) * np.log1p(counts.sum() / len(documents) / counts.sum(axis=0))
    ranked = [np.lexsort((words, -row)) for row in weight]
    named = [
        tuple(str(words[i]) for i in order[:terms] if row[i] > 0) for order, row in zip(ranked, weight, strict=True)
    ]
    return [found or ("(no words)",) for found in named]


def _grouped(points: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(N,) cluster of each point, and (N,) its silhouette."""
    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_samples

    none = np.random.default_rng(0).permuted(points, axis=0)
    groups, widths, best = np.zeros(len(points), dtype=np.int64), np.zeros(len(points)), STRUCTURE
    different = len(np.unique(points.round(9), axis=0))
    for k in range(2, min(MOST, len(points) // SMALLEST, different - 1) + 1):
        model = KMeans(n_clusters=k, n_init=STARTS, random_state=0)
        labels, by_chance = model.fit_predict(points), model.fit_predict(none)
        each: Any = silhouette_samples(points, labels)
        gap = float(each.mean() - np.mean(silhouette_samples(none, by_chance)))
        if gap > best:
            best, widths, groups = gap, each, labels.astype(np.int64)
    return groups, widths


def _tfidf(texts: Sequence[str]) -> NDArray[np.float64]:
    import numpy as np
    from scipy.sparse import hstack
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    parts = []
    for setting in ({"token_pattern": r"(?u)\b\w+\b"}, {"analyzer": "char_wb", "ngram_range": (3, 4)}):
        try:
            parts.append(TfidfVectorizer(sublinear_tf=True, **setting).fit_transform(texts))
        except ValueError:
            # "empty vocabulary": no text has a word of this sort.
            continue
    if not parts:
        return np.zeros((len(texts), 1))
    features = hstack(parts).tocsr()
    size = min(DIMENSIONS, features.shape[1] - 1, len(texts) - 1)
    if size < 2 or len(set(texts)) < 3:
        return np.asarray(features.toarray(), dtype=np.float64)
    return np.asarray(TruncatedSVD(n_components=size, random_state=0).fit_transform(features), dtype=np.float64)


def _unit(points: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    found: NDArray[np.float64] = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    return found
