"""The two forms that a job's answers may have: probabilities of labels, or texts. One object says how each is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, Sequence, TypeVar, cast

from postgrad.execute.answers import Answers, Questions, disagreement, largest_file, read_answers, written
from postgrad.execute.texts import (
    TextAnswers,
    largest_text_file,
    read_text_answers,
    text_disagreement,
    written_texts,
)
from postgrad.records import JobSpec

A = TypeVar("A")


class Form(Protocol, Generic[A]):
    """How answers of one form are taken. `suffix` is that of a job's file."""

    suffix: str

    def largest(self, asked: int) -> int:
        """Bytes that an honest file of answers to so many questions cannot exceed."""
        ...

    def read(self, data: bytes, asked: Questions) -> A:
        """Raises BadAnswers or Refused."""
        ...

    def written(self, ids: Sequence[str], answers: A) -> bytes:
        """The file that the referee reads."""
        ...

    def only(self, answers: A, index: Sequence[int]) -> A:
        """The answers at these places."""
        ...

    def disagreement(self, mine: A, theirs: A) -> str:
        """How two models' answers differ, in words; "" when it is one model twice."""
        ...


@dataclass(frozen=True)
class LabelForm:
    """(N, K) probabilities and (N,) scores in an npz."""

    labels: int
    suffix: str = ".npz"

    def largest(self, asked: int) -> int:
        return largest_file(asked, self.labels)

    def read(self, data: bytes, asked: Questions) -> Answers:
        return read_answers(data, asked, self.labels)

    def written(self, ids: Sequence[str], answers: Answers) -> bytes:
        return written(ids, answers)

    def only(self, answers: Answers, index: Sequence[int]) -> Answers:
        chosen = list(index)
        return Answers(answers.probs[chosen], answers.score[chosen])

    def disagreement(self, mine: Answers, theirs: Answers) -> str:
        return disagreement(mine, theirs)


@dataclass(frozen=True)
class TextForm:
    """JSON lines of texts with their tokens."""

    most_tokens: int
    suffix: str = ".jsonl"

    def largest(self, asked: int) -> int:
        return largest_text_file(asked, self.most_tokens)

    def read(self, data: bytes, asked: Questions) -> TextAnswers:
        return read_text_answers(data, asked, self.most_tokens)

    def written(self, ids: Sequence[str], answers: TextAnswers) -> bytes:
        return written_texts(ids, answers)

    def only(self, answers: TextAnswers, index: Sequence[int]) -> TextAnswers:
        return answers.only(index)

    def disagreement(self, mine: TextAnswers, theirs: TextAnswers) -> str:
        return text_disagreement(mine, theirs)


AnyAnswers = Answers | TextAnswers


def form_of(spec: JobSpec) -> Form[AnyAnswers]:
    """A job with labels answers with them, one without in words."""
    found = LabelForm(len(spec.labels)) if spec.labels else TextForm(spec.generation.max_new_tokens)
    return cast(Form[AnyAnswers], found)
