"""Which score on train-only questions predicts the test score? Several candidates, from the stored search items."""

from __future__ import annotations

from typing import Any, Sequence

from postgrad.evaluate.probes import is_disturbed
from postgrad.metrics.items import Items

EDGE = 1e-3


def signals(items: Items) -> dict[str, float]:
    """Candidate signals of one experiment.

    `auroc_left_out`, `auroc_everyday`: tidy in-scope questions against rows of left-out intents, and against everyday
    utterances. `accuracy_tidy`, `accuracy_disturbed`: nothing rejected. `joint`: the mean of the logits of the two
    AUROCs and of the disturbed accuracy, as a share.
    """
    import numpy as np
    from scipy.special import expit, logit
    from scipy.stats import rankdata

    answers = items.labelled
    made_by = np.array([_origin(str(key)) for key in items.keys])
    inside = answers.truth >= 0
    tidy, disturbed = inside & (made_by == "row"), inside & (made_by == "disturbed")
    left_out, everyday = ~inside & (made_by == "row"), ~inside & (made_by == "everyday")

    def auroc(outside: Any) -> float:
        ranks = rankdata(np.concatenate([answers.score[tidy], answers.score[outside]]))
        n, m = int(tidy.sum()), int(outside.sum())
        return float((ranks[:n].sum() - n * (n + 1) / 2) / max(1, n * m))

    right = answers.argmax == answers.truth
    found = {
        "auroc_left_out": auroc(left_out),
        "auroc_everyday": auroc(everyday),
        "accuracy_tidy": float(right[tidy].mean()) if tidy.any() else 0.0,
        "accuracy_disturbed": float(right[disturbed].mean()) if disturbed.any() else 0.0,
    }
    parts = [found["auroc_left_out"], found["auroc_everyday"], found["accuracy_disturbed"]]
    found["joint"] = float(expit(np.mean(logit(np.clip(parts, EDGE, 1 - EDGE)))))
    return found


def _origin(key: str) -> str:
    if "+background" in key:
        return "everyday"
    return "disturbed" if is_disturbed(key) else "row"


def correlations(recipes: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Spearman's rho of each signal with the test MCC and with the threshold-free test AUROC."""
    from scipy.stats import spearmanr

    if len(recipes) < 3:
        return {}
    return {
        name: {
            against: round(float(spearmanr([r["signals"][name] for r in recipes], [r[against] for r in recipes])[0]), 3)
            for against in ("test", "test_auroc")
        }
        for name in recipes[0]["signals"]
    }
