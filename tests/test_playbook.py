"""The playbook: every move is a valid change, what a run teaches is used, and a search with it beats a blind one."""

from __future__ import annotations

import math
from random import Random
from statistics import mean
from typing import Any

import pytest

from postgrad.memory.effects import FAILED_EFFECT
from postgrad.records import Choice, Failure, Move, Proposal, Recipe, Stage, TaskSpec, content_hash
from postgrad.research import RESEARCHERS, edit
from postgrad.research.base import Context
from postgrad.research.drafts import drafts, spoken, starting_points
from postgrad.research.hub import starts
from postgrad.research.language import FEW_ROWS, LORA, UNTOUCHED, lm_recipe
from postgrad.research.learning import Belief, belief, effect_of, worth
from postgrad.research.moves import PLAYS
from postgrad.research.playbook import Playbook
from postgrad.research.references import reference_recipes
from postgrad.research.repairs import repaired
from postgrad.search import POLICIES
from postgrad.testing.researcher import BASE, FAILURES, PLAIN, REJECTING, ResearcherContract
from postgrad.testing.simulation import Simulation, nominal_s
from postgrad.testing.trees import Node, tree_of
from postgrad.train import BACKENDS
from postgrad.tree import Tree

MORE_OF_THE_SAME = {"ensemble.seeds", "train.longer", "train.shorter", "base.next", "hub.longer", "hub.shorter"} | {
    f"lm.{name}" for name in ("longer", "shorter", "smaller_batch", "last_stage_off", "more_rows", "fewer_rows")
}
TWO_BASES = REJECTING.model_copy(update={"base_models": (BASE, "package:another_encoder")})
IN_WORDS = TWO_BASES.model_copy(update={"kind": "generation", "metric": "exact_match"})
DRAFTS = {draft.kind: draft.recipe for draft in drafts(BASE)}
CLASSIC = DRAFTS["draft.classic"]


class TestPlaybook(ResearcherContract):
    researcher = Playbook()


def propose(
    tree: Tree, choice: Choice, task: TaskSpec = REJECTING, seed: int = 0, affordable_s: float | None = None
) -> Proposal:
    return Playbook().propose(task, choice, Context(tree, Random(seed), len(tree), affordable_s, nominal_s))


def improve(parent: str) -> Choice:
    return Choice(parent=parent, move=Move.IMPROVE)


def grown_recipes() -> list[Recipe]:
    """References and drafts, and each of them after one and after two moves."""
    found = [*DRAFTS.values(), *(proposal.recipe for proposal in reference_recipes(REJECTING)[1:])]
    spoken_of = [draft.recipe for draft in spoken("any") if draft.recipe.stage.backend == "causal_lm"]
    said = [play for play in PLAYS if play.kind.startswith("lm.")]
    found += [*spoken_of, *(p.apply(r, IN_WORDS) for r in spoken_of for p in said if p.applies(r, IN_WORDS))]
    found += [recipe for _, _, recipe in starts(REJECTING, BASE)]
    for depth in range(2):
        for recipe in list(found):
            rng = Random(f"{recipe.hash}{depth}")
            fitting = [play for play in PLAYS if play.applies(recipe, TWO_BASES)]
            found += [play.apply(recipe, TWO_BASES) for play in rng.sample(fitting, 3)]
    return found


def test_the_registry_knows_the_playbook() -> None:
    assert RESEARCHERS.names() == ("playbook",)
    assert isinstance(RESEARCHERS.get("playbook"), Playbook)


# --- the table --------------------------------------------------------------------------------------------------------


def test_kinds_are_unique_and_every_entry_is_filled_in() -> None:
    assert len({play.kind for play in PLAYS}) == len(PLAYS)
    for play in PLAYS:
        assert play.kind.count(".") == 1
        assert play.change and play.hypothesis.endswith(".") and play.refuted_by
        assert play.spread > 0


@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.kind)
def test_a_move_gives_a_valid_new_recipe_and_is_of_use_somewhere(play: Any) -> None:
    fitting = [(r, task) for r in grown_recipes() for task in (TWO_BASES, IN_WORDS) if play.applies(r, task)]
    assert fitting, "applies to no recipe"
    for recipe, task in fitting:
        changed = play.apply(recipe, task)
        assert edit.valid(changed), f"{recipe.stage} became {changed.stage}"
        assert changed.hash != recipe.hash


