"""The decision rule and its parts, on made-up scores whose truth is known."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from postgrad.bench.keep_rules import RULES, Fixed, Ours, Outcome
from postgrad.bench.worlds import WORLDS, Accuracy, Setting, world
from postgrad.errors import UserError
from postgrad.evaluate.statistics import difference
from postgrad.evaluate.statistics.control import Control, one_sided_p
from postgrad.evaluate.statistics.effects import Effects
from postgrad.evaluate.statistics.finalists import combined, worth_confirming
from postgrad.evaluate.statistics.influence import contributions, group_values
from postgrad.evaluate.statistics.intervals import widened
from postgrad.evaluate.statistics.judge import Judge
from postgrad.evaluate.statistics.seeds import MODELS, SCRIPTS, SeedNoise, SeedPrior
from postgrad.evaluate.statistics.unit import Unit
from postgrad.metrics import METRICS
from postgrad.metrics.base import Answers
from postgrad.metrics.items import Items
from postgrad.records import Difference

ITEMS = 800


def scores(rng: np.random.Generator, share: float, base: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """(N,) right or wrong answers with this share of right ones; a tenth of `base`'s answers are drawn anew."""
    fresh = (rng.random(ITEMS) < share).astype(np.float64)
    if base is None:
        return fresh
    kept = rng.random(ITEMS) < 0.9
    moved = np.where(kept, base, fresh)
    wanted = round(share * ITEMS) - int(moved.sum())
    pool = np.flatnonzero(moved == (0.0 if wanted > 0 else 1.0))
    moved[rng.choice(pool, min(abs(wanted), len(pool)), replace=False)] = 1.0 if wanted > 0 else 0.0
    return moved


def answers(rng: np.random.Generator, count: int = 300, labels: int = 4, right: float = 0.7) -> Answers:
    truth = rng.integers(-1, labels, count)
    given = np.where(rng.random(count) < right, truth, rng.integers(-1, labels, count))
    return Answers(truth, given, np.maximum(given, 0), rng.random(count), labels)


# --- parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["accuracy", "mcc", "macro_f1", "in_scope_accuracy", "auroc"])
def test_the_mean_of_the_item_values_is_the_metric(name: str) -> None:
    metric, given = METRICS.get(name), answers(np.random.default_rng(1))
    values = contributions(metric, given)
    assert values.mean() == pytest.approx(metric.values(given, np.ones((1, 300)))[0], abs=1e-9)
    assert values.std() > 0


@pytest.mark.parametrize("name", ["accuracy", "mcc", "macro_f1"])
def test_the_item_values_have_the_variance_that_the_bootstrap_finds(name: str) -> None:
    rng = np.random.default_rng(2)
    metric, given = METRICS.get(name), answers(rng, 600)
    weights = rng.multinomial(600, np.full(600, 1 / 600), size=600).astype(np.float64)
    bootstrap = float(metric.values(given, weights).std())
    assert contributions(metric, given).std() / sqrt(600) == pytest.approx(bootstrap, rel=0.12)


def test_a_row_that_is_asked_twice_is_one_value() -> None:
    given = answers(np.random.default_rng(3), 100)
    groups = np.array([f"g{i // 2}" for i in range(100)])
    items = Items(np.array([str(i) for i in range(100)]), groups, given)
    values = group_values(METRICS.get("accuracy"), items)
    assert len(values) == 50
    assert values.mean() == pytest.approx(float((given.truth == given.predicted).mean()))


def test_estimates_are_shrunk_and_the_run_teaches_by_how_much() -> None:
    effects = Effects(0.5)
    before = effects.belief(0.03, 0.02**2)
    assert 0 < before.mean < 0.03
    for number in range(60):
        effects.add(0.02 * (-1) ** number * (number % 3), 0.02**2)
    for _ in range(10):
        effects.learn()
    nothing = effects.belief(0.03, 0.02**2).mean
    gifted = Effects(0.5)
    for _ in range(60):
        gifted.add(0.04, 0.02**2)
    for _ in range(10):
        gifted.learn()
    assert nothing < gifted.belief(0.03, 0.02**2).mean
    assert effects.belief(-0.1, 0.02**2).better < 0.01


def test_seed_noise_is_pooled_over_recipes() -> None:
    rng = np.random.default_rng(4)
    pool = SeedNoise.before_any(0.5)
    assert pool.shift() == pytest.approx(0.01**2)
    for _ in range(40):
        base = scores(rng, 0.6)
        runs = [np.clip(base + rng.normal(0, 0.03), None, None) for _ in range(2)]
        pool.add([float(runs[0].mean())], runs[0], runs[1])
    assert sqrt(pool.shift()) == pytest.approx(0.03, rel=0.3)
    assert SeedNoise.none().shift() == 0 and SeedNoise.none().flips(0.1) == 0


