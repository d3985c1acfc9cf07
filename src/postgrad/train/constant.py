"""The constant answer: reject everything, or, where the task rejects nothing, always the most frequent label. Where
answers are texts, always the most frequent one."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence

from postgrad.records import Dimension, Record, Value
from postgrad.train.base import FitJob, Fitted, Outputs, Texts, cut

FILE = "constant.json"


class ConstantParams(Record):
    """Nothing to set."""


@dataclass(frozen=True)
class ConstantModel:
    """Answers the label shares of its training rows to everything, with the same low score."""

    shares: tuple[float, ...]

    def predict(self, texts: Sequence[str]) -> Outputs:
        import numpy as np

        probs = np.tile(np.array(self.shares, dtype=np.float32), (len(texts), 1))
        return Outputs(probs, np.zeros(len(texts), dtype=np.float32))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(json.dumps({"shares": self.shares}))


@dataclass(frozen=True)
class ConstantText:
    """Answers one text to everything."""

    text: str

    def predict(self, texts: Sequence[str]) -> Texts:
        import numpy as np

        tokens = np.full(len(texts), len(self.text.split()), dtype=np.int64)
        return Texts((self.text,) * len(texts), tokens)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(json.dumps({"text": self.text}))


class Constant:
    """The backend."""

    seeded = False
    answers = frozenset({"labels", "words"})
    Params = ConstantParams

    def space(self, params: Mapping[str, Value]) -> dict[str, Dimension]:
        return {}

    def nominal_cost(self, params: Mapping[str, Value], rows: int, texts: int) -> float:
        return 0.01

    def fit(self, job: FitJob) -> Fitted:
        counts = Counter(row.label for row in job.rows if row.label != job.out_of_scope)
        if not job.labels:
            most = min(counts, key=lambda text: (-counts[text], text), default="")
            return ConstantText(cut(most, job.generation.max_new_tokens))
        total = sum(counts.values()) or 1
        return ConstantModel(tuple(counts[label] / total for label in job.labels))

    def load(self, folder: Path) -> Fitted:
        facts = json.loads((folder / FILE).read_text())
        return ConstantText(facts["text"]) if "text" in facts else ConstantModel(tuple(facts["shares"]))