def test_a_language_model_that_takes_too_long_is_trained_on_less_of_everything() -> None:
    slow = Failure(boundary="train", kind="too_slow", message="")
    recipe, costs = lm_recipe("path:lm", LORA), list[float]()
    while (found := repaired(recipe, slow)) is not None and len(costs) < 9:
        recipe = found[1]
        costs.append(BACKENDS.get("causal_lm").nominal_cost(recipe.stage.params, 2000, 0))
    assert len(costs) == 4 and costs == sorted(costs, reverse=True) and costs[0] > 3 * costs[1] > 6 * costs[2]
    assert repaired(lm_recipe("path:lm", UNTOUCHED), slow) is None


def test_shares_of_rows_go_up_to_all_and_not_below_a_64th() -> None:
    moves = {play.kind: play for play in PLAYS}
    for kind, expected in (("lm.more_rows", [1 / 16, 1 / 4, 1.0]), ("lm.fewer_rows", [1 / 16, 1 / 64])):
        recipe, shares = lm_recipe("path:lm", FEW_ROWS), list[Any]([1 / 16])
        while moves[kind].applies(recipe, IN_WORDS):
            recipe = moves[kind].apply(recipe, IN_WORDS)
            shares.append(recipe.stage.params["share"])
        assert shares == expected


def test_no_move_but_more_of_the_same_applies_twice() -> None:
    for recipe in (recipe for recipe in grown_recipes() if len(edit.members(recipe)) == 1):
        for play in PLAYS:
            if play.kind not in MORE_OF_THE_SAME:
                once = play.apply(recipe, REJECTING) if play.applies(recipe, REJECTING) else None
                assert once is None or not play.applies(once, REJECTING), f"{play.kind} on {recipe.stage}"


def test_nothing_is_rejected_where_the_task_rejects_nothing() -> None:
    for recipe in DRAFTS.values():
        kinds = {play.kind for play in PLAYS if play.applies(recipe, PLAIN)}
        assert not {kind for kind in kinds if kind.startswith(("score.", "inference.", "negatives."))}
        assert not kinds & {"data.near_misses", "data.background"}


def test_nothing_improves_the_constant_answer() -> None:
    constant = Recipe(stage=Stage(backend="constant"))
    assert [play.kind for play in PLAYS if play.applies(constant, REJECTING)] == []


def test_an_ensemble_stays_small() -> None:
    recipe = DRAFTS["draft.everything"]
    for _ in range(3):
        for play in PLAYS:
            if play.kind.startswith("ensemble.") and play.applies(recipe, REJECTING):
                recipe = play.apply(recipe, REJECTING)
    assert len(edit.members(recipe)) == edit.MAX_MEMBERS


# --- references and drafts --------------------------------------------------------------------------------------------


def test_references_are_constant_classic_and_base_model() -> None:
    kinds = [proposal.kind for proposal in reference_recipes(REJECTING)]
    assert kinds == ["reference.constant", "reference.classic", "reference.base_model"]
    assert [proposal.kind for proposal in reference_recipes(PLAIN)] == kinds[:2]
    assert all(edit.valid(proposal.recipe) for proposal in reference_recipes(REJECTING))


@pytest.mark.parametrize("task", [PLAIN, REJECTING, TWO_BASES], ids=["plain", "rejecting", "two bases"])
def test_drafts_differ_in_structure_and_go_on(task: TaskSpec) -> None:
    found = list(starting_points(task, Random(0)))
    fixed = [draft for draft in found if draft.kind != "draft.composed"]
    assert all(edit.valid(draft.recipe) for draft in found)
    structures = {edit.structure_of(draft.recipe) for draft in fixed}
    assert len(structures) >= len(fixed) - len(task.base_models[1:]), "the classic draft has no base model"
    assert len({edit.structure_of(draft.recipe) for draft in found}) > len(structures) + 15


def test_drafting_again_and_again_never_repeats_a_structure() -> None:
    run = Simulation(REJECTING, POLICIES.get("best_of_n"), Playbook(), lambda recipe, seed: 0.5).run(25, seed=0)
    structures = [edit.structure_of(node.proposed.proposal.recipe) for node in run.all()]
    assert len(set(structures)) == len(structures) == 28


def test_the_first_drafts_are_the_cheapest() -> None:
    tree = Tree()
    first = propose(tree, Choice(parent=None, move=Move.DRAFT))
    assert first.kind == "draft.frozen"
    poor = propose(tree, Choice(parent=None, move=Move.DRAFT), affordable_s=3.0)
    assert poor.kind == "draft.classic"
    assert nominal_s(poor.recipe) <= 3.0


# --- learning ---------------------------------------------------------------------------------------------------------


