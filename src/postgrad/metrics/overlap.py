"""Overlap of an answer's words or characters with those of its reference: ROUGE, BLEU and chrF.

Tokens, stems and n-grams are those of `rouge_score` and `sacrebleu`; sums and formulas are here, because those
libraries know no weights. The libraries are imported when a metric is made.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence

import numpy as np

from postgrad.metrics.base import Answered
from postgrad.metrics.texts import Floats, MeanMetric, SumsMetric, ratio


def _stems() -> Callable[[str], list[str]]:
    """The tokenizer of rouge_score, with its Porter stemmer."""
    from rouge_score.tokenizers import DefaultTokenizer

    stems: Callable[[str], list[str]] = DefaultTokenizer(use_stemmer=True).tokenize
    return stems


class _RougeN(MeanMetric):
    """Mean F1 of stemmed n-grams (Lin 2004, section 2), as rouge_score gives it. Unscored where the reference has no
    n-gram of Latin letters and digits: no answer could be right."""

    n: int

    def __init__(self) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        self._stems = _stems()
        self._scorer: Any = RougeScorer([f"rouge{self.n}"], use_stemmer=True)

    def score(self, item: Answered) -> float | None:
        found = float(self._scorer.score(item.reference, item.answer)[f"rouge{self.n}"].fmeasure)
        if not found and len(self._stems(item.reference)) < self.n:
            return None
        return found


class Rouge1(_RougeN):
    """ROUGE of single words."""

    name = "rouge1"
    n = 1


class Rouge2(_RougeN):
    """ROUGE of pairs of words."""

    name = "rouge2"
    n = 2


class RougeL(MeanMetric):
    """Mean F1 of the longest common subsequence of stemmed words (Lin 2004, section 3.1), the whole text as one
    sentence. The value is that of rouge_score, whose table of numbers grows with the product of both lengths."""

    name = "rougeL"

    def __init__(self) -> None:
        self._stems = _stems()

    def score(self, item: Answered) -> float | None:
        expected, answered = self._stems(item.reference), self._stems(item.answer)
        if not expected:
            return None
        return 2.0 * common_subsequence(expected, answered) / (len(expected) + len(answered))


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, a bit for each word of `first`.

    H. Hyyrö, "Bit-parallel LCS-length computation revisited", AWOCA 2004.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    full = (1 << len(first)) - 1
    unmatched = full
    for word in second:
        hits = unmatched & places.get(word, 0)
        unmatched = ((unmatched + hits) | (unmatched - hits)) & full
    return len(first) - unmatched.bit_count()


class Bleu(SumsMetric):
    """BLEU of the corpus (Papineni et al. 2002), 0 to 1: a hundredth of `sacrebleu.corpus_bleu` with its defaults, 13a
    tokens, up to four words, and exponential smoothing (Post 2018).

    Smoothing counts items, so the size of the weights matters where some n-gram order has no match.
    """

    name = "bleu"
    high = 1.0
    size = 10  # length of the answer and of the reference, n-grams matched (4), n-grams answered (4)

    def __init__(self) -> None:
        from sacrebleu.metrics.bleu import BLEU

        # Effective order makes no difference to the counts and keeps sacrebleu from advising it for single sentences.
        self._bleu = BLEU(effective_order=True)

    def row(self, item: Answered) -> Sequence[float]:
        found = self._bleu.sentence_score(item.answer, [item.reference])
        return (found.sys_len, found.ref_len, *found.counts, *found.totals)

    def of_sums(self, sums: Floats, total: Floats) -> Floats:
        answered, expected, matched, grams = sums[:, 0], sums[:, 1], sums[:, 2:6], sums[:, 6:]
        # The k-th order without a match counts as 1 / 2^k of a match.
        missed = (matched == 0) & (grams > 0)
        counted = np.where(missed, 0.5 ** np.cumsum(missed, axis=1), matched)
        precision = ratio(counted, grams)
        defined = np.all(grams > 0, axis=1) & np.any(matched > 0, axis=1)
        mean = np.exp(np.log(np.where(defined[:, None], precision, 1.0)).mean(axis=1))
        shortness = np.minimum(0.0, 1.0 - ratio(expected, answered))
        return np.where(defined, np.exp(np.nan_to_num(shortness, nan=0.0)) * mean, 0.0)


class Chrf(SumsMetric):
    """chrF2 of the corpus (Popović 2015), 0 to 1: a hundredth of `sacrebleu.corpus_chrf` with its defaults, up to six
    characters, white space left out, recall counted twice. Unscored where the reference is white space."""

    name = "chrf"
    high = 1.0
    orders = 6
    beta = 2.0
    size = 3 * orders  # for each order: n-grams answered, expected, matched

    def __init__(self) -> None:
        from sacrebleu.metrics.helpers import extract_all_char_ngrams

        self._grams: Any = extract_all_char_ngrams

    def row(self, item: Answered) -> Sequence[float] | None:
        if not item.reference.strip():
            return None
        row: list[float] = []
        answered, expected = self._grams(item.answer, self.orders), self._grams(item.reference, self.orders)
        for got, right in zip(answered, expected, strict=True):
            matched = sum(min(count, got.get(gram, 0)) for gram, count in right.items())
            # sacrebleu counts no answered n-grams of an order that the reference is too short for.
            row += (got.total() if right else 0, right.total(), matched)
        return row

    def of_sums(self, sums: Floats, total: Floats) -> Floats:
        answered, expected, matched = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
        counts = (answered > 0) & (expected > 0)
        orders = counts.sum(axis=1).astype(np.float64)
        precision = ratio(np.where(counts, np.nan_to_num(ratio(matched, answered)), 0.0).sum(axis=1), orders)
        recall = ratio(np.where(counts, np.nan_to_num(ratio(matched, expected)), 0.0).sum(axis=1), orders)
        factor = self.beta**2
        f = ratio((1.0 + factor) * precision * recall, factor * precision + recall)
        return np.nan_to_num(f, nan=0.0)
