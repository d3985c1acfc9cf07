"""Records: they come back from JSON as they were, they cannot be changed, and their hashes do not move."""

from __future__ import annotations

import types
from enum import Enum
from typing import Annotated, Any, Literal, Sequence, Union, get_args, get_origin

import pytest
from annotated_types import MaxLen, MinLen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypeAliasType

from postgrad import records
from postgrad.events import Body, Event
from postgrad.records import Budget, Recipe, Record, Stage, Step, content_hash

BODY: TypeAdapter[Any] = TypeAdapter(Body)
BODIES: tuple[type[Record], ...] = get_args(get_args(Body)[0])
ALL = sorted(
    (kind for kind in vars(records).values() if isinstance(kind, type) and issubclass(kind, Record)),
    key=lambda kind: kind.__name__,
)

# No lone surrogates: they are not Unicode text. No NaN: it equals nothing, itself included.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
FLOAT = st.floats(allow_nan=False)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(),
    float: FLOAT,
    str: TEXT,
    type(None): st.none(),
}
NAME = TEXT.filter(bool)
BOUNDED: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("experiment", "what", "by"), NAME),
    "id": st.text("0123456789abcdef", min_size=16, max_size=64),
    "expected_effect": st.floats(-1, 1),
}
VALUE: st.SearchStrategy[Any] = st.recursive(
    st.one_of(*PLAIN.values()),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Every value that a field with this annotation may hold."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        bounds = [bound for one in inner[1:] for bound in getattr(one, "metadata", [one])]
        if (worded := _worded(bounds)) is not None:
            return worded
        return NAME if any(isinstance(bound, MinLen) for bound in bounds) else values_of(inner[0])
    if isinstance(kind, TypeAliasType):
        return VALUE
    if kind in PLAIN:
        return PLAIN[kind]
    if origin is Literal:
        return st.sampled_from(inner)
    if origin in (Union, types.UnionType):
        return st.one_of(*(values_of(one) for one in inner))
    if origin is tuple and inner[-1] is Ellipsis:
        return st.lists(values_of(inner[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*(values_of(one) for one in inner))
    if origin is dict:
        return st.dictionaries(values_of(inner[0]), values_of(inner[1]), max_size=2)
    if issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    return records_of(kind)


def records_of(kind: type[Record]) -> st.SearchStrategy[Record]:
    """Every record of a kind, its fields filled in."""
    if kind is Event:
        bodies = st.one_of(*(records_of(one) for one in BODIES))
        return st.builds(Event, seq=st.integers(), at=FLOAT, clock=FLOAT, body=bodies)
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for name, field in kind.model_fields.items():
        worded = _worded(field.metadata)
        fields[name] = values_of(field.annotation) if worded is None else worded
    return st.builds(kind, **fields | {name: BOUNDED[name] for name in _bounded(kind)})


def _worded(bounds: Sequence[Any]) -> st.SearchStrategy[str] | None:
    """Every text of a pattern that is not too long; None where there is no pattern."""
    pattern = next((bound.pattern for bound in bounds if getattr(bound, "pattern", None)), None)
    longest = next((bound.max_length for bound in bounds if isinstance(bound, MaxLen)), 100)
    if pattern is None:
        return None
    return st.from_regex(pattern, fullmatch=True).filter(lambda text: len(text) <= longest)


def _bounded(kind: type[Record]) -> list[str]:
    """Fields of orders, which have bounds: anybody may write to a mailbox."""
    return [name for name, field in kind.model_fields.items() if field.metadata and name in BOUNDED]


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not Record], ids=lambda kind: kind.__name__)
def test_every_record_comes_back_from_json_as_it_was(kind: type[Record]) -> None:
    @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(records_of(kind))
    def comes_back(record: Record) -> None:
        again = kind.model_validate_json(record.model_dump_json())
        assert again == record
        assert repr(again) == repr(record)  # 1, 1.0 and True are equal, and not the same.

    comes_back()


@pytest.mark.parametrize("kind", BODIES, ids=lambda kind: kind.__name__)
def test_the_type_of_a_body_is_told_from_its_json(kind: type[Record]) -> None:
    @settings(max_examples=5, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(records_of(kind))
    def is_told(record: Record) -> None:
        assert type(BODY.validate_json(record.model_dump_json())) is kind

    is_told()


def test_every_body_has_a_type_of_its_own() -> None:
    names = [kind.model_fields["type"].default for kind in BODIES]
    assert len(set(names)) == len(BODIES) >= 12


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_infinite_numbers_survive(value: float) -> None:
    stage = Stage(backend="classic", params={"c": value})
    assert Stage.model_validate_json(stage.model_dump_json()) == stage


def test_records_cannot_be_changed() -> None:
    budget = Budget(wall_s=1.0)
    for name in Budget.model_fields:
        with pytest.raises(ValidationError):
            setattr(budget, name, 2.0)
    assert budget == Budget(wall_s=1.0)


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="wal_s"):
        Budget.model_validate({"wal_s": 1.0})


def test_fields_with_a_default_may_be_missing() -> None:
    assert Budget.model_validate_json("{}") == Budget()
    assert Stage.model_validate_json('{"backend": "classic"}').params == {}


def test_the_hash_of_a_recipe_does_not_move() -> None:
    recipe = Recipe(
        base_model="path:/models/small",
        data=(Step(op="dedup"),),
        stage=Stage(backend="classic", params={"c": 1.0, "ngrams": (1, 2), "char": True}),
    )
    assert recipe.hash == "96816d16bf22db25"
    assert Recipe.model_validate_json(recipe.model_dump_json()).hash == recipe.hash


@given(st.dictionaries(TEXT, VALUE, max_size=5), st.randoms(use_true_random=False))
@settings(deadline=None, database=None)
def test_a_content_hash_does_not_depend_on_the_order_of_keys(value: dict[str, Any], chance: Any) -> None:
    keys = list(value)
    chance.shuffle(keys)
    assert content_hash({key: value[key] for key in keys}) == content_hash(value)


def test_content_hashes_tell_values_apart() -> None:
    values = [1, 1.0, True, "1", None, [1], {"1": 1}, "", [], {}]
    assert len({content_hash(value) for value in values}) == len(values)
    assert all(len(content_hash(value)) == 16 for value in values)
