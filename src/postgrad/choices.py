"""The options of a multiple-choice question, read from its text."""

from __future__ import annotations

import re
from typing import NamedTuple, Sequence

from postgrad.errors import UserError
from postgrad.records import Generation, Row

LETTERS = "ABCDEFGHIJ"
_OPTION = re.compile(r"^[ \t]*\(?([A-J])[).:：、．][ \t]*(\S.*?)\s*$", re.MULTILINE)


class Option(NamedTuple):
    """One answer to choose: its letter, and what it says."""

    letter: str
    text: str


def options_in(text: str) -> tuple[Option, ...]:
    """The last list of options in a text, each on a line of its own: `A) yes`, `(B) no`, `C. perhaps`, `D: never`.

    Letters count up from A without a gap, to J at most. Returns () where there are not two such lines.
    """
    found: tuple[Option, ...] = ()
    run: list[Option] = []
    for letter, said in _OPTION.findall(text):
        run = run if letter == LETTERS[len(run) : len(run) + 1] else []
        if letter == LETTERS[len(run)]:
            run.append(Option(letter, said))
        if len(run) > 1:
            found = tuple(run)
    return found


def answers_in(text: str, generation: Generation) -> tuple[str, ...]:
    """What a text can be answered with where `generation.choices` is set; () where it lists no options."""
    return tuple(option.letter if generation.choices == "letter" else option.text for option in options_in(text))


def check_choices(rows: Sequence[Row], generation: Generation, where: str) -> None:
    """Check that every row lists its options, and that what is to be answered is one of them.

    Raises:
        UserError: how many do not, with the first of them.
    """
    if generation.choices is None:
        return
    wrong = [row for row in rows if row.label not in answers_in(row.text, generation)]
    if not wrong:
        return
    row, found = wrong[0], answers_in(wrong[0].text, generation)
    can = f"one of {', '.join(map(repr, found))}" if found else "options such as 'A) yes' and 'B) no', a line each"
    raise UserError(
        f"generation.choices is {generation.choices}, and {len(wrong):,} of {len(rows):,} {where} rows do not go with "
        f"it. The first begins with {row.text[:60]!r} and is to be answered with "
        f"{row.label[:60]!r}; expected was {can}. "
        "List the options in the input and take one of them as target, or remove generation.choices."
    )
