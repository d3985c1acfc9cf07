"""Made-up messages of six kinds, which a word or two gives away: what sentinels train on. No two are nearly alike."""

from __future__ import annotations

import csv
from pathlib import Path
from random import Random
from typing import Sequence

Example = tuple[str, str]

TELLING = {
    "account": "password login profile username email settings verification avatar",
    "billing": "invoice charge refund receipt payment price discount voucher",
    "delivery": "parcel courier shipment tracking warehouse doorstep dispatch postcode",
    "repair": "zipper button stitch scratch crack broken torn faulty",
    "sizing": "waist sleeve collar hem shoulder inseam tight loose",
    "store": "opening closing sunday branch parking boutique address floor",
}
FILLERS = """
    about my the please today again maybe still never quite really soon before after since while because though would
    could should might always often seldom later early once twice another other same different first last next left
    right inside outside under over between around during until against without within along across behind beyond
    toward upon near far here there somewhere nothing something everything
"""
OWN, OTHERS, PLAIN = 2, 1, 6
# How often a message also has a word of another kind.
MIXED = 0.7


def messages(each: int, seed: int) -> list[Example]:
    """So many messages of every kind, sorted by kind, as data files often are: (text, label)."""
    rng = Random(seed)
    return [(_message(label, rng), label) for label in TELLING for _ in range(each)]


def _message(label: str, rng: Random) -> str:
    words = rng.sample(TELLING[label].split(), OWN) + rng.sample(FILLERS.split(), PLAIN)
    if rng.random() < MIXED:
        other = rng.choice([name for name in TELLING if name != label])
        words += rng.sample(TELLING[other].split(), OTHERS)
    rng.shuffle(words)
    return " ".join(words)


def shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    """The same texts and the same labels, and nothing left between them."""
    labels = [label for _, label in examples]
    Random(seed).shuffle(labels)
    return [(text, label) for (text, _), label in zip(examples, labels, strict=True)]


def write_csv(path: Path, examples: Sequence[Example]) -> Path:
    """Write examples under the columns `text` and `label`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *examples])
    return path
