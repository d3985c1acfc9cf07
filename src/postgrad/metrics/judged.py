"""What a judge said of answers in words: how often they win, and how far the judge can be believed.

Nobody is asked here: `evaluate/judging.py` asks, and the verdicts lie with the items. Each answer was compared with its
reference twice, so that a judge that goes by places and not by answers shows.
"""

from __future__ import annotations

from abc import abstractmethod

from postgrad.metrics.base import Answered
from postgrad.metrics.texts import MeanMetric


class JudgedMetric(MeanMetric):
    """A mean over pairs of verdicts. Unscored where the reference is empty, or no judge was asked."""

    reads_verdicts = True

    def score(self, item: Answered) -> float | None:
        if not item.reference.strip() or len(item.verdicts) != 2:
            return None
        return self.of_verdicts(*item.verdicts)

    @abstractmethod
    def of_verdicts(self, first: float, second: float) -> float:
        """The item's number. `first` was said with the answer in the first place, `second` with the reference there;
        both are 1 where the answer is better, 0 where the reference is, and 0.5 where neither is."""


class JudgeWins(JudgedMetric):
    """Win rate against the references: an answer wins or loses where the judge says so in both orders, and all else is
    half a win (the conservative rule of Zheng et al. 2023, arXiv 2306.05685, section 3.4). 0.5 is as good as the
    references."""

    name = "judge"

    def of_verdicts(self, first: float, second: float) -> float:
        return first if first == second else 0.5


class JudgeAgreement(JudgedMetric):
    """Share of items of which the judge says the same in both orders (consistency, ibid., table 2)."""

    name = "judge_agreement"

    def of_verdicts(self, first: float, second: float) -> float:
        return float(first == second)


class JudgeFirst(JudgedMetric):
    """Share of the verdicts that go to whatever stands first; 0.5 is no bias for a place."""

    name = "judge_first"

    def of_verdicts(self, first: float, second: float) -> float:
        return (first + 1.0 - second) / 2.0
