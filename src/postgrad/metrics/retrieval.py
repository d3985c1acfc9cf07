"""Ranked lists: the reference says what is relevant, the answer ranks ids from the best down.

The reference is a set of ids (a JSON list, or ids between separators) or a JSON object of id -> gain. The answer is the
first JSON list in the text, else its lines, else what stands between separators in its one line. Ids are compared
letter by letter, white space at both ends aside; an id that comes twice counts where it comes first. Unscored where
nothing is relevant or the reference cannot be read.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Mapping, Sequence

from postgrad.metrics.base import Answered
from postgrad.metrics.reading import answered_list, expected_list, read_json
from postgrad.metrics.texts import MeanMetric

_LARGEST_GAIN = 1e12


def _gains(reference: str) -> Mapping[str, float] | None:
    """Id -> gain of what is relevant; None where the reference cannot be read or nothing is."""
    value = read_json(reference) if reference.lstrip().startswith("{") else None
    if value is None:
        return {one.strip(): 1.0 for one in expected_list(reference) or ()} or None
    gains: dict[str, float] = {}
    for key, gain in value.items():
        if isinstance(gain, bool) or not isinstance(gain, int | float) or not 0 <= gain <= _LARGEST_GAIN:
            return None
        if gain > 0:
            gains[key.strip()] = float(gain)
    return gains or None


def _lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1:
        return lines
    separator = ";" if ";" in text else ","
    return [part.strip() for part in text.split(separator) if part.strip()]


class RankedMetric(MeanMetric):
    """A mean over ranked lists."""

    @abstractmethod
    def of_ranking(self, ranked: Sequence[str], gains: Mapping[str, float]) -> float:
        """The value of distinct ids, the best first, under positive gains."""

    def score(self, item: Answered) -> float | None:
        gains = _gains(item.reference)
        if gains is None:
            return None
        return self.of_ranking(list(dict.fromkeys(answered_list(item.answer, gains, str.strip, _lines))), gains)


class _RecallAt(RankedMetric):
    k: int

    def of_ranking(self, ranked: Sequence[str], gains: Mapping[str, float]) -> float:
        return sum(one in gains for one in ranked[: self.k]) / len(gains)


class RecallAt1(_RecallAt):
    """Mean share of the relevant ids that come first. At most 1/3 where three are relevant."""

    name = "recall_at_1"
    k = 1


class RecallAt5(_RecallAt):
    """Mean share of the relevant ids among the first five."""

    name = "recall_at_5"
    k = 5


class RecallAt10(_RecallAt):
    """Mean share of the relevant ids among the first ten."""

    name = "recall_at_10"
    k = 10


class MRR(RankedMetric):
    """Mean of 1 / rank of the first relevant id (Voorhees 1999); 0 where there is none."""

    name = "mrr"

    def of_ranking(self, ranked: Sequence[str], gains: Mapping[str, float]) -> float:
        return next((1.0 / rank for rank, one in enumerate(ranked, start=1) if one in gains), 0.0)


class NdcgAt10(RankedMetric):
    """Mean discounted gain of the first ten, over that of the best ranking (Järvelin and Kekäläinen 2002), with linear
    gain / log2(1 + rank) as in trec_eval."""

    name = "ndcg_at_10"
    k = 10

    def of_ranking(self, ranked: Sequence[str], gains: Mapping[str, float]) -> float:
        best = sorted(gains.values(), reverse=True)
        return self._discounted([gains.get(one, 0.0) for one in ranked]) / self._discounted(best)

    def _discounted(self, gains: Sequence[float]) -> float:
        return sum(gain / math.log2(1 + rank) for rank, gain in enumerate(gains[: self.k], start=1))