def test_a_belief_moves_with_what_was_seen_and_gets_surer() -> None:
    prior = Belief(0.0, 0.02)
    nodes = [Node("a", recipe=CLASSIC), *(Node(f"b{i}", parent="a", kind="data.typos", gap=0.05) for i in range(3))]
    learnt = belief("data.typos", prior, tree_of(nodes))
    assert 0.02 < learnt.mean < 0.05
    assert learnt.sd < prior.sd
    assert belief("data.balance", prior, tree_of(nodes)) == prior


def test_an_effect_is_measured_from_the_parent() -> None:
    nodes = [
        Node("a", score=0.5),
        Node("b", score=0.8),
        Node("c", parent="a", kind="data.typos", state="raced", gap=-0.2, against="b"),
        Node("d", parent="a", kind="data.typos", state="failed"),
        Node("e", parent="a", kind="data.typos", state="unscored"),
        Node("f", parent="a", kind="data.typos", state="pending"),
        Node("g", parent="a", kind="data.typos", gap=float("nan")),
    ]
    tree = tree_of(nodes)
    seen = {name: effect_of(tree[name], tree) for name in "cdefg"}
    assert seen["c"] is not None and seen["c"][0] == pytest.approx(0.1), "0.2 behind a champion that leads by 0.3"
    assert seen["d"] is not None and seen["d"][0] == FAILED_EFFECT
    assert seen["e"] is seen["f"] is seen["g"] is None


def test_worth_orders_gains_by_the_second_and_losses_too() -> None:
    assert worth(0.02, 10) > worth(0.02, 20) > worth(0.0, 1) > worth(-0.02, 10) > worth(-0.02, 20)


def first_kinds(nodes: list[Node], parent: str, draws: int = 150) -> list[str]:
    tree = tree_of(nodes)
    return [propose(tree, improve(parent), seed=seed).kind for seed in range(draws)]


def test_what_paid_is_tried_more_and_what_failed_less() -> None:
    base = [Node("a", recipe=DRAFTS["draft.tuned"]), Node("b", recipe=DRAFTS["draft.frozen"])]
    paid = [Node(f"p{i}", parent="b", kind="data.typos", gap=0.06) for i in range(4)]
    lost = [Node(f"l{i}", parent="b", kind="ensemble.classic", gap=-0.06) for i in range(4)]
    before, after = first_kinds(base, "a"), first_kinds([*base, *paid, *lost], "a")
    assert after.count("data.typos") > 2 * before.count("data.typos") + 10
    assert before.count("ensemble.classic") > 5
    assert after.count("ensemble.classic") < before.count("ensemble.classic") / 4


def test_a_kind_is_tried_once_on_a_parent_and_a_recipe_once_in_a_tree() -> None:
    nodes = [Node("a", recipe=CLASSIC)]
    seen: list[str] = []
    for number in range(40):
        proposal = propose(tree_of(nodes), improve("a"))
        if proposal.carried_out is not None:
            break
        seen.append(proposal.kind)
        nodes.append(Node(f"b{number}", parent="a", kind=proposal.kind, recipe=proposal.recipe, state="pending"))
    assert len(set(seen)) == len(seen) >= 6
    assert proposal.carried_out is not None and proposal.carried_out.move is Move.TUNE
    assert "improve of a had nothing new" in proposal.carried_out.reason
    assert "had nothing new" in proposal.hypothesis


def test_expected_effect_is_what_was_learnt() -> None:
    nodes = [Node("a", recipe=CLASSIC), *(Node(f"p{i}", parent="a", kind="tune", gap=0.05) for i in range(3))]
    before = propose(tree_of(nodes[:1]), Choice(parent="a", move=Move.TUNE))
    after = propose(tree_of(nodes), Choice(parent="a", move=Move.TUNE))
    assert after.expected_effect > before.expected_effect + 0.01


# --- combine, ablate, repair ------------------------------------------------------------------------------------------


def test_combine_takes_the_method_of_one_and_the_rest_of_the_other() -> None:
    data = edit.with_step(edit.with_main(DRAFTS["draft.frozen"], score="mahalanobis"), "typos", share=0.5)
    tree = tree_of([Node("a", recipe=DRAFTS["draft.tuned"]), Node("b", recipe=data)])
    proposal = propose(tree, Choice(parent="a", move=Move.COMBINE, other="b"))
    assert proposal.kind == "combine.recipes"
    assert [step.op for step in proposal.recipe.data] == ["typos"]
    assert proposal.recipe.stage.params["tune"] == "full"
    assert proposal.recipe.stage.params["score"] == "mahalanobis"
    assert "method of a" in proposal.change and "rejection of b" in proposal.change


