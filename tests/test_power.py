"""The smallest effect that an evaluation set can show."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from postgrad.evaluate.power import DISCORDANT, items_needed, smallest_effect


def test_more_items_show_smaller_effects() -> None:
    effects = [smallest_effect(n) for n in (1, 3, 10, 36, 37, 100, 400, 2000, 100_000)]
    assert effects == sorted(effects, reverse=True)
    assert effects[0] == 1.0
    assert effects[-1] < 0.005


@pytest.mark.parametrize("effect", [0.01, 0.05, 0.2, 0.5])
def test_the_two_directions_agree(effect: float) -> None:
    assert smallest_effect(items_needed(effect)) <= effect < smallest_effect(items_needed(effect) - 1)


def test_no_items_show_nothing() -> None:
    assert smallest_effect(0) == 1.0


@pytest.mark.parametrize("n_items", [200, 1000])
def test_the_power_is_what_it_says(n_items: int) -> None:
    """Draw pairs with exactly this effect: McNemar's exact test finds it about 80 % of the time."""
    effect = smallest_effect(n_items)
    rng = np.random.default_rng(0)
    wins = (DISCORDANT + effect) / 2
    draws = rng.multinomial(n_items, [wins, DISCORDANT - wins, 1 - DISCORDANT], size=2000)
    found = [binomtest(int(a), int(a + b)).pvalue < 0.05 for a, b, _ in draws]
    # The exact test is a little conservative; 2000 draws have a standard error of 0.9 points.
    assert 0.74 <= np.mean(found) <= 0.83
