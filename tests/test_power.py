"""What an evaluation set can show: the formulas against simulation, the plan of `check`, and the refusal to certify."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from postgrad.bench.overhead import LABELS, SimulatedEngine, simulated_task
from postgrad.cli.outlook import outlook
from postgrad.cli.planning import earlier_run, price_per_hour
from postgrad.evaluate.power import (
    CERTIFIABLE_EFFECT,
    DISCORDANT,
    Noise,
    items_needed,
    need,
    refusal,
    seeds_needed,
    smallest_effect,
)
from postgrad.records import Budget, EngineSpec, TaskSpec
from postgrad.report import read_view
from postgrad.report.card import model_card
from postgrad.report.html import html_report
from postgrad.report.markdown import markdown_report
from postgrad.report.summary import headline, summary
from postgrad.report.view import RunView
from postgrad.runner import drive, opened, start_run
from postgrad.store.sqlite import SqliteStore

NOISY = Noise(seed_sd=0.02)


# --- the formulas ---------------------------------------------------------------------------------------------------


def test_more_items_show_smaller_effects() -> None:
    effects = [smallest_effect(n) for n in (1, 3, 10, 36, 37, 100, 400, 2000, 100_000)]
    assert effects == sorted(effects, reverse=True)
    assert effects[0] == 1.0
    assert effects[-1] < 0.005


def test_more_seeds_show_smaller_effects_down_to_what_the_items_show() -> None:
    effects = [smallest_effect(500, NOISY, seeds) for seeds in (1, 2, 3, 5, 10, 1000)]
    assert effects == sorted(effects, reverse=True)
    assert effects[-1] == pytest.approx(smallest_effect(500), abs=1e-4)
    assert effects[0] > smallest_effect(500) + 0.02


@pytest.mark.parametrize("seeds", [1, 4])
@pytest.mark.parametrize("effect", [0.08, 0.2, 0.5])
@pytest.mark.parametrize("noise", [Noise(seed_sd=0.0), Noise(), Noise(discordant=0.05), NOISY])
def test_the_two_directions_agree(effect: float, noise: Noise, seeds: int) -> None:
    needed = items_needed(effect, noise, seeds)
    if needed is None:
        assert smallest_effect(10**12, noise, seeds) > effect
    else:
        assert smallest_effect(needed, noise, seeds) <= effect + 1e-9
        assert needed == 1 or smallest_effect(needed - 1, noise, seeds) > effect


def test_no_items_show_nothing() -> None:
    assert smallest_effect(0) == 1.0
    assert seeds_needed(0.5, 0, NOISY) is None


@pytest.mark.parametrize("n_items", [200, 1000])
def test_the_power_of_two_finished_models_is_what_it_says(n_items: int) -> None:
    """Draw pairs with exactly this effect: McNemar's exact test finds it about 80 % of the time."""
    effect = smallest_effect(n_items)
    rng = np.random.default_rng(0)
    wins = (DISCORDANT + effect) / 2
    draws = rng.multinomial(n_items, [wins, DISCORDANT - wins, 1 - DISCORDANT], size=2000)
    found = [binomtest(int(a), int(a + b)).pvalue < 0.05 for a, b, _ in draws]
    # The exact test is a little conservative; 2000 draws have a standard error of 0.9 points.
    assert 0.74 <= np.mean(found) <= 0.83


@pytest.mark.parametrize(
    ("n_items", "seed_sd", "seeds"), [(300, 0.01, 1), (300, 0.03, 1), (1000, 0.03, 3), (5000, 0.01, 5)]
)
@pytest.mark.parametrize("discordant", [0.1, 0.3])
def test_the_power_with_seed_noise_is_what_it_says(n_items: int, seed_sd: float, seeds: int, discordant: float) -> None:
    """Draw trainings and texts: every training moves its model's accuracy, then the texts are drawn; a z test whose
    variance counts both finds the effect about 80 % of the time, and nothing more than 5 % of the time."""
    noise = Noise(discordant=discordant, seed_sd=seed_sd)
    effect = smallest_effect(n_items, noise, seeds)
    assert 0.74 <= _found(effect, n_items, noise, seeds) <= 0.86
    assert 0.035 <= _found(0.0, n_items, noise, seeds) <= 0.065


