"""The posterior policy and what finished runs taught: a good kind is tried earlier; without memory nothing moves."""

from __future__ import annotations

from random import Random
from typing import Mapping

import pytest

from postgrad.bench.landscapes_families import Kindred
from postgrad.bench.simulated import SimulatedRun
from postgrad.bench.simulated_parts import Grant
from postgrad.records import Prior, Recipe
from postgrad.research.binding import bound
from postgrad.research.drafts import drafts
from postgrad.research.features import features
from postgrad.research.moves import PLAYS
from postgrad.research.options import PlaybookOptions
from postgrad.search.base import Features, Taught
from postgrad.search.posterior import Posterior, PosteriorParams
from postgrad.search.surrogate import Surrogate
from postgrad.testing.policy import PLENTY, references
from postgrad.testing.researcher import REJECTING
from postgrad.testing.simulation import nominal_s
from postgrad.testing.trees import Node, tree_of
from postgrad.tree import Tree

TUNED = next(draft.recipe for draft in drafts(REJECTING.base_models[0]) if draft.kind == "draft.tuned")


def after(kind: str, recipe: Recipe = TUNED) -> Recipe:
    play = next(play for play in PLAYS if play.kind == kind)
    assert play.applies(recipe, REJECTING)
    return play.apply(recipe, REJECTING)


def grown(*found: tuple[Recipe, float]) -> Tree:
    nodes = [Node(f"e{3 + i:04d}", score=score, recipe=recipe) for i, (recipe, score) in enumerate(found)]
    return tree_of([*references(), *nodes])


def prior(effect: float, error: float = 0.0125) -> Prior:
    return Prior(mean=effect, sd=error, runs=10, effect=effect, error=error)


def of(*parts: str) -> Features:
    return Features(dict.fromkeys(parts, 1.0), {})


def gain(surrogate: Surrogate, part: str) -> tuple[float, float]:
    """(what the part is believed to bring beside "a", standard deviation of the recipe with it)."""
    means, sds = surrogate.predict([of("a"), of("a", part)])
    return float(means[1] - means[0]), float(sds[1])


GOOD = (Taught(of("a"), of("a", "good"), 0.05, 0.0125),)
PLAIN = [(of("a"), 0.6), (of("b"), 0.58), (of("a", "c"), 0.61)]


def told(*more: tuple[Features, float], taught: tuple[Taught, ...] = GOOD) -> Surrogate:
    found = [*PLAIN, *more]
    return Surrogate([recipe for recipe, _ in found], [score for _, score in found], 0.02, taught=taught)


def test_what_was_remembered_is_expected_and_less_doubted() -> None:
    """Between nothing and the whole of it: the run's own idea of how large effects are counts too."""
    known, unknown = gain(told(), "good"), gain(told(taught=()), "good")
    assert unknown[0] == pytest.approx(0.0, abs=0.005)
    assert 0.015 < known[0] < 0.05
    assert known[1] < unknown[1]
    assert gain(told(), "other") == pytest.approx(gain(told(taught=()), "other"), abs=0.01)


def test_what_was_remembered_vaguely_moves_little() -> None:
    vague = (Taught(of("a"), of("a", "good"), 0.05, 0.5),)
    assert abs(gain(told(taught=vague), "good")[0] - gain(told(taught=()), "good")[0]) < 0.001


def test_it_fades_as_the_run_sees_for_itself() -> None:
    left = []
    for count in (0, 1, 3, 12):
        more = [(of("a", "good"), 0.6), (of("a"), 0.6)] * count
        left.append(gain(told(*more), "good")[0] - gain(told(*more, taught=()), "good")[0])
    assert left[0] > left[1] > left[2] > left[3] > 0
    assert left[3] < 0.25 * left[0]


def test_scores_that_speak_against_it_have_all_of_it_doubted() -> None:
    """What is taught of a part that the run has not tried counts for less where it was wrong about others."""
    names = ("one", "two", "three", "four")
    taught = (*GOOD, *(Taught(of("a"), of("a", name), 0.08, 0.0125) for name in names))
    left = []
    for brings in (0.08, -0.04):
        seen = [(of("a", name), 0.6 + brings) for name in names]
        left.append(gain(told(*seen, taught=taught), "good")[0] - gain(told(*seen, taught=()), "good")[0])
    assert left[0] > 0.015 and left[1] < left[0] / 3


