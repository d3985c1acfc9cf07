"""The posterior policy: what it believes of recipes that were not tried, and what it does with that."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Literal

import pytest

from postgrad.budget import Remaining
from postgrad.errors import PostgradError
from postgrad.records import Choice, Failure, Move, Recipe, Stage
from postgrad.research import edit, options
from postgrad.research.base import Context
from postgrad.research.binding import bound
from postgrad.research.drafts import Draft, drafts
from postgrad.research.exact import answer
from postgrad.research.features import features
from postgrad.research.moves import PLAYS
from postgrad.research.options import PlaybookOptions
from postgrad.research.play import CLASSIC, FROZEN
from postgrad.research.playbook import Playbook
from postgrad.search.base import Features
from postgrad.search.posterior import Posterior, PosteriorParams
from postgrad.search.prospects import BEST, LATEST, Prospects
from postgrad.search.surrogate import Surrogate
from postgrad.testing.policy import PLENTY, PolicyContract, references
from postgrad.testing.researcher import REJECTING
from postgrad.testing.simulation import nominal_s
from postgrad.testing.trees import Node, tree_of
from postgrad.tree import Tree

TUNED = next(draft.recipe for draft in drafts(REJECTING.base_models[0]) if draft.kind == "draft.tuned")
OPTIONS = PlaybookOptions(REJECTING, nominal_s)
ASKED = bound(Posterior(), REJECTING, nominal_s)


class TestPosterior(PolicyContract):
    policy = Posterior()
    seeds = range(3)


class TestPosteriorWithOtherSettings(PolicyContract):
    policy = Posterior()
    params = {"changes": 1, "climbs": 1, "numbers": 1, "width": 1}
    seeds = range(3)


def after(kind: str, recipe: Recipe = TUNED) -> Recipe:
    """The recipe after one play."""
    play = next(play for play in PLAYS if play.kind == kind)
    assert play.applies(recipe, REJECTING)
    return play.apply(recipe, REJECTING)


def tried(*found: tuple[Recipe, float], state: Literal["done", "failed", "pending"] = "done") -> list[Node]:
    """Drafts with these recipes and scores, after the references."""
    return [Node(f"e{3 + i:04d}", score=score, recipe=recipe, state=state) for i, (recipe, score) in enumerate(found)]


def grown(*found: tuple[Recipe, float]) -> Tree:
    return tree_of([*references(), *tried(*found)])


# --- beliefs ----------------------------------------------------------------------------------------------------------


def of(*parts: str, **numbers: float) -> Features:
    return Features(dict.fromkeys(parts, 1.0), numbers)


def test_a_part_that_helped_is_believed_to_help_elsewhere() -> None:
    pairs = [(of("a"), 0.5), (of("a", "good"), 0.56), (of("b"), 0.52), (of("b", "good"), 0.58), (of("c"), 0.51)]
    surrogate = Surrogate([recipe for recipe, _ in pairs], [score for _, score in pairs], 0.02)
    (without, with_it), _ = surrogate.predict([of("c"), of("c", "good")])
    assert 0.03 < with_it - without < 0.065


def test_what_was_never_tried_is_doubted_most_and_what_was_tried_often_least() -> None:
    recipes = [of("a"), of("a", "tried"), of("a"), of("a", "tried"), of("a", "once")]
    surrogate = Surrogate(recipes, [0.5, 0.52, 0.51, 0.53, 0.5], 0.02)
    _, sds = surrogate.predict([of("a", "tried"), of("a", "once"), of("a", "never")])
    assert sds[0] < sds[1] < sds[2]


def test_one_lucky_score_is_not_believed() -> None:
    """The best of equal recipes leads by luck alone: what is believed of it lies near the others."""
    rng = Random(5)
    recipes = [of("a", f"own_{i}") for i in range(20)]
    scores = [0.6 + rng.gauss(0, 0.02) for _ in recipes]
    means, _ = Surrogate(recipes, scores, 0.005).predict(recipes)
    middle = sorted(scores)[10]
    assert max(means) - middle < 0.6 * (max(scores) - middle)


def test_the_best_place_of_a_number_lies_inside() -> None:
    places = [i / 15 for i in range(16)]
    recipes = [of("a", lr=place) for place in places]
    surrogate = Surrogate(recipes, [0.7 - 0.4 * (place - 0.6) ** 2 for place in places], 0.02)
    asked = [i / 20 for i in range(21)]
    means, _ = surrogate.predict([of("a", lr=place) for place in asked])
    assert 0.5 <= asked[int(means.argmax())] <= 0.7


def test_what_is_under_way_makes_surer_and_moves_no_belief() -> None:
    recipes = [of("a"), of("a", "good"), of("b", lr=0.3), of("b", "good", lr=0.8)]
    before = Surrogate(recipes, [0.5, 0.54, 0.51, 0.56], 0.02)
    asked = [of("c", "good"), of("c"), of("a", lr=0.5)]
    after = before.expecting([of("c", "good", other=0.9)])
    (means, sds), (then, surer) = before.predict(asked), after.predict(asked)
    assert then == pytest.approx(means, abs=1e-9)
    assert (surer < sds).all() and surer[0] < 0.8 * sds[0]


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", drafts(REJECTING.base_models[0]), ids=lambda draft: draft.kind)
def test_the_features_of_an_option_are_those_of_its_recipe(start: Draft) -> None:
    recipe = start.recipe
    places = {name: low + 0.3 * (high - low) for name, (low, high) in OPTIONS.ranges(recipe).items()}
    found = [*OPTIONS.changes(recipe), OPTIONS.placed(recipe, places), *OPTIONS.both(recipe, TUNED)]
    assert found or recipe.stage.backend == "constant"
    for option in found:
        assert edit.valid(option.recipe), option.kind
        real = features(option.recipe)
        parts = {name: value for name, value in option.features.parts.items() if abs(value) > 1e-9}
        wanted = {name: value for name, value in real.parts.items() if abs(value) > 1e-9}
        if option.kind == "tune":
            parts.pop("doublings")  # What moved numbers cost is not known before they are set.
            wanted.pop("doublings")
        assert parts == pytest.approx(wanted), option.kind
        assert option.features.numbers == pytest.approx(real.numbers, abs=0.1), (
            option.kind
        )  # Whole numbers are rounded.


def test_changes_of_recipes_that_differ_in_numbers_keep_the_numbers() -> None:
    moved = edit.with_numbers(TUNED, {"epochs": 5})
    change = next(option for option in OPTIONS.changes(moved) if option.kind == "data.typos")
    assert edit.get_path(edit.full_params(change.recipe), "epochs") == 5
    assert change.features.numbers == pytest.approx(features(change.recipe).numbers)


# --- choices ----------------------------------------------------------------------------------------------------------


def test_it_needs_options() -> None:
    with pytest.raises(PostgradError, match="weighing"):
        Posterior().choose(grown((TUNED, 0.6)), PLENTY, Random(0), PosteriorParams())


def paying(gain: float) -> Tree:
    """Six recipes, each with and without word dropout, which brings this much."""
    plain = [TUNED, *(after(kind) for kind in ("data.typos", "head.logistic", "data.balance", "score.knn"))]
    pairs = [(recipe, 0.6 + 0.002 * i) for i, recipe in enumerate(plain)]
    pairs += [(after("data.word_dropout", recipe), score + gain) for recipe, score in pairs]
    return grown(*pairs)


def test_a_part_that_pays_is_in_what_is_tried_next_and_one_that_harms_is_not() -> None:
    shares = {}
    for gain in (0.05, -0.05):
        tree = paying(gain)
        chosen = [ASKED.choose(tree, PLENTY, Random(seed), PosteriorParams()).recipe for seed in range(6)]
        shares[gain] = sum(recipe is not None and edit.has_step(recipe, "word_dropout") for recipe in chosen)
    assert shares[0.05] == 6 and shares[-0.05] == 0


def test_no_recipe_is_tried_twice() -> None:
    tree = paying(0.0)
    known = {node.proposed.proposal.recipe.hash for node in tree.all()}
    for seed in range(6):
        recipe = ASKED.choose(tree, PLENTY, Random(seed), PosteriorParams()).recipe
        assert recipe is None or recipe.hash not in known


def test_a_part_that_fails_is_left_alone() -> None:
    typos = [(after("data.typos", recipe), 0.0) for recipe in (TUNED, after("score.knn"), after("head.logistic"))]
    nodes = [*references(), *tried((TUNED, 0.6), (after("data.balance"), 0.61))]
    failing = [
        Node(f"e{5 + i:04d}", parent="e0003", state="failed", recipe=recipe) for i, (recipe, _) in enumerate(typos * 2)
    ]
    prospects = Prospects(tree_of([*nodes, *failing]), OPTIONS, 0.02)
    asked = [features(after("data.typos", after("data.balance"))), features(after("data.dedup", after("data.balance")))]
    risky, safe = (prospects.risks.of(each) for each in asked)
    assert risky > 0.3 > 0.2 > safe
    assert prospects.gains(asked)[0] < prospects.gains(asked)[1]


@pytest.mark.parametrize("state", ["failed", "pending"])
def test_a_recipe_that_is_not_valid_does_no_harm(state: Literal["failed", "pending"]) -> None:
    """A researcher may propose anything: it is refused, and stays in the tree."""
    odd = (Stage(backend="embedder", params={"epochs": "many"}), Stage(backend="unreadable"))
    broken = [TUNED.model_copy(update={"stage": stage}) for stage in odd]
    good = Node("e0003", score=0.7, recipe=TUNED)
    tree = tree_of(
        [*references(), good, *(Node(f"e{4 + i:04d}", recipe=each, state=state) for i, each in enumerate(broken))]
    )
    choice = ASKED.choose(tree, PLENTY, Random(0), PosteriorParams())
    assert choice.move is not Move.STOP and choice.parent not in ({"e0004", "e0005"} if state == "pending" else set())


def test_a_score_that_is_no_number_says_nothing() -> None:
    recipes = [(TUNED, float("nan")), (after("data.balance"), 0.6), (after("score.knn"), 0.62)]
    choice = ASKED.choose(grown(*recipes), PLENTY, Random(0), PosteriorParams())
    assert choice.move is not Move.STOP and choice.parent != "e0003"


def test_a_choice_does_not_depend_on_what_was_asked_before() -> None:
    """A resumed run asks about another recipe of the same structure first."""
    longer = edit.with_main(TUNED, epochs=12)
    options._changes.cache_clear()
    cold = OPTIONS.changes(longer)
    options._changes.cache_clear()
    OPTIONS.changes(TUNED)
    assert [each.features for each in OPTIONS.changes(longer)] == [each.features for each in cold]
    assert [each.kind for each in OPTIONS.changes(longer)] == [each.kind for each in cold]


@pytest.mark.parametrize(("kind", "mended"), [("oom", True), ("crash", False)])
def test_only_failures_that_something_is_known_for_are_mended(kind: str, mended: bool) -> None:
    """Nothing else has a score, so a repair is all there is to ask for."""
    failure = Failure(boundary="train", kind=kind, message="It ended.")
    assert (OPTIONS.mended(TUNED, failure) is not None) is mended
    tree = tree_of([*references()[:1], Node("e0001", state="failed", recipe=TUNED)])
    broken = replace(tree["e0001"], results=(tree["e0001"].results[0].model_copy(update={"failure": failure}),))
    tree = tree.with_experiments([broken], tree.champion)
    choice = ASKED.choose(tree, PLENTY, Random(0), PosteriorParams())
    assert choice.move is (Move.REPAIR if mended else Move.DRAFT)


def test_numbers_of_nested_ensembles_have_defaults_too() -> None:
    inner = edit.with_member(edit.with_member(TUNED, CLASSIC), FROZEN)
    nested = edit.with_member(TUNED, inner.stage)
    assert edit.valid(nested)
    found = features(nested)
    assert found.parts["members"] == 1.0 and any(name.endswith(".C") for name in found.numbers)


def test_what_is_asked_is_told_without_a_second_parent_too() -> None:
    """The method of a starting point with what its parent has: there is no other experiment to name."""
    recipe = after("data.typos")
    choice = Choice(parent="e0003", move=Move.IMPROVE, recipe=recipe, kinds=("draft.frozen", "combine"), reason="good")
    context = Context(tree=grown((TUNED, 0.6)), rng=Random(0), index=4, affordable_s=None, nominal_s=nominal_s)
    proposal = answer(Playbook(), "posterior", REJECTING, choice, context)
    assert proposal.recipe == recipe and proposal.change.endswith("with what its parent has")


def test_costs_count_where_the_budget_is_time() -> None:
    """Of the same tree, the recipes asked for are cheaper when seconds are what is left."""
    tree = grown((TUNED, 0.60), (after("data.balance"), 0.602), (after("score.knn"), 0.598))
    costs = {}
    for name, remaining in (
        ("experiments", Remaining(experiments=100)),
        ("seconds", Remaining(wall_s=10_000.0, fraction=0.9)),
    ):
        chosen = [ASKED.choose(tree, remaining, Random(seed), PosteriorParams()).recipe for seed in range(6)]
        costs[name] = sum(nominal_s(recipe) for recipe in chosen if recipe is not None)
    assert costs["seconds"] < costs["experiments"]


def test_what_cannot_be_paid_any_more_is_not_asked_for() -> None:
    tree = grown((TUNED, 0.60), (after("data.balance"), 0.602))
    plenty = Remaining(wall_s=10_000.0, fraction=0.1)
    limit = nominal_s(TUNED) / 2
    choices = [
        [ASKED.choose(tree, left, Random(seed), PosteriorParams(priced=False)) for seed in range(4)]
        for left in (plenty, plenty.model_copy(update={"affordable_s": limit}))
    ]
    dear, cheap = ([nominal_s(found.recipe) for found in chosen if found.recipe] for chosen in choices)
    assert max(dear) > limit and cheap and max(cheap) <= limit


@pytest.mark.parametrize(
    ("payable", "expected"),
    [(1.0, {1.0}), (0.5, {0.25}), (0.1, {1 / 16}), (0.01, set[float]())],
)
def test_a_cheaper_form_of_a_start_is_tried_where_that_one_cannot_be_paid(payable: float, expected: set[float]) -> None:
    """Of low-rank adapters on all rows, a quarter and a sixteenth: the most that can be paid, and nothing less."""
    task = REJECTING.model_copy(update={"kind": "generation", "metric": "exact_match", "base_models": ("path:lm",)})

    def seconds(recipe: Recipe) -> float:
        tune, share = recipe.stage.params.get("tune"), float(str(recipe.stage.params.get("share", 1.0)))
        return {"lora": 1000.0 * share, "full": 5000.0}.get(str(tune), 1.0)

    asked = bound(Posterior(), task, seconds)
    seen: list[Node] = []
    shares: set[float] = set()
    for number in range(5):
        left = Remaining(wall_s=20_000.0, fraction=0.5, affordable_s=1000.0 * payable)
        choice = asked.choose(tree_of([*references(), *seen]), left, Random(0), PosteriorParams(drafts=9, changes=1))
        if choice.recipe is None or choice.move is not Move.DRAFT:
            break
        if choice.recipe.stage.params.get("tune") == "lora":
            shares.add(edit.number(choice.recipe.stage, "share"))
        seen.append(Node(f"e{3 + number:04d}", score=0.5, recipe=choice.recipe))
    assert shares == expected


def test_it_stops_when_nothing_is_left_to_gain() -> None:
    tree = paying(0.0)
    params = PosteriorParams(least_gain=10.0)
    choice = ASKED.choose(tree, PLENTY, Random(0), params)
    assert choice.move is Move.STOP and "less than 10" in choice.reason
    assert ASKED.choose(tree, PLENTY, Random(0), PosteriorParams()).move is not Move.STOP


def test_it_stops_when_the_time_left_gains_nothing() -> None:
    tree = paying(0.0)
    short = ASKED.choose(tree, Remaining(wall_s=5.0, fraction=0.01), Random(0), PosteriorParams(least_gain=0.01))
    assert short.move is Move.STOP and "5 seconds" in short.reason
    long = ASKED.choose(tree, Remaining(wall_s=50_000.0, fraction=0.9), Random(0), PosteriorParams(least_gain=0.01))
    assert long.move is not Move.STOP


def test_workers_side_by_side_try_different_things() -> None:
    """An experiment under way counts as having scored what is believed of it, so its like is worth less."""
    pending = after("data.typos")
    found = [(TUNED, 0.6), (after("data.balance"), 0.601), (after("score.knn"), 0.6), (after("head.logistic"), 0.599)]
    nodes = [*references(), *tried(*found)]
    alike = [features(after("score.max_logit", pending))]
    alone = Prospects(tree_of(nodes), OPTIONS, 0.02).gains(alike)
    waiting = Node("e0007", parent="e0003", state="pending", recipe=pending)
    beside = Prospects(tree_of([*nodes, waiting]), OPTIONS, 0.02).gains(alike)
    assert beside[0] < alone[0]


def test_a_long_run_is_believed_from_its_best_and_its_latest() -> None:
    count = BEST + LATEST + 40
    nodes = tried(
        *((Recipe(stage=Stage(backend="classic", params={"C": 1 + i})), 0.5 + i / 1000) for i in range(count))
    )
    prospects = Prospects(tree_of([*references(), *nodes]), OPTIONS, 0.02)
    assert len(prospects.seen) == BEST + LATEST
    assert max(node.score or 0.0 for node in prospects.seen) == nodes[-1].score
