"""What counts as a repeat: the same recipe however it is written, or one that differs by next to nothing."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from time import process_time

import pytest

from postgrad.records import Choice, Move, Recipe, Stage, Step
from postgrad.research import edit
from postgrad.research.difference import recipe_changes
from postgrad.research.drafts import drafts
from postgrad.research.features import numbers_of
from postgrad.research.ideas import Ask
from postgrad.research.menu import moves
from postgrad.research.novelty import NEAR, Tried, near
from postgrad.research.proposing import Reply, checked
from postgrad.research.tuner import ASKED, BY_CHANCE, suggestions
from postgrad.testing.researcher import PLAIN, REJECTING
from postgrad.testing.trees import Node, tree_of
from test_language_model import ON, WORDS, context

TUNED = next(draft.recipe for draft in drafts(REJECTING.base_models[0]) if draft.kind == "draft.tuned")
CLASSIC = Recipe(stage=Stage(backend="classic", params={"C": 3.0}))


def with_lr(lr: float) -> Recipe:
    return edit.with_main(TUNED, lr=lr)


TREE = tree_of(
    [
        Node("e0000", score=0.6, recipe=with_lr(3e-5)),
        Node("e0001", score=0.7, recipe=with_lr(1e-4)),
        Node("e0002", state="failed", recipe=CLASSIC),
    ]
)


@pytest.mark.parametrize(
    ("recipe", "of"),
    [
        (with_lr(3e-5), "e0000"),
        (edit.filled(with_lr(3e-5)), "e0000"),
        (with_lr(3.01e-5), "e0000"),
        (with_lr(1.005e-4), "e0001"),
        (with_lr(4e-5), None),
        (with_lr(3.1e-5), None),
        (edit.with_main(with_lr(3e-5), head="cosine"), None),
        (edit.with_step(with_lr(3e-5), "dedup"), None),
        (edit.with_main(CLASSIC, C=3.02), "e0002"),
        (edit.with_main(CLASSIC, C=4.0), None),
        (edit.with_member(with_lr(3e-5), CLASSIC.stage), None),
    ],
)
def test_a_repeat_is_the_same_or_differs_in_numbers_by_next_to_nothing(recipe: Recipe, of: str | None) -> None:
    found = Tried(TREE).repeat(recipe)
    assert (found and found.node.id) == of


def test_a_near_repeat_says_how_it_differs_and_what_that_scored() -> None:
    found = Tried(TREE).repeat(with_lr(3.01e-5))
    assert found is not None and 0 < found.distance < NEAR
    assert [(one.part, one.setting, one.before, one.after) for one in found.changes] == [
        ("setting", "stage.lr", 3e-5, 3.01e-5)
    ]
    assert found.told == (
        "it was tried as e0000 but for lr 3e-05 -> 3.01e-05, which is less than training the same again changes: "
        "it scored 0.6000"
    )
    failed = Tried(TREE).repeat(edit.with_main(CLASSIC, C=3.02))
    assert failed is not None and failed.told.endswith("it is failed")


def test_numbers_of_data_steps_and_of_both_members_count() -> None:
    """Two members of one kind share the names of their features, and the rate of a step is in no tuner's range."""
    twice = edit.with_member(with_lr(3e-5), with_lr(1e-4).stage)
    tree = tree_of([Node("e0000", score=0.5, recipe=edit.with_step(twice, "typos", share=0.2))])
    for moved, repeats in ((0.2, True), (0.2005, True), (0.25, False)):
        assert (Tried(tree).repeat(edit.with_step(twice, "typos", share=moved)) is not None) is repeats
    for lr in (5e-5, 3e-4):
        for number in (0, 1):
            members = edit.members(twice)
            members[number]["stage"]["params"]["lr"] = lr
            other = edit.with_step(edit.with_members(twice, members), "typos", share=0.2)
            assert Tried(tree).repeat(other) is None


def test_numbers_far_outside_their_range_are_told_apart() -> None:
    """Features put all of them at one place."""
    far = edit.with_main(CLASSIC, C=900.0)
    tree = tree_of([Node("e0000", score=0.5, recipe=far)])
    assert Tried(tree).repeat(edit.with_main(CLASSIC, C=950.0)) is None
    assert Tried(tree).repeat(edit.with_main(CLASSIC, C=901.0)) is not None


def test_what_is_not_valid_repeats_only_itself() -> None:
    wrong = Recipe(stage=Stage(backend="classic", params={"C": "a lot"}))
    tree = tree_of([Node("e0000", state="failed", recipe=wrong)])
    assert Tried(tree).repeat(wrong) is not None and not near(wrong, CLASSIC)
    assert Tried(tree).repeat(Recipe(stage=Stage(backend="nobody's"))) is None


def test_differences_name_members_steps_backends_and_settings() -> None:
    before = edit.with_step(CLASSIC, "dedup")
    after = edit.with_member(edit.with_inference(CLASSIC, threshold="percentile"), TUNED.stage)
    found = {one.setting: one.part for one in recipe_changes(before, after)}
    assert (
        found["data.dedup"] == "step" and found["inference.threshold"] == "inference" and found["backend"] == "backend"
    )
    assert found["stage.members.1.stage.params.tune"] == "member"
    two = Recipe(
        data=(Step(op="typos", params={"share": 0.1}), Step(op="typos", params={"share": 0.2})), stage=CLASSIC.stage
    )
    less = two.model_copy(update={"data": two.data[:1]})
    assert [one.setting for one in recipe_changes(two, less)] == ["data.typos#2", "data.typos#2.share"]


# --- who is told ------------------------------------------------------------------------------------------------------


