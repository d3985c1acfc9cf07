"""The classic backend: TF-IDF of word and character n-grams and a linear model (scikit-learn). Seconds on one core."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Mapping, Sequence

from pydantic import Field, model_validator

from postgrad.records import Dimension, Record, Value
from postgrad.train import scores
from postgrad.train.base import FitJob, Fitted, Outputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ClassicParams(Record):
    """Settings of the classic backend.

    Attributes:
        word_max, char_max: longest word and character n-gram; 0 leaves that half out.
        score: what decides rejection. `knn` is the cosine to the nearest train row.
        negatives: what out-of-scope rows train, where the data steps made some: a class of their own, or nothing.
    """

    word_max: int = Field(2, ge=0, le=4)
    char_max: int = Field(5, ge=0, le=8)
    min_df: int = Field(1, ge=1, le=20)
    sublinear: bool = True
    head: Literal["logistic", "svm", "nb"] = "logistic"
    C: float = Field(4.0, gt=0, le=1000)
    alpha: float = Field(0.1, gt=0, le=10)
    class_weight: Literal["balanced", "none"] = "balanced"
    score: Literal["max_prob", "log_prob", "knn"] = "max_prob"
    negatives: Literal["class", "none"] = "class"

    @model_validator(mode="after")
    def _counts_something(self) -> ClassicParams:
        if not (self.word_max or self.char_max):
            raise ValueError("word_max and char_max are both 0: nothing is counted; set one of them")
        return self


@dataclass(frozen=True)
class ClassicModel:
    """Vocabularies with idf weights, and a (K', F) linear map. `rest` is the row of the out-of-scope class, or -1."""

    params: ClassicParams
    columns: tuple[int, ...]
    labels: int
    vectorizers: tuple[Any, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    bank: Any

    def predict(self, texts: Sequence[str]) -> Outputs:
        import numpy as np

        if not texts:
            return Outputs(np.zeros((0, self.labels), np.float32), np.zeros(0, np.float32))
        features = vectorize(self.vectorizers, texts)
        logits = np.asarray(features @ self.weight.T + self.bias, dtype=np.float32)
        every = scores.softmax(logits)
        inside = [i for i, column in enumerate(self.columns) if column >= 0]
        probs = np.zeros((len(texts), self.labels), dtype=np.float32)
        probs[:, [self.columns[i] for i in inside]] = every[:, inside]
        share = probs.sum(1, keepdims=True)
        score = self._score(features, probs)
        return Outputs(probs / np.maximum(share, 1e-9), score)

    def _score(self, features: Any, probs: NDArray[np.float32]) -> NDArray[np.float32]:
        import numpy as np

        if self.params.score == "knn":
            similar = (features @ self.bank.T).max(1)
            return np.asarray(similar.todense() if hasattr(similar, "todense") else similar, np.float32).ravel()
        return scores.log_prob(probs) if self.params.score == "log_prob" else scores.max_prob(probs)

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"weight": self.weight, "bias": self.bias}
        vocabularies = []
        for i, vectorizer in enumerate(self.vectorizers):
            arrays[f"idf{i}"] = vectorizer.idf_.astype("float64")
            vocabularies.append({term: int(index) for term, index in vectorizer.vocabulary_.items()})
        if self.bank is not None:
            bank = self.bank.tocsr()
            arrays |= {"bank_data": bank.data, "bank_indices": bank.indices, "bank_indptr": bank.indptr}
        save_file(arrays, str(folder / "classic.safetensors"))
        facts = {
            "params": self.params.model_dump(mode="json"),
            "columns": self.columns,
            "labels": self.labels,
            "vocabularies": vocabularies,
        }
        (folder / "classic.json").write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")


def make_vectorizers(params: ClassicParams) -> tuple[Any, ...]:
    """Unfitted vectorizers of the halves that are asked for."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    made = []
    shared = {"sublinear_tf": params.sublinear, "min_df": params.min_df}
    if params.word_max:
        made.append(TfidfVectorizer(ngram_range=(1, params.word_max), **shared))
    if params.char_max:
        low = min(3, params.char_max)
        made.append(TfidfVectorizer(analyzer="char_wb", ngram_range=(low, params.char_max), **shared))
    return tuple(made)


def vectorize(vectorizers: Sequence[Any], texts: Sequence[str]) -> Any:
    """(N, F) sparse features, the halves side by side."""
    from scipy.sparse import hstack

    return hstack([vectorizer.transform(texts) for vectorizer in vectorizers]).tocsr()


def _linear(params: ClassicParams, features: Any, classes: Any, seed: int) -> tuple[Any, Any]:
    """Fit the head; return (K', F) weights and (K',) biases in the order of sorted classes."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import ComplementNB
    from sklearn.svm import LinearSVC

    balance = "balanced" if params.class_weight == "balanced" else None
    if params.head == "nb":
        model = ComplementNB(alpha=params.alpha).fit(features, classes)
        return model.feature_log_prob_, np.zeros(len(model.classes_))
    if params.head == "svm":
        fitted = LinearSVC(C=params.C, class_weight=balance, random_state=seed).fit(features, classes)
        # Margins are about 1 wide; four times that makes a softmax of them about as sharp as a logistic model.
        weight, bias, factor = fitted.coef_, fitted.intercept_, 4.0
    else:
        fitted = LogisticRegression(C=params.C, class_weight=balance, max_iter=1000).fit(features, classes)
        weight, bias, factor = fitted.coef_, fitted.intercept_, 1.0
    if len(weight) == 1:
        # Two classes share one row: the first class is its negative. A softmax over two rows needs half of it each.
        weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight * factor, bias * factor


class Classic:
    """The backend."""

    seeded = False
    Params = ClassicParams

    def space(self, params: Mapping[str, Value]) -> dict[str, Dimension]:
        if params.get("head") == "nb":
            return {"alpha": Dimension(low=0.01, high=2.0, log=True)}
        return {
            "C": Dimension(low=0.1, high=100.0, log=True),
            "word_max": Dimension(low=1, high=3, integer=True),
            "char_max": Dimension(low=3, high=6, integer=True),
        }

    def nominal_cost(self, params: Mapping[str, Value], rows: int, texts: int) -> float:
        # 600 rows of 28 classes took 0.5 to 1.0 s on one core, and a thousand answers 0.1 s.
        return 0.1 + 1.2e-3 * rows + 1e-4 * texts

    def fit(self, job: FitJob) -> Fitted:
        import numpy as np

        params = ClassicParams.model_validate(job.params.model_dump())
        rows = [row for row in job.rows if row.label != job.out_of_scope or params.negatives == "class"]
        index = {label: i for i, label in enumerate(job.labels)}
        classes = np.array([index.get(row.label, -1) for row in rows])
        texts = [row.text for row in rows]
        vectorizers = make_vectorizers(params)
        for vectorizer in vectorizers:
            vectorizer.fit(texts)
        features = vectorize(vectorizers, texts)
        columns = tuple(int(c) for c in np.unique(classes))
        if len(columns) == 1:
            weight, bias = np.zeros((1, features.shape[1])), np.zeros(1)
        else:
            weight, bias = _linear(params, features, classes, job.seed)
        bank = features[classes >= 0] if params.score == "knn" else None
        return ClassicModel(
            params=params,
            columns=columns,
            labels=len(job.labels),
            vectorizers=vectorizers,
            weight=np.ascontiguousarray(weight, dtype=np.float32),
            bias=np.ascontiguousarray(bias, dtype=np.float32),
            bank=bank,
        )

    def load(self, folder: Path) -> Fitted:
        import numpy as np
        from safetensors.numpy import load_file
        from scipy.sparse import csr_matrix

        facts = json.loads((folder / "classic.json").read_text(encoding="utf-8"))
        arrays = load_file(str(folder / "classic.safetensors"))
        params = ClassicParams.model_validate(facts["params"])
        vectorizers = make_vectorizers(params)
        for i, (vectorizer, vocabulary) in enumerate(zip(vectorizers, facts["vocabularies"], strict=True)):
            vectorizer.vocabulary_ = vocabulary
            vectorizer.idf_ = arrays[f"idf{i}"]
        bank = None
        if "bank_data" in arrays:
            shape = (len(arrays["bank_indptr"]) - 1, arrays["weight"].shape[1])
            bank = csr_matrix((arrays["bank_data"], arrays["bank_indices"], arrays["bank_indptr"]), shape=shape)
        return ClassicModel(
            params=params,
            columns=tuple(facts["columns"]),
            labels=facts["labels"],
            vectorizers=vectorizers,
            weight=arrays["weight"].astype(np.float32),
            bias=arrays["bias"].astype(np.float32),
            bank=bank,
        )
