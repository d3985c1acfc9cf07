"""Answers in words as a job leaves them, read without trusting a byte: JSON lines of bounded size, plain texts only."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Sequence

from postgrad.execute.answers import BadAnswers, Questions, numbered

#: Bytes that one answered token may take in the file, and those of a line beside its text. A token is a few letters,
#: and a letter up to six bytes where it is escaped.
TOKEN_BYTES, LINE_BYTES = 256, 4096
#: The share of questions on which two reckonings of one model may differ: answers are asked in other batches, and one
#: token that is nearly a tie changes the rest of an answer.
SLACK = 0.1
#: Below so many questions no answer may differ.
FEW = 5


@dataclass(frozen=True)
class TextAnswers:
    """N texts and the tokens that each took, in the referee's order."""

    texts: tuple[str, ...]
    tokens: tuple[int, ...]

    def only(self, index: Sequence[int]) -> TextAnswers:
        return TextAnswers(tuple(self.texts[i] for i in index), tuple(self.tokens[i] for i in index))


def largest_text_file(asked: int, most_tokens: int) -> int:
    """Bytes that an honest file of answers cannot exceed."""
    return asked * (TOKEN_BYTES * most_tokens + LINE_BYTES) + LINE_BYTES


def read_text_answers(data: bytes, asked: Questions, most_tokens: int) -> TextAnswers:
    """Read a file of answers in words.

    Args:
        most_tokens: that an answer may have; the referee's limit, whatever the job says it kept to.

    Raises:
        BadAnswers: it is not what was asked for.
    """
    count = len(asked.ids)
    try:
        lines = [json.loads(line) for line in data.decode("utf-8").split("\n") if line]
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BadAnswers("the file cannot be read: lines of JSON were expected") from error
    if [line.get("id") if isinstance(line, dict) else None for line in lines] != [numbered(i) for i in range(count)]:
        raise BadAnswers("the answers are not to the questions that were asked")
    texts: list[str] = [""] * count
    tokens: list[int] = [0] * count
    for line, place in zip(lines, asked.order, strict=True):
        text, used = line.get("text"), line.get("tokens")
        if not isinstance(text, str) or not isinstance(used, int) or isinstance(used, bool) or not used >= 0:
            raise BadAnswers("an answer was expected to have a text and a count of tokens")
        if used > most_tokens or len(text) > TOKEN_BYTES * most_tokens:
            raise BadAnswers(f"an answer is longer than the limit of {most_tokens} tokens")
        if len(text) > TOKEN_BYTES * used:
            raise BadAnswers("an answer is said to have fewer tokens than its text can have")
        texts[place], tokens[place] = _plain(text), used
    return TextAnswers(tuple(texts), tuple(tokens))


def written_texts(ids: Sequence[str], answers: TextAnswers) -> bytes:
    """The file that the referee reads: real ids, in its order. Equal answers give equal bytes."""
    found = zip(ids, answers.texts, answers.tokens, strict=True)
    lines = (json.dumps({"id": name, "text": text, "tokens": tokens}) for name, text, tokens in found)
    return "".join(f"{line}\n" for line in lines).encode()


def text_disagreement(mine: TextAnswers, theirs: TextAnswers) -> str:
    """How two models' answers to the same questions differ, in words; "" when it is one model twice."""
    apart = sum(one != other for one, other in zip(mine.texts, theirs.texts, strict=True))
    if apart <= math.ceil(SLACK * len(mine.texts)) - (len(mine.texts) < FEW):
        return ""
    return f"{apart} of {len(mine.texts)} answers differ"


def _plain(text: str) -> str:
    """Half surrogate pairs, which no file takes, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
