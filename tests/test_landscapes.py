"""Planted landscapes: what each family promises about value, cost, noise and failures holds."""

from __future__ import annotations

from itertools import islice
from math import log
from random import Random
from typing import Iterator

import numpy as np
import pytest
from scipy.stats import spearmanr

from postgrad.bench.landscapes import LANDSCAPES, TASK, Trained, landscape
from postgrad.bench.landscapes_families import Additive, Failing, Heteroscedastic, Interacting, MostlyNoise
from postgrad.bench.landscapes_features import features
from postgrad.bench.landscapes_oracle import oracle
from postgrad.bench.landscapes_planted import Planted
from postgrad.errors import UserError
from postgrad.records import Failure, Recipe, Stage
from postgrad.research import edit
from postgrad.research.drafts import starting_points
from postgrad.research.moves import PLAYS

FAMILIES = sorted(LANDSCAPES)


def recipes(count: int = 40, seed: int = 0) -> list[Recipe]:
    """Starting points of the playbook, fixed and composed."""
    return [draft.recipe for draft in islice(starting_points(TASK, Random(seed)), count)]


def answered(result: Trained | Failure) -> Trained:
    assert isinstance(result, Trained)
    return result


def planted(name: str, seed: int = 0) -> Planted:
    made = landscape(name)(seed)
    assert isinstance(made, Planted)
    return made


def moves(base: Recipe) -> Iterator[Recipe]:
    for play in PLAYS:
        if play.applies(base, TASK):
            yield play.apply(base, TASK)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_seed_and_a_recipe_decide_everything(name: str) -> None:
    one, same, other = planted(name, 3), planted(name, 3), planted(name, 4)
    for recipe in recipes(8):
        assert one.truth(recipe) == same.truth(recipe)
        assert one.cost_s(recipe) == same.cost_s(recipe)
        for seed in (0, 7):
            first, second = one.train(recipe, seed), same.train(recipe, seed)
            if isinstance(first, Trained):
                assert np.array_equal(first.search, answered(second).search)
                assert np.array_equal(first.select, answered(second).select)
            else:
                assert first == second
    tuned = recipes(4)[3]
    assert one.truth(tuned) != other.truth(tuned)


@pytest.mark.parametrize("name", FAMILIES)
def test_values_are_plausible_and_leave_room(name: str) -> None:
    for seed in range(2):
        made = planted(name, seed)
        values = [made.truth(recipe) for recipe in recipes(30)]
        assert all(0.45 <= value <= 0.93 for value in values)
        found = oracle(made)
        assert max(values[:12]) <= found <= 0.93
        assert made.truth(Recipe(stage=Stage(backend="constant"))) < min(values)


@pytest.mark.parametrize("name", ["additive", "heteroscedastic", "mostly_noise"])
def test_scores_are_the_truth_in_the_mean(name: str) -> None:
    """Over many items and seeds: the item model and the noise of seeds add no bias."""
    kind = type("Wide", (type(planted(name)),), {"items": 20_000})
    made = kind(1)
    for recipe in recipes(6)[2:4]:
        scores = [answered(made.train(recipe, seed)).search.mean() for seed in range(40)]
        error = np.std(scores) / len(scores) ** 0.5 + 0.004
        assert abs(np.mean(scores) - made.truth(recipe)) < 3 * error


def test_comparisons_are_paired_and_relatives_are_alike() -> None:
    made = Additive(0)
    base = recipes(4)[3]
    near = edit.with_step(base, "typos", share=0.5)
    far = recipes(1)[0]
    answers = [answered(made.train(recipe, 0)).search for recipe in (base, near, far)]
    close, distant = float((answers[0] != answers[1]).mean()), float((answers[0] != answers[2]).mean())
    right = [float(a.mean()) for a in answers]
    by_chance = right[0] * (1 - right[1]) + right[1] * (1 - right[0])
    assert close < distant < by_chance


def test_what_has_no_seed_has_no_noise() -> None:
    made = Additive(2)
    classic = Recipe(stage=Stage(backend="classic"))
    with_data = edit.with_step(classic, "typos", share=0.5)
    for recipe, noisy in ((classic, False), (with_data, True), (recipes(4)[3], True)):
        first, second = (answered(made.train(recipe, seed)).search for seed in (0, 1))
        assert bool((first != second).any()) is noisy


def test_additive_effects_add_up_and_interacting_ones_do_not() -> None:
    frozen, tuned = recipes(4)[0], recipes(4)[3]

    def gains(made: Planted) -> list[float]:
        pairs = [(recipe, edit.with_step(recipe, "word_dropout", share=0.5)) for recipe in (frozen, tuned)]
        return [made.latent(after) - made.latent(before) for before, after in pairs]

    for seed in range(5):
        one, other = gains(Additive(seed))
        assert one == pytest.approx(other)
    differing = [abs(one - other) for one, other in (gains(Interacting(seed)) for seed in range(8))]
    assert max(differing) > 0.05


