"""How well near copies are found: copies of test rows with trivial edits are planted in train, and honest rows counted.

No training. The data is public: the HINT3 bots, and files that the options name.
"""

from __future__ import annotations

import time
from pathlib import Path
from random import Random
from typing import Any, Callable, Mapping, Sequence

from postgrad.bench.base import BenchSpec, whole_number
from postgrad.data.decontaminate import Match, find_overlaps
from postgrad.data.nearness import TYPO_WORD
from postgrad.data.similarity import nearest
from postgrad.data.sources import load_rows
from postgrad.records import Row
from postgrad.train.models import resolve_model

SOURCES = ("hint3:sofmattress/v2", "hint3:curekart/v2")
LOOKALIKE = str.maketrans("aeopcxyi", "аеорсхуі")
INVISIBLE = ("\u200b", "\u200d", "\u2060", "\u00ad", "\ufeff")
ACCENTS = str.maketrans("aeiou", "áèïôü")
SHORT, MIDDLE = 4, 7
COSINES = (0.9, 0.95, 0.98, 0.99)
FRAMES = ("so anyway", "as i said before", "well", "listen", "i was asking", "you know", "just wondering", "right now")
Edit = Callable[[str, Random], str]


def _case(text: str, rng: Random) -> str:
    return "".join(c.upper() if rng.random() < 0.5 else c.lower() for c in text)


def _punctuation(text: str, rng: Random) -> str:
    return "".join(word + rng.choice((" ", ", ", "... ", " - ", "! ")) for word in text.split()).strip() + "?!"


def _spaces_added(text: str, rng: Random) -> str:
    return "".join(c + ("  " if c == " " or rng.random() < 0.1 else "") for c in text)


