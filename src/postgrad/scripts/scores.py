"""The number of an experiment: what a referee command wrote, or what a script printed."""

from __future__ import annotations

import json
import math
import re

from postgrad.metrics.given import shown

MOST_ITEMS = 100_000
# How far the value may be from the mean of its items.
TOLERANCE = 1e-6
WHOLE = "score"
_SPACE = r"[^\S\n]*+"
_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|inf|-inf)"


class BadScore(Exception):
    """What was said is no score. The text says what was found."""


def written(data: bytes, sign: float) -> dict[str, float]:
    """Item -> its number, where more is better, from `score.json`; one item where there is a value alone.

    Raises:
        BadScore: it is not what a referee has to write.
    """
    try:
        found = json.loads(data)
        value, items = float(found["value"]), found.get("items") or {WHOLE: found["value"]}
        numbers = {str(name): float(number) for name, number in items.items()}
        "".join(numbers).encode()  # A name with half a character cannot be written down.
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as wrong:
        raise BadScore(f'score.json is not {{"value": number, "items": {{...}}}} ({type(wrong).__name__})') from wrong
    if len(numbers) > MOST_ITEMS:
        raise BadScore(f"score.json has {len(numbers):,} items, and at most {MOST_ITEMS:,} are taken")
    if not all(map(math.isfinite, (value, *numbers.values()))):
        raise BadScore("score.json holds a value that is no finite number")
    mean = math.fsum(number / len(numbers) for number in numbers.values())
    if abs(mean - value) > TOLERANCE * max(1.0, abs(value)):
        raise BadScore(f"the value {value:g} is not the mean of the items, {mean:g}")
    return {name: sign * number for name, number in numbers.items()}


def printed(text: str, key: str, sign: float) -> dict[str, float]:
    """The number of the last line `key: value` of an output.

    Raises:
        BadScore: there is no such line, or its value is no finite number.
    """
    # Within its line: a pattern that runs on through empty ones takes the square of their number.
    lines = re.findall(rf"^{_SPACE}{re.escape(key)}{_SPACE}[:=]{_SPACE}{_NUMBER}{_SPACE}$", text, re.MULTILINE)
    if not lines:
        raise BadScore(f"no line '{key}: NUMBER' was printed")
    value = float(lines[-1])
    if not math.isfinite(value):
        raise BadScore(f"the last line '{key}: {lines[-1]}' is no finite number")
    return {WHOLE: sign * value}


def stored(numbers: dict[str, float]) -> bytes:
    """Numbers as the outputs of a unit: answers in words, in the order of their names."""
    names = sorted(numbers)
    texts = shown([numbers[name] for name in names])
    lines = (json.dumps({"id": n, "text": t, "tokens": 0}) for n, t in zip(names, texts, strict=True))
    return "".join(f"{line}\n" for line in lines).encode()
