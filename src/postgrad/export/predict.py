"""Answer texts with this model. Needs no Postgrad: numpy, and what `requirements.txt` beside this file lists.

python predict.py "where is my order" "do you ship to mars"

from predict import load
model = load()
model(["where is my order"])   # [{"label": "ORDER_STATUS", "probability": 0.93, "score": 0.71}]
                               # or, where the task's answers are words: [{"answer": "..."}]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
# (N, K) probabilities over the in-scope labels and (N,) in-scope scores.
Answers = tuple[Floats, Floats]
Model = Callable[[Sequence[str]], Answers]
Writer = Callable[[Sequence[str]], list[str]]


def softmax(logits: Any) -> Floats:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True), dtype=np.float32)


def load_constant(folder: Path) -> Model:
    """Always the same shares, always the same score."""
    shares = np.array(json.loads((folder / "constant.json").read_text())["shares"], dtype=np.float32)
    return lambda texts: (np.tile(shares, (len(texts), 1)), np.zeros(len(texts), dtype=np.float32))


def load_classic(folder: Path) -> Model:
    """TF-IDF of words and characters and a linear map, rebuilt from JSON and safetensors."""
    from safetensors.numpy import load_file
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    facts = json.loads((folder / "classic.json").read_text(encoding="utf-8"))
    arrays = load_file(str(folder / "classic.safetensors"))
    params = facts["params"]
    shared = {"sublinear_tf": params["sublinear"], "min_df": params["min_df"], "dtype": "float64"}
    kinds: list[dict[str, Any]] = []
    if params["word_max"]:
        kinds.append({"ngram_range": (1, params["word_max"])})
    if params["char_max"]:
        kinds.append({"analyzer": "char_wb", "ngram_range": (min(3, params["char_max"]), params["char_max"])})
    vectorizers = []
    for i, kind in enumerate(kinds):
        vectorizer = TfidfVectorizer(**kind, **shared)
        vectorizer.vocabulary_ = facts["vocabularies"][i]
        vectorizer.idf_ = arrays[f"idf{i}"]
        vectorizers.append(vectorizer)
    bank = None
    if "bank_data" in arrays:
        shape = (len(arrays["bank_indptr"]) - 1, arrays["weight"].shape[1])
        bank = csr_matrix((arrays["bank_data"], arrays["bank_indices"], arrays["bank_indptr"]), shape=shape)

    def answer(texts: Sequence[str]) -> Answers:
        features = hstack([vectorizer.transform(texts) for vectorizer in vectorizers]).tocsr()
        every = softmax(np.asarray(features @ arrays["weight"].T + arrays["bias"], dtype=np.float32))
        inside = [i for i, column in enumerate(facts["columns"]) if column >= 0]
        probs = np.zeros((len(texts), facts["labels"]), dtype=np.float32)
        probs[:, [facts["columns"][i] for i in inside]] = every[:, inside]
        if params["score"] == "knn" and bank is not None:
            score = np.asarray((features @ bank.T).max(1).todense(), dtype=np.float32).ravel()
        elif params["score"] == "log_prob":
            score = (0.3 * np.log(np.maximum(probs.max(1), 1e-9))).astype(np.float32)
        else:
            score = probs.max(1)
        return probs / np.maximum(probs.sum(1, keepdims=True), 1e-9), score

    return answer


def load_embedder(folder: Path) -> Model:
    """A sentence-transformers encoder and a head."""
    from safetensors.numpy import load_file
    from sentence_transformers import SentenceTransformer

    head = json.loads((folder / "head.json").read_text())
    arrays = load_file(str(folder / "head.safetensors"))
    encoder = SentenceTransformer(str(folder / "encoder"), device="cpu", local_files_only=True)
    encoder.max_seq_length = min(head["max_length"], encoder.max_seq_length or head["max_length"])

    def answer(texts: Sequence[str]) -> Answers:
        embedded = encoder.encode(
            list(texts), batch_size=64, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        return from_embeddings(np.asarray(embedded, dtype=np.float32), head, arrays)

    return answer


def from_embeddings(embedded: Floats, head: dict[str, Any], arrays: dict[str, Any]) -> Answers:
    """Probabilities and scores of (N, D) unit-length embeddings."""
    columns, scale = head["columns"], head["scale"]
    if head["kind"] == "knn":
        similar = embedded @ arrays["bank"].T
        logits = scale * np.stack([similar[:, arrays["bank_labels"] == c].max(1) for c in columns], 1)
    else:
        factor = 1.0 if head["kind"] == "logistic" else scale
        logits = factor * (embedded @ arrays["weight"].T) + arrays["bias"]
    inside = [i for i, column in enumerate(columns) if column >= 0]
    outside = [i for i, column in enumerate(columns) if column < 0]
    probs = np.zeros((len(embedded), head["labels"]), dtype=np.float32)
    probs[:, [columns[i] for i in inside]] = softmax(logits[:, inside])
    within = logits[:, inside]
    rival = np.maximum(logits[:, outside[0]], 0.0) if outside else np.zeros(len(logits))
    kinds: dict[str, Callable[[], Any]] = {
        "max_prob": lambda: softmax(logits)[:, inside].max(1),
        "energy": lambda: (np.log(np.exp(within - within.max(1)[:, None]).sum(1)) + within.max(1) - rival) / scale,
        "max_logit": lambda: (within.max(1) - rival) / scale,
        "knn": lambda: nearest(embedded, arrays["bank"], head["knn_k"]),
        "blend": lambda: ((within.max(1) - rival) / scale + nearest(embedded, arrays["bank"], head["knn_k"])) / 2,
        "mahalanobis": lambda: mahalanobis(embedded, arrays["means"], arrays["precision"]),
    }
    return probs, np.asarray(kinds[head["score"]](), dtype=np.float32)


def nearest(embedded: Floats, bank: Floats, k: int) -> Floats:
    """Mean cosine to the k nearest train rows."""
    similar = embedded @ bank.T
    k = min(k, len(bank))
    return np.asarray(np.partition(similar, -k, axis=1)[:, -k:].mean(1), dtype=np.float32)


def mahalanobis(embedded: Floats, means: Floats, precision: Floats) -> Floats:
    """Minus the distance to the nearest class mean."""
    gap = embedded[:, None, :] - means[None, :, :]
    squared = np.einsum("nkd,de,nke->nk", gap, precision, gap, optimize=True)
    return np.asarray(-np.sqrt(np.maximum(squared.min(1), 0.0) / embedded.shape[1]), dtype=np.float32)


def load_ensemble(folder: Path) -> Model:
    """Several models, answers averaged."""
    members = json.loads((folder / "ensemble.json").read_text())
    models = [load_stage(member["stage"]["backend"], folder / f"member-{i}") for i, member in enumerate(members)]
    weight = np.array([member["weight"] for member in members])
    score_weight = np.array([member["score_weight"] for member in members])

    def answer(texts: Sequence[str]) -> Answers:
        found = [model(texts) for model in models]
        probs = np.tensordot(weight / weight.sum(), np.stack([p for p, _ in found]), axes=1)
        score = np.tensordot(score_weight / score_weight.sum(), np.stack([s for _, s in found]), axes=1)
        return probs.astype(np.float32), score.astype(np.float32)

    return answer


def load_language(folder: Path) -> Model:
    """Labels by a causal language model; `predict_language.py` lies beside this file."""
    from predict_language import load_labels

    found: Model = load_labels(folder)
    return found


def load_constant_text(folder: Path) -> Writer:
    """Always the same text."""
    text: str = json.loads((folder / "constant.json").read_text())["text"]
    return lambda texts: [text] * len(texts)


def load_nearest(folder: Path) -> Writer:
    """The answer of the train row that is most like the question."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    facts = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    low, high = facts["params"]["char_min"], facts["params"]["char_max"]
    vectoriser = TfidfVectorizer(analyzer="char_wb", ngram_range=(low, max(low, high)), sublinear_tf=True)
    known = vectoriser.fit_transform(facts["texts"])

    def answer(texts: Sequence[str]) -> list[str]:
        best = np.asarray((vectoriser.transform(list(texts)) @ known.T).argmax(axis=1)).ravel()
        return [facts["answers"][i] for i in best]

    return answer