def test_a_model_is_told_which_experiment_it_repeats() -> None:
    """e0002 of that tree has C = 3."""
    said = [{**WORDS, "settings": [{"name": "C", "value": value}]} for value in (3.02, 9.0, 9.01)]
    ask = Ask(PLAIN, ON, context())
    found = checked(Reply.model_validate({"proposals": said}), ask, moves(ask, {}))
    assert len(found.sketches) == 1 and found.sketches[0].recipe.stage.params["C"] == 9.0
    assert "it was tried as e0002 but for C 3 -> 3.02" in found.problems[0]
    assert found.problems[1] == "proposal 3: it is the same as one before it. Leave it out."


def test_the_tuner_may_come_as_near_as_it_likes() -> None:
    """It knows what it asks for: the playbook's numbers do not come through here."""
    numbers = edit.space_of(CLASSIC)
    tree = tree_of([Node(f"e{n:04d}", score=0.5, recipe=edit.with_main(CLASSIC, C=1.0 + n / 500)) for n in range(200)])
    drawn = list(suggestions(tree, CLASSIC, Random(0)))
    assert len(drawn) == ASKED + BY_CHANCE and all(recipe.stage.params.keys() >= numbers.keys() for recipe in drawn)


def test_a_kept_sketch_that_came_near_is_not_tried(tmp_path: Path) -> None:
    from test_language_model import _with, researcher

    ideas = [{**WORDS, "settings": [{"name": "C", "value": value}]} for value in (5.0, 9.0)]
    again = json.dumps({"proposals": [{**WORDS, "move": "data.dedup"}]})
    made, script = researcher([json.dumps({"proposals": ideas}), again], tmp_path)
    tree = _with(context().tree, made.propose(PLAIN, ON, context()))
    other = made.propose(PLAIN, ON, context(tree)).model_copy(update={"asked": None, "proposer": "playbook"})
    assert other.recipe.stage.params["C"] == 9.0
    nearby = other.model_copy(update={"recipe": edit.with_main(other.recipe, C=9.02)})
    assert made.propose(PLAIN, ON, context(_with(tree, nearby))).kind == "data.dedup"
    assert len(script.asked) == 2


# --- speed ------------------------------------------------------------------------------------------------------------


def test_it_is_as_fast_with_thousands_of_experiments() -> None:
    """No measurement: ten times what docs/decisions.md has, so that only another order of growth fails."""
    rng = Random(0)
    starts = [draft.recipe for draft in drafts(REJECTING.base_models[0])]

    def drawn(number: int) -> Recipe:
        recipe = starts[number % len(starts)]
        open_ones = {path: one for path, one in numbers_of(recipe).items() if not one.dimension.choices}
        return edit.with_numbers(recipe, {path: one.at(rng.random()) for path, one in open_ones.items()})

    recipes = [drawn(number) for number in range(3000)]
    tried = Tried(tree_of([Node(f"e{n:05d}", score=0.5, recipe=one) for n, one in enumerate(recipes)]))
    tried.repeat(drawn(0))
    taken = []
    for number in range(40):
        asked = drawn(number)
        began = process_time()
        tried.repeat(asked)
        taken.append(process_time() - began)
    assert sorted(taken)[38] < 0.1, f"{sorted(taken)}"


def test_replicates_are_not_held_back() -> None:
    """A choice of the referee's or the policy's keeps its recipe, whatever was tried."""
    from postgrad.research.exact import answer
    from postgrad.research.playbook import Playbook

    choice = Choice(parent="e0001", move=Move.REPLICATE)
    found = answer(Playbook(), "posterior", PLAIN, choice, context())
    assert found.recipe.hash == context().tree["e0001"].proposed.proposal.recipe.hash


# --- what people ruled out is not listed as open ----------------------------------------------------------------------


def test_settings_steps_and_bases_that_are_ruled_out_are_not_listed(tmp_path: Path) -> None:
    from postgrad.records import ModelSpec, ResearcherSpec
    from postgrad.research.context import brief
    from postgrad.research.recipe_question import RecipeQuestion

    ruled_out = {"set.C", "data.typos", "base.next"}
    ask = Ask(PLAIN, ON, context(barred=ruled_out.__contains__))
    spec = ResearcherSpec(kind="language_model", models=(ModelSpec(provider="scripted", model="s"),))
    told = brief(ask, 100_000)
    text = told.section("Settings of its main stage that may be set").lines
    assert text and not any(line.startswith("- C =") for line in text)
    assert not any(line.startswith("- typos:") for line in told.section("Data steps that may be added").lines)
    assert not told.section("Base models of the task").lines
    question = RecipeQuestion(ask=ask, brief=told, menu=(), slot="e0003 s", most=3, usd=None)
    sent = json.loads(json.dumps(question.context(spec), default=dict))
    assert "C" not in {one["name"] for one in sent["settings"]} and sent["settings"]
    assert "typos" not in sent["data_steps"] and sent["data_steps"] and sent["base_models"] == []
    assert '"typos"' not in json.dumps(sent["schema"])
    nothing = Ask(PLAIN, ON, context(barred=lambda kind: kind.startswith("data.")))
    asked = RecipeQuestion(ask=nothing, brief=told, menu=(), slot="e0003 s", most=3, usd=None)
    assert "add_steps" not in json.dumps(asked.context(spec)["schema"])


def test_a_number_that_is_ruled_out_is_not_left_to_the_tuner_either() -> None:
    said = [{**WORDS, "move": "data.dedup", "tune": [{"name": "C", "low": 5.0, "high": 6.0}]}]
    ask = Ask(PLAIN, ON, context(barred={"set.C"}.__contains__))
    found = checked(Reply.model_validate({"proposals": said}), ask, moves(ask, {}))
    assert not found.sketches and "no number of the tuner's is" in found.problems[0]
