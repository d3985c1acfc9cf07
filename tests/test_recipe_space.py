"""The recipe space: points and recipes are two names of one thing, and every recipe of it can be tried."""

from __future__ import annotations

from random import Random

import pytest

from postgrad.admission import refusal
from postgrad.records import DataSpec, Dimension, Recipe, Stage, TaskSpec
from postgrad.research import edit
from postgrad.research.binding import bound
from postgrad.research.drafts import drafts
from postgrad.research.moves import PLAYS
from postgrad.research.space import ALTERNATIVES, START, TOGGLES, RecipeSpace, _share, _value
from postgrad.search import POLICIES
from postgrad.search.base import Coordinate
from postgrad.search.tpe import TPE
from postgrad.testing.researcher import PLAIN, REJECTING
from postgrad.testing.simulation import nominal_s

TWO_BASES = REJECTING.model_copy(update={"base_models": (*REJECTING.base_models, "package:other")})
SPACES = {task.name + str(len(task.base_models)): RecipeSpace(task) for task in (PLAIN, REJECTING, TWO_BASES)}


@pytest.fixture(params=sorted(SPACES))
def space(request: pytest.FixtureRequest) -> RecipeSpace:
    return SPACES[request.param]


def test_every_play_is_a_coordinate_or_an_option_of_one() -> None:
    assert sorted(play.kind for plays in TOGGLES.values() for play in plays) == sorted(play.kind for play in PLAYS)
    for name, kinds in ALTERNATIVES.items():
        assert [play.kind for play in TOGGLES[name]] == list(kinds), "named as in the table, and in its order"


def test_a_point_and_its_recipe_are_found_from_each_other(space: RecipeSpace) -> None:
    rng = Random(7)
    for _ in range(60):
        recipe = space.decode(space.sample(rng))
        point = space.encode(recipe)
        assert point is not None
        assert space.decode(point) == recipe


def test_every_recipe_of_the_space_can_be_tried(space: RecipeSpace) -> None:
    rng = Random(8)
    structures = set()
    for _ in range(40):
        recipe = space.decode(space.sample(rng))
        assert edit.valid(recipe) and refusal(recipe, space.task) is None
        assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
        structures.add(edit.structure_of(recipe))
    assert len(structures) > 15


def test_points_hold_known_coordinates_within_their_range(space: RecipeSpace) -> None:
    known = {coordinate.name: coordinate for coordinate in space.coordinates}
    assert len(known) == len(space.coordinates)
    rng = Random(9)
    for _ in range(40):
        for name, value in space.sample(rng).items():
            options = known[name].options
            assert 0 <= value <= 1 if options == 0 else value in range(options)


def test_all_fixed_drafts_are_points() -> None:
    for space in SPACES.values():
        for base in space.task.base_models or (None,):
            for draft in drafts(base):
                point = space.encode(draft.recipe)
                assert point is not None, draft.kind
                assert edit.structure_of(space.decode(point)) == edit.structure_of(draft.recipe)


def test_what_no_play_makes_has_no_point() -> None:
    space = SPACES["rejecting1"]
    assert space.encode(Recipe(stage=Stage(backend="constant"))) is None
    assert space.encode(Recipe(stage=Stage(backend="classic", params={"min_df": 7}))) is None
    assert space.encode(Recipe(stage=Stage(backend="classic", params={"no_such": 7}))) is None


def test_only_what_matters_is_asked_for() -> None:
    space = SPACES["rejecting1"]
    classic = next(i for i, start in enumerate(space.starts) if start.stage.backend == "classic")

    def pick(coordinate: Coordinate) -> float:
        return classic if coordinate.name == START else 0.0

    point, recipe = space.walk(pick)
    assert recipe.stage.backend == "classic"
    assert "classic.C" in point and not any(name.startswith("embedder") for name in point)
    assert "head" not in point, "a TF-IDF model has no such head"
    assert "train.longer" not in {coordinate.name for coordinate in space.coordinates}, "it only moves a number"


def test_a_number_keeps_its_name_when_another_member_joins() -> None:
    space = SPACES["rejecting1"]
    alone = space.decode({START: 0, "embedder.frozen.C": 0.9})
    joined = space.decode({START: 0, "ensemble.classic": 1, "embedder.frozen.C": 0.9})
    assert edit.main_stage(alone).params["C"] == edit.main_stage(joined).params["C"]
    assert len(edit.members(joined)) == 2


def test_numbers_left_out_stay_as_the_start_has_them() -> None:
    space = SPACES["rejecting1"]
    recipe = space.decode({START: 3})
    assert edit.number(edit.main_stage(recipe), "epochs") == edit.number(edit.main_stage(space.starts[3]), "epochs")


@pytest.mark.parametrize(
    "dimension",
    [
        Dimension(low=1e-5, high=1e-2, log=True),
        Dimension(low=0.0, high=0.15),
        Dimension(low=2, high=16, log=True, integer=True),
        Dimension(low=1, high=3, integer=True),
        Dimension(choices=(4, 8, 16, 32)),
    ],
)
def test_numbers_come_back_from_their_share(dimension: Dimension) -> None:
    found = set()
    for step in range(41):
        value = _value(dimension, step / 40)
        found.add(value)
        assert _value(dimension, _share(dimension, value)) == value
        if not dimension.choices:
            assert isinstance(value, int | float) and dimension.low <= value <= dimension.high
    assert _value(dimension, -1.0) == _value(dimension, 0.0) and _value(dimension, 2.0) == _value(dimension, 1.0)
    assert len(found) == {0: len(found), 4: 4}[len(dimension.choices)]


def test_a_number_outside_its_range_is_at_the_edge() -> None:
    space = SPACES["rejecting1"]
    point = space.encode(Recipe(stage=Stage(backend="classic", params={"score": "log_prob", "C": 1000.0})))
    assert point is not None and point["classic.C"] == 1.0


def test_two_spaces_of_one_task_are_alike() -> None:
    one, two = RecipeSpace(REJECTING), RecipeSpace(REJECTING)
    assert one == two and one.coordinates == two.coordinates
    assert [one.sample(Random(i)) for i in range(10)] == [two.sample(Random(i)) for i in range(10)]
    recipe = one.decode(one.sample(Random(3)))
    one.encode(recipe)
    assert two.encode(recipe) == one.encode(recipe), "what was encoded before changes nothing"


def test_only_policies_that_search_recipes_are_bound() -> None:
    greedy = POLICIES.get("greedy")
    assert bound(greedy, PLAIN, nominal_s) is greedy
    tpe = bound(TPE(), PLAIN, nominal_s)
    assert isinstance(tpe, TPE) and tpe.space == RecipeSpace(PLAIN)


def test_a_task_without_rejection_has_no_rejection_scores() -> None:
    task = TaskSpec(
        name="t", objective="o", data=DataSpec(train="t.csv"), metric="accuracy", base_models=("package:a",)
    )
    names = {coordinate.name for coordinate in RecipeSpace(task).coordinates}
    assert "score" not in names and "data.background" not in names and "method" in names
