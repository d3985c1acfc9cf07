"""The `typos` and `word_dropout` operators: noisy copies of rows, written the way people type in a hurry.

Copies keep their label, negatives too. The originals stay.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Callable

from pydantic import Field

from postgrad.data.text import AddedIds, normalise_text
from postgrad.records import Record, Row, StepReport

# Keys beside each other on a QWERTY keyboard.
NEIGHBOURS = {
    **{"q": "wa", "w": "qes", "e": "wrd", "r": "etf", "t": "ryg", "y": "tuh", "u": "yij", "i": "uok", "o": "ipl"},
    **{"p": "ol", "a": "qsz", "s": "adwx", "d": "sfec", "f": "dgrv", "g": "fhtb", "h": "gjyn", "j": "hkum", "k": "jli"},
    **{"l": "kop", "z": "asx", "x": "zsc", "c": "xdv", "v": "cfb", "b": "vgn", "n": "bhm", "m": "njk"},
}
MAX_SHARE = 4.0


class TyposParams(Record):
    """How many copies, how noisy.

    Attributes:
        share: copies made, as a share of the rows; 2.0 makes two of each row.
        rate: chance of an error at each letter; a copy has at least one.
    """

    share: float = Field(default=0.5, gt=0.0, le=MAX_SHARE)
    rate: float = Field(default=0.04, gt=0.0, le=0.3)


class Typos:
    """Copies with wrong, swapped, missing and doubled letters.

    The four edits are those of Belinkov and Bisk 2018 (arXiv 1711.02173, section 3.2) and Pruthi et al. 2019
    (arXiv 1905.11268, section 3).
    """

    Params: type[Record] = TyposParams

    def apply(
        self,
        rows: tuple[Row, ...],
        params: TyposParams,
        rng: Random,
        *,
        out_of_scope: str | None,
        base_model: Path | None,
    ) -> tuple[tuple[Row, ...], StepReport]:
        """See `Operator.apply`. A text with fewer than two letters gets no copy."""
        return _with_copies("typos", rows, params.share, rng, lambda text: _mistyped(text, params.rate, rng))


class WordDropoutParams(Record):
    """How many copies, how short.

    Attributes:
        share: copies made, as a share of the rows; 2.0 makes two of each row.
        keep: share of the words that a copy keeps, at least one.
        fragments: a third of the copies are a run of words each, as people write "refund order 123", and a third are
            shuffled; without it, all have words missing and keep their order.
    """

    share: float = Field(default=0.5, gt=0.0, le=MAX_SHARE)
    keep: float = Field(default=0.7, ge=0.2, le=0.95)
    fragments: bool = True


class WordDropout:
    """Copies with words missing, in fragments, or in another order (Wei and Zou 2019, arXiv 1901.11196, section 2)."""

    Params: type[Record] = WordDropoutParams

    def apply(
        self,
        rows: tuple[Row, ...],
        params: WordDropoutParams,
        rng: Random,
        *,
        out_of_scope: str | None,
        base_model: Path | None,
    ) -> tuple[tuple[Row, ...], StepReport]:
        """See `Operator.apply`. A text with fewer than three words gets no copy."""
        return _with_copies("word_dropout", rows, params.share, rng, lambda text: _shortened(text, params, rng))


def _with_copies(
    op: str, rows: tuple[Row, ...], share: float, rng: Random, noise: Callable[[str], str | None]
) -> tuple[tuple[Row, ...], StepReport]:
    """Add noisy copies of rows drawn evenly; a row for which `noise` has no answer gets none."""
    whole, rest = divmod(round(share * len(rows)), max(1, len(rows)))
    drawn = [*(row for _ in range(whole) for row in rows), *rng.sample(rows, rest)]
    ids = AddedIds(op, (row.id for row in rows))
    made = ((row, noise(row.text)) for row in drawn)
    added = tuple(row._replace(id=ids.new(row.id), text=text) for row, text in made if text is not None)
    short = len(drawn) - len(added)
    report = StepReport(
        op=op,
        rows_in=len(rows),
        rows_out=len(rows) + len(added),
        added=len(added),
        note=f"{short} copies not made: the text is too short" if short else "",
    )
    return (*rows, *added), report


# --- letters --------------------------------------------------------------------------------------------------------


def _mistyped(text: str, rate: float, rng: Random) -> str | None:
    letters = [i for i, character in enumerate(text) if character.isalpha()]
    if len(letters) < 2:
        return None
    hit = {i for i in letters if rng.random() < rate} or {rng.choice(letters)}
    out: list[str] = []
    i = 0
    while i < len(text):
        if i not in hit:
            out.append(text[i])
            i += 1
            continue
        piece, used = _one_typo(text, i, rng)
        out.append(piece)
        i += used
    typed = "".join(out)
    # The last letter of a text such as "hi" can be dropped, and swapping equal letters changes nothing.
    return typed if typed != text and typed.strip() else f"{text}{text[letters[-1]]}"


def _one_typo(text: str, i: int, rng: Random) -> tuple[str, int]:
    """(what is typed in the place of the letter at i, how many characters of the text that stands for)."""
    kind = rng.choice(("neighbour", "swap", "drop", "double"))
    letter = text[i]
    if kind == "swap" and i + 1 < len(text) and text[i + 1].isalpha():
        return text[i + 1] + letter, 2
    if kind == "drop":
        return "", 1
    near = NEIGHBOURS.get(letter.lower())
    if kind == "neighbour" and near:
        wrong = rng.choice(near)
        return wrong.upper() if letter.isupper() else wrong, 1
    return letter * 2, 1


# --- words ----------------------------------------------------------------------------------------------------------


def _shortened(text: str, params: WordDropoutParams, rng: Random) -> str | None:
    words = text.split()
    if len(words) < 3:
        return None
    size = min(len(words) - 1, max(1, round(params.keep * len(words))))
    kind = rng.choice(("drop", "fragment", "shuffle")) if params.fragments else "drop"
    if kind == "fragment":
        start = rng.randrange(len(words) - size + 1)
        return _bare(" ".join(words[start : start + size]))
    kept = [words[i] for i in sorted(rng.sample(range(len(words)), size))]
    if kind == "shuffle":
        kept = rng.sample(kept, len(kept))
    return _bare(" ".join(kept))


def _bare(fragment: str) -> str | None:
    """Without the punctuation that ended or began the sentence; None where nothing but punctuation is left."""
    cut = fragment.strip(" ,.;:!?-")
    return cut if cut and any(character.isalnum() for character in normalise_text(cut)) else None