def test_combine_lets_both_answer_where_there_is_nothing_to_exchange() -> None:
    tree = tree_of([Node("a", recipe=DRAFTS["draft.frozen"]), Node("b", recipe=CLASSIC)])
    proposal = propose(tree, Choice(parent="a", move=Move.COMBINE, other="b"))
    assert proposal.kind == "combine.answers"
    assert {stage.backend for stage in edit.stages(proposal.recipe)} == {"embedder", "classic"}
    assert proposal.recipe.base_model == BASE


def path_of_changes() -> list[Node]:
    one = edit.with_step(DRAFTS["draft.tuned"], "typos", share=0.5)
    two = edit.with_main(one, score="knn")
    three = edit.with_inference(two, threshold="percentile", q=0.1)
    return [
        Node("a", score=0.5, recipe=DRAFTS["draft.tuned"]),
        Node("b", score=0.6, parent="a", kind="data.typos", recipe=one),
        Node("c", score=0.601, parent="b", kind="score.knn", recipe=two),
        Node("d", score=0.65, parent="c", kind="inference.threshold_rule", recipe=three),
    ]


def test_ablate_takes_back_the_change_with_the_least_support() -> None:
    nodes = path_of_changes()
    proposal = propose(tree_of(nodes), Choice(parent="d", move=Move.ABLATE))
    assert proposal.kind == "ablate"
    assert edit.setting(edit.main_stage(proposal.recipe), "score") == "blend", "c gained nothing"
    assert edit.has_step(proposal.recipe, "typos")
    assert proposal.recipe.inference == {"threshold": "percentile", "q": 0.1}
    nodes.append(Node("e", parent="d", kind="ablate", recipe=proposal.recipe))
    following = propose(tree_of(nodes), Choice(parent="d", move=Move.ABLATE)).recipe
    assert following.hash != proposal.recipe.hash
    assert len(following.data) + len(following.inference) < 3 + len(following.data), "something smaller"


def test_ablate_drops_a_member_of_a_starting_point() -> None:
    recipe = DRAFTS["draft.everything"]
    nodes = [
        Node("a", recipe=recipe),
        Node("b", parent="a", recipe=edit.with_step(recipe, "typos", share=0.5), gap=0.1),
    ]
    proposal = propose(tree_of(nodes), Choice(parent="b", move=Move.ABLATE))
    assert len(edit.members(proposal.recipe)) == 2
    assert "without the member" in proposal.change


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.kind)
@pytest.mark.parametrize("name", DRAFTS)
def test_a_repair_is_a_bounded_change_or_none(name: str, failure: Failure) -> None:
    recipe = edit.with_step(DRAFTS[name], "typos", share=0.5)
    found = repaired(recipe, failure)
    if failure.kind in ("crash", "invalid"):
        assert found is None
    if found is not None:
        assert edit.valid(found[1]) and found[1].hash != recipe.hash
        assert nominal_s(found[1]) <= nominal_s(recipe) * (3.1 if failure.kind == "nan" else 1.0)


def test_repairs_do_what_the_failure_asks_for() -> None:
    tuned = edit.with_main(DRAFTS["draft.tuned"], epochs=12)
    by_kind = {failure.kind: repaired(tuned, failure) for failure in FAILURES}
    nan, oom, timeout = by_kind["nan"], by_kind["oom"], by_kind["timeout"]
    assert nan is not None and nan[1].stage.params["lr"] == pytest.approx(1e-5)
    assert oom is not None and oom[1].stage.params["batch_size"] == 16
    assert timeout is not None and timeout[1].stage.params["epochs"] == 6
    short = repaired(edit.with_main(tuned, epochs=2), FAILURES[2])
    assert short is not None and short[1].stage.params["tune"] == "frozen"
    small = repaired(edit.with_main(tuned, batch_size=8), FAILURES[1])
    assert small is not None and small[1].stage.params["max_length"] == 32


def test_a_failure_without_a_repair_falls_back_to_the_nearest_that_works() -> None:
    nodes = [
        Node("a", score=0.9, recipe=DRAFTS["draft.frozen"]),
        Node("b", score=0.5, recipe=DRAFTS["draft.tuned"]),
        Node("c", parent="b", state="failed", failure="recipe/invalid", kind="data.typos"),
    ]
    proposal = propose(tree_of(nodes), Choice(parent="c", move=Move.REPAIR))
    assert proposal.carried_out is not None
    assert (proposal.carried_out.parent, proposal.carried_out.move) == ("b", Move.IMPROVE)
    assert "repair of c had nothing new" in proposal.carried_out.reason


