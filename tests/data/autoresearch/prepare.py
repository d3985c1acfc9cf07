"""The fixed part of the stand-in: text, time budget and evaluation. Imported by `train.py`; not for experiments."""

from __future__ import annotations

import math
import random
from typing import Callable

import numpy as np
from numpy.typing import NDArray

TIME_BUDGET = 2.0  # seconds of training
VOCABULARY = 256  # bytes
TRAIN_BYTES, VAL_BYTES = 200_000, 8_192

Bytes = NDArray[np.uint8]
# Contexts (rows, bytes before) in, logits (rows, VOCABULARY) of the next byte out.
Predict = Callable[[Bytes], NDArray[np.float32]]

NOUNS = ["kettle", "lamp", "ladder", "window", "river", "baker", "engine", "garden", "letter", "signal"]
VERBS = ["warms", "lifts", "opens", "follows", "repairs", "paints", "answers", "measures", "carries", "hides"]
ADJECTIVES = ["old", "quiet", "heavy", "green", "narrow", "patient", "broken", "polished"]
LINKS = ["and then", "because", "while", "so", "although"]


def _clause(dice: random.Random) -> str:
    first = f"the {dice.choice(ADJECTIVES)} {dice.choice(NOUNS)}"
    return f"{first} {dice.choice(VERBS)} the {dice.choice(NOUNS)}"


def load_text(split: str) -> Bytes:
    """Sentences of a small grammar, other ones for `train` and `val`, the same at each call."""
    dice = random.Random(split)
    size = {"train": TRAIN_BYTES, "val": VAL_BYTES}[split]
    written: list[str] = []
    length = 0
    while length < size:
        sentence = _clause(dice)
        while dice.random() < 0.4:
            sentence += f" {dice.choice(LINKS)} {_clause(dice)}"
        written.append(f"{sentence.capitalize()}. ")
        length += len(written[-1])
    return np.frombuffer("".join(written).encode()[:size], dtype=np.uint8)


def contexts(text: Bytes, ends: NDArray[np.int64], length: int) -> Bytes:
    """The `length` bytes before each of these places of the text: (places, length)."""
    before: Bytes = text[ends[:, None] + np.arange(-length, 0)]
    return before


def evaluate_bpb(predict: Predict, context: int) -> float:
    """Bits per byte on the validation text, from the model's logits. The first `context` bytes are not counted."""
    text = load_text("val")
    bits = 0.0
    places = np.arange(context, len(text))
    for part in np.array_split(places, 16):
        logits = predict(contexts(text, part, context)).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        spent = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(part)), text[part]]
        bits += float(spent.sum()) / math.log(2)
    return bits / len(places)


if __name__ == "__main__":
    for name in ("train", "val"):
        print(f"{name}: {len(load_text(name))} bytes")
