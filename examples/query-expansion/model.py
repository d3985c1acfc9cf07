"""A tiny language model that writes the words to search for. Used by train.py and by the referee; not for experiments.

p(word | query) is a softmax over the words of the corpus: the mean of the embeddings of the query's words and of their
letter trigrams (by hash, as fastText has them: Bojanowski et al. 2017, section 3.2), times the output embeddings. An
expansion is the likeliest words that the query has not. What is saved is data: config.json and model.safetensors.
"""

import json
import zlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from retrieval import words
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

BUCKETS = 4096  # of trigrams
MAX_WORDS = 20_000


@dataclass(frozen=True)
class Config:
    size: int = 64  # of the embeddings
    terms: int = 6  # most words of an expansion
    at_least: float = 0.0  # words less likely than this are left out
    weight: float = 0.3  # of a word of the expansion, where one of the query has 1

    def check(self) -> None:
        """Raise ValueError where a value has the wrong type or is out of bounds."""
        bounds = {"size": (4, 512), "terms": (0, 32), "at_least": (0.0, 1.0), "weight": (0.0, 2.0)}
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), bounds[field.name]
            kinds = (int, float) if isinstance(low, float) else (int,)
            if type(value) not in kinds or not low <= value <= high:
                raise ValueError(f"{field.name} is {value!r}, and {low} to {high} was expected")


class Expander(nn.Module):
    def __init__(self, config: Config, vocabulary: list[str]) -> None:
        super().__init__()
        config.check()
        self.config, self.vocabulary = config, vocabulary
        self.number = {word: place for place, word in enumerate(vocabulary)}
        self.inward = nn.EmbeddingBag(len(vocabulary) + BUCKETS, config.size, mode="mean")
        self.outward = nn.Linear(config.size, len(vocabulary))
        nn.init.normal_(self.inward.weight, std=0.1)
        nn.init.normal_(self.outward.weight, std=0.1)

    def features(self, query: str) -> list[int]:
        """Rows of the embedding: known words, and trigrams of all words. Never empty."""
        found = []
        for word in words(query) or ["?"]:
            framed = f"<{word}>"
            trigrams = {framed[start : start + 3] for start in range(len(framed) - 2)}
            found += [len(self.vocabulary) + zlib.crc32(part.encode()) % BUCKETS for part in sorted(trigrams)]
            found += [self.number[word]] * 4 if word in self.number else []
        return found

    def forward(self, queries: list[str]) -> Tensor:
        """Logits: queries, words of the vocabulary."""
        rows = [self.features(query) for query in queries]
        starts = torch.tensor([0, *[len(row) for row in rows[:-1]]]).cumsum(0)
        return self.outward(self.inward(torch.tensor([number for row in rows for number in row]), starts))

    @torch.inference_mode()
    def expand(self, query: str) -> list[str]:
        """The expansion of a query, likeliest word first."""
        chances = self([query])[0].softmax(-1)
        if not chances.isfinite().all():
            raise ValueError("the model's chances are not finite")
        asked, found = set(words(query)), []
        for place in chances.argsort(descending=True, stable=True).tolist():
            if len(found) == self.config.terms or chances[place] < self.config.at_least:
                break
            if self.vocabulary[place] not in asked:
                found.append(self.vocabulary[place])
        return found


def save(model: Expander, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = asdict(model.config) | {"vocabulary": model.vocabulary}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    save_file(dict(model.state_dict()), folder / "model.safetensors")


def load(folder: Path) -> Expander:
    """What `save` left. Raises ValueError for anything else."""
    for name, most in (("config.json", 1_000_000), ("model.safetensors", 50_000_000)):
        file = folder / name
        if file.is_symlink() or not file.is_file() or file.stat().st_size > most:
            raise ValueError(f"{name} is missing, no plain file or larger than {most} bytes")
    options = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not isinstance(options, dict) or set(options) != {"vocabulary", *[field.name for field in fields(Config)]}:
        raise ValueError("config.json has other keys than expected")
    vocabulary = options.pop("vocabulary")
    if (
        not isinstance(vocabulary, list)
        or not 1 <= len(vocabulary) <= MAX_WORDS
        or len(set(vocabulary)) < len(vocabulary)
    ):
        raise ValueError(f"the vocabulary is no list of 1 to {MAX_WORDS} different words")
    if not all(isinstance(word, str) and words(word) == [word] for word in vocabulary):
        raise ValueError("the vocabulary has entries that are not single words")
    model = Expander(Config(**options), vocabulary)
    try:
        weights = load_file(folder / "model.safetensors")
    except SafetensorError as error:
        raise ValueError(f"model.safetensors cannot be read: {error}") from error
    expected = model.state_dict()
    if {name: (weight.shape, weight.dtype) for name, weight in weights.items()} != {
        name: (weight.shape, weight.dtype) for name, weight in expected.items()
    }:
        raise ValueError("the weights have other names, shapes or types than expected")
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise ValueError("the weights have numbers that are not finite")
    model.load_state_dict(weights)
    return model.eval()
