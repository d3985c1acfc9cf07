"""How close texts are to the nearest of some other texts: by n-grams, or under a sentence encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

# Rows that are compared with all others at a time: 1,000 x 10,000 cosines are 40 MB.
BLOCK = 1000


def ngram_similarity(texts: Sequence[str], others: Sequence[str]) -> list[float]:
    """Highest TF-IDF cosine of each text with any of `others`: the larger of word (1 to 2) and character (3 to 5,
    inside words) n-grams. Values in [0, 1]."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    best = np.zeros(len(texts))
    settings = (
        {"token_pattern": r"(?u)\b\w+\b", "ngram_range": (1, 2)},
        {"analyzer": "char_wb", "ngram_range": (3, 5)},
    )
    for setting in settings:
        vectorizer = TfidfVectorizer(sublinear_tf=True, **setting)
        try:
            known = vectorizer.fit_transform([*others, *texts])
        except ValueError:
            # "empty vocabulary": no text has a word, so none is like another.
            continue
        cosines = known[len(others) :] @ known[: len(others)].T
        best = np.maximum(best, cosines.max(axis=1).toarray().ravel())
    return [float(value) for value in best]


def encoder_similarity(texts: Sequence[str], others: Sequence[str], model: Path) -> list[float]:
    """Highest cosine of each text with any of `others` under the sentence encoder in the folder `model`."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(model))
    left, right = (
        encoder.encode(list(part), normalize_embeddings=True, show_progress_bar=False) for part in (texts, others)
    )
    return [float(value) for value in (left @ right.T).max(axis=1)]


def nearest(texts: Sequence[str], others: Sequence[str], model: Path) -> list[tuple[int, float]]:
    """(index, cosine) of the nearest of `others` to each text under the sentence encoder in the folder `model`."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(
        str(model), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
    )
    left, right = (
        encoder.encode(list(part), normalize_embeddings=True, show_progress_bar=False) for part in (texts, others)
    )
    found: list[tuple[int, float]] = []
    for start in range(0, len(left), BLOCK):
        cosines = left[start : start + BLOCK] @ right.T
        best = cosines.argmax(axis=1)
        found += [(int(j), float(row[j])) for row, j in zip(cosines, best, strict=True)]
    return found
