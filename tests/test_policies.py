"""The search policies keep the contract, and each does what it is named for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from postgrad.records import Choice, Move
from postgrad.research.binding import bound
from postgrad.search import POLICIES
from postgrad.search.best_of_n import BestOfN, BestOfNParams
from postgrad.search.greedy import Greedy, GreedyParams
from postgrad.search.random import RandomParams, RandomSearch
from postgrad.search.sequential import Sequential, SequentialParams
from postgrad.search.uct import UCT, UCTParams, rounds_of
from postgrad.testing.policy import PLENTY, PolicyContract, grown, references, why_illegal
from postgrad.testing.researcher import REJECTING
from postgrad.testing.simulation import nominal_s
from postgrad.testing.trees import Node, tree_of
from postgrad.tree import Tree


class TestSequential(PolicyContract):
    policy = Sequential()


class TestGreedy(PolicyContract):
    policy = Greedy()


class TestGreedyWithOtherSettings(PolicyContract):
    policy = Greedy()
    params = {"n_drafts": 1, "p_debug": 1.0, "tune_share": 0.2, "combine_share": 0.4, "ablate_share": 0.4}


class TestBestOfN(PolicyContract):
    policy = BestOfN()


class TestRandomSearch(PolicyContract):
    policy = RandomSearch()


class TestUCT(PolicyContract):
    policy = UCT()


class TestUCTWithOtherSettings(PolicyContract):
    policy = UCT()
    params = {"n_drafts": 1, "width": 1, "batch": 3, "exploration": 3.0, "combine_share": 0.4, "ablate_share": 0.4}


def drafted(*scores: float) -> list[Node]:
    """The references and drafts with these scores."""
    return [*references(), *(Node(f"e{3 + i:04d}", score=score) for i, score in enumerate(scores))]


RIVALS = ("autoresearch", "cma_es", "evolution", "tpe", "uct")


def test_the_registry_knows_every_policy() -> None:
    assert POLICIES.names() == tuple(sorted((*RIVALS, "best_of_n", "greedy", "posterior", "random", "sequential")))
    for name in POLICIES.names():
        policy = bound(POLICIES.get(name), REJECTING, nominal_s)
        assert policy.choose(Tree(), PLENTY, Random(0), policy.Params()).move is Move.DRAFT


def test_the_contract_notices_an_illegal_choice() -> None:
    tree = tree_of([Node("e0000"), Node("e0001", state="failed"), Node("e0002", state="pending")])
    assert why_illegal(tree, Choice(parent="e0000", move=Move.IMPROVE)) is None
    assert why_illegal(tree, Choice(parent="e0001", move=Move.REPAIR)) is None
    for choice in (
        Choice(parent="e0002", move=Move.IMPROVE),
        Choice(parent="e0001", move=Move.TUNE),
        Choice(parent="e0000", move=Move.REPAIR),
        Choice(parent="e0000", move=Move.ABLATE),
        Choice(parent="e0000", move=Move.COMBINE),
        Choice(parent="e0009", move=Move.IMPROVE),
        Choice(parent="e0000", move=Move.DRAFT),
        Choice(parent=None, move=Move.STOP),
    ):
        assert why_illegal(tree, choice) is not None, choice


def test_greedy_extends_the_best_and_nothing_else() -> None:
    nodes = [*drafted(0.5, 0.7, 0.6, 0.4, 0.3), Node("e0008", parent="e0005", score=0.65)]
    picked = Counter(
        Greedy().choose(tree_of(nodes), PLENTY, Random(seed), GreedyParams(combine_share=0.0)).parent
        for seed in range(60)
    )
    assert set(picked) == {"e0004"}


def test_greedy_extends_the_leader_rather_than_a_higher_score() -> None:
    tree = tree_of(drafted(0.5, 0.8, 0.6, 0.4, 0.3))
    second = tree.scored()[1].id
    led = Tree(tree.experiments, champion=second)
    for seed in range(20):
        assert Greedy().choose(led, PLENTY, Random(seed), GreedyParams(combine_share=0.0)).parent == second


def test_greedy_counts_pending_drafts_and_no_references() -> None:
    nodes = [*references("pending"), *(Node(f"e{i:04d}", state="pending") for i in range(3, 6))]
    choice = Greedy().choose(tree_of(nodes), PLENTY, Random(0), GreedyParams(n_drafts=4))
    assert (choice.move, choice.reason) == (Move.DRAFT, "draft 4 of 4")


def test_greedy_mixes_its_moves_by_their_shares() -> None:
    tree = tree_of([*drafted(0.5, 0.7), Node("e0005", parent="e0004", score=0.8)])
    params = GreedyParams(n_drafts=2, tune_share=0.5, combine_share=0.1, ablate_share=0.1)
    moves = Counter(Greedy().choose(tree, PLENTY, Random(seed), params).move for seed in range(1000))
    assert moves[Move.TUNE] == pytest.approx(500, abs=60)
    assert moves[Move.COMBINE] == pytest.approx(100, abs=40)
    assert moves[Move.ABLATE] == pytest.approx(100, abs=40)
    assert moves[Move.IMPROVE] == pytest.approx(300, abs=60)


def test_greedy_repairs_with_its_probability_and_gives_up_after_a_while() -> None:
    nodes = [*drafted(0.6), Node("e0004", parent="e0003", state="failed")]
    params = GreedyParams(n_drafts=1, p_debug=0.5, max_repairs=1)
    moves = Counter(Greedy().choose(tree_of(nodes), PLENTY, Random(seed), params).move for seed in range(400))
    assert moves[Move.REPAIR] == pytest.approx(200, abs=40)
    nodes.append(Node("e0005", parent="e0004", state="failed", move=Move.REPAIR))
    moves = Counter(Greedy().choose(tree_of(nodes), PLENTY, Random(seed), params).move for seed in range(100))
    assert moves[Move.REPAIR] == 0


def test_combine_draws_on_another_branch() -> None:
    nodes = [*drafted(0.5, 0.7), Node("e0005", parent="e0004", score=0.8)]
    choice = Greedy().choose(tree_of(nodes), PLENTY, Random(0), GreedyParams(n_drafts=2, combine_share=1, tune_share=0))
    assert (choice.parent, choice.move, choice.other) == ("e0005", Move.COMBINE, "e0003")


def test_sequential_extends_the_last_even_when_it_is_worse() -> None:
    nodes = [*drafted(0.8), Node("e0004", parent="e0003", score=0.2), Node("e0005", state="pending", parent="e0004")]
    choice = Sequential().choose(tree_of(nodes), PLENTY, Random(0), SequentialParams())
    assert choice.parent == "e0004"


def test_sequential_repairs_the_last_when_it_failed() -> None:
    nodes = [*drafted(0.8), Node("e0004", parent="e0003", state="failed")]
    choice = Sequential().choose(tree_of(nodes), PLENTY, Random(0), SequentialParams())
    assert (choice.parent, choice.move) == ("e0004", Move.REPAIR)


def test_best_of_n_only_drafts() -> None:
    assert {BestOfN().choose(grown(1, 30), PLENTY, Random(s), BestOfNParams()).move for s in range(20)} == {Move.DRAFT}


def test_random_uses_every_move() -> None:
    moves = {RandomSearch().choose(grown(1, 30), PLENTY, Random(s), RandomParams()).move for s in range(300)}
    assert moves == set(Move) - {Move.STOP}


# --- rounds -----------------------------------------------------------------------------------------------------------

ROUNDS = UCTParams(batch=3, n_drafts=3, width=1, low_quantile=0.0, tune_share=0, combine_share=0, ablate_share=0)


def outline_of(nodes: list[Node], params: UCTParams = ROUNDS) -> list[tuple[int | None, list[str]]]:
    return [(found.above, [node.id for node in found.members]) for found in rounds_of(tree_of(nodes), params)]


def test_children_of_one_experiment_make_rounds_in_index_order() -> None:
    nodes = drafted(0.5, 0.6, 0.7, 0.4)
    nodes += [Node(f"e{i:04d}", parent="e0005", score=0.5) for i in range(7, 12)]
    assert outline_of(nodes) == [
        (None, ["e0000", "e0001", "e0002"]),
        (0, ["e0003", "e0004", "e0005"]),
        (0, ["e0006"]),
        (1, ["e0007", "e0008", "e0009"]),
        (1, ["e0010", "e0011"]),
    ]


def test_a_repair_and_a_further_training_belong_to_the_round_of_what_they_repeat() -> None:
    nodes = drafted(0.5, 0.6, 0.7)
    nodes += [
        Node("e0006", parent="e0005", state="failed"),
        Node("e0007", parent="e0006", move=Move.REPAIR, score=0.65),
        Node("e0008", parent="e0005", move=Move.REPLICATE, score=0.7),
        Node("e0009", parent="e0005", score=0.72),
        Node("e0010", parent="e0007", score=0.72),
    ]
    assert outline_of(nodes)[1:] == [
        (0, ["e0003", "e0004", "e0005", "e0008"]),
        (1, ["e0006", "e0007", "e0009"]),
        (2, ["e0010"]),
    ]


def test_a_round_is_worth_its_best_variant_and_backs_it_up() -> None:
    nodes = [Node("e0000", score=0.0, kind="reference.constant"), Node("e0001", score=0.2), Node("e0002", score=0.6)]
    nodes += [Node("e0003", parent="e0002", score=1.0), Node("e0004", parent="e0002", score=0.1)]
    nodes += [Node("e0005", parent="e0003", state="failed"), Node("e0006", parent="e0001", state="pending")]
    found = rounds_of(tree_of(nodes), ROUNDS)
    assert [(r.visits, round(r.reward, 9)) for r in found] == [(5, 1.6), (4, 1.6), (2, 1.0), (1, 0.0), (1, 0.0)]


def test_uct_fills_a_round_before_it_opens_another() -> None:
    nodes = drafted(0.5, 0.7, 0.6)
    picks = []
    for index in range(6, 15):
        choice = UCT().choose(tree_of(nodes), PLENTY, Random(index), ROUNDS)
        picks.append(choice.parent)
        nodes.append(Node(f"e{index:04d}", parent=choice.parent, score=0.5 + index / 100, move=choice.move))
    assert picks[:3] == [picks[0]] * 3 and picks[3:6] == [picks[3]] * 3
    assert picks[3] in ("e0008", "e0004"), "the next round varies the best variant of a round"


def test_a_further_training_of_the_referee_does_not_close_a_round() -> None:
    nodes = [*drafted(0.5, 0.7, 0.6), Node("e0006", parent="e0004", score=0.71)]
    nodes.append(Node("e0007", parent="e0003", score=0.5, move=Move.REPLICATE))
    assert UCT().choose(tree_of(nodes), PLENTY, Random(0), ROUNDS).parent == "e0004"


def test_uct_mends_a_failed_variant_once() -> None:
    nodes = [*drafted(0.5, 0.7, 0.6), Node("e0006", parent="e0004", state="failed")]
    choice = UCT().choose(tree_of(nodes), PLENTY, Random(0), ROUNDS)
    assert (choice.parent, choice.move) == ("e0006", Move.REPAIR)
    nodes.append(Node("e0007", parent="e0006", state="failed", move=Move.REPAIR))
    assert UCT().choose(tree_of(nodes), PLENTY, Random(0), ROUNDS).parent == "e0004"


def opened(pending: bool) -> list[str | None]:
    """The experiments that eight rounds of one variant expand, when nothing they give is any good."""
    nodes = [*drafted(0.70), Node("e0004", parent="e0000", score=0.69)]
    params = ROUNDS.model_copy(update={"batch": 1, "n_drafts": 1, "width": 2, "low_quantile": 0.5})
    parents = []
    for index in range(5, 13):
        choice = UCT().choose(tree_of(nodes), PLENTY, Random(index), params)
        parents.append(choice.parent)
        node = Node(f"e{index:04d}", parent=choice.parent, score=0.3, move=choice.move)
        nodes.append(replace(node, state="pending") if pending else node)
    return parents


def test_uct_leaves_a_round_whose_children_disappoint() -> None:
    assert opened(pending=False)[0] == "e0003", "the best comes first"
    assert "e0004" in opened(pending=False), "then the other gets its turn"


def test_uct_spreads_parallel_workers() -> None:
    assert {"e0003", "e0004"} <= set(opened(pending=True)), "pending experiments count as visits"


def test_uct_goes_by_raw_scores_not_by_the_champion() -> None:
    tree = tree_of([*drafted(0.5, 0.7, 0.6)])
    led = Tree(tree.experiments, champion="e0003")
    params = ROUNDS.model_copy(update={"exploration": 0.0, "width": 1})
    assert UCT().choose(led, PLENTY, Random(0), params) == UCT().choose(tree, PLENTY, Random(0), params)