def load_trained_elsewhere(folder: Path) -> Model:
    """An encoder with a head, or a language model: Training Hub trains both."""
    return load_embedder(folder) if (folder / "head.json").is_file() else load_language(folder)


def load_language_texts(folder: Path) -> Writer:
    """Answers in words by a causal language model; `predict_language.py` lies beside this file."""
    from predict_language import load_texts

    found: Writer = load_texts(folder)
    return found


#: Backends whose answers are words.
WRITERS: dict[str, Callable[[Path], Writer]] = {
    "constant": load_constant_text,
    "nearest": load_nearest,
    "causal_lm": load_language_texts,
    "training_hub": load_language_texts,
}
LOADERS: dict[str, Callable[[Path], Model]] = {
    "causal_lm": load_language,
    "constant": load_constant,
    "classic": load_classic,
    "embedder": load_embedder,
    "ensemble": load_ensemble,
    "soup": load_embedder,
    "training_hub": load_trained_elsewhere,
}


def load_stage(backend: str, folder: Path) -> Model:
    """The model of one training backend."""
    return LOADERS[backend](folder)


def load(folder: Path | str | None = None) -> Callable[[Sequence[str]], list[dict[str, Any]]]:
    """Load the model beside this file, or in `folder`; the result maps texts to answers."""
    root = Path(folder) if folder is not None else Path(__file__).resolve().parent
    facts = json.loads((root / "postgrad.json").read_text(encoding="utf-8"))
    backend = facts["recipe"]["stage"]["backend"]
    if not facts["labels"]:
        write = WRITERS[backend](root)
        return lambda texts: [{"answer": answer} for answer in (write(list(texts)) if texts else [])]
    model = load_stage(backend, root)
    labels, threshold, reject = facts["labels"], facts["threshold"], facts["out_of_scope"]

    def answer(texts: Sequence[str]) -> list[dict[str, Any]]:
        if not texts:
            return []
        probs, scores = model(list(texts))
        return [
            {
                "label": reject if threshold is not None and score < threshold else labels[int(row.argmax())],
                "probability": round(float(row.max()), 6),
                "score": round(float(score), 6),
            }
            for row, score in zip(probs, scores, strict=True)
        ]

    return answer


def main(texts: Sequence[str]) -> None:
    """Answer the arguments, or the lines of standard input, one JSON object a line."""
    given = list(texts) or [line.rstrip("\n") for line in sys.stdin]
    for text, found in zip(given, load()(given), strict=True):
        print(json.dumps({"text": text, **found}, ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1:])
