"""Text identity: what makes two inputs the same input, and the ids and hash splits that follow from it.

Does not clean training data; that is the `normalise` operator.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from typing import Iterable


def normalise_text(text: str) -> str:
    """Return the text as it is compared: NFKC, lower case, single spaces, no punctuation at the ends.

    A text that is nothing but punctuation keeps it, so that "?" and "!" stay different inputs. Idempotent.
    """
    plain = " ".join(_settled(text).split())
    return _strip_ends(plain) or plain


def _settled(text: str) -> str:
    """NFKC and lower case, repeated until neither changes the text: for a few characters one undoes the other."""
    done = unicodedata.normalize("NFKC", text.lower())
    return text if done == text else _settled(done)


def _strip_ends(text: str) -> str:
    start, end = 0, len(text)
    while start < end and _is_edge(text[start]):
        start += 1
    while end > start and _is_edge(text[end - 1]):
        end -= 1
    return text[start:end]


def _is_edge(character: str) -> bool:
    return character.isspace() or unicodedata.category(character).startswith("P")


def visible(text: str) -> str:
    """The text with a mark in the place of every character that a terminal or a page would act on instead of showing:
    escape and other control characters, and those that turn the direction of writing. Line ends and tabs stay."""
    return text if text.isprintable() else text.translate(_MARKS)


_TURNING = (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C)
_MARKS = {
    **{number: chr(0x2400 + number) for number in range(0x20) if chr(number) not in "\n\t"},
    **dict.fromkeys((0x7F, *range(0x80, 0xA0), *_TURNING), "\ufffd"),
}


def text_id(text: str) -> str:
    """16 hex digits that name the normalised text. Equal for duplicates."""
    return hashlib.sha256(normalise_text(text).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def row_ids(texts: Iterable[str]) -> list[str]:
    """Ids for the rows of one file: `text_id`, with `#2`, `#3`, ... for the repeats of a text, in file order."""
    seen: Counter[str] = Counter()
    ids = []
    for text in texts:
        name = text_id(text)
        seen[name] += 1
        ids.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return ids


def stable_unit(id: str, salt: str) -> float:
    """A number in [0, 1) that depends on the id and the salt only, uniform over ids. Used for hash splits."""
    digest = hashlib.sha256(f"{salt}\0{id}".encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


class AddedIds:
    """Gives ids to the rows that one operator adds: `<source id>+<op>`, then `<source id>+<op>2`, and so on."""

    def __init__(self, op: str, taken: Iterable[str]) -> None:
        self._op = op
        self._taken = set(taken)

    def new(self, source: str) -> str:
        """Return an id that no row has yet."""
        name = f"{source}+{self._op}"
        counter = 1
        while name in self._taken:
            counter += 1
            name = f"{source}+{self._op}{counter}"
        self._taken.add(name)
        return name
