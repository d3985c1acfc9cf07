"""The rival policies: each does what its source does, and the two that name recipes run, resume and fall back."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from postgrad.bench.overhead import SimulatedEngine, simulated_task
from postgrad.errors import PostgradError, UserError
from postgrad.events import Event
from postgrad.records import Budget, Choice, Move, Recipe, Record, SearchSpec, Stage
from postgrad.research.base import Context
from postgrad.research.binding import bound
from postgrad.research.exact import answer
from postgrad.research.playbook import Playbook
from postgrad.research.space import RecipeSpace
from postgrad.runner import drive, opened, start_run
from postgrad.search import POLICIES
from postgrad.search.autoresearch import Autoresearch, AutoresearchParams, incumbent
from postgrad.search.base import Policy
from postgrad.search.cma_es import CMAES, Axes, CMAESParams, told
from postgrad.search.evolution import Evolution, EvolutionParams, population
from postgrad.search.tpe import TPE, TPEParams
from postgrad.search.whole import seen
from postgrad.store.sqlite import SqliteStore
from postgrad.testing.policy import PLENTY, PolicyContract, references
from postgrad.testing.researcher import PLAIN, REJECTING
from postgrad.testing.simulation import Simulation, nominal_s
from postgrad.testing.trees import Node, tree_of
from postgrad.tree import Tree


class TestAutoresearch(PolicyContract):
    policy = Autoresearch()


class TestEvolution(PolicyContract):
    policy = Evolution()


class TestEvolutionWithOtherSettings(PolicyContract):
    policy = Evolution()
    params = {"islands": 2, "n_drafts": 1, "population": 2, "tournament": 1, "migration_every": 1, "combine_share": 0.6}


class TestTPE(PolicyContract):
    policy = TPE()
    seeds = range(1)


class TestTPEOneByOneInAPlainTask(PolicyContract):
    policy = TPE()
    params = {"n_drafts": 0, "n_startup": 1, "multivariate": False}
    seeds = range(2)
    task = PLAIN


class TestCMAES(PolicyContract):
    policy = CMAES()
    seeds = range(1)


def drafted(*scores: float) -> list[Node]:
    """The references and drafts with these scores."""
    return [*references(), *(Node(f"e{3 + i:04d}", score=score) for i, score in enumerate(scores))]


# --- autoresearch -----------------------------------------------------------------------------------------------------


def kept(nodes: list[Node]) -> str | None:
    found = incumbent(tree_of(nodes))
    return found.id if found else None


def test_autoresearch_keeps_whatever_scores_strictly_higher_once() -> None:
    nodes = references()
    assert kept(nodes) == "e0002", "the best reference is the first incumbent"
    for number, (score, expected) in enumerate(
        [(0.549, "e0002"), (0.55, "e0002"), (0.5501, "e0005"), (0.55, "e0005"), (0.9, "e0007"), (0.8, "e0007")]
    ):
        nodes.append(Node(f"e{3 + number:04d}", parent="e0002", score=score))
        assert kept(nodes) == expected
        choice = Autoresearch().choose(tree_of(nodes), PLENTY, Random(0), AutoresearchParams())
        assert choice.parent == expected


def test_autoresearch_looks_at_no_interval_and_no_champion() -> None:
    tree = tree_of([*references(), Node("e0003", parent="e0002", score=0.5501, gap=0.0001)])
    led = Tree(tree.experiments, champion="e0002")
    assert Autoresearch().choose(led, PLENTY, Random(0), AutoresearchParams()).parent == "e0003"


def test_autoresearch_stays_on_one_line() -> None:
    moves = {
        Autoresearch().choose(tree_of(drafted(0.6, 0.7)), PLENTY, Random(seed), AutoresearchParams()).move
        for seed in range(100)
    }
    assert moves == {Move.IMPROVE, Move.TUNE}


def test_autoresearch_mends_the_last_failure_a_few_times_then_goes_back() -> None:
    nodes = [*drafted(0.7), Node("e0004", parent="e0003", state="failed")]
    asked = []
    for index in range(5, 8):
        choice = Autoresearch().choose(tree_of(nodes), PLENTY, Random(0), AutoresearchParams(max_repairs=2))
        asked.append((choice.parent, choice.move is Move.REPAIR))
        nodes.append(Node(f"e{index:04d}", parent=choice.parent, move=choice.move, state="failed"))
    assert asked == [("e0004", True), ("e0005", True), ("e0003", False)]
    nodes.append(Node("e0008", parent="e0003", score=0.6))
    choice = Autoresearch().choose(tree_of(nodes), PLENTY, Random(0), AutoresearchParams())
    assert choice.parent == "e0003", "a failure that is not the last is left alone"


def test_autoresearch_drafts_where_no_reference_has_a_score() -> None:
    assert (
        Autoresearch().choose(tree_of(references("unscored")), PLENTY, Random(0), AutoresearchParams()).parent is None
    )


# --- evolution --------------------------------------------------------------------------------------------------------


def test_experiments_live_on_islands_by_their_number() -> None:
    tree = tree_of(drafted(0.5, 0.6, 0.7, 0.4, 0.3, 0.2))
    params = EvolutionParams(islands=3, population=2)
    assert [[node.id for node in population(tree, island, params)] for island in range(3)] == [
        ["e0003", "e0006"],
        ["e0004", "e0001"],
        ["e0005", "e0002"],
    ]


def test_a_parent_comes_from_the_island_whose_turn_it_is() -> None:
    tree = tree_of(drafted(0.5, 0.6, 0.7, 0.4, 0.3, 0.2))
    stay = EvolutionParams(n_drafts=6, migration_every=0, combine_share=0.0)
    parents = {Evolution().choose(tree, PLENTY, Random(seed), stay).parent for seed in range(60)}
    assert parents <= {"e0000", "e0003", "e0006"}, "number 9 is born on island 0"
    move = EvolutionParams(n_drafts=6, migration_every=3, combine_share=0.0)
    parents = {Evolution().choose(tree, PLENTY, Random(seed), move).parent for seed in range(60)}
    assert parents <= {"e0001", "e0004", "e0007"}, "every third child of an island has a parent from the next"


def test_a_larger_tournament_presses_harder() -> None:
    tree = tree_of(drafted(*(0.6 + i / 100 for i in range(12))))
    wins = []
    for size in (1, 4):
        params = EvolutionParams(n_drafts=1, islands=1, population=12, tournament=size, migration_every=0)
        picked = Counter(Evolution().choose(tree, PLENTY, Random(seed), params).parent for seed in range(200))
        wins.append(picked["e0014"])
    assert wins[0] == pytest.approx(200 / 12, abs=14)
    assert wins[1] == pytest.approx(200 * 4 / 12, abs=25), "the best wins every draw it is in"


def test_evolution_crosses_and_mutates_by_its_shares() -> None:
    tree = tree_of(drafted(*(0.6 + i / 100 for i in range(9))))
    params = EvolutionParams(n_drafts=1, combine_share=0.4, tune_share=0.4)
    made = [Evolution().choose(tree, PLENTY, Random(seed), params) for seed in range(300)]
    moves = Counter(choice.move for choice in made)
    assert moves[Move.COMBINE] == pytest.approx(120, abs=30)
    assert moves[Move.TUNE] == pytest.approx(120, abs=30)
    for choice in made:
        if choice.move is Move.COMBINE:
            islands = {int(name[1:]) % 3 for name in (choice.parent or "", choice.other or "")}
            assert len(islands) == 1 and choice.parent != choice.other


def test_what_failed_has_no_children() -> None:
    nodes = [*drafted(0.6), *(Node(f"e{i:04d}", parent="e0003", state="failed") for i in range(4, 12))]
    params = EvolutionParams(n_drafts=1)
    for seed in range(40):
        choice = Evolution().choose(tree_of(nodes), PLENTY, Random(seed), params)
        assert choice.move is not Move.REPAIR and choice.parent in ("e0000", "e0001", "e0002", "e0003")


# --- whole recipes ----------------------------------------------------------------------------------------------------

SPACE = RecipeSpace(REJECTING)


def searched(policy: Policy, steps: int = 30, **changes: Any) -> Tree:
    """A simulated run that rewards a frozen encoder with a large `C`."""

    def objective(recipe: Recipe, seed: int) -> float:
        point = SPACE.encode(recipe) or {}
        return 0.4 + 0.4 * point.get("embedder.frozen.C", 0.0) - 0.02 * sum(v == 1 for v in point.values())

    return Simulation(REJECTING, policy, Playbook(), objective, name="tpe", **changes).run(steps, seed=1)


@pytest.mark.parametrize("policy", [TPE(), CMAES()])
def test_named_recipes_are_tried_as_they_are_and_never_twice(policy: Policy) -> None:
    tree = searched(policy, lookahead=2)
    own = [node for node in tree.all() if node.proposed.proposal.kind == "search.tpe"]
    assert len(own) == 26, "all but four drafts of the researcher"
    hashes = [node.proposed.proposal.recipe.hash for node in tree.all()]
    assert len(set(hashes)) == len(hashes)
    for node in own:
        assert node.parent is None and node.proposed.proposal.proposer == "tpe"
        assert node.proposed.choice.recipe is None, "the log holds the recipe once, in the proposal"
        assert SPACE.encode(node.proposed.proposal.recipe) is not None


@pytest.mark.parametrize(("policy", "params"), [(TPE(), TPEParams()), (CMAES(), CMAESParams())])
def test_suggestions_move_towards_what_scored_high(policy: Any, params: Any) -> None:
    tree = searched(policy, steps=45)
    own = [node for node in tree.all() if node.proposed.proposal.kind == "search.tpe"]
    first, last = own[:15], own[-15:]
    assert sum(n.score or 0 for n in last) > sum(n.score or 0 for n in first) + 15 * 0.03


def test_a_failure_counts_as_a_low_score() -> None:
    """The same 40 experiments with the TF-IDF ones failed, and done: the first study suggests fewer of them."""
    policy, asked = bound(TPE(), REJECTING, nominal_s), Counter[str]()
    for drawn in (6, 7, 8):
        rng = Random(drawn)
        recipes = [SPACE.decode(SPACE.sample(rng)) for _ in range(40)]
        for state in ("failed", "done"):
            nodes = [*drafted(0.5, 0.5, 0.5, 0.5)]
            for recipe in recipes:
                odd = "classic" in recipe.model_dump_json()
                name = f"e{len(nodes):04d}"
                nodes.append(Node(name, recipe=recipe, score=0.9 if odd else 0.6, state=state if odd else "done"))
            made = [policy.choose(tree_of(nodes), PLENTY, Random(seed), TPEParams()).recipe for seed in range(4)]
            asked[state] += sum("classic" in recipe.model_dump_json() for recipe in made if recipe)
    assert asked["failed"] < asked["done"]


def test_the_strategy_is_a_function_of_the_experiments_in_index_order() -> None:
    tree = searched(CMAES(), steps=40)
    params = CMAESParams()
    known = seen(tree, SPACE)
    whole = len(known) // params.population * params.population
    first, _ = told(known, SPACE.coordinates, params)
    again, _ = told(known[:whole], SPACE.coordinates, params)
    assert (first.mean == again.mean).all() and first.generation == whole // params.population
    earlier, _ = told(known[: whole - 1], SPACE.coordinates, params)
    assert earlier.generation == first.generation - 1, "an unfinished generation moves nothing"


def test_vectors_and_points_agree() -> None:
    axes = Axes(SPACE.coordinates)
    for seed in range(20):
        point = SPACE.sample(Random(seed))
        vector = axes.vector(point, axes.neutral())
        assert SPACE.walk(partial(axes.value, vector=vector))[1] == SPACE.decode(point)


def test_pending_experiments_spread_tpe_out() -> None:
    tree = searched(TPE(), steps=25)
    params = TPEParams()
    policy = bound(TPE(), REJECTING, nominal_s)
    alone = policy.choose(tree, PLENTY, Random(3), params).recipe
    assert alone is not None
    best = tree.best()
    assert best is not None
    nodes = [
        Node(node.id, score=node.score or 0.0, recipe=node.proposed.proposal.recipe, kind=node.proposed.proposal.kind)
        for node in tree.all()
    ]
    nodes.append(Node(f"e{len(nodes):04d}", recipe=alone, state="pending"))
    second = policy.choose(tree_of(nodes), PLENTY, Random(3), params).recipe
    assert second is not None and second != alone


def test_a_policy_of_recipes_without_a_space_says_what_is_missing() -> None:
    for name in ("tpe", "cma_es"):
        policy = POLICIES.get(name)
        with pytest.raises(PostgradError, match="over"):
            policy.choose(Tree(), PLENTY, Random(0), policy.Params())


@pytest.mark.parametrize(("name", "library"), [("tpe", "optuna"), ("cma_es", "cmaes")])
def test_a_missing_library_is_named_with_what_to_install(
    name: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec

    def without(wanted: str, package: str | None = None) -> Any:
        return None if wanted == library else found(wanted, package)

    monkeypatch.setattr("postgrad.search.whole.find_spec", without)
    with pytest.raises(UserError, match=rf"'{name}' needs the library '{library}'.*postgrad\[train\]"):
        POLICIES.get(name)


# --- a choice that names its recipe -----------------------------------------------------------------------------------

CLASSIC = Recipe(stage=Stage(backend="classic", params={"C": 7.0}))


def context(tree: Tree, affordable_s: float | None = None) -> Context:
    return Context(tree, Random(0), len(tree), affordable_s, nominal_s)


def named(recipe: Recipe) -> Choice:
    return Choice(parent=None, move=Move.DRAFT, reason="it looks good", recipe=recipe)


def test_a_named_recipe_becomes_the_proposal_without_the_researcher() -> None:
    proposal = answer(Playbook(), "mine", REJECTING, named(CLASSIC), context(tree_of(references())))
    assert proposal.recipe == CLASSIC
    assert (proposal.kind, proposal.proposer, proposal.seed) == ("search.mine", "mine", REJECTING.seed)
    assert "it looks good" in proposal.hypothesis and "classic" in proposal.change
    assert proposal.carried_out is None


def test_a_known_or_unaffordable_recipe_is_replaced_by_a_draft_that_says_so() -> None:
    tree = tree_of([*references(), Node("e0003", recipe=CLASSIC)])
    proposal = answer(Playbook(), "mine", REJECTING, named(CLASSIC), context(tree))
    assert proposal.recipe != CLASSIC and proposal.proposer == "playbook"
    assert proposal.carried_out is not None and "tried before" in proposal.carried_out.reason
    dear = Recipe(base_model=REJECTING.base_models[0], stage=Stage(backend="embedder", params={"epochs": 100}))
    proposal = answer(Playbook(), "mine", REJECTING, named(dear), context(tree, affordable_s=20.0))
    assert proposal.carried_out is not None and "20 s are left" in proposal.carried_out.reason
    assert nominal_s(proposal.recipe) <= 20.0


def test_a_choice_of_an_older_log_is_read() -> None:
    old = '{"parent":null,"move":"draft","other":null,"reason":"r"}'
    assert Choice.model_validate_json(old) == Choice(parent=None, move=Move.DRAFT, reason="r")


def fresh_run(folder: Path, policy: str, experiments: int, **params: Any) -> Path:
    task = simulated_task(folder, experiments).model_copy(update={"search": SearchSpec(policy=policy, params=params)})
    with start_run(task, folder / "runs") as store:
        return store.folder


def driven(folder: Path, kill_after: int | None = None) -> int:
    """Drive a run in a forked process, which kills itself once it has written event `kill_after`."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:

            def listen(event: Event) -> None:
                if kill_after is not None and event.seq >= kill_after:
                    os.kill(os.getpid(), signal.SIGKILL)

            with opened(SqliteStore.open(folder, write=True), listen, SimulatedEngine()) as session:
                drive(session)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def proposals(folder: Path) -> list[str]:
    with SqliteStore.open(folder, write=False) as store:
        return [node.proposed.model_dump_json() for node in Tree.from_events(store.events()).all()]