def test_the_unit_lies_between_the_spread_of_items_and_that_of_pairs() -> None:
    rng = np.random.default_rng(12)
    losses = rng.normal(2.0, 1.0, 4000)
    unit = Unit(losses)
    assert unit.value == pytest.approx(1.0, rel=0.1)
    assert not unit.seen(losses, losses.copy())
    assert unit.seen(losses, losses + rng.normal(0, 0.01, 4000))
    assert unit.value == pytest.approx(0.1, rel=0.1)
    moved = sum(unit.seen(losses, losses + rng.normal(0, 0.01, 4000)) for _ in range(60))
    assert moved == 4 and unit.value == pytest.approx(0.1, rel=0.1)
    unit = Unit(losses)
    for broken in (0.01, 3.0, 0.01, 0.01):
        unit.seen(losses, losses + rng.normal(0, broken, 4000))
    assert unit.value == pytest.approx(0.1, rel=0.1)


def test_uneven_items_hide_no_gain() -> None:
    """Losses on documents that differ a hundred times more than two trainings do."""
    rng = np.random.default_rng(13)
    base = rng.normal(-2.0, 1.0, 2000)
    judge = Judge(horizon=100)
    judge.start("base", base)
    judge.again("base", base + rng.normal(0, 0.01, 2000))
    said = judge.weigh("good", "base", base + 0.01 + rng.normal(0, 0.01, 2000), may_retest=False)
    assert said.leads and 0.006 < said.belief.mean < 0.011


def test_answers_that_all_differ_alike_are_finite_evidence() -> None:
    """All wrong before, all right after: without any spread there still is no certainty, and no division by zero."""
    judge = Judge(horizon=100, seedless=frozenset({"still"}))
    judge.start("base", np.zeros(50), family="still")
    said = judge.weigh("perfect", "base", np.ones(50), family="still", may_retest=False)
    assert said.leads and said.belief.mean == pytest.approx(1.0, abs=0.05) and 0 < said.p < 1e-6
    assert judge.to_test() == "perfect"
    judge.fresh("base", np.zeros(20))
    judge.fresh("perfect", np.ones(20))
    assert judge.test("perfect").verdict == "keep"


def test_the_levels_of_a_run_add_up_to_alpha_and_grow_with_keeps() -> None:
    control = Control(horizon=10)
    levels = []
    for _ in range(500):
        levels.append(control.level)
        assert not control.tested(1.0)
    assert 0.045 < sum(levels) <= 0.05
    fresh = Control(horizon=10)
    before = fresh.level
    assert fresh.tested(0.0)
    assert fresh.level == pytest.approx(2 * before)


def test_seed_noise_makes_a_claim_harder() -> None:
    surely = one_sided_p(0.03, 0.01**2, 1000, 0.0, 1.0)
    hardly = one_sided_p(0.03, 0.01**2, 1000, 2 * 0.015**2, 2.0)
    assert surely < 0.01 < 0.1 < hardly < 0.5
    assert one_sided_p(-0.03, 0.01**2, 1000, 0.0, 1.0) > 0.5


def test_an_interval_with_seed_noise_is_wider_and_keeps_its_middle() -> None:
    plain = Difference(value=0.02, low=0.0, high=0.04, p=0.05, n=1000)
    wide = widened(plain, 2 * 0.01**2, 5.0)
    assert wide.low < plain.low and wide.high > plain.high and wide.value == plain.value and wide.p > plain.p
    assert widened(plain, 0.0, 5.0).low == pytest.approx(0.0, abs=1e-3)


def test_a_finalist_is_measured_when_that_may_change_the_choice() -> None:
    assert worth_confirming(0.01, 0.02**2, 0.02**2, 0.0005)
    assert not worth_confirming(0.2, 0.02**2, 0.02**2, 0.0005)
    mean, variance = combined(0.04, 0.02**2, 0.0, 0.02**2)
    assert mean == pytest.approx(0.02) and variance == pytest.approx(0.0002)


def test_few_differing_items_stretch_the_interval() -> None:
    first = np.zeros(200, dtype=np.int64)
    keys = np.array([str(i) for i in range(200)])

    def answered(wrong: int) -> Items:
        given = first.copy()
        given[:wrong] = 1
        return Items(keys, keys, Answers(first, given, given, np.ones(200), 2))

    metric = METRICS.get("accuracy")
    few, many = difference(metric, answered(0), answered(6)), difference(metric, answered(0), answered(60))
    normal = 1.96 * sqrt(0.03 * 0.97 / 200)
    assert (few.high - few.low) / 2 > 1.15 * normal
    assert (many.high - many.low) / 2 == pytest.approx(1.96 * sqrt(0.3 * 0.7 / 200), rel=0.1)


# --- the rule -------------------------------------------------------------------------------------------------------


