"""`bench scale` and what it rests on: a tree that has grown event by event is the tree of these events."""

from __future__ import annotations

import json
from collections import Counter
from functools import reduce
from pathlib import Path
from random import Random

import pytest

from postgrad import events as written
from postgrad.bench.base import BenchSpec
from postgrad.bench.landscapes import TASK
from postgrad.bench.scale import REMAINING, Case, Scale, _exponent, _verdict, measured
from postgrad.bench.scale_trees import Growth
from postgrad.bench.simulated_parts import nominal_s
from postgrad.errors import UserError
from postgrad.records import Move, Recipe
from postgrad.research import edit
from postgrad.research.binding import bound
from postgrad.search import POLICIES
from postgrad.testing.events import evaluated, numbered
from postgrad.testing.policy import why_illegal
from postgrad.tree import State, Tree

SIZE = 400


@pytest.fixture(scope="module")
def events() -> tuple[written.Event, ...]:
    return tuple(Growth().events(SIZE))


@pytest.fixture(scope="module")
def tree(events: tuple[written.Event, ...]) -> Tree:
    return Tree.from_events(events)


def same(one: Tree, two: Tree) -> bool:
    """Equal, and equal in all that is looked up: what was carried over against what is worked out anew."""
    lookups = (Tree.all, Tree.scored, Tree.pending, Tree.failed, Tree.roots, Tree.leaves, Tree.closed, Tree.best)
    below = all(one.children(node.id) == two.children(node.id) for node in two.all())
    return one == two and below and all(look(one) == look(two) for look in lookups)


# --- what is grown ----------------------------------------------------------------------------------------------------


def test_a_grown_tree_looks_like_a_run(tree: Tree) -> None:
    states = Counter(node.state for node in tree.all())
    assert states[State.PENDING] == 1 and tree.all()[-1].state is State.PENDING
    assert 0.75 < states[State.DONE] / SIZE < 0.95
    assert states[State.FAILED] > 8 and states[State.RACED] > 3
    moves = Counter(node.proposed.choice.move for node in tree.all())
    assert set(moves) == {*Move} - {Move.STOP}
    assert [node.proposed.proposal.kind for node in tree.all()[:3]] == [
        "reference.constant",
        "reference.classic",
        "reference.base_model",
    ]
    assert tree.champion is not None and len(tree.children(tree.champion)) > 5
    weighed = [node.analysis for node in tree.scored() if node.analysis and node.analysis.gain]
    assert all(found.rival in tree.experiments and found.difference is not None for found in weighed)
    assert len(weighed) > SIZE / 2


def test_recipes_are_real_and_mostly_different(tree: Tree) -> None:
    recipes = [node.proposed.proposal.recipe for node in tree.all()]
    assert all(edit.valid(recipe) for recipe in recipes)
    assert len({recipe.hash for recipe in recipes}) > 0.9 * SIZE
    assert len({edit.structure_of(recipe) for recipe in recipes}) > 60
    assert all(Recipe.model_validate_json(recipe.model_dump_json()) == recipe for recipe in recipes[:50])


def test_every_choice_in_it_was_legal(tree: Tree) -> None:
    for node in tree.all():
        choice = node.proposed.choice
        if choice.move is Move.REPAIR:
            assert tree[str(choice.parent)].state is State.FAILED
        elif choice.parent is not None:
            assert tree[choice.parent].score is not None and tree[choice.parent].index < node.index


