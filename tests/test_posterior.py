"""The posterior policy: it builds on what is believed, and learns what moves bring in the run."""

from __future__ import annotations

from collections import Counter
from random import Random
from statistics import mean

from postgrad.records import Move
from postgrad.search.posterior import Gains, Posterior, PosteriorParams, brought, drawn, merits
from postgrad.testing.policy import PLENTY, PolicyContract, references
from postgrad.testing.trees import Node, tree_of

DRAFTS = tuple(Node(f"e{3 + i:04d}", score=score) for i, score in enumerate((0.54, 0.57, 0.56, 0.55, 0.54)))


class TestPosterior(PolicyContract):
    policy = Posterior()


class TestPosteriorWithOtherSettings(PolicyContract):
    policy = Posterior()
    params = {"n_drafts": 1, "candidates": 1, "p_debug": 0.0}


def grown_by(move: Move, gain: float, tries: int = 12) -> list[Node]:
    """References, drafts, and so many tries of one move on the best draft, all of which gained this much."""
    tried = [
        Node(f"e{8 + i:04d}", parent="e0004", score=0.57 + gain + 0.0001 * i, move=move, kind="data.typos")
        for i in range(tries)
    ]
    return [*references(), *DRAFTS, *tried]


def test_it_drafts_first() -> None:
    choice = Posterior().choose(tree_of([*references(), *DRAFTS[:2]]), PLENTY, Random(0), PosteriorParams())
    assert (choice.move, choice.reason) == (Move.DRAFT, "draft 3 of 5")


def test_it_extends_what_is_worth_most() -> None:
    tree = tree_of([*references(), *DRAFTS])
    chosen = [Posterior().choose(tree, PLENTY, Random(seed), PosteriorParams()) for seed in range(100)]
    parents = Counter(choice.parent for choice in chosen if choice.parent is not None)
    assert parents.most_common(1)[0][0] == "e0004" and parents["e0004"] > 0.8 * sum(parents.values())


def test_a_move_that_pays_is_made_more_often_and_one_that_harms_less() -> None:
    """The other moves were tried as often and brought nothing."""
    shares = {}
    for gain in (0.03, -0.03):
        idle = (Move.IMPROVE, Move.COMBINE, Move.ABLATE)
        others = [
            Node(f"e{20 + i:04d}", parent="e0004", other="e0005", score=0.57, move=idle[i % 3], kind="data.typos")
            for i in range(36)
        ]
        tree = tree_of([*grown_by(Move.TUNE, gain), *others])
        moves = [Posterior().choose(tree, PLENTY, Random(seed), PosteriorParams()).move for seed in range(200)]
        shares[gain] = moves.count(Move.TUNE) / len(moves)
    assert shares[0.03] > 0.7 > 0.1 > shares[-0.03]


def test_failures_count_against_their_move() -> None:
    nodes = [*grown_by(Move.TUNE, 0.0, 2), Node("e0010", parent="e0004", state="failed", move=Move.IMPROVE)]
    tree = tree_of(nodes)
    seen = brought(tree, merits(tree))
    assert seen[Move.IMPROVE] == [-0.03] and len(seen[Move.TUNE]) == 2


def test_draws_follow_what_was_seen() -> None:
    drawn_means = [drawn([0.05] * 20, 0.02, Random(seed)).mean for seed in range(300)]
    before = [drawn([], 0.02, Random(seed)).mean for seed in range(300)]
    assert abs(mean(drawn_means) - 0.045) < 0.005 and abs(mean(before)) < 0.005


def test_expected_improvement() -> None:
    sure = Gains(mean=0.1, sd=1e-6)
    assert abs(sure.improvement(0.04) - 0.06) < 1e-6 and sure.improvement(0.2) < 1e-9
    assert Gains(0.0, 0.02).improvement(0.0) > Gains(0.0, 0.01).improvement(0.0) > Gains(0.0, 0.01).improvement(0.01)