def test_noise_leads_to_no_keep_and_a_large_gain_to_one() -> None:
    rng = np.random.default_rng(5)
    judge, base = Judge(horizon=100), scores(rng, 0.6)
    judge.start("base", base)
    judge.again("base", scores(rng, 0.6, base))
    for number in range(20):
        said = judge.weigh(f"same{number}", judge.leader or "base", scores(rng, 0.6, base), may_retest=False)
        assert said.verdict in ("tie", "discard")
    gifted = scores(rng, 0.75, base)
    said = judge.weigh("gifted", judge.leader or "base", gifted, may_retest=False)
    assert said.leads and said.verdict == "tie" and said.belief.better > 0.99
    assert judge.to_test() == "gifted"
    for name, share in (("base", 0.6), ("gifted", 0.75)):
        judge.fresh(name, scores(rng, share, base))
    assert judge.test("gifted").verdict == "keep"
    assert judge.kept == "gifted" and judge.to_test() is None


@pytest.mark.parametrize("gifted", [False, True])
def test_what_took_the_lead_while_a_test_trained_leads_on_only_ahead_of_what_is_kept(gifted: bool) -> None:
    """A descendant of what loses has lost with it; a sibling is behind what fresh ground shows to be far ahead."""
    rng = np.random.default_rng(3)
    judge, base = Judge(horizon=100), scores(rng, 0.6)
    judge.start("base", base)
    judge.again("base", scores(rng, 0.6, base))
    tested = np.where(np.cumsum(1 - base) <= 30, 1.0, base)
    judge.weigh("tested", "base", tested, may_retest=False)
    assert judge.to_test() == "tested"
    rival, above = ("base", base) if gifted else ("tested", tested)
    judge.weigh("later", rival, np.where(np.cumsum(1 - above) <= (36 if gifted else 20), 1.0, above), may_retest=False)
    assert judge.leader == "later"
    fresh = scores(rng, 0.6, base)
    judge.fresh("base", fresh)
    judge.fresh("tested", np.where(np.cumsum(1 - fresh) <= 120, 1.0, fresh) if gifted else scores(rng, 0.3, base))
    assert judge.test("tested").verdict == ("keep" if gifted else "tie")
    assert judge.merits.ahead("later", judge.kept or "") < 0
    assert judge.leader == judge.kept == ("tested" if gifted else "base")


def test_a_gain_that_fresh_items_do_not_show_is_not_kept_and_leads_no_more() -> None:
    rng = np.random.default_rng(6)
    judge, base = Judge(horizon=100), scores(rng, 0.6)
    judge.start("base", base)
    judge.again("base", scores(rng, 0.6, base))
    judge.weigh("lucky", "base", scores(rng, 0.63, base), may_retest=False)
    assert judge.leader == "lucky"
    for name in ("base", "lucky"):
        judge.fresh(name, scores(rng, 0.6 if name == "base" else 0.57, base))
    assert judge.test("lucky").verdict == "tie"
    assert judge.kept == "base" and judge.leader == "base" and "lucky" not in judge.ranked()


def test_another_seed_is_no_other_recipe() -> None:
    rng = np.random.default_rng(7)
    judge, base = Judge(horizon=100), scores(rng, 0.6)
    judge.start("base", base)
    said = judge.again("base", scores(rng, 0.66, base))
    assert said.name == "base" and said.seeds == 2 and judge.ranked() == ["base"]
    assert judge.merits.belief("base").mean == 0.0


def test_what_breaks_a_guard_never_leads() -> None:
    rng = np.random.default_rng(8)
    judge, base = Judge(horizon=50), scores(rng, 0.6)
    judge.start("base", base)
    said = judge.weigh("broken", "base", scores(rng, 0.9, base), eligible=False, may_retest=False)
    assert not said.leads and judge.leader == "base" and judge.ranked() == ["base"]
    late = Judge(horizon=50)
    late.start("broken", scores(rng, 0.9), eligible=False)
    late.weigh("sound", "broken", scores(rng, 0.5), may_retest=False)
    assert late.leader == "sound"


def test_a_dearer_recipe_has_to_gain_its_price() -> None:
    rng = np.random.default_rng(9)
    base = scores(rng, 0.6)
    for price, leads in ((0.0, True), (0.2, False)):
        judge = Judge(horizon=50)
        judge.start("base", base)
        assert judge.weigh("dear", "base", scores(rng, 0.7, base), price=price, may_retest=False).leads is leads


def test_recipes_that_answer_alike_are_a_tie() -> None:
    base = scores(np.random.default_rng(10), 0.6)
    judge = Judge(horizon=50, seedless=frozenset({"still"}))
    judge.start("base", base, family="still")
    said = judge.weigh("same", "base", base.copy(), family="still")
    assert said.verdict in ("tie", "discard") and not said.leads and said.belief.mean == pytest.approx(0.0, abs=1e-4)


