"""What an evaluation set can show, before anything is spent: its smallest visible effect, and what a smaller one takes.

Two recipes are compared on the same n texts, each trained with k seeds. The estimated difference varies for two
reasons: which texts were asked, and which seeds the trainings drew. Its variance is item part / n + 2 tau^2 / k, tau
being the standard deviation of one training's score over seeds. Plans only; it judges no experiment.
"""

from __future__ import annotations

from math import ceil, sqrt
from typing import Callable, Sequence

from postgrad.events import Analysed, Certified, Event
from postgrad.records import Record

CONFIDENCE = 0.95
POWER = 0.8
DISCORDANT = 0.2
SEED_SD = 0.01
MOST_SEEDS = 1000
CERTIFIABLE_EFFECT = 0.15
_ENDLESS = 10**15


class Noise(Record):
    """What a difference between two recipes is measured against.

    Attributes:
        discordant: the share of texts on which exactly one of the two is right, in (0, 1].
        seed_sd: tau, the standard deviation of one training's score over training seeds; 0 for two finished models.
        run: the finished run that both were measured in; None where they are assumed.
    """

    discordant: float = DISCORDANT
    seed_sd: float = SEED_SD
    run: str | None = None

    def of_items_alone(self) -> Noise:
        """The noise of a comparison of two models that are trained already."""
        return self.model_copy(update={"seed_sd": 0.0})


ITEMS_ALONE = Noise(seed_sd=0.0)


def smallest_effect(n_items: int, noise: Noise = ITEMS_ALONE, seeds: int = 1) -> float:
    """The smallest true difference in accuracy that is shown with 80 % power at the 5 % level, two-sided.

    Normal approximation of the sample size for McNemar's test: R. J. Connor, "Sample size for testing differences in
    proportions for the paired-sample design", Biometrics 43 (1987) 207-211, with the seed part added to the variance
    under both hypotheses, and solved for the difference. A difference larger than `discordant` needs as many discordant
    texts as it is large. The seed part is taken as known: with few seeds and no pooling the true figure is larger.

    Returns a share in (0, 1]; 1.0 where no difference can be shown.
    """
    from scipy.optimize import brentq

    if n_items <= 0 or _excess(1.0, n_items, noise, seeds) < 0:
        return 1.0
    return float(brentq(lambda effect: _excess(effect, n_items, noise, seeds), 1e-9, 1.0))


def items_needed(effect: float, noise: Noise = ITEMS_ALONE, seeds: int = 1) -> int | None:
    """How many texts show a difference of `effect`, in (0, 1], with `seeds` trainings of each recipe.

    None where no number is enough, because the noise of so few seeds hides it.
    """
    if _excess(effect, None, noise, seeds) <= 0:
        return None
    low, high = 0, ceil(_items_part(effect, noise))
    while _excess(effect, high, noise, seeds) < 0:
        low, high = high, 2 * high
    return _first(low, high, lambda n: _excess(effect, n, noise, seeds) >= 0)


def seeds_needed(effect: float, n_items: int, noise: Noise) -> int | None:
    """How many trainings of each recipe show a difference of `effect` on `n_items` texts.

    None where no number is enough, because the texts limit what can be seen (`smallest_effect` of the items alone), or
    where it is beyond a thousand.
    """

    def shown(seeds: int) -> bool:
        return n_items > 0 and _excess(effect, n_items, noise, seeds) >= 0

    if not shown(MOST_SEEDS):
        return None
    return _first(0, MOST_SEEDS, shown)


class Need(Record):
    """What it takes to show `effect` where it is not visible now: `items` or `seeds`, the other as it is.

    None where no number is enough: then `items_limit` is the smallest effect of the present texts under any number of
    seeds, and `seeds_limit` that of the present seeds under any number of texts. `both` is (texts, seeds) together.
    """

    effect: float
    items: int | None
    seeds: int | None
    items_limit: float
    seeds_limit: float
    both: tuple[int, int] | None


def need(effect: float, n_items: int, noise: Noise, seeds: int = 1) -> Need | None:
    """What a difference of `effect` takes; None where `n_items` texts and `seeds` trainings of each recipe show it."""
    if smallest_effect(n_items, noise, seeds) <= effect:
        return None
    items = items_needed(effect, noise, seeds)
    return Need(
        effect=effect,
        items=items,
        seeds=seeds_needed(effect, n_items, noise),
        items_limit=smallest_effect(n_items, noise.of_items_alone()),
        seeds_limit=smallest_effect(_ENDLESS, noise, seeds),
        both=None if items is not None else _both_needed(effect, noise),
    )


def _both_needed(effect: float, noise: Noise) -> tuple[int, int] | None:
    """(texts, seeds): the fewest seeds with which at most half of the texts are there to make up for seed noise."""
    enough = 2 * (items_needed(effect, noise.of_items_alone()) or 0)
    for seeds in range(1, MOST_SEEDS + 1):
        items = items_needed(effect, noise, seeds)
        if items is not None and items <= enough:
            return items, seeds
    return None


def recorded_seed_sd(events: Sequence[Event]) -> float | None:
    """The last seed noise that a run recorded with an analysis or its certificate; None in runs that did not."""
    for event in reversed(events):
        body = event.body
        if isinstance(body, Analysed | Certified):
            for source in (body, getattr(body, "analysis", None)):
                found = getattr(source, "seed_sd", None)
                if isinstance(found, float) and found >= 0:
                    return found
    return None


def refusal(texts: int) -> str | None:
    """Why a sealed split of so many different texts certifies nothing; None where it is large enough.

    The line is drawn at `CERTIFIABLE_EFFECT`: 15 points of accuracy, which takes 68 texts when two models disagree on a
    fifth of them. Below it the sealed split cannot show even a gain that would be large for any tuned classifier, so
    "shown" is mostly luck and "not shown" says nothing. With 30 texts and 6 of them discordant, McNemar's exact test
    needs all 6 on one side. Seeds do not enter: the read compares two finished models.
    """
    effect = smallest_effect(texts)
    if effect <= CERTIFIABLE_EFFECT:
        return None
    needed = items_needed(CERTIFIABLE_EFFECT)
    return (
        f"the sealed split has {texts:,} different {'text' if texts == 1 else 'texts'}, which show a difference in "
        f"accuracy only from about {effect:.2f} on. A certificate takes {needed} or more (differences from "
        f"{CERTIFIABLE_EFFECT:g} on)"
    )


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The smallest number in (low, high] from which on something holds; it holds for `high`."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _items_part(effect: float, noise: Noise) -> float:
    """The sample size without seed noise."""
    level, power = _quantiles()
    discordant = max(noise.discordant, effect)
    root = (level * sqrt(discordant) + power * sqrt(discordant - effect * effect)) / effect
    return root * root


def _excess(effect: float, n_items: int | None, noise: Noise, seeds: int) -> float:
    """The effect less what is needed to see it, in its own unit. `n_items` None is infinitely many."""
    level, power = _quantiles()
    of_seeds = 2 * noise.seed_sd**2 / seeds
    discordant = max(noise.discordant, effect)
    share = 0.0 if n_items is None else 1.0 / n_items
    at_none, at_effect = discordant * share, (discordant - effect * effect) * share
    return effect - level * sqrt(at_none + of_seeds) - power * sqrt(at_effect + of_seeds)


def _quantiles() -> tuple[float, float]:
    from scipy.stats import norm

    return float(norm.ppf(1 - (1 - CONFIDENCE) / 2)), float(norm.ppf(POWER))
