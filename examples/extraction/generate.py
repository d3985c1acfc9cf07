"""Makes the rows of this example: order lines as people type them, and what is in them as JSON.

python examples/extraction/generate.py writes train.jsonl, dev.jsonl and test.jsonl beside itself; the same every time.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

ITEMS = {
    "desk lamp": ("desk lamp", "desk lamps", "lamp for the desk"),
    "office chair": ("office chair", "office chairs", "chair (office)"),
    "notebook": ("notebook", "notebooks", "note books"),
    "fountain pen": ("fountain pen", "fountain pens", "ink pen"),
    "whiteboard": ("whiteboard", "whiteboards", "white board"),
    "stapler": ("stapler", "staplers"),
    "paper ream": ("ream of paper", "reams of paper", "paper reams"),
    "usb cable": ("usb cable", "usb cables", "USB-cable"),
    "monitor": ("monitor", "monitors", "screen"),
    "keyboard": ("keyboard", "keyboards", "kbd"),
}
COLOURS = ("black", "white", "red", "blue", "green", "grey", None)
WORDS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 10: "ten", 12: "a dozen", 20: "twenty"}
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", None)
FORMS = (
    "{n} {c}{i}{by}",
    "need {n} {c}{i}{by} pls",
    "can you send us {n} {c}{i}{by}?",
    "{i}, {c}x{n}{by}",
    "hi, we are out of {i}. {n} more {c}ones{by} would be great",
    "order: {n} x {c}{i}{by}. thanks!",
    "pls add {n} {c}{i} to the next delivery{by}",
    "{c}{i}: {n}{by}",
)
SIZES = {"train": 500, "dev": 200, "test": 400}


def row(rng: Random) -> dict[str, object]:
    """One order line with its answer."""
    item = rng.choice(sorted(ITEMS))
    count = rng.choice((*WORDS, rng.randint(7, 60)))
    colour, day = rng.choice(COLOURS), rng.choice(DAYS)
    text = rng.choice(FORMS).format(
        n=WORDS[count] if count in WORDS and rng.random() < 0.5 else count,
        c=f"{colour} " if colour else "",
        i=rng.choice(ITEMS[item]),
        by=f" {rng.choice(('by', 'for', 'until'))} {day}" if day else "",
    )
    if rng.random() < 0.25:
        text = text.upper() if rng.random() < 0.3 else _typo(text, rng)
    return {"text": text, "answer": {"item": item, "colour": colour, "quantity": count, "due": day}}


def _typo(text: str, rng: Random) -> str:
    at = rng.randrange(len(text) - 1)
    if text[at].isdigit() or text[at + 1].isdigit():
        return text
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def main() -> None:
    """Write the files. No text is in two of them."""
    rng, seen = Random(7), set[str]()
    for name, size in SIZES.items():
        rows = []
        while len(rows) < size:
            found = row(rng)
            if found["text"] not in seen:
                seen.add(str(found["text"]))
                rows.append(found)
        lines = "".join(json.dumps(each) + "\n" for each in rows)
        (Path(__file__).parent / f"{name}.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
