"""How a text looks once everything that an eye skips is taken away: what near copies are compared by.

`text.py` says which inputs are the same input, and names them. This goes further: zero-width characters, accents,
punctuation and spacing go, and letters that only look Latin become Latin. No training text is changed by it.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Iterable, Mapping, NamedTuple, Sequence

from postgrad.data.text import text_id

# Languages without spaces between words: each character counts as a word.
_UNSPACED = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_APOSTROPHES = frozenset("'\u2019\u02bc`\u00b4")
# Invisible, and no format characters: fillers of Hangul, the grapheme joiner, variation selectors.
_INVISIBLE = re.compile("[\u115f\u1160\u3164\uffa0\u034f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
# Marks above and below a letter; vowel signs and tones of Indic and other scripts have lower classes and stay.
_FIRST_ACCENT = 200


class _Letters(dict[int, str]):
    """For `str.translate`, made as characters turn up: what becomes of each."""

    def __missing__(self, number: int) -> str:
        found = self[number] = _letter(chr(number))
        return found


def _letter(c: str) -> str:
    """A letter, digit or vowel sign as it is, a word of its own where words have no spaces; nothing for what cannot be
    seen and for accents; else a space."""
    if c in _APOSTROPHES or _INVISIBLE.match(c) or unicodedata.combining(c) >= _FIRST_ACCENT:
        return ""
    kind = unicodedata.category(c)
    if kind == "Cf" or (kind == "Cc" and not c.isspace()):
        return ""
    if kind[0] not in "LMN":
        return " "
    return f" {c} " if _UNSPACED.match(c) else c


_LETTERS = _Letters()


class Item(NamedTuple):
    """A text under an id."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Folded:
    """A text as the matchers see it.

    Attributes:
        id: of the row or evaluation item.
        name: `text_id`.
        keys: the letters and digits alone, without and with look-alikes made Latin; none where there are none.
        words: lower-case words, look-alikes made Latin.
        digits: every digit, in order.
    """

    id: str
    name: str
    keys: tuple[str, ...]
    words: tuple[str, ...]
    digits: str

    @property
    def key(self) -> str:
        """The letters and digits alone."""
        return "".join(self.words)


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text: compatibility characters made plain, lower case, without accents and what is invisible."""
    plain = text if text.isascii() else unicodedata.normalize("NFKD", text)
    return tuple(unicodedata.normalize("NFKC", plain.translate(_LETTERS)).casefold().split())


def latinised(text: str) -> str:
    """The text with look-alikes of a to z in their place."""
    return text if text.isascii() else unicodedata.normalize("NFKD", text).translate(_lookalikes())


def folded(item: Item) -> Folded:
    """What is compared of one text."""
    plain, latin = words_of(item.text), words_of(latinised(item.text))
    # A text that is all in another alphabet keeps it: capitals and small letters of Greek look like different ones.
    shown = latin if any(c.isascii() and c.isalpha() for c in item.text) or "".join(latin).isascii() else plain
    keys = tuple(dict.fromkeys(key for key in ("".join(plain), "".join(latin)) if key))
    digits = "".join(c for word in shown for c in word if c.isdecimal())
    return Folded(item.id, text_id(item.text), keys, shown, digits)


def folded_all(items: Iterable[Sequence[str]]) -> list[Folded]:
    """`folded` of (id, text) and whatever follows, such as rows."""
    return [folded(Item(item[0], item[1])) for item in items]


@cache
def _lookalikes() -> Mapping[int, str]:
    lines = files("postgrad.data").joinpath("lookalikes.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split() for line in lines if line and not line.startswith("#"))
    return {ord(character): letter for letter, alike in pairs for character in alike}