def test_the_same_seed_grows_the_same_and_longer_runs_begin_alike(events: tuple[written.Event, ...]) -> None:
    assert tuple(Growth().events(SIZE)) == events
    assert tuple(Growth().events(SIZE // 2)) == events[: len(tuple(Growth().events(SIZE // 2)))]
    assert tuple(Growth(seed=1).events(50)) != tuple(Growth().events(50))


# --- the tree ---------------------------------------------------------------------------------------------------------


def test_a_large_tree_grown_by_events_is_the_tree_of_its_events(events: tuple[written.Event, ...], tree: Tree) -> None:
    grown = reduce(Tree.with_event, events, Tree())
    assert same(grown, tree)
    growth = Growth()
    late = Tree.from_events(growth.events(SIZE // 2))
    for _ in range(SIZE // 2):
        for event in growth.step():
            late = late.with_event(event)
    assert same(late, tree)


def test_views_along_the_way_are_those_of_the_whole(events: tuple[written.Event, ...]) -> None:
    grown = Tree()
    for number, event in enumerate(events[:600]):
        grown = grown.with_event(event)
        if number % 37 == 0:
            for closed in {0, len(grown) // 2, len(grown) - 2, len(grown) - 1, len(grown)}:
                anew = Tree.from_events(events[: number + 1]).view(closed)
                assert same(grown.view(closed), Tree(anew.experiments, anew.champion))


def test_what_follows_an_analysis_is_carried_over_too(tree: Tree) -> None:
    """A test and its evaluation change a scored experiment without moving it."""
    name = tree.scored()[5].id
    tested = written.Tested(experiment=name, against="e000000", difference=None, level=0.01, kept=True, champion=name)
    after = reduce(Tree.with_event, numbered([evaluated(name, 0.5, "select"), tested]), tree)
    assert same(after, Tree(after.experiments, name))
    assert after.scored()[5].verdict == "keep" and tree.scored()[5].verdict != "keep"


def test_a_score_that_changes_moves_and_one_that_is_no_number_is_last(tree: Tree) -> None:
    """No loop writes a second search evaluation; the tree holds all the same."""
    first, second = tree.scored()[0].id, tree.scored()[1].id
    after = reduce(Tree.with_event, numbered([evaluated(first, 0.0), evaluated(second, float("nan"))]), tree)
    assert [node.id for node in after.scored()[-2:]] == [first, second]
    again = reduce(Tree.with_event, numbered([evaluated(second, 0.99)]), after)
    assert again.scored()[0].id == second and len(again.scored()) == len(tree.scored())
    assert same(again, Tree(again.experiments, again.champion))


def test_a_view_that_hides_nothing_is_the_tree_itself() -> None:
    growth = Growth()
    begun = next(iter(growth.events(1)))
    whole = Tree.from_events([begun])
    assert whole.view(0) is whole and whole.view(1) is whole
    ended = reduce(Tree.with_event, growth.step()[:-2], whole)
    assert ended.view(1) is ended and ended.view(0) is not ended


def test_a_step_shares_all_but_what_changed(tree: Tree) -> None:
    growth = Growth()
    before = Tree.from_events(growth.events(SIZE))
    after = reduce(Tree.with_event, growth.step(), before)
    changed = [node.id for node in after.all() if before.experiments.get(node.id) is not node]
    assert len(changed) == 2
    assert same(before, tree), "and the tree before is as it was"


# --- policies on it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["greedy", "uct", "evolution", "autoresearch", "best_of_n", "random"])
def test_policies_choose_the_same_on_what_was_carried_over(
    name: str, events: tuple[written.Event, ...], tree: Tree
) -> None:
    policy = bound(POLICIES.get(name), TASK, nominal_s)
    grown = reduce(Tree.with_event, events, Tree())
    for seed in range(20):
        choice = policy.choose(tree, REMAINING, Random(seed), policy.Params())
        assert why_illegal(tree, choice) is None
        assert choice == policy.choose(grown, REMAINING, Random(seed), policy.Params())


# --- the benchmark ----------------------------------------------------------------------------------------------------


def spec(folder: Path, **options: str) -> BenchSpec:
    defaults = {key: default for key, (default, _) in Scale.options.items()}
    return BenchSpec(quick=False, folder=folder, command="", options=defaults | options)


def test_the_benchmark_gives_a_whole_table_and_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    asked = spec(tmp_path, policies="greedy", sizes="200,50", calls="3")
    result = Scale().run(asked, said.append)
    rows = result["table"]
    assert [(row["policy"], row["experiments"]) for row in rows] == [("greedy", 50), ("greedy", 200)]
    for row in rows:
        assert row["calls"] == 3 and 0 < row["step_ms_p50"] <= row["step_ms_p95"]
        assert row["choose_ms_p50"] > 0 and row["tree_ms_p50"] > 0
        assert 0 <= row["over_base_mb"] < row["peak_mb"]
        assert (row["exponent"] is None) == (row["experiments"] == 50)
    assert len(said) == 2 and "| greedy | 200 |" in result["markdown"] and "not measured" in result["markdown"]
    (kept,) = tmp_path.glob("greedy-50-*.json")
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "step_ms_p50": 12.5}))
    assert Scale().run(asked, said.append)["table"][0]["step_ms_p50"] == 12.5, "what was measured is not measured again"


def test_a_policy_that_names_recipes_is_given_a_space() -> None:
    found = measured(Case("tpe", 50, 2))
    assert found["calls"] == 2 and found["choose_ms_p50"] > 0


@pytest.mark.parametrize("sizes", ["ten", "100,", "5", "100,-3"])
def test_sizes_that_cannot_be_read_are_refused(sizes: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--sizes"):
        Scale().run(spec(tmp_path, sizes=sizes), print)


def row(experiments: int, ms: float, p95: float = 1.0, peak: float = 1.0) -> dict[str, float]:
    return {"experiments": experiments, "step_ms_p50": ms, "step_ms_p95": p95, "peak_mb": peak}


def test_limits_are_judged_where_they_hold() -> None:
    good = [row(1_000, 1.0), row(10_000, 12.0, p95=49.0, peak=299.0), row(100_000, 166.0)]
    assert _verdict("x", good) | {"grown": 0, "n_log_n": 0} == {
        "policy": "x",
        "fast": True,
        "small": True,
        "grown": 0,
        "n_log_n": 0,
        "grows_well": True,
    }
    slow = _verdict("x", [row(1_000, 1.0), row(10_000, 30.0, p95=50.0, peak=300.0)])
    assert (slow["fast"], slow["small"], slow["grows_well"]) == (False, False, False)
    none = _verdict("x", [row(100, 1.0)])
    assert (none["fast"], none["small"], none["grows_well"]) == (None, None, None)
    assert _exponent(row(100, 1.0), row(1_000, 10.0)) == 1.0
