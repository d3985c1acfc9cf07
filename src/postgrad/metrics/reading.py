"""Lists and JSON read out of texts. Nothing here fails or takes long, whatever the text.

What is read depends on the text alone. Python's JSON reader gives up at a depth that depends on how deep the caller
stands; values nested deeper than `DEPTH` therefore count as unreadable.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Collection, Literal

DEPTH = 64
_TRIES = 100  # every try reads up to the whole text, and a text may hold nothing but brackets
_DIGITS = 300  # longer whole numbers overflow a float

Leaf = str | int | float | bool | None
Path = tuple[str | int, ...]

_FENCED = re.compile(r"```[A-Za-z0-9]*[ \t]*\n(.*)```", re.DOTALL)
_MARKER = re.compile(r"(?:[-*•]|[0-9]{1,3}[.)])\s+")
_QUOTES = "\"'`*“”‘’"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else float(digits)


def _decoder() -> json.JSONDecoder:
    """Strict: NaN and Infinity are refused, as in RFC 8259."""
    return json.JSONDecoder(parse_constant=_refuse, parse_int=_whole)


def flatten(value: Any) -> dict[Path, Leaf | list[Any] | dict[str, Any]] | None:
    """Path -> leaf of a JSON value; an empty list or object below the root is a leaf. None where it is too deep."""
    leaves: dict[Path, Leaf | list[Any] | dict[str, Any]] = {}
    waiting: list[tuple[Path, Any]] = [((), value)]
    while waiting:
        path, node = waiting.pop()
        if len(path) > DEPTH:
            return None
        if node and isinstance(node, dict):
            waiting += [((*path, key), child) for key, child in node.items()]
        elif node and isinstance(node, list):
            waiting += [((*path, place), child) for place, child in enumerate(node)]
        elif path or not isinstance(node, dict | list):
            leaves[path] = node
    return leaves


def read_json(text: str) -> Any:
    """The text as a JSON object or list; None where it is neither."""
    text = text.strip()
    try:
        value, end = _decoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    is_whole = end == len(text) and isinstance(value, dict | list)
    return value if is_whole and flatten(value) is not None else None


def unfenced(text: str) -> str:
    """The text without the Markdown code fence that is around the whole of it."""
    fenced = _FENCED.fullmatch(text.strip())
    return fenced[1] if fenced else text


def first_json(text: str, opening: Literal["{", "["]) -> Any:
    """The first JSON object or list anywhere in the text; None where the first hundred brackets open none."""
    decoder, place = _decoder(), -1
    for _ in range(_TRIES):
        place = text.find(opening, place + 1)
        if place < 0:
            break
        try:
            value, _ = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            continue
        return value if flatten(value) is not None else None
    return None


def folded(text: str) -> str:
    """Case and runs of white space aside."""
    return " ".join(text.split()).casefold()


def words_of(value: Any) -> str:
    """An element of a JSON list as a text."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def cut(text: str) -> list[str]:
    """The parts of a text between lines and semicolons, or commas where it has no semicolon."""
    separator = ";" if ";" in text else ","
    parts = [part for line in text.splitlines() for part in line.split(separator)]
    return [part.strip() for part in parts if part.strip()]


def expected_list(text: str, split: Callable[[str], list[str]] = cut) -> list[str] | None:
    """A reference as a list: JSON, or parts between semicolons, else commas, and lines. An empty text is an empty list;
    None where it begins like JSON and is no JSON list."""
    if text.lstrip().startswith(("[", "{")):
        value = read_json(text)
        return [words_of(one) for one in value] if isinstance(value, list) else None
    return split(text)


def answered_list(
    text: str,
    known: Collection[str],
    key: Callable[[str], str],
    split: Callable[[str], list[str]] = cut,
) -> list[str]:
    """An answer as a list of keys: the first JSON list in it, else its parts.

    Numbering, quotes, a full stop and a heading ("Labels: a") around a part are dropped unless the reference has them.

    Args:
        known: keys of what the reference names.
        key: how texts are compared.
        split: how a text that holds no JSON is cut.
    """
    value = first_json(text, "[")
    if value is not None:
        return [key(words_of(one)) for one in value]
    parts = (_bare(part, known, key) for part in split(text))
    return [part for part in parts if part]


def _bare(part: str, known: Collection[str], key: Callable[[str], str]) -> str:
    """The key of one part of a list; empty for a heading."""
    if key(part) in known:
        return key(part)
    bare = part.strip("[]").strip()
    bare = _MARKER.sub("", bare, count=1) if _MARKER.match(bare) else bare
    for form in (bare, bare.strip(_QUOTES), bare.rstrip(".").strip(_QUOTES), _after_heading(bare)):
        if key(form) in known:
            return key(form)
    return "" if bare.endswith(":") else key(bare.strip(_QUOTES))


def _after_heading(part: str) -> str:
    return part.rpartition(": ")[2].strip().rstrip(".").strip(_QUOTES)
