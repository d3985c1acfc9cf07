"""Where to reject: thresholds on the in-scope score, chosen without a sealed label.

A rule sees scored questions whose truth is known to the referee (out-of-fold train rows, rows of left-out intents, or
a dev split). While the loop searches, the threshold for a unit is chosen from the other units, so that the score of an
experiment is not the score of its own threshold tuning.
"""

from __future__ import annotations

from typing import Callable, Mapping

from postgrad.errors import UserError, near_miss
from postgrad.metrics.base import Answers
from postgrad.records import Value

Rule = Callable[["Answers", Mapping[str, Value]], float]

GRID = 60
SMOOTH = 5
SHARES = ("q", "prior")
DEFAULT: dict[str, Value] = {"threshold": "weighted_mcc"}


def percentile(answers: Answers, params: Mapping[str, Value]) -> float:
    """Reject a fixed share `q` (default 0.1) of the in-scope questions."""
    import numpy as np

    inside = answers.score[answers.truth >= 0]
    return float(np.quantile(inside, _number(params, "q", 0.1))) if len(inside) else 0.0


def weighted_mcc(answers: Answers, params: Mapping[str, Value]) -> float:
    """The threshold with the best MCC when out-of-scope questions are weighted to a share `prior` (default 0.45).

    The share of rejections in a test set is unknown while only train rows are at hand, so it is assumed, not fitted.
    """
    import numpy as np

    from postgrad.metrics.classification import MCC

    outside = answers.truth < 0
    if not outside.any() or outside.all():
        return percentile(answers, params)
    prior = _number(params, "prior", 0.45)
    weights = np.where(outside, prior / outside.sum(), (1 - prior) / (~outside).sum())[None, :] * len(outside)
    grid = np.quantile(answers.score, np.linspace(0.02, 0.9, GRID))
    values = np.array([float(MCC().values(rejected(answers, t), weights)[0]) for t in grid])
    # A moving mean, so that the threshold sits on a plateau and not on one lucky question.
    smooth = np.convolve(np.pad(np.nan_to_num(values), SMOOTH // 2, mode="edge"), np.ones(SMOOTH) / SMOOTH, "valid")
    return float(grid[int(np.argmax(smooth))])


def _number(params: Mapping[str, Value], key: str, default: float) -> float:
    value = params.get(key)
    return float(value) if isinstance(value, int | float) else default


def reject_all(answers: Answers, params: Mapping[str, Value]) -> float:
    """Above every score: the constant answer."""
    return float(answers.score.max(initial=0.0)) + 1.0


def rejected(answers: Answers, threshold: float) -> Answers:
    """The answers when scores under the threshold are rejected."""
    import numpy as np

    predicted = np.where(answers.score < threshold, -1, answers.argmax)
    return Answers(answers.truth, predicted, answers.argmax, answers.score, answers.labels)


RULES: dict[str, Rule] = {"percentile": percentile, "weighted_mcc": weighted_mcc, "reject_all": reject_all}


def check_inference(inference: Mapping[str, Value]) -> None:
    """Check a recipe's inference settings before anything is trained.

    Raises:
        UserError: a rule or setting is unknown, or a share is not in [0, 1].
    """
    for key, value in inference.items():
        if key == "threshold":
            if not isinstance(value, str) or value not in RULES:
                raise UserError(f"Unknown threshold rule {value!r}. Known: {', '.join(sorted(RULES))}.")
        elif key not in SHARES:
            raise UserError(f"Unknown inference setting '{key}'. Known: threshold, {', '.join(SHARES)}.")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise UserError(f"The inference setting {key} is {value!r}, and a number from 0 to 1 was expected.")


def choose_threshold(answers: Answers, inference: Mapping[str, Value]) -> float:
    """Apply the recipe's rule.

    Raises:
        UserError: the rule is unknown.
    """
    name = str(inference.get("threshold", DEFAULT["threshold"]))
    if name not in RULES:
        raise UserError(f"Unknown threshold rule '{name}'.{near_miss(name, RULES)} Known: {', '.join(sorted(RULES))}.")
    return RULES[name](answers, inference)
