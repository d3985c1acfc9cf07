"""What the answers of a data file look like where they are words: form, fitting metric, and how to ask.

Lengths in tokens are estimates that no model is loaded for; they are meant to be above what a tokenizer counts.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Callable, Sequence

from postgrad.records import Record

# Share of the answers that must have a form for it to be that of all: some cells of a real file are always odd.
MOST = 0.95
# Fewer rows cannot tell answers from labels that happen to occur once.
FEW_ROWS = 20
LONG_WORDS, SHORT_WORDS = 20, 3
# Words of one label: longer texts that do not repeat are written, not chosen.
LABEL_WORDS = 8
KEYS = 20
STEP = 8
_NUMBER = re.compile(r"[-+−]?[$€£]?\d[\d,]*(?:\.\d+)?\s?%?")
# GSM8K writes the way to the number, and the number behind this mark.
_WORKED = re.compile(r"[\s\S]*####\s*[-+$]*\d[\d,.]*\s*")
_LETTER = re.compile(r"\(?[A-Ea-e][).]?")
_PIECES = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_|\n")


class Answers(Record):
    """Answers in words.

    Attributes:
        form: what they are, in the plural: "JSON objects", "numbers", "letters", "long texts" or "short texts".
        metric: the text metric that fits.
        clear: they can hardly be labels.
        prompt: how a model may be asked, with `{input}` in it.
        max_new_tokens: room for 99 of 100 of them, by an estimate of their tokens.
    """

    form: str
    metric: str
    clear: bool
    prompt: str
    max_new_tokens: int


def describe(values: Sequence[Any]) -> Answers:
    """Look at the cells of an answer column; empty ones are left out.

    Args:
        values: at least one.
    """
    texts = [written(value) for value in values]
    distinct = len(set(texts))
    words = sorted(len(text.split()) for text in texts)
    middle = words[len(words) // 2]
    objects = [found for text in texts if (found := _object(text)) is not None]
    prompt = "{input}"
    if _most(len(objects), texts):
        form, metric, prompt = "JSON objects", "json_field_f1", _ask_json(objects)
    elif _share(texts, _NUMBER.fullmatch):
        form, metric, prompt = "numbers", "numeric_match", "{input}\n\nAnswer with the number alone."
    elif _share(texts, _WORKED.fullmatch):
        form, metric, prompt = "numbers", "numeric_match", "{input}\n\nEnd your answer with #### and the number."
    elif _share(texts, _LETTER.fullmatch):
        form, metric, prompt = "letters", "choice_letter", "{input}\n\nAnswer with the letter alone."
    else:
        form, metric = _free(texts, middle)
    wordy = middle >= LABEL_WORDS
    repeat = distinct <= len(texts) / (10 if wordy else 2)
    return Answers(
        form=form,
        metric=metric,
        clear=form == "JSON objects"
        or (len(texts) >= FEW_ROWS and not repeat and (wordy or form in ("long texts", "short texts"))),
        prompt=prompt,
        max_new_tokens=_room(texts),
    )


def written(value: Any) -> str:
    """A cell as the answer that a model would write."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value).strip()


def _most(count: int, texts: Sequence[str]) -> bool:
    return count >= MOST * len(texts)


def _share(texts: Sequence[str], fits: Callable[[str], object]) -> bool:
    return _most(sum(1 for text in texts if fits(text)), texts)


def _object(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _ask_json(objects: Sequence[dict[str, Any]]) -> str:
    keys = tuple(dict.fromkeys(key for found in objects for key in found))
    named = f" with the keys {', '.join(keys)}" if 0 < len(keys) <= KEYS and not any("{" in key for key in keys) else ""
    return f"{{input}}\n\nAnswer with one JSON object{named} and nothing else."


def _free(texts: Sequence[str], middle: int) -> tuple[str, str]:
    """Overlap of words means nothing in a script without spaces; characters do."""
    latin = sum(len(re.findall(r"[A-Za-z]", text)) for text in texts)
    letters = sum(len(re.findall(r"[^\W\d_]", text)) for text in texts)
    if letters and latin < letters / 2:
        characters = sorted(map(len, texts))[len(texts) // 2]
        return ("long texts", "chrf") if characters > LONG_WORDS * 3 else ("short texts", "exact_match")
    if middle > LONG_WORDS:
        return "long texts", "rougeL"
    return "short texts", "token_f1" if middle > SHORT_WORDS else "exact_match"


def _room(texts: Sequence[str]) -> int:
    """The 99th percentile of the lengths, rounded up, with the token that ends an answer."""
    lengths = sorted(map(_tokens, texts))
    high = lengths[math.ceil(0.99 * len(lengths)) - 1] + 1
    return min(32_768, STEP * math.ceil(high / STEP))


def _tokens(text: str) -> int:
    """About how many tokens a byte-level tokenizer made for English makes: a digit or a sign is one, a word one for
    three bytes, and other scripts come out as one for a byte and a half."""
    return sum(
        math.ceil(len(piece) / 3 if piece.isascii() else len(piece.encode()) / 1.5) for piece in _PIECES.findall(text)
    )
