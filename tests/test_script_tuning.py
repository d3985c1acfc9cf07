"""What is tried next of a script's numbers: readable, new, the same for the same seed, and better than chance."""

from __future__ import annotations

from math import log
from random import Random

import pytest

from postgrad.scripts.constants import Constant, constants, tunable, values_of
from postgrad.scripts.ranges import Literal
from postgrad.scripts.tuning import Setting, Tried, Values, applied, neighbours, next_setting
from script_texts import LOOPS, NANO

FOUND = constants("train.py", NANO)
FOUND_TUNABLE = tunable(FOUND)
HERE = values_of(FOUND)


def _loss(values: Values) -> float:
    """A made-up validation loss: two numbers matter, one a little, the rest not at all."""
    lr, batch, beta = (float(values[name]) for name in ("LEARNING_RATE", "TOTAL_BATCH_SIZE", "ADAM_BETAS[1]"))
    return 1 + log(lr / 3e-3) ** 2 / 10 + log(batch / 2**13) ** 2 / 10 + 4 * (beta - 0.98) ** 2


def _run(seed: int, tries: int = 25) -> list[Tried]:
    """A run that goes on from the best so far."""
    found, source = FOUND, NANO
    tried = [Tried(HERE, _loss(HERE))]
    for i in range(tries):
        setting = next_setting(found, tried, "min", 1000 * seed + i)
        assert setting is not None
        text = applied(source, found, setting)
        values = values_of(constants("train.py", text))
        best = min(entry.score for entry in tried if entry.score is not None)
        tried.append(Tried(values, _loss(values)))
        if _loss(values) < best:
            found, source = constants("train.py", text), text
    return tried


def test_the_first_tries_move_each_number_once_in_the_usual_order_and_then_again() -> None:
    tried: list[Tried] = []
    words = []
    for i in range(12):
        setting = next_setting(FOUND, tried, "min", i)
        assert setting is not None and len(setting.values) == 1
        words.append(setting.words)
        tried.append(Tried({**HERE, **setting.values}, 2.0))
    assert words[:3] == [
        "LEARNING_RATE 6e-4 -> 1.2e-3",
        "TOTAL_BATCH_SIZE 2**14 -> 2**15",
        "GPTConfig.n_layer 4 -> 8",
    ]
    numbers = [each.split()[0] for each in words]
    assert len(set(numbers)) == min(12, len(FOUND_TUNABLE)), "none twice before all once"
    again = words[len(FOUND_TUNABLE) :]
    assert again[:1] == ["LEARNING_RATE 6e-4 -> 3e-4"][: len(again)]


def test_a_value_that_was_tried_elsewhere_is_not_among_the_first_again() -> None:
    first = Tried({**HERE, "LEARNING_RATE": 1.2e-3, "WEIGHT_DECAY": 0.3}, 2.0)
    setting = next_setting(FOUND, [first], "min", 0)
    assert setting is not None and setting.values == {"TOTAL_BATCH_SIZE": 2**15}, "it was not moved yet"
    moved = [first, *(Tried({**HERE, one.name: neighbours(one)[0]}, 2.0) for one in FOUND_TUNABLE[1:9])]
    assert (setting := next_setting(FOUND, moved, "min", 0)) is not None
    assert all(setting.values.items() != entry.values.items() for entry in moved)
    assert setting.values != {"LEARNING_RATE": 1.2e-3}


@pytest.mark.parametrize("count", [0, 4, 12])
def test_the_same_arguments_give_the_same_setting(count: int) -> None:
    tried = _run(3, count)
    one, two = (next_setting(FOUND, tried, "min", 7) for _ in range(2))
    assert one == two and one is not None


def test_nothing_is_tried_twice_and_changes_are_small() -> None:
    tried = _run(5, 40)
    assert len({frozenset(entry.values.items()) for entry in tried}) == len(tried)


@pytest.mark.parametrize("scores", [[2.0] * 10, [None] * 10, [None, 2.0] * 5, [float("nan")] * 10])
def test_settings_hold_their_ranges(scores: list[float | None]) -> None:
    rng = Random(0)
    tried = [Tried({**HERE, "LEARNING_RATE": 6e-4 * 2 ** rng.uniform(-1, 1)}, score) for score in scores]
    by_name = {one.name: one for one in FOUND}
    for seed in range(10):
        setting = next_setting(FOUND, tried, "max", seed)
        assert setting is not None and 1 <= len(setting.values) <= 3
        assert all(_inside(by_name[name], value) for name, value in setting.values.items()), setting
        assert all(value != HERE[name] for name, value in setting.values.items())
        assert values_of(constants("train.py", applied(NANO, FOUND, setting))) == {**HERE, **setting.values}


def _inside(one: Constant, value: Literal) -> bool:
    dimension = one.dimension
    assert dimension is not None
    if dimension.choices:
        return value in dimension.choices
    return dimension.low * (1 - 1e-2) <= float(value) <= dimension.high * (1 + 1e-2)


def test_pending_settings_are_not_made_again() -> None:
    running: list[Tried] = []
    seen: list[Setting] = []
    for _ in range(4):
        setting = next_setting(FOUND, running, "min", 0)
        assert setting is not None and setting not in seen
        seen.append(setting)
        running.append(Tried({**HERE, **setting.values}, pending=True))


def test_tuning_beats_chance() -> None:
    """Twenty-five tries from the same start, over six seeds, on the mean of the best loss."""

    def by_chance(seed: int) -> float:
        rng, best = Random(seed), _loss(HERE)
        ordered = tunable(FOUND)
        values: dict[str, Literal] = dict(HERE)
        for _ in range(25):
            one = rng.choice(ordered)
            new = {**values, one.name: rng.choice(neighbours(one))}
            if _loss(new) < best:
                values, best = new, _loss(new)
        return best

    ours = [min(entry.score or 9.0 for entry in _run(seed)) for seed in range(6)]
    assert sum(ours) / 6 < sum(by_chance(seed) for seed in range(6)) / 6
    assert max(ours) < _loss(HERE)


def test_the_direction_counts() -> None:
    """Of two runs with the same tries and the opposite aim, the one moves the rate up and the other down."""
    rates = [6e-4 * 2 ** (i / 4 - 2) for i in range(14)]
    tried = [Tried({**HERE, "LEARNING_RATE": rate}, log(rate)) for rate in rates]
    means = {}
    for direction in ("min", "max"):
        settings = [next_setting(FOUND, tried, direction, seed) for seed in range(60)]
        moved = [log(float(s.values["LEARNING_RATE"])) for s in settings if s and "LEARNING_RATE" in s.values]
        assert len(moved) > 5
        means[direction] = sum(moved) / len(moved)
    assert means["min"] < means["max"] - 0.3


def test_a_script_without_numbers_has_no_next_setting() -> None:
    assert next_setting(constants("train.py", "print('hello')\n"), [], "min", 0) is None


def test_a_small_space_is_exhausted() -> None:
    source = "bias = True\nprint(bias)\n"
    found = constants("train.py", source)
    setting = next_setting(found, [], "max", 0)
    assert setting is not None and setting.values == {"bias": False} and setting.words == "bias True -> False"
    assert next_setting(found, [Tried({"bias": False}, 0.5)], "max", 1) is None


def test_a_history_of_another_structure_is_used_as_far_as_it_goes() -> None:
    tried = [Tried({**HERE, "GONE": 3, "LEARNING_RATE": 1e-3}, 1.0), *[Tried({}, 2.0)] * 9]
    assert next_setting(FOUND, tried, "min", 1) is not None
    assert next_setting(constants("train.py", LOOPS), tried, "min", 1) is not None
