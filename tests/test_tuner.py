"""The tuner: the same tree and seed give the same numbers, what is known counts, and tuning finds better numbers."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from optuna.samplers._tpe.sampler import default_gamma

from postgrad.records import Recipe, Stage
from postgrad.research import edit
from postgrad.research.drafts import drafts
from postgrad.research.tuner import ASKED, BEST, HELD, MOST_NUMBERS, described, suggestions
from postgrad.testing.researcher import BASE
from postgrad.testing.trees import Ended, Node, tree_of
from postgrad.tree import Tree

CLASSIC = Recipe(stage=Stage(backend="classic", params={"C": 4.0}))
TUNED = Recipe(base_model=BASE, stage=Stage(backend="embedder", params={"tune": "full", "epochs": 3}))
DRAFTS = {draft.kind: draft.recipe for draft in drafts(BASE)}


def classic(c: float) -> Recipe:
    return edit.with_numbers(CLASSIC, {"C": c})


def tried(scores: dict[float, float], state: Ended = "done") -> list[Node]:
    """Classic experiments by their C."""
    return [Node(f"c{c}", score=score, recipe=classic(c), state=state) for c, score in scores.items()]


def changed(before: Recipe, after: Recipe) -> dict[str, tuple[Any, Any]]:
    """Path -> (value before, value after) of the numbers that differ."""
    old, new = edit.full_params(before), edit.full_params(after)
    pairs = {path: (edit.get_path(old, path), edit.get_path(new, path)) for path in edit.space_of(before)}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


@pytest.mark.parametrize("recipe", [*DRAFTS.values(), CLASSIC, TUNED], ids=[*DRAFTS, "classic", "tuned"])
def test_numbers_change_and_nothing_else(recipe: Recipe) -> None:
    for seed in range(5):
        for place, found in enumerate(suggestions(Tree(), recipe, Random(seed))):
            assert edit.valid(found)
            assert edit.structure_of(found) == edit.structure_of(recipe)
            assert len(changed(recipe, found)) <= (MOST_NUMBERS if place < ASKED else len(edit.space_of(recipe)))
            for path, (_, after) in changed(recipe, found).items():
                dimension = edit.space_of(recipe)[path]
                inside = after in dimension.choices or dimension.low <= after <= dimension.high
                assert inside, f"{path} {after} is outside {dimension}"


def test_a_recipe_without_numbers_has_no_suggestion() -> None:
    assert list(suggestions(Tree(), Recipe(stage=Stage(backend="constant")), Random(0))) == []


def test_same_tree_and_seed_give_the_same_suggestions() -> None:
    tree = tree_of(tried({1.0: 0.5, 4.0: 0.6, 20.0: 0.55}))
    first, second = (list(suggestions(tree, CLASSIC, Random(3))) for _ in range(2))
    assert first == second
    assert first != list(suggestions(tree, CLASSIC, Random(4)))


def test_what_became_of_numbers_steers_the_next_ones() -> None:
    known = tried({0.2: 0.5, 1.0: 0.52, 4.0: 0.6, 20.0: 0.55})

    def mean_c(state: Ended) -> float:
        tree = tree_of([*known, *tried({50.0: 0.7, 60.0: 0.7, 70.0: 0.7}, state)])
        found = [next(suggestions(tree, CLASSIC, Random(seed))) for seed in range(60)]
        return sum(math.log(edit.full_params(recipe)["C"]) for recipe in found) / len(found)

    assert mean_c("done") > mean_c("unscored") + 0.5, "good numbers attract"
    bad: tuple[Ended, ...] = ("pending", "raced", "failed")
    for state in bad:
        assert mean_c(state) < mean_c("unscored") - 0.1, f"{state} numbers are kept away from"


def test_unscored_experiments_tell_nothing() -> None:
    known = tried({0.2: 0.5, 1.0: 0.52, 4.0: 0.6, 20.0: 0.55})
    more = tree_of([*known, *tried({10.0: 0.7}, "unscored")])
    assert list(suggestions(more, CLASSIC, Random(3))) == list(suggestions(tree_of(known), CLASSIC, Random(3)))


def test_other_structures_do_not_count() -> None:
    known = tried({1.0: 0.5, 4.0: 0.6, 20.0: 0.55})
    other = Recipe(stage=Stage(backend="classic", params={"head": "svm", "C": 9.0}))
    alone = list(suggestions(tree_of(known), CLASSIC, Random(3)))
    assert alone == list(suggestions(tree_of([*known, Node("svm", score=0.9, recipe=other)]), CLASSIC, Random(3)))


def test_defaults_that_are_written_out_are_the_same_structure() -> None:
    assert edit.structure_of(classic(9.0)) == edit.structure_of(CLASSIC)
    assert edit.structure_of(edit.with_main(CLASSIC, head="svm")) != edit.structure_of(CLASSIC)


def test_numbers_outside_the_space_still_count() -> None:
    tree = tree_of(tried({900.0: 0.9, 800.0: 0.88, 1.0: 0.2, 4.0: 0.3}))
    assert list(suggestions(tree, classic(900.0), Random(0)))


def test_a_number_in_quotes_is_the_number() -> None:
    """Parameters are checked as pydantic checks them: "8" passes for 8, whoever wrote it."""
    quoted = edit.with_numbers(CLASSIC, {})
    quoted = quoted.model_copy(
        update={"stage": quoted.stage.model_copy(update={"params": {**quoted.stage.params, "C": "8"}})}
    )
    assert edit.valid(quoted)
    tree = tree_of([*tried({1.0: 0.5, 4.0: 0.6}), Node("quoted", score=0.7, recipe=quoted)])
    plain = tree_of([*tried({1.0: 0.5, 4.0: 0.6}), Node("quoted", score=0.7, recipe=classic(8.0))])
    found = list(suggestions(tree, quoted, Random(0)))
    assert found == list(suggestions(plain, classic(8.0), Random(0)))


def test_what_a_study_holds_of_the_best_is_what_tpe_takes_as_good() -> None:
    """Were there more of them, TPE would move away from the rest; were there fewer, others would be taken as good."""
    assert default_gamma(HELD) == BEST and BEST < HELD


def test_a_score_that_is_not_a_number_is_no_score() -> None:
    tree = tree_of([*tried({1.0: 0.5, 4.0: 0.6}), Node("nan", score=math.nan, recipe=classic(9.0))])
    assert list(suggestions(tree, CLASSIC, Random(0)))


def test_described_names_what_changed() -> None:
    assert described(CLASSIC, edit.with_numbers(CLASSIC, {"C": 8.0, "word_max": 1})) == "C 4 -> 8, word_max 2 -> 1"
    assert described(CLASSIC, edit.with_numbers(CLASSIC, {})) == ""


def quality(recipe: Recipe, optimum: dict[str, float]) -> float:
    """A smooth hill over the classic numbers."""
    params = edit.full_params(recipe)
    away = (math.log(params["C"] / optimum["C"]) / math.log(1000)) ** 2
    away += ((params["word_max"] - optimum["word_max"]) / 2) ** 2 + (
        (params["char_max"] - optimum["char_max"]) / 3
    ) ** 2
    return float(0.8 - 0.1 * away)


def best_after(steps: int, seed: int, *, learns: bool) -> float:
    """The best quality in `steps` tries from a bad start; with `learns` false the tuner never sees a score."""
    optimum = {"C": 30.0, "word_max": 1.0, "char_max": 6.0}
    tries = [edit.with_numbers(CLASSIC, {"C": 0.1, "word_max": 3, "char_max": 3})]
    for step in range(1, steps + 1):
        ranked = sorted(tries, key=lambda recipe: quality(recipe, optimum), reverse=True)
        nodes = [Node(f"t{i}", recipe=recipe, score=quality(recipe, optimum)) for i, recipe in enumerate(tries)]
        tree, start = (tree_of(nodes), ranked[0]) if learns else (Tree(), tries[0])
        found = suggestions(tree, start, Random(f"{seed}/{step}"))
        tries.append(next(recipe for recipe in found if recipe not in tries))
    return max(quality(recipe, optimum) for recipe in tries)


def test_learning_from_scores_beats_drawing_blindly() -> None:
    seeds = range(12)
    learnt = [best_after(14, seed, learns=True) for seed in seeds]
    blind = [best_after(14, seed, learns=False) for seed in seeds]
    assert sum(learnt) > sum(blind)
    assert sum(a > b for a, b in zip(learnt, blind, strict=True)) >= 8
