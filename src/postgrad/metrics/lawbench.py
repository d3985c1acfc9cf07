"""Scores of LawBench (Fei et al. 2023, arXiv 2309.16289), after the descriptions and scripts of its authors.

References and answers may have what LawBench puts around them: a heading as `罪名:`, a tag as `[罪名]`, `<eoa>`, and a
full stop at the end. Where the authors look for known options anywhere in an answer, the answer is read as a list here:
what names the right label in passing is wrong. Where they count words (jieba), characters are counted here.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Iterable

from postgrad.metrics.base import Answered
from postgrad.metrics.overlap import common_subsequence
from postgrad.metrics.texts import MeanMetric

_AROUND = re.compile(r"\[[^\[\]\n]{1,12}\]|<eoa>")
_HEADING = re.compile(r"\s{0,9}(?:法条|罪名|争议焦点类别|争议焦点|类别|正确答案|回答)\s{0,9}[:：]")
_BETWEEN_LABELS = re.compile(r"[;；\n]")
_PARAGRAPH = re.compile(r"第[^第款、]{0,20}款")
_DIGITS = "零一二三四五六七八九"
_NUMBER = re.compile(rf"[0-9]+|[〇两十百{_DIGITS}]+")


def bare(text: str) -> str:
    """The text without what LawBench puts around an answer."""
    inside = _AROUND.sub(" ", text).strip()
    return _HEADING.sub("", inside, count=1).strip().rstrip("。.").strip()


def _labels(text: str) -> frozenset[str]:
    return frozenset(part for each in _BETWEEN_LABELS.split(bare(text)) if (part := each.strip().rstrip("。.").strip()))


def f1_of_sets(expected: frozenset[str], answered: frozenset[str]) -> float:
    """2 shared / (expected + answered); 0 where both are empty."""
    together = len(expected) + len(answered)
    return 2.0 * len(expected & answered) / together if together else 0.0


class LawLabel(MeanMetric):
    """Share of answers with exactly the expected labels: tasks 2-2 and 2-4."""

    name = "law_label"

    def score(self, item: Answered) -> float | None:
        expected = _labels(item.reference)
        return float(_labels(item.answer) == expected) if expected else None


class LawLabelF1(MeanMetric):
    """Mean F1 of the labels of an item, between semicolons: task 3-3."""

    name = "law_label_f1"

    def score(self, item: Answered) -> float | None:
        expected = _labels(item.reference)
        return f1_of_sets(expected, _labels(item.answer)) if expected else None


def articles(text: str) -> frozenset[str]:
    """The numbers of the articles that a text names between `、`: the first number of each part, paragraphs aside."""
    found = (_NUMBER.search(_PARAGRAPH.sub("", part)) for part in bare(text).split("、"))
    return frozenset(_plain(each[0]) for each in found if each)


def _plain(number: str) -> str:
    """A number in Chinese or Arabic digits as Arabic digits. A text, because answers hold numbers of any length."""
    if number[0] in "0123456789":
        return number.lstrip("0") or "0"
    number = number.replace("〇", "零").replace("两", "二")
    if not set(number) & set("十百"):
        return "".join(str(_DIGITS.index(each)) for each in number).lstrip("0") or "0"
    total, digit = 0, 0
    for each in number:
        if each in _DIGITS:
            digit = _DIGITS.index(each)
        else:
            total, digit = total + (digit or 1) * {"十": 10, "百": 100}[each], 0
    return str(total + digit)


class LawArticleF1(MeanMetric):
    """Mean F1 of the articles of law of an item: task 3-1."""

    name = "law_article_f1"

    def score(self, item: Answered) -> float | None:
        expected = articles(item.reference)
        return f1_of_sets(expected, articles(item.answer)) if expected else None


def _characters(text: str) -> list[str]:
    return [each for each in bare(text).lower() if each.isalnum()]


def _f1(shared: int, expected: Iterable[str], answered: Iterable[str]) -> float:
    return 2.0 * shared / (len(list(expected)) + len(list(answered)))


class LawReadingF1(MeanMetric):
    """Mean F1 of letters and digits, order aside, as in CJRC (Duan et al. 2019, arXiv 1912.09156): task 2-5."""

    name = "law_reading_f1"

    def score(self, item: Answered) -> float | None:
        expected, answered = _characters(item.reference), _characters(item.answer)
        if not expected:
            return None
        return _f1((Counter(expected) & Counter(answered)).total(), expected, answered)


class LawRougeL(MeanMetric):
    """Mean F1 of the longest common subsequence of letters and digits (ROUGE-L, Lin 2004, section 3.1): task 3-8."""

    name = "law_rougeL"

    def score(self, item: Answered) -> float | None:
        expected, answered = _characters(item.reference), _characters(item.answer)
        if not expected:
            return None
        return _f1(common_subsequence(expected, answered), expected, answered)
