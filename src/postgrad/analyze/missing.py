"""Bad cases that no train row of their label is like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Sequence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from postgrad.records import Row

# Rows that are compared with all train rows at a time: 500 x 10,000 cosines are 40 MB.
BLOCK = 500
# An item is far from train where nine in ten of the solved items are nearer.
FAR = 0.1
UNLIKELY = 0.05


def similarity_to_label(asked: Sequence[Row], train: Sequence[Row]) -> NDArray[np.float64]:
    """(N,) highest TF-IDF cosine of each row with a train row of its own label: words and character n-grams, 0 to 1.
    NaN where no train row has the label."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not asked or not train:
        return np.full(len(asked), np.nan)
    vectorizer = TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(3, 5))
    try:
        known = vectorizer.fit_transform([row.text for row in train])
    except ValueError:
        # "empty vocabulary": no train row has a letter.
        return np.zeros(len(asked))
    questions = vectorizer.transform([row.text for row in asked])
    labels = {label: n for n, label in enumerate(sorted({row.label for row in train}))}
    theirs = np.array([labels[row.label] for row in train])
    mine = np.array([labels.get(row.label, -1) for row in asked])
    best = np.empty(len(asked))
    for start in range(0, len(asked), BLOCK):
        cosines = (questions[start : start + BLOCK] @ known.T).toarray()
        same = theirs[None, :] == mine[start : start + BLOCK, None]
        best[start : start + BLOCK] = np.where(same, cosines, -1.0).max(axis=1)
    return np.where(best < 0, np.nan, best)


def far_from_train(similarity: NDArray[np.float64], wrong: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) the wrong items that are further from train than nine in ten of the solved ones. None at all where there are
    no more such items among the wrong than chance would have there (binomial test, 5 %)."""
    import numpy as np
    from scipy.stats import binom

    known = ~np.isnan(similarity)
    solved, missed = similarity[known & ~wrong], known & wrong
    if not len(solved) or not missed.any():
        return np.zeros(len(wrong), dtype=bool)
    far: NDArray[np.bool_] = missed & (similarity < np.quantile(solved, FAR))
    chance = binom.sf(int(far.sum()) - 1, int(missed.sum()), FAR)
    return far if chance < UNLIKELY else np.zeros(len(wrong), dtype=bool)