def _found(effect: float, n_items: int, noise: Noise, seeds: int, runs: int = 4000) -> float:
    """The share of simulated comparisons that come out as different."""
    rng = np.random.default_rng(3)
    trained = rng.normal(0.0, noise.seed_sd, size=(2, seeds, runs)).mean(axis=1)
    shift = effect + trained[0] - trained[1]
    discordant = np.maximum(noise.discordant, np.abs(shift))
    wins, losses = (discordant + shift) / 2, (discordant - shift) / 2
    chances = np.stack([wins, losses, 1 - discordant], axis=1)
    counts = np.array([rng.multinomial(n_items, row) for row in chances])
    estimated = (counts[:, 0] - counts[:, 1]) / n_items
    variance = (counts[:, 0] + counts[:, 1]) / n_items**2 + 2 * noise.seed_sd**2 / seeds
    return float(np.mean(np.abs(estimated) > norm.ppf(0.975) * np.sqrt(variance)))


def test_the_simulation_sees_a_wrong_formula() -> None:
    """Seed noise left out of the plan: the power is far below what was promised."""
    noise = Noise(discordant=0.1, seed_sd=0.03)
    assert _found(smallest_effect(1000, noise.of_items_alone()), 1000, noise, 1) < 0.4


def test_a_need_says_which_way_is_shut() -> None:
    assert need(0.2, 1000, Noise()) is None
    by_seeds = need(0.05, 1000, NOISY)
    assert by_seeds is not None and by_seeds.seeds is not None and by_seeds.items is None
    assert smallest_effect(1000, NOISY, by_seeds.seeds) <= 0.05 < smallest_effect(1000, NOISY, by_seeds.seeds - 1)
    by_items = need(0.05, 300, Noise(seed_sd=0.005))
    assert by_items is not None and by_items.items is not None and by_items.seeds is None
    assert by_items.items_limit == pytest.approx(smallest_effect(300))
    neither = need(0.02, 300, Noise())
    assert neither is not None and neither.items is None and neither.seeds is None and neither.both is not None
    texts, seeds = neither.both
    assert smallest_effect(texts, Noise(), seeds) <= 0.02 + 1e-9
    assert neither.seeds_limit == pytest.approx(0.0396, abs=5e-4)


# --- the refusal ----------------------------------------------------------------------------------------------------


def test_the_line_is_drawn_at_68_texts() -> None:
    assert items_needed(CERTIFIABLE_EFFECT) == 68
    assert refusal(68) is None and refusal(400) is None
    assert "30 different texts" in (refusal(30) or "") and "68" in (refusal(67) or "")
    assert "1 different text," in (refusal(1) or "")
    assert refusal(0)


def task_with_test(folder: Path, rows: int) -> TaskSpec:
    """A simulated task with a test file of so many rows."""
    task = simulated_task(folder, 4)
    rng = Random(5)
    lines = [f"asked {rng.randrange(10**9)} of kind {row % LABELS},L{row % LABELS:02d}" for row in range(rows)]
    test = folder / "test.csv"
    test.write_text("text,label\n" + "\n".join(lines) + "\n")
    return task.model_copy(update={"data": task.data.model_copy(update={"test": str(test)})})


def finished(folder: Path, rows: int) -> tuple[TaskSpec, RunView]:
    """The view of a run whose sealed split has so many rows."""
    task = task_with_test(folder, rows)
    with opened(start_run(task, folder / "runs"), engine=SimulatedEngine()) as session:
        drive(session)
        run = session.store.folder
    with SqliteStore.open(run, write=False) as store:
        return task, read_view(store)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> RunView:
    return finished(tmp_path_factory.mktemp("small"), 30)[1]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskSpec, RunView]:
    return finished(tmp_path_factory.mktemp("large"), 300)


