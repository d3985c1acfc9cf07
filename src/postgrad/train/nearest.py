"""The cheapest answer in words: that of the train row whose text is most like the question, by TF-IDF.

The classic reference of tasks whose answers are texts. What it answers stands in the train rows, so it is never
malformed, and it is right wherever questions repeat.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Mapping, Sequence

from pydantic import Field

from postgrad.records import Dimension, Record, Value
from postgrad.train.base import FitJob, Fitted, Texts, cut

ROWS = "rows.json"


class NearestParams(Record):
    """Settings: character n-grams inside words, from `char_min` to `char_max` letters."""

    char_min: int = Field(2, ge=1, le=8)
    char_max: int = Field(5, ge=1, le=8)


@dataclass(frozen=True)
class NearestModel:
    """The train rows, texts and answers."""

    params: NearestParams
    texts: tuple[str, ...]
    answers: tuple[str, ...]

    @cached_property
    def _index(self) -> tuple[Any, Any]:
        """(vectoriser, (N, F) rows of unit length)."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        grams = (self.params.char_min, max(self.params.char_min, self.params.char_max))
        vectoriser = TfidfVectorizer(analyzer="char_wb", ngram_range=grams, sublinear_tf=True)
        return vectoriser, vectoriser.fit_transform(self.texts)

    def predict(self, texts: Sequence[str]) -> Texts:
        import numpy as np

        if not texts:
            return Texts((), np.zeros(0, dtype=np.int64))
        vectoriser, known = self._index
        best = np.asarray((vectoriser.transform(list(texts)) @ known.T).argmax(axis=1)).ravel()
        found = tuple(self.answers[i] for i in best)
        return Texts(found, np.array([len(text.split()) for text in found], dtype=np.int64))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"params": self.params.model_dump(), "texts": self.texts, "answers": self.answers}
        (folder / ROWS).write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")


class Nearest:
    """The backend."""

    seeded = False
    answers = frozenset({"words"})
    Params: type[Record] = NearestParams

    def space(self, params: Mapping[str, Value]) -> dict[str, Dimension]:
        return {}

    def nominal_cost(self, params: Mapping[str, Value], rows: int, texts: int) -> float:
        return 0.2 + 0.0005 * (rows + texts)

    def fit(self, job: FitJob) -> Fitted:
        params = NearestParams.model_validate(job.params.model_dump())
        answers = tuple(cut(row.label, job.generation.max_new_tokens) for row in job.rows)
        return NearestModel(params, tuple(row.text for row in job.rows), answers)

    def load(self, folder: Path) -> Fitted:
        facts = json.loads((folder / ROWS).read_text(encoding="utf-8"))
        params = NearestParams.model_validate(facts["params"])
        return NearestModel(params, tuple(facts["texts"]), tuple(facts["answers"]))