@pytest.mark.parametrize("policy", ["tpe", pytest.param("cma_es", marks=pytest.mark.slow)])
def test_a_killed_and_resumed_run_has_the_same_tree(tmp_path: Path, policy: str) -> None:
    params = {"n_drafts": 2, "n_startup": 3} if policy == "tpe" else {"n_drafts": 2, "population": 4}
    whole = fresh_run(tmp_path / "whole", policy, 12, **params)
    assert driven(whole) == 0
    expected = proposals(whole)
    assert sum(f'"kind":"search.{policy}"' in text for text in expected) >= 4
    with SqliteStore.open(whole, write=False) as store:
        middle = next(
            event.seq for event in store.events() if event.body.type == "proposed" and event.body.experiment == "e0009"
        )
    folder = fresh_run(tmp_path / "killed", policy, 12, **params)
    assert os.WTERMSIG(driven(folder, middle + 1)) == signal.SIGKILL
    assert driven(folder) == 0
    assert proposals(folder) == expected


def test_a_recipe_that_may_not_be_tried_fails_and_the_run_goes_on(tmp_path: Path) -> None:
    """What a policy names passes the same admission as what a researcher proposes."""

    class Wild:
        """Names recipes that are none."""

        Params: type[Record] = TPEParams

        def choose(self, tree: Tree, remaining: Any, rng: Random, params: Any) -> Choice:
            odd = Stage(backend="classic", params={"C": 10**5000} if len(tree) == 4 else {"no_such": len(tree)})
            return named(Recipe(stage=odd))

    task = simulated_task(tmp_path, 6).model_copy(update={"budget": Budget(experiments=6)})
    with opened(start_run(task, tmp_path / "runs"), engine=SimulatedEngine()) as session:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("postgrad.chooser.POLICIES.get", lambda name: Wild())
            drive(session)
        failed = session.tree.failed()
    assert [node.failure.boundary for node in failed if node.failure] == ["recipe"] * 3
