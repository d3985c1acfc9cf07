"""Answers in words: what most metrics are made of, and the ones that compare an answer with its reference as a text.

A metric turns each item into a row of numbers once; the bootstrap then takes weighted sums of those rows. An item whose
reference cannot be read is a row of NaN and leaves every sum. Whether an item is scored never depends on the answer:
one could drop hard items by answering them with rubbish.
"""

from __future__ import annotations

import re
import string
from abc import ABC, abstractmethod
from collections import Counter
from typing import Sequence

import numpy as np
from numpy.typing import NDArray

from postgrad.metrics.base import Answered

Floats = NDArray[np.float64]


def scored_rows(parts: Floats) -> NDArray[np.bool_]:
    """(N,) whether an item is scored."""
    return np.asarray(~np.any(np.isnan(parts), axis=1))


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide; NaN where the denominator is not positive."""
    out = np.full(denominator.shape, np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out


class SumsMetric(ABC):
    """A function of weighted sums over items.

    Attributes:
        size: S, how many numbers `row` gives.
    """

    name: str
    low = 0.0
    high = 1.0
    dear = False
    size = 1

    @abstractmethod
    def row(self, item: Answered) -> Sequence[float] | None:
        """The (S,) finite numbers of one item; None where the reference cannot be read."""

    @abstractmethod
    def of_sums(self, sums: Floats, total: Floats) -> Floats:
        """(B,) values from the (B, S) weighted sums of the rows and the (B,) weights of the scored items. Where that
        weight is zero the value is not used."""

    def grade(self, items: Sequence[Answered]) -> Floats:
        unscored = (np.nan,) * self.size
        rows = [unscored if (row := self.row(item)) is None else row for item in items]
        return np.array(rows, dtype=np.float64).reshape(len(rows), self.size)

    def values(self, parts: Floats, weights: Floats) -> Floats:
        scored = scored_rows(parts)
        total = weights @ scored.astype(np.float64)
        found = self.of_sums(weights @ np.where(scored[:, None], parts, 0.0), total)
        return np.clip(np.where(total > 0, found, np.nan), self.low, self.high)


class MeanMetric(SumsMetric):
    """A weighted mean of one number an item."""

    @abstractmethod
    def score(self, item: Answered) -> float | None:
        """The item's number in [low, high]; None where the reference cannot be read."""

    def row(self, item: Answered) -> Sequence[float] | None:
        found = self.score(item)
        return None if found is None else (found,)

    def of_sums(self, sums: Floats, total: Floats) -> Floats:
        return ratio(sums[:, 0], total)


class MicroF1Metric(SumsMetric):
    """F1 of pooled counts, 2 right / (answered + expected). 1 where nothing was expected and nothing was answered."""

    size = 3  # right, answered, expected

    def of_sums(self, sums: Floats, total: Floats) -> Floats:
        return np.nan_to_num(ratio(2.0 * sums[:, 0], sums[:, 1] + sums[:, 2]), nan=1.0)


class ExactMatch(MeanMetric):
    """Share of answers that are the reference, white space at both ends aside."""

    name = "exact_match"

    def score(self, item: Answered) -> float:
        return float(item.answer.strip() == item.reference.strip())


_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_words(text: str) -> list[str]:
    """The words of a text as SQuAD's own script compares them: lower case, without ASCII punctuation and articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


class NormalisedMatch(MeanMetric):
    """Exact match of SQuAD (Rajpurkar et al. 2016, section 6.1): case, punctuation, articles and space aside."""

    name = "normalised_match"

    def score(self, item: Answered) -> float:
        return float(squad_words(item.answer) == squad_words(item.reference))


class TokenF1(MeanMetric):
    """Mean F1 of words of SQuAD (Rajpurkar et al. 2016, section 6.1), order aside. Where either text has no word left,
    1 if neither has, as in the script of SQuAD 2.0."""

    name = "token_f1"

    def score(self, item: Answered) -> float:
        answered, expected = squad_words(item.answer), squad_words(item.reference)
        if not answered or not expected:
            return float(answered == expected)
        shared = (Counter(answered) & Counter(expected)).total()
        return 2.0 * shared / (len(answered) + len(expected))


# A letter beside another letter of any Latin alphabet, a digit or an apostrophe is part of a word; one beside a Chinese
# character is not.
_IN_WORD = "A-Za-z0-9_À-ɏ'’"
_LETTER = re.compile(rf"(?<![{_IN_WORD}])[A-J](?![{_IN_WORD}])")
_ALONE = re.compile(r"\W*([A-Ja-j])\W*", re.ASCII)
# "A cat" holds an article and "I think" a pronoun; "A is right" and "A or B" hold letters.
_ARTICLE = re.compile(r" (?!(?:is|was|because|since|as|and|or|but|not)\b)[a-z]")
_PRONOUN = re.compile(r" (?!(?:is|and|or)\b)[a-z]")
# "B) Vitamin C": what follows the mark is the text of the option.
_OPTION = re.compile(r"\W{0,8}([A-J])[).:] +(?!(?:and|or)\b)[A-Za-z][a-z]")
_MARKED = re.compile(rf"(?<![{_IN_WORD}])([A-J])(?=[):])")


def named_letters(text: str) -> set[str]:
    """The letters A to J that a text names as choices. A lower-case letter counts where the text is nothing else."""
    if alone := _ALONE.fullmatch(text):
        return {alone[1].upper()}
    if option := _OPTION.match(text):
        return {option[1], *_MARKED.findall(text)}
    sure, articles, pronouns = set(), set(), set()
    for found in _LETTER.finditer(text):
        if found[0] == "A" and _ARTICLE.match(text, found.end()):
            articles.add("A")
        elif found[0] == "I" and _PRONOUN.match(text, found.end()):
            pronouns.add("I")
        else:
            sure.add(found[0])
    return sure or articles or pronouns


class ChoiceLetter(MeanMetric):
    """Share of answers that name the right letter of a multiple choice, and no other.

    "(B)", "B.", "The answer is B" and "B) because ..." name B; "A or B" names two and is wrong, and so is reasoning
    that goes through the options by letter. Unscored where the reference does not name exactly one letter from A to J.
    """

    name = "choice_letter"

    def score(self, item: Answered) -> float | None:
        expected = named_letters(item.reference)
        return float(named_letters(item.answer) == expected) if len(expected) == 1 else None
