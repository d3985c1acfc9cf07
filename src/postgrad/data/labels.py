"""Labels that look wrong, and texts that stand under two labels.

As in confident learning (C. Northcutt, L. Jiang and I. Chuang, "Confident Learning: Estimating Uncertainty in Dataset
Labels", JAIR 70 (2021), section 3), a model says how likely each label is for rows that it was not trained on, near
copies of which it has not seen either. A label is suspected where another is ten times as likely, which is strong
evidence (H. Jeffreys, "Theory of Probability" (1961), appendix B). The paper's class thresholds take a class's mean
confidence for what a right label looks like; with a few rows a class that mean is low, and many right labels are
suspected (docs/bad-cases.md has figures).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Mapping, Sequence

from postgrad.data.decontaminate import near_groups
from postgrad.records import Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FOLDS = 5
LIKELIER = 10.0
# A label of fewer groups of near copies is not judged: there is hardly anything to know it by.
FEWEST = 3
# The model is fitted FOLDS times; more rows than this would take minutes.
LARGEST = 5000
# Inverse strength of the regularisation: sparse unit vectors and few rows a label want little of it.
STRENGTH = 10.0


@dataclass(frozen=True)
class Suspect:
    """A row whose label looks wrong.

    Attributes:
        suggested: the label that is likeliest without it.
        own: the probability of the label it has, 0 to 1; the lower, the surer.
        other: that of the suggested one.
    """

    id: str
    text: str
    label: str
    suggested: str
    own: float
    other: float


def suspects(rows: Sequence[Row], likelier: float = LIKELIER) -> tuple[Suspect, ...]:
    """Rows whose labels look wrong, the surest first. Equal texts under one label count once.

    Labels with fewer than `FEWEST` different texts are left out, and so are all where fewer than two are left. Of more
    than `LARGEST` rows the first ones are judged.

    Args:
        likelier: how many times as likely as its own another label has to be.
    """
    import numpy as np

    judged, groups = _judged(list({(row.text, row.label): row for row in rows}.values())[:LARGEST])
    names = sorted({row.label for row in judged})
    if len(names) < 2:
        return ()
    given = np.array([names.index(row.label) for row in judged])
    probs = _out_of_fold([row.text for row in judged], given, [groups[row.id] for row in judged], len(names))
    own, best = probs[np.arange(len(given)), given], probs.argmax(axis=1)
    found = [
        Suspect(row.id, row.text, row.label, names[best[i]], float(own[i]), float(probs[i, best[i]]))
        for i, row in enumerate(judged)
        if probs[i, best[i]] >= likelier * own[i]
    ]
    return tuple(sorted(found, key=lambda suspect: (suspect.own / suspect.other, suspect.id)))


def conflicts(rows: Sequence[Row]) -> Mapping[str, tuple[str, ...]]:
    """Row id -> ids of near copies that have another label; rows without any are left out."""
    groups: dict[str, list[Row]] = defaultdict(list)
    near = near_groups([(row.id, row.text) for row in rows])
    for row in rows:
        groups[near[row.id]].append(row)
    found = {}
    for members in groups.values():
        if len({row.label for row in members}) > 1:
            for row in members:
                found[row.id] = tuple(other.id for other in members if other.label != row.label)
    return found


def _judged(rows: Sequence[Row]) -> tuple[list[Row], dict[str, str]]:
    """The rows of labels with enough different texts, and the groups of near copies."""
    near = near_groups([(row.id, row.text) for row in rows])
    of_label: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        of_label[row.label].add(near[row.id])
    return [row for row in rows if len(of_label[row.label]) >= FEWEST], near


def _out_of_fold(
    texts: Sequence[str], given: NDArray[np.int64], groups: Sequence[str], labels: int
) -> NDArray[np.float64]:
    """(N, K) probabilities of the labels of each text, from a model that saw neither it nor a near copy."""
    import warnings

    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    probs = np.full((len(texts), labels), 1e-6)
    # Some label needs a row for each fold.
    folds = StratifiedGroupKFold(n_splits=min(FOLDS, int(np.bincount(given).max())), shuffle=True, random_state=0)
    with warnings.catch_warnings():
        # "The least populated class has only 3 members": folds are uneven for it, which is all there is to it.
        warnings.simplefilter("ignore", UserWarning)
        split = list(folds.split(texts, given, groups))
    for seen, asked in split:
        if len(np.unique(given[seen])) < 2 or not len(asked):
            continue
        features, questions = _features([texts[i] for i in seen], [texts[i] for i in asked])
        model = LogisticRegression(C=STRENGTH, max_iter=500).fit(features, given[seen])
        probs[np.ix_(asked, model.classes_)] = model.predict_proba(questions)
    return np.asarray(probs / probs.sum(axis=1, keepdims=True), dtype=np.float64)


def _features(seen: Sequence[str], asked: Sequence[str]) -> tuple[object, object]:
    """Word and character n-grams of both, known from the first."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    union = make_union(
        TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\S+", ngram_range=(1, 2)),
        TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(3, 5)),
    )
    return union.fit_transform(seen), union.transform(asked)