def test_it_holds_for_every_recipe_with_that_part() -> None:
    means, _ = told().predict([of("b"), of("b", "good"), of("b", "good", "d"), of("b", "d")])
    assert means[1] - means[0] > 0.01 and means[2] - means[3] > 0.01


def test_what_is_under_way_moves_no_belief_of_what_was_taught() -> None:
    before = told()
    asked = [of("a", "good"), of("a"), of("b", "good", "d")]
    (means, sds), (then, surer) = before.predict(asked), before.expecting([of("a", "good", "d")]).predict(asked)
    assert then == pytest.approx(means, abs=1e-9)
    assert (surer < sds + 1e-12).all() and surer[0] < 0.95 * sds[0]


# --- options ----------------------------------------------------------------------------------------------------------


def test_each_kind_is_told_once_and_of_the_recipe_where_it_applies() -> None:
    kinds = {play.kind: prior(0.01) for play in PLAYS} | {"draft.lora": prior(0.05), "tune": prior(0.3)}
    options = PlaybookOptions(REJECTING, nominal_s, kinds)
    found = options.taught(TUNED)
    assert Taught(features(TUNED), features(after("data.typos")), 0.01, 0.0125) in found
    typos = [each for each in found if each.after.parts.get("step.typos", 0) > each.before.parts.get("step.typos", 0)]
    assert len(typos) == 1
    assert sum(each.gain == 0.05 for each in found) == 1 and not any(each.gain == 0.3 for each in found)
    frozen = next(draft.recipe for draft in drafts(REJECTING.base_models[0]) if draft.kind == "draft.frozen")
    other = [each for each in options.taught(frozen) if each.after.parts.get("step.typos", 0)]
    assert other[0].before == features(frozen)


def test_nothing_is_told_without_memory_or_by_logs_that_lack_it() -> None:
    assert PlaybookOptions(REJECTING, nominal_s).taught(TUNED) == ()
    assert not PlaybookOptions(REJECTING, nominal_s, {"data.typos": Prior(mean=0.1, sd=0.01, runs=3)}).taught(TUNED)


# --- choices ----------------------------------------------------------------------------------------------------------

TREE = grown((TUNED, 0.6), (after("data.balance"), 0.602), (after("score.knn"), 0.598), (after("head.logistic"), 0.599))


def chosen(priors: Mapping[str, Prior]) -> list[tuple[str, ...]]:
    policy = bound(Posterior(), REJECTING, nominal_s, priors)
    return [policy.choose(TREE, PLENTY, Random(seed), PosteriorParams()).kinds for seed in range(5)]


@pytest.mark.parametrize("kind", ["data.typos", "score.energy", "data.dedup"])
def test_what_paid_elsewhere_is_tried_next_and_what_did_not_is_not(kind: str) -> None:
    assert all(kind in kinds for kinds in chosen({kind: prior(0.08)}))
    assert not any(kind in kinds for kinds in chosen({kind: prior(-0.08)}))


def test_a_good_kind_is_tried_earlier_in_a_run() -> None:
    def first(priors: Mapping[str, Prior], seed: int) -> int:
        run = SimulatedRun(Kindred(seed), "posterior", Grant(16), seed, priors=priors)
        run.play()
        steps = [any(step.op == "typos" for step in run.recipe(node.id).data) for node in run.tree.all()]
        return steps.index(True) if any(steps) else 99

    untaught = [first({}, seed) for seed in range(3)]
    taught = [first({"data.typos": prior(0.08)}, seed) for seed in range(3)]
    assert max(taught) <= 6 < min(untaught), "right after three references and three starting points"


def test_without_memory_nothing_changes() -> None:
    def tree(priors: Mapping[str, Prior] | None) -> Tree:
        run = SimulatedRun(Kindred(0), "posterior", Grant(10), 0, priors=priors)
        run.play()
        return run.tree

    alone = tree(None)
    assert alone == tree({}) == tree({"data.typos": Prior(mean=0.1, sd=0.01, runs=3)})
    assert alone != tree({"data.typos": prior(0.08)})