def test_a_repair_names_the_failure() -> None:
    nodes = [Node("a", recipe=DRAFTS["draft.tuned"], state="failed", failure="train/nan")]
    proposal = propose(tree_of(nodes), Choice(parent="a", move=Move.REPAIR))
    assert proposal.kind == "repair.nan"
    assert proposal.carried_out is None
    assert "a ended with train/nan" in proposal.hypothesis


def test_when_nothing_can_be_paid_for_the_best_gets_another_seed() -> None:
    tree = tree_of([Node("a", score=0.4, recipe=CLASSIC), Node("b", score=0.6, recipe=DRAFTS["draft.frozen"])])
    proposal = propose(tree, improve("a"), affordable_s=0.0)
    assert (proposal.kind, proposal.recipe, proposal.seed) == ("replicate", DRAFTS["draft.frozen"], 3)
    assert proposal.carried_out is not None and proposal.carried_out.parent == "b"


# --- the whole search -------------------------------------------------------------------------------------------------


def unit(*key: object) -> float:
    """A fixed number in [0, 1] for a key."""
    return int(content_hash([str(part) for part in key])[:8], 16) / 0xFFFFFFFF


METHODS = {"frozen": 0.06, "full": 0.12, "partial": 0.10, "lora": 0.09}


def true_quality(recipe: Recipe, landscape: int) -> float:
    """A made-up landscape: methods have fixed levels; the worth of scores, heads, data steps and the best numbers are
    drawn for each landscape."""
    if recipe.stage.backend == "constant":
        return 0.02
    found = edit.stages(recipe)
    quality = 0.5 + max(METHODS[str(edit.setting(s, "tune"))] if edit.family(s) == "embedder" else 0.0 for s in found)
    quality += 0.02 * (len({(edit.family(s), s.params.get("tune")) for s in found}) - 1)
    main = edit.main_stage(recipe)
    parts = [*(f"{key}={main.params[key]}" for key in ("score", "head") if key in main.params)]
    parts += [step.op for step in recipe.data]
    quality += sum(0.06 * (unit(landscape, part) - 0.6) for part in parts)
    params = edit.full_params(recipe)
    for path, dimension in edit.space_of(recipe).items():
        if not dimension.choices:
            value, low, high = edit.get_path(params, path), dimension.low, dimension.high
            if dimension.log:
                value, low, high = math.log(max(value, 1e-9)), math.log(low), math.log(high)
            place = min(1.0, max(0.0, (value - low) / (high - low)))
            quality -= 0.04 * (place - unit(landscape, path)) ** 2
    return quality


def searched(policy: str, landscape: int, steps: int) -> float:
    """True quality of the recipe with the best observed score."""

    def observed(recipe: Recipe, seed: int) -> float:
        return true_quality(recipe, landscape) + Random(f"{recipe.hash}{seed}").gauss(0, 0.008)

    tree = Simulation(REJECTING, POLICIES.get(policy), Playbook(), observed, error=0.011).run(steps, landscape)
    best = tree.best()
    assert best is not None
    return true_quality(best.proposed.proposal.recipe, landscape)


def test_greedy_with_the_playbook_beats_a_blind_search() -> None:
    landscapes = range(10)
    greedy = [searched("greedy", landscape, 60) for landscape in landscapes]
    blind = [searched("random", landscape, 60) for landscape in landscapes]
    assert mean(greedy) > mean(blind) + 0.02
    assert sum(one > two for one, two in zip(greedy, blind, strict=True)) >= 9


def test_more_experiments_find_better_recipes() -> None:
    short = [searched("greedy", landscape, 10) for landscape in range(6)]
    long = [searched("greedy", landscape, 50) for landscape in range(6)]
    assert mean(long) > mean(short) + 0.01


@pytest.mark.parametrize("policy", POLICIES.names())
def test_every_policy_gets_through_a_run_with_failures_and_workers(policy: str) -> None:
    def observed(recipe: Recipe, seed: int) -> float | Failure:
        draw = unit(recipe.hash, seed)
        return FAILURES[int(draw * 100) % len(FAILURES)] if draw < 0.4 else draw

    run = Simulation(REJECTING, POLICIES.get(policy), Playbook(), observed, lookahead=3, affordable_s=60.0)
    tree = run.run(40, seed=1)
    assert len(tree) == 43
    seen = [(node.proposed.proposal.recipe.hash, node.proposed.proposal.seed) for node in tree.all()]
    assert len(set(seen)) == len(seen), "nothing is run twice"
    assert run.run(40, seed=1) == tree