def _spaces_lost(text: str, rng: Random) -> str:
    return text.replace(" ", "", max(1, text.count(" ") // 2))


def _invisible(text: str, rng: Random) -> str:
    return "".join(c + (rng.choice(INVISIBLE) if rng.random() < 0.4 else "") for c in text)


def _lookalikes(text: str, rng: Random) -> str:
    return text.translate(LOOKALIKE)


def _accents(text: str, rng: Random) -> str:
    return text.translate(ACCENTS)


def _full_width(text: str, rng: Random) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def _typo(text: str, rng: Random) -> str:
    """One error in a word of at least four letters; the text as it is where it has none."""
    words = text.split()
    able = [n for n, word in enumerate(words) if len(word) > TYPO_WORD and word.isalpha()]
    if not able:
        return text
    n = rng.choice(able)
    word, i = words[n], rng.randrange(1, len(words[n]) - 1)
    letter = rng.choice("abcdefghijklmnopqrstuvwxyz")
    words[n] = rng.choice(
        (
            word[:i] + word[i + 1 :],
            word[:i] + letter + word[i:],
            word[:i] + letter + word[i + 1 :],
            word[:i] + word[i + 1] + word[i] + word[i + 2 :],
        )
    )
    return " ".join(words)


def _swap(text: str, rng: Random) -> str:
    words = text.split()
    if len(words) > 1:
        i = rng.randrange(len(words) - 1)
        words[i], words[i + 1] = words[i + 1], words[i]
    return " ".join(words)


def _turned(text: str, rng: Random) -> str:
    words = text.split()
    cut = rng.randrange(1, len(words)) if len(words) > 1 else 0
    return " ".join(words[cut:] + words[:cut])


def _disguised(text: str, rng: Random) -> str:
    return _invisible(_lookalikes(_typo(text, rng), rng), rng)


EDITS: dict[str, Edit] = {
    "unchanged": lambda text, rng: text,
    "case": _case,
    "punctuation": _punctuation,
    "spaces added": _spaces_added,
    "spaces lost": _spaces_lost,
    "zero-width characters": _invisible,
    "look-alike letters": _lookalikes,
    "accents": _accents,
    "full-width letters": _full_width,
    "one typing error": _typo,
    "two neighbouring words swapped": _swap,
    "end moved to the front": _turned,
    "typing error, look-alikes and zero-width": _disguised,
    "a word in front": lambda text, rng: f"Hello, {text}",
    "a word behind": lambda text, rng: f"{text} thanks",
    "a template around all copies": lambda text, rng: f"The customer wrote as follows: {text} Which intent is that?",
    "another frame around each copy": lambda text, rng: (
        f"{rng.choice(FRAMES)} {rng.choice(FRAMES)} {text} {rng.choice(FRAMES)}"
    ),
}


def planted(rows: Sequence[Row], edit: Edit, seed: int) -> list[Row]:
    """An edited copy of each row, with an id of its own; copies that an edit has left as they were are made too."""
    rng = Random(seed)
    return [Row(f"planted-{n}", edit(row.text, rng), row.label) for n, row in enumerate(rows)]


def recall(train: Sequence[Row], test: Sequence[Row], edit: Edit, count: int, seed: int) -> dict[str, Any]:
    """Share of planted copies that are found, by the number of words of the copied text."""
    chosen = Random(seed).sample(sorted(test), min(count, len(test)))
    copies = planted(chosen, edit, seed)
    found = {match.row for match in find_overlaps([*train, *copies], test)}
    sizes = [len(row.text.split()) for row in chosen]
    hit = [copy.id in found for copy in copies]
    parts = {
        "to 4 words": (0, SHORT),
        "5 to 7": (SHORT + 1, MIDDLE),
        "8 and more": (MIDDLE + 1, 10**9),
        "all": (0, 10**9),
    }
    shares: dict[str, Any] = {}
    for name, (low, high) in parts.items():
        of = [one for one, size in zip(hit, sizes, strict=True) if low <= size <= high]
        shares[name] = round(sum(of) / len(of), 3) if of else None
    return shares


def honest_hits(train: Sequence[Row], test: Sequence[Row]) -> dict[str, Any]:
    """How many rows of the data as published go; `other label` counts those whose match has another label."""
    started = time.perf_counter()
    matches = find_overlaps(train, test)
    labels = _labels(train), _labels(test)
    by_how = {how: [match for match in matches if match.how == how] for how in dict.fromkeys(m.how for m in matches)}
    return {
        "train": len(train),
        "test": len(test),
        "seconds": round(time.perf_counter() - started, 2),
        "removed": len(matches),
        "beyond exact": sum(match.how != "exact" for match in matches),
        "other label": _torn(matches, *labels),
        "by matcher": {how: [len(found), _torn(found, *labels)] for how, found in by_how.items()},
    }


def neighbours(train: Sequence[Row], test: Sequence[Row], encoder: Path) -> dict[str, list[int]]:
    """Cosine -> (rows that reach it and that no other matcher finds, those of them with another label)."""
    known = {match.row for match in find_overlaps(train, test)}
    near = nearest([row.text for row in train], [row.text for row in test], encoder)
    beyond = [(row, test[j], cosine) for row, (j, cosine) in zip(train, near, strict=True) if row.id not in known]
    return {
        str(limit): [sum(c >= limit for *_, c in beyond), sum(c >= limit and a.label != b.label for a, b, c in beyond)]
        for limit in COSINES
    }


def _labels(rows: Sequence[Row]) -> dict[str, str]:
    return {row.id: row.label for row in rows}


def _torn(matches: Sequence[Match], train: Mapping[str, str], test: Mapping[str, str]) -> int:
    return sum(train[match.row] != test[match.item] for match in matches)


class Overlaps:
    """The benchmark."""

    options = {
        "planted": ("300", "how many test rows are copied for each edit"),
        "name": ("own", "what the table calls a data set of one's own"),
        "train": ("", "its train file; none is taken without it"),
        "test": ("", "its test file"),
        "input": ("text", "the column of its texts"),
        "target": ("label", "the column of its labels"),
        "encoder": ("", "a base model: count neighbours under it as well"),
        "seed": ("1", "of the edits and of the rows that are copied"),
    }

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        count = 50 if spec.quick else whole_number(spec.options, "planted")
        seed = whole_number(spec.options, "seed")
        parts = {source: self._hint3(source) for source in SOURCES[: 1 if spec.quick else None]}
        if spec.options["train"]:
            parts[spec.options["name"]] = self._files(spec.options)
        honest: list[dict[str, Any]] = []
        rows: list[dict[str, Any]] = []
        for source, (train, test) in parts.items():
            say(source)
            honest.append({"data": source, **honest_hits(train, test)})
            if spec.options["encoder"]:
                honest[-1]["neighbours"] = neighbours(train, test, resolve_model(spec.options["encoder"]))
            for name, edit in EDITS.items():
                rows.append({"data": source, "edit": name, **recall(train, test, edit, count, seed)})
        return {"table": rows, "honest": honest}

    def _hint3(self, source: str) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
        train, test = (load_rows(source, input="sentence", target="label", part=part) for part in ("train", "test"))
        return train, test

    def _files(self, options: Mapping[str, str]) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
        train, test = (
            load_rows(options[part], input=options["input"], target=options["target"], part=part)
            for part in ("train", "test")
        )
        return train, test