def test_almost_nothing_is_better_on_mostly_noise() -> None:
    def better(name: str) -> float:
        found = []
        for seed in range(4):
            made = planted(name, seed)
            for base in recipes(6):
                found += [made.truth(after) > made.truth(base) + 0.004 for after in moves(base)]
        return sum(found) / len(found)

    assert better("mostly_noise") < 0.1
    assert better("additive") > 0.25


def test_a_number_is_best_where_it_stands_on_mostly_noise() -> None:
    made = MostlyNoise(0)
    tuned = recipes(4)[3]
    for path in edit.space_of(tuned):
        moved = edit.with_numbers(tuned, {path: edit.space_of(tuned)[path].high})
        assert made.latent(moved) <= made.latent(tuned) + 1e-9


def test_dearer_is_better_where_it_should_be() -> None:
    def rank(name: str) -> float:
        found = []
        for seed in range(4):
            made = planted(name, seed)
            every = recipes(40, seed)
            costs, values = [log(made.cost_s(r)) for r in every], [made.truth(r) for r in every]
            found.append(float(spearmanr(costs, values).statistic))
        return float(np.mean(found))

    assert rank("expensive") > 0.45
    assert rank("expensive") > rank("additive") + 0.2


def test_early_rungs_help_and_mislead_where_they_should() -> None:
    def rank(name: str, rung: float) -> float:
        found = []
        for seed in range(4):
            made = planted(name, seed)
            every = recipes(30, seed)
            early = [answered(made.train_part(r, 0, rung)).search.mean() for r in every]
            found.append(float(spearmanr(early, [made.truth(r) for r in every]).statistic))
        return float(np.mean(found))

    assert rank("additive", 0.25) > 0.4
    assert rank("additive", 0.5) > rank("additive", 0.25) - 0.05
    assert rank("deceptive", 0.25) < 0.1


def test_a_whole_training_is_its_last_rung() -> None:
    made, recipe = Additive(0), recipes(4)[3]
    whole, part = answered(made.train(recipe, 5)), answered(made.train_part(recipe, 5, 1.0))
    assert np.array_equal(whole.search, part.search)
    assert answered(made.train_part(recipe, 5, 0.25)).search.mean() < whole.search.mean()


def test_crashes_depend_on_the_recipe() -> None:
    rates, kinds = [], set()
    for seed in range(3):
        made = Failing(seed)
        for recipe in recipes(20, seed):
            failed = [result for s in range(12) if isinstance(result := made.train(recipe, s), Failure)]
            rates.append(len(failed) / 12)
            kinds |= {failure.kind for failure in failed}
        classic = Recipe(stage=Stage(backend="classic"))
        assert isinstance(made.train(classic, 0), Trained)
    assert min(rates) == 0 and max(rates) > 0.5 and 0.05 < np.mean(rates) < 0.6
    assert len(kinds) >= 3


def test_repairs_help_on_failing() -> None:
    made = Failing(0)
    tuned = recipes(4)[3]
    hot = edit.with_main(tuned, lr=4e-4)
    mended = edit.with_main(hot, precision="fp32")
    assert made.danger(hot, "nan") > 0.3 > made.danger(mended, "nan")


def test_noise_depends_on_the_recipe_on_heteroscedastic() -> None:
    spread = [Heteroscedastic(0).seed_sd(recipe) for recipe in recipes(40)]
    seeded = [value for value in spread if value]
    assert max(seeded) > 4 * min(seeded)
    assert len({Additive(0).seed_sd(recipe) for recipe in recipes(40)}) == 2


def test_features_tell_structure_from_numbers() -> None:
    tuned = recipes(4)[3]
    moved = edit.with_numbers(tuned, {"lr": 3e-4})
    one, other = features(tuned), features(moved)
    assert one.parts == other.parts and one.structure == other.structure
    assert one.numbers != other.numbers
    assert features(edit.with_step(tuned, "typos", share=0.5)).parts != one.parts


def test_the_oracle_is_beyond_one_move() -> None:
    made = Additive(5)
    found = oracle(made)
    for base in recipes(8):
        assert all(made.truth(after) <= found for after in moves(base))


def test_the_oracle_believes_a_landscape_that_knows() -> None:
    class Known(Additive):
        def best(self) -> float | None:
            return 0.77

    assert oracle(Known(0)) == 0.77


@pytest.mark.parametrize("name", ["additve", "no.such:Thing", "postgrad.bench.landscapes:Nothing", ":"])
def test_an_unknown_landscape_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="no landscape"):
        landscape(name)
