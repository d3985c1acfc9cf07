"""Is it better? Intervals and exact tests over items, and the rule that keeps, discards, retests or calls a tie.

`intervals` measures one comparison. The rest decides over a whole run: `influence` turns any metric into per-item
values, `seeds` pools the noise of training seeds, `effects` learns what proposals of this run are worth and shrinks
estimates, `control` bounds the share of false keeps, and `judge` puts them together.
"""

from postgrad.evaluate.statistics.intervals import (
    difference,
    estimate,
    interval,
    mcnemar,
    metric_ignores_score,
    point,
    sign_test,
)

__all__ = ["difference", "estimate", "interval", "mcnemar", "metric_ignores_score", "point", "sign_test"]