def test_thirty_sealed_texts_get_a_refusal_in_every_face(small: RunView) -> None:
    assert small.sealed is not None and small.sealed.refused is not None
    assert small.sealed.n == small.sealed.texts == 30 and len(small.sealed.scores) >= 2
    assert headline(small).startswith("Not certified, 30 sealed texts are too few")
    assert small.verdict.tone == "refused"
    told = summary(small)
    assert told["certified"] is False and "68 or more" in told["refused"] and told["sealed"] is not None
    page, text, card = html_report(small), markdown_report(small), model_card(small, "model = load()")
    assert text.startswith("# Not certified")
    assert "<h1>Not certified" in page and page.index("Not certified") < page.index('id="sealed"')
    assert card.index("Not certified") < card.index("| model |")
    for said in (page, text, card):
        assert "is better than the baseline" not in said


def test_three_hundred_sealed_texts_get_a_result(large: tuple[TaskSpec, RunView]) -> None:
    view = large[1]
    assert view.sealed is not None and view.sealed.refused is None and view.sealed.texts == 300
    assert summary(view)["certified"] is True and "refused" not in summary(view)
    assert "ot certified" not in html_report(view) + markdown_report(view)


def test_check_warns_before_anything_is_spent(tmp_path: Path) -> None:
    found = outlook(task_with_test(tmp_path / "a", 30))
    assert not found.problems and found.not_certifiable is not None
    assert any("will not be certified" in warning for warning in found.warnings)
    enough = outlook(task_with_test(tmp_path / "b", 300))
    assert enough.not_certifiable is None and not any("certified" in warning for warning in enough.warnings)


# --- the plan of check ----------------------------------------------------------------------------------------------


def test_check_says_what_the_effect_takes_and_costs(tmp_path: Path) -> None:
    task = task_with_test(tmp_path, 300).model_copy(
        update={
            "min_effect": 0.078,
            "budget": Budget(wall_s=3600.0, usd=2.0),
            "engine": EngineSpec(prices={"cpu_core_hour": 2.0}),
        }
    )
    found = outlook(task)
    search, _, sealed = found.splits
    assert sealed.need is None, "300 texts show 0.078 between two finished models"
    assert found.power[0].startswith("Assumed") and "0.010" in found.power[0]
    assert search.between_recipes > search.smallest_effect
    assert search.need is not None and search.need_s is not None and search.need_s > 0
    assert search.need_usd == pytest.approx(search.need_s / 3600 * 2.0)
    assert "$" in found.power[1]
    assert found.hardware.cpu and found.expected is not None and found.expected.usd > 0
    json.dumps(found.model_dump(mode="json"), allow_nan=False)


@pytest.mark.parametrize(
    ("budget", "price"),
    [
        (Budget(wall_s=7200.0, usd=5.0), 2.5),
        (Budget(gpu_hours=10.0, usd=5.0), 0.5),
        (Budget(wall_s=7200.0), None),
        (Budget(usd=5.0), None),
        (Budget(wall_s=3600.0, usd=0.0), None),
    ],
)
def test_a_budget_of_money_and_time_has_a_price(budget: Budget, price: float | None) -> None:
    assert price_per_hour(budget) == price


def test_check_learns_from_an_earlier_run_of_the_task(large: tuple[TaskSpec, RunView]) -> None:
    task, view = large
    runs_dir = Path(task.data.train).parent / "runs"
    measured = earlier_run(task, runs_dir)
    assert measured is not None and measured.run == view.run and view.sealed is not None
    assert measured.sealed == view.sealed.discordant
    assert measured.search is not None and 0 < measured.search < 1
    assert measured.speed is not None and measured.speed > 0
    found = outlook(task, runs_dir)
    assert view.run in found.power[0]
    assert found.splits[2].noise.discordant == pytest.approx(measured.sealed or 0.0)
    other = task.model_copy(update={"name": "another"})
    assert earlier_run(other, runs_dir) is None


def test_a_run_that_cannot_be_read_teaches_nothing(tmp_path: Path) -> None:
    task = task_with_test(tmp_path, 300)
    broken = tmp_path / "runs" / "overhead-001"
    broken.mkdir(parents=True)
    (broken / "events.sqlite").write_bytes(b"SQLite format 3\0" + bytes(4000))
    assert earlier_run(task, tmp_path / "runs") is None
