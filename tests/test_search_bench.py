"""`postgrad bench search`: simulated runs keep their budget and their word; the benchmark goes on where it stopped."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from postgrad import racing
from postgrad.bench.base import BenchSpec, write_result
from postgrad.bench.landscapes import Landscape, Trained, landscape
from postgrad.bench.landscapes_families import Additive, Expensive, Failing, MostlyNoise
from postgrad.bench.search import QUICK, Search, facts_of
from postgrad.bench.search_table import CURVE, best_known, markdown, rows_of
from postgrad.bench.simulated import SimulatedRun
from postgrad.bench.simulated_parts import Grant, Outcome
from postgrad.errors import UserError
from postgrad.records import Failure, Recipe, Stage
from postgrad.research import edit
from postgrad.research.references import reference_recipes
from postgrad.tree import State

ROOT = Path(__file__).resolve().parent.parent


class Cheap(Additive):
    """Its optimum need not be searched for."""

    def best(self) -> float | None:
        return 0.92


class CheapFailing(Cheap, Failing):
    pass


CHEAP, FAILS = f"{__name__}:Cheap", f"{__name__}:CheapFailing"


def played(made: Landscape, policy: str = "greedy", budget: float = 30, **more: Any) -> SimulatedRun:
    run = SimulatedRun(made, policy, Grant(budget, **more), seed=1)
    run.play()
    return run


def spec(folder: Path, **options: str) -> BenchSpec:
    defaults = {key: default for key, (default, _) in Search.options.items()}
    small = {"policies": "greedy,best_of_n", "landscapes": f"{CHEAP},{FAILS}", "budgets": "8", "seeds": "3"}
    return BenchSpec(
        quick=False, folder=folder, command="x", options={**defaults, **small, "processes": "1", **options}
    )


# --- a run ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["sequential", "greedy", "best_of_n", "random", "uct"])
def test_a_run_keeps_its_budget_of_trainings(policy: str) -> None:
    run = played(Additive(0), policy)
    out = run.out
    assert out.trainings == 30 == out.curve[-1][0]
    kinds = [node.proposed.proposal.kind for node in run.tree.all()]
    assert kinds[:3] == [proposal.kind for proposal in reference_recipes(run.task)]
    assert len(kinds) <= 30
    assert out.final in {run.truth(name) for name in run.tree.experiments}
    assert out.final <= out.best
    assert all(node.state is not State.PENDING for node in run.tree.all())


def test_the_same_seed_gives_the_same_run() -> None:
    first, again = played(Additive(3)), played(Additive(3))
    assert first.tree == again.tree
    assert first.out.curve == again.out.curve and first.out.final == again.out.final
    other = SimulatedRun(Additive(3), "greedy", Grant(30), seed=2)
    other.play()
    assert other.tree != first.tree


def test_search_finds_something_better() -> None:
    gains = []
    for seed in range(6):
        made = Additive(seed)
        references = [made.truth(proposal.recipe) for proposal in reference_recipes(made.task)]
        gains.append(played(made, budget=40).out.final - max(references))
    assert sum(gains) / len(gains) > 0.02


def test_keeps_are_tested_on_fresh_items_and_hold() -> None:
    keeps = false = 0
    for seed in range(6):
        out = played(Additive(seed), budget=60).out
        keeps, false = keeps + out.keeps, false + out.false_keeps
    assert keeps >= 3
    assert false <= 1


def test_hardly_anything_is_kept_where_nothing_is_better() -> None:
    assert sum(played(MostlyNoise(seed), budget=50).out.false_keeps for seed in range(5)) <= 1


def test_a_false_keep_is_counted() -> None:
    """A landscape that lies: it scores by its answers, and calls the truth of everything the same."""

    class Lying(Additive):
        def _answers(self, recipe: Recipe, seed: int, behind: float) -> Trained:
            self._truths.pop(recipe.hash, None)
            self.honest = True
            answers = super()._answers(recipe, seed, behind)
            self.honest = False
            return answers

        honest = False

        def truth(self, recipe: Recipe) -> float:
            return super().truth(recipe) if self.honest else 0.6

    outcomes = [played(Lying(seed), budget=60).out for seed in range(4)]
    assert sum(out.false_keeps for out in outcomes) == sum(out.keeps for out in outcomes) > 0


def test_further_seeds_are_experiments_of_the_same_recipe() -> None:
    found = 0
    for seed in range(4):
        run = played(Additive(seed), "uct", 50)
        for node in run.tree.all():
            if node.proposed.proposal.kind == "referee.seed":
                found += 1
                subject = run.tree[node.parent or ""]
                same = [
                    n for n in run.tree.all() if run.recipe(n.id) == run.recipe(subject.id) and n.index < node.index
                ]
                assert node.proposed.proposal.seed not in {n.proposed.proposal.seed for n in same}
    assert found


def test_failures_cost_and_have_no_score() -> None:
    runs = [played(Failing(seed)) for seed in range(3)]
    assert sum(run.out.failures for run in runs) > 3
    for run in runs:
        failed = run.tree.failed()
        assert all(node.score is None and node.cost_s > 0 for node in failed)
        assert run.out.trainings == 30


def test_a_budget_of_seconds_ends_the_run() -> None:
    run = played(Expensive(0), "greedy", 3000.0, unit="seconds")
    assert run.out.cost_s >= 3000.0
    last = run.tree.all()[-1]
    assert run.out.cost_s - last.cost_s <= 3000.0
    assert run.out.final <= run.out.best


def test_racing_stops_what_is_behind_and_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(racing, "SAVES_S", 0.0)
    monkeypatch.setattr(racing, "LEAST_TRUST", 0.2)
    plain = [played(Additive(seed), "random", 50) for seed in range(3)]
    raced = [played(Additive(seed), "random", 50, racing=True) for seed in range(3)]
    assert not any(run.out.raced for run in plain)
    for run in raced:
        stopped = [node for node in run.tree.all() if node.state is State.RACED]
        assert len(stopped) == run.out.raced
        for node in stopped:
            whole = run.landscape.cost_s(node.proposed.proposal.recipe)
            assert node.score is None and node.cost_s in (0.25 * whole, 0.5 * whole)
    assert sum(run.out.raced for run in raced) > 0


def test_a_recipe_that_is_not_valid_fails_and_the_run_goes_on() -> None:
    class Strange(Additive):
        def __init__(self, seed: int) -> None:
            super().__init__(seed)

    run = SimulatedRun(Strange(0), "greedy", Grant(8), seed=0)
    references = reference_recipes(run.task)
    broken = references[1].model_copy(update={"recipe": Recipe(stage=Stage(backend="classic", params={"C": -1.0}))})
    run._experiment(references_choice(), broken, None)
    assert run.tree.failed() and run.out.trainings == 1


def references_choice() -> Any:
    from postgrad.records import Choice, Move

    return Choice(parent=None, move=Move.DRAFT)


def test_a_landscape_where_everything_fails_still_ends() -> None:
    class Broken(Additive):
        def crash(self, recipe: Recipe, seed: int) -> Failure | None:
            return Failure(boundary="train", kind="crash", message="It crashed.")

    out = played(Broken(0), budget=8).out
    assert out.failures == 8
    assert out.final == Broken(0).truth(reference_recipes(Broken.task)[0].recipe)


# --- the benchmark --------------------------------------------------------------------------------------------------


def test_the_benchmark_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = Search().run(spec(tmp_path), lambda text: None)
    files = sorted(tmp_path.rglob("*.jsonl"))
    assert len(files) == 2 * 2 + 2
    kept = {file: file.read_text("utf-8") for file in files}
    cut = next(file for file in files if "greedy" in str(file))
    cut.write_text(kept[cut].splitlines()[0] + "\n" + kept[cut].splitlines()[1][:20], encoding="utf-8")
    untouched = {file: file.stat().st_mtime_ns for file in files if file != cut}
    again = Search().run(spec(tmp_path), lambda text: None)
    assert {file: file.read_text("utf-8") for file in untouched} == {file: kept[file] for file in untouched}
    assert len(cut.read_text("utf-8").splitlines()) == 3
    assert [_lasting(row) for row in again["table"]] == [_lasting(row) for row in whole["table"]]


def test_more_seeds_add_to_what_is_there(tmp_path: Path) -> None:
    few = {"policies": "greedy", "landscapes": CHEAP}
    Search().run(spec(tmp_path, seeds="2", **few), lambda text: None)
    file = next(tmp_path.glob("greedy/*/*.jsonl"))
    before = file.read_text("utf-8")
    Search().run(spec(tmp_path, seeds="3", **few), lambda text: None)
    assert file.read_text("utf-8").startswith(before)
    assert len(file.read_text("utf-8").splitlines()) == 3


def _lasting(row: dict[str, Any]) -> dict[str, Any]:
    """A row without wall times."""
    return {key: value for key, value in row.items() if not key.endswith("_ms")}


def test_the_result_is_written_with_table_and_picture(tmp_path: Path) -> None:
    result = Search().run(spec(tmp_path / "work"), lambda text: None)
    write_result(tmp_path, "search", "postgrad bench search --seeds 3", result)
    page = (tmp_path / "search.md").read_text("utf-8")
    assert page.startswith("Made by `postgrad bench search --seeds 3`.")
    assert "## All cells" in page and f"## {FAILS}" in page
    picture = ElementTree.parse(tmp_path / "search.svg").getroot()
    lines = picture.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 2 * 2
    words = "".join(picture.itertext())
    assert CHEAP in words and "best_of_n" in words


def test_a_policy_plays_with_settings_of_its_own(tmp_path: Path) -> None:
    options = {"policies": "greedy,greedy[p_debug=0;n_drafts=1]", "landscapes": FAILS, "budgets": "20", "seeds": "2"}
    result = Search().run(spec(tmp_path, **options), lambda text: None)
    assert {row["policy"] for row in result["table"]} == {"greedy", "greedy[p_debug=0;n_drafts=1]"}
    costs = [[json.loads(line)["cost_s"] for line in file.open()] for file in tmp_path.glob("greedy*/*/*.jsonl")]
    assert len(costs) == 2 and costs[0] != costs[1]


@pytest.mark.parametrize(
    "options",
    [
        {"policies": "greedy,gredy"},
        {"policies": "greedy[p_debg=0]"},
        {"policies": "greedy[p_debug]"},
        {"policies": "greedy[p_debug=7]"},
        {"policies": "greedy[p_debug=0"},
        {"landscapes": "additive,nowhere"},
        {"budgets": "20,many"},
        {"budgets": "2"},
        {"budgets": "20", "unit": "seconds"},
        {"unit": "hours"},
        {"racing": "yes"},
        {"seeds": "0"},
        {"seeds": "some"},
    ],
)
def test_bad_options_are_refused(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(UserError):
        Search().run(spec(tmp_path, **options), lambda text: None)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_quick_is_small() -> None:
    assert set(QUICK) <= set(Search.options)


# --- the table ------------------------------------------------------------------------------------------------------


def a_run(policy: str, seed: int, final: float, **more: Any) -> dict[str, Any]:
    out = Outcome(final=final, best=final, curve=[(1.0, 0.1), (5.0, final)], trainings=10, cost_s=50.0)
    return {
        "landscape": "l",
        "policy": policy,
        "budget": 10.0,
        "seed": seed,
        **facts_of(out, Grant(10)),
        "wall_s": 0.1,
        **more,
    }


def test_figures_of_the_table_are_right() -> None:
    runs = [a_run("a", s, 0.70 + 0.01 * s, keeps=2, false_keeps=s % 2) for s in range(4)]
    runs += [a_run("b", s, 0.60 + 0.01 * s) for s in range(4)]
    rows = rows_of(runs, {"l": [0.8, 0.8, 0.8, 0.72]})
    overall, cell = rows[:2], rows[2:]
    assert [row["policy"] for row in cell] == ["a", "b"] == [row["policy"] for row in overall]
    # The last oracle is below what a search found, which takes its place.
    assert cell[0]["regret"] == pytest.approx((0.10 + 0.09 + 0.08 + 0.0) / 4, abs=1e-4)
    assert cell[1]["behind_best"] == pytest.approx(0.10) and cell[1]["behind_error"] == pytest.approx(0.0, abs=1e-4)
    assert cell[0]["tied"] and not cell[1]["tied"]
    assert cell[0]["false_keeps"] == pytest.approx(0.25)
    assert overall[0]["first_or_tied"] == "1 of 1" and overall[1]["first_or_tied"] == "0 of 1"
    assert "| b | 10 | 61.50 |" in markdown(rows, 4, "experiments")


def test_a_recipe_that_some_run_tried_is_reachable() -> None:
    runs = [a_run("a", 0, 0.7), a_run("b", 0, 0.6, best=0.75)]
    assert best_known(runs, {"l": [0.72]}) == {("l", 0): 0.75}


def test_the_curve_is_the_value_at_each_part_of_the_budget() -> None:
    out = Outcome(final=0.8, curve=[(1.0, 0.2), (5.0, 0.6), (10.0, 0.8)])
    facts = facts_of(out, Grant(10))
    assert len(facts["curve"]) == CURVE
    assert facts["curve"][0] == 0.2 and facts["curve"][CURVE // 2] == 0.6 and facts["curve"][-1] == 0.8
    assert facts["auc"] == pytest.approx((5 * 0.2 + 5 * 0.6) / 10)


# --- what is remembered ---------------------------------------------------------------------------------------------


def test_a_copied_recipe_has_its_own_hash() -> None:
    recipe = Recipe(stage=Stage(backend="classic"))
    before = recipe.hash
    copied = recipe.model_copy(update={"stage": Stage(backend="constant")})
    assert copied.hash == Recipe(stage=Stage(backend="constant")).hash != before
    assert recipe.hash == before and recipe == Recipe(stage=Stage(backend="classic"))
    assert "hash" not in recipe.model_dump()


def test_what_is_remembered_of_a_recipe_is_not_changed() -> None:
    recipe = edit.with_member(Recipe(stage=Stage(backend="classic")), Stage(backend="classic", params={"head": "svm"}))
    params, structure = str(edit.full_params(recipe)), edit.structure_of(recipe)
    moved = edit.with_numbers(recipe, {"members.0.stage.params.C": 9.0})
    assert str(edit.full_params(recipe)) == params and edit.structure_of(recipe) == structure
    assert edit.get_path(edit.full_params(moved), "members.0.stage.params.C") == 9.0
    assert edit.structure_of(moved) == structure
    assert edit.main_index(recipe) == 0 and len(edit.stages(moved)) == 2


# --- the documentation ----------------------------------------------------------------------------------------------


def test_the_landscape_of_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "search.md").read_text("utf-8")
    code = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    (tmp_path / "my_landscapes.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    name = re.search(r"my_landscapes:\w+", page)
    assert name is not None
    made = landscape(name[0])(0)
    assert made.truth(Recipe(stage=Stage(backend="classic"))) > 0
    result = Search().run(spec(tmp_path / "work", landscapes=name[0]), lambda text: None)
    assert {row["landscape"] for row in result["table"]} == {"all", name[0]}
    assert all(0 <= row["regret"] < 0.5 for row in result["table"])
    sys.modules.pop("my_landscapes", None)


def test_results_state_their_command() -> None:
    pages = sorted((ROOT / "bench" / "results").glob("*.md"))
    assert pages
    assert all(re.match(r"Made by `postgrad bench \w+", page.read_text("utf-8")) for page in pages)