def test_an_undecided_leader_gets_another_seed_where_that_is_the_best_use_of_one() -> None:
    rng = np.random.default_rng(11)
    judge, base = Judge(horizon=100), scores(rng, 0.6)
    judge.start("base", base)
    for number in range(30):
        judge.weigh(f"bad{number}", "base", scores(rng, 0.55, base), may_retest=False)
    verdicts = {gap: judge.weigh(f"at{gap}", "base", scores(rng, 0.6 + gap, base)) for gap in (0.03, -0.2)}
    assert verdicts[0.03].verdict == "retest" and verdicts[-0.2].verdict == "discard"
    said = verdicts[0.03]
    again = judge.again("at0.03", scores(rng, 0.57, base), may_retest=False)
    assert again.seeds == 2 and again.verdict in ("tie", "discard") and again.belief.mean < said.belief.mean


# --- simulated runs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_on_simulated_runs_keeps_are_true_and_not_missing(name: str) -> None:
    def play(share: float, runs: int) -> list[Outcome]:
        setting = Setting(items=300, seed_noise="low", experiments=50, better=share)
        return [Ours().play(world(name), setting, seed) for seed in range(runs)]

    null, rich = play(0.0, 24), play(0.3, 8)
    # At 5 % for each run, more than four of 24 happen less than once in a hundred times.
    assert sum(bool(out.keeps) for out in null) <= 4
    assert sum(len(out.keeps) for out in rich) >= 4
    assert sum(sum(out.keeps) for out in rich) >= 0.9 * sum(len(out.keeps) for out in rich)
    played = null + rich
    assert all(out.trainings <= 50 for out in played)


def test_the_autoresearch_rule_keeps_what_is_not_better() -> None:
    setting = Setting(items=400, seed_noise="high", experiments=60, better=0.0)
    outcomes = [Fixed(0.0).play(world("accuracy"), setting, seed) for seed in range(5)]
    assert all(out.keeps and not any(out.keeps) for out in outcomes)
    assert all(out.claimed_gain > 0.01 for out in outcomes)


def test_every_rule_meets_the_same_run() -> None:
    setting = Setting(items=200, seed_noise="low", experiments=10, better=0.5)
    firsts = {name: rule.play(world("accuracy"), setting, 3).first.score for name, rule in RULES.items()}
    assert len(set(firsts.values())) == 1


def test_the_world_knows_its_truth() -> None:
    made = Accuracy()
    recipe = made.start(Setting(items=20_000, seed_noise="high", experiments=10, better=0.2), 1)
    shown = [
        float((a := made.answers(made.train(recipe, n), "sealed")).truth.__eq__(a.predicted).mean()) for n in range(40)
    ]
    assert np.mean(shown) == pytest.approx(made.truth(recipe), abs=0.01)
    assert np.std(shown) == pytest.approx(0.015, rel=0.4)


def test_a_world_of_ones_own_is_named_by_its_path() -> None:
    assert isinstance(world("postgrad.bench.worlds:Accuracy"), Accuracy)
    with pytest.raises(UserError, match="Known: accuracy"):
        world("acuracy")


def test_a_long_climb_is_delivered_whole() -> None:
    """Gains shrink on the way up: judged by what is found at the end alone, the early steps would be given back."""
    setting = Setting(items=300, seed_noise="low", experiments=400, better=0.2)
    gains = []
    for seed in range(4):
        made = Accuracy()
        outcome = Ours().play(made, setting, seed)
        gains.append(made.truth(outcome.final) - made.truth(outcome.first))
    assert min(gains) > 0.19 and sum(gains) / len(gains) > 0.215


@pytest.mark.parametrize("prior", [SCRIPTS, MODELS])
def test_a_claim_takes_the_prior_of_seeds_for_no_more_than_it_counts(prior: SeedPrior) -> None:
    """Where the prior is worth half a replicate, half a degree of freedom comes from it and not a whole one."""
    rng, judge = np.random.default_rng(0), Judge(30, before=prior)
    spread = rng.normal(0, 0.1, 40)
    judge.start("first", spread)
    for number in (1, -1):
        judge.again("first", spread + number + rng.normal(0, 1e-3, 40))
    judge.weigh("second", "first", spread + 3.0 + rng.normal(0, 1e-3, 40), may_retest=False)
    ground = rng.normal(0, 0.1, 40)
    judge.fresh("first", ground)
    judge.fresh("second", ground + 3.0 + rng.normal(0, 1e-3, 40))
    said, worth = judge.test("second"), min(1.0, prior.worth)
    noise = judge.seed_variance() * (prior.worth + 2)
    noise += (worth - prior.worth) * (prior.shift * judge.unit) ** 2
    assert said.p == pytest.approx(one_sided_p(said.gap, 0.0, 40, 2 * noise / (worth + 2), worth + 2), rel=0.01)
