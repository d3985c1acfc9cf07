"""Puzzles of reasoning-gym: the source of rows, and the metric that grades answers with the library's own scorers."""

from __future__ import annotations

import json
import math
from typing import Any, Mapping

import pytest

pytest.importorskip("reasoning_gym")

from postgrad.data import gym, gym_program
from postgrad.data.sources import load_rows, resolve_source
from postgrad.errors import UserError
from postgrad.metrics import TEXT_METRICS
from postgrad.metrics import gym_program as scoring
from postgrad.metrics.base import Answered
from postgrad.testing.text_metric import HOSTILE

SMALL = "reasoning-gym:chain_sum?train=40&dev=20&test=20&min_terms=2&max_terms=2&min_digits=1&max_digits=2"
METRIC = TEXT_METRICS.get("reasoning_gym")
# Answers that some careless scorer might take for right whatever was asked.
ALWAYS = ["", "nan", "NaN", "inf", "-inf", "nan,nan", "nan+nanj", "NaN days, 0:0", "[]", "{}", "[NaN]", "null", "0/0"]


def grades(check: str, *answers: str) -> list[float]:
    items = [Answered("question", "reference", answer, 1, check) for answer in answers]
    return [float(one) for one in METRIC.grade(items)[:, 0]]


def made(name: str, count: int) -> list[tuple[str, str, str]]:
    """Rows of a generator, made in this process because starting one for each would take minutes."""
    reply = gym_program._reply({"name": name, "options": {}, "seed": 5, "part": "train", "count": count})
    rows: list[tuple[str, str, str]] = reply["rows"]
    return rows


def known() -> list[str]:
    """The generators that may be used, without the one whose making needs a plotting library."""
    names: list[str] = gym_program._reply({"name": ""})["names"]
    return [name for name in names if name not in gym.REFUSED and name != "game_of_life"]


def loaded(source: str, part: str) -> Mapping[str, tuple[str, str]]:
    rows = load_rows(source, input="question", target="answer", check="check", part=part, words=True)
    return {row.text: (row.label, row.check) for row in rows}


# --- the source -------------------------------------------------------------------------------------------------------


def test_parts_have_their_sizes_and_share_no_question() -> None:
    parts = {part: loaded(SMALL, part) for part in ("train", "dev", "test")}
    assert [len(rows) for rows in parts.values()] == [40, 20, 20]
    assert len({question for rows in parts.values() for question in rows}) == 80
    # Not even with another seed.
    assert not set(loaded(SMALL + "&seed=7", "train")) & {*parts["dev"], *parts["test"]}


def test_the_same_source_gives_the_same_rows_in_another_process() -> None:
    first = gym.read_gym(SMALL, "dev")
    gym._asked.cache_clear()
    assert gym.read_gym(SMALL, "dev") == first
    # This one walks through a set: its order is that of Python's hashes.
    words = gym.read_gym("reasoning-gym:isomorphic_strings?dev=5", "dev")
    gym._asked.cache_clear()
    assert gym.read_gym("reasoning-gym:isomorphic_strings?dev=5", "dev") == words


def test_a_part_does_not_depend_on_the_size_of_another() -> None:
    assert gym.read_gym(SMALL, "dev").records == gym.read_gym(SMALL.replace("train=40", "train=90"), "dev").records


def test_an_option_of_the_generator_changes_its_questions() -> None:
    (question,) = loaded("reasoning-gym:chain_sum?train=1&min_terms=4&max_terms=4&min_digits=3&max_digits=3", "train")
    numbers = [word for word in question.split() if word.isdigit()]
    assert len(numbers) == 4 and all(len(number) == 3 for number in numbers)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("chain_sums", "no generator 'chain_sums'. Did you mean 'chain_sum'"),
        ("chain_sum?trian=3", "no option 'trian'. Did you mean 'train'"),
        ("chain_sum?max_terms=two", "max_terms is 'two', and int was expected"),
        ("chain_sum?min_terms=5&max_terms=3", "max_terms must be >= min_terms"),
        ("chain_sum?allow_negation=yes", "true or false was expected"),
        ("basic_arithmetic?format_style=grand", "simple or natural was expected"),
        ("chain_sum?train=many", "train is 'many', and a whole number up to 100,000"),
        ("chain_sum?train=0", "has no train rows"),
        ("chain_sum?train", "'train' was read where an option was expected"),
        ("chain_sum?train=3&train=4", "expected once"),
        ("n_queens", "its scorer runs an answer as code"),
        ("number_sorting", "runs what is stored with the question"),
        ("rush_hour", "stores no answer"),
        ("composite", "name one of them"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_reason(source: str, message: str, tmp_path: Any) -> None:
    with pytest.raises(UserError) as refused:
        resolve_source(gym.PREFIX + source, tmp_path)
    assert message in str(refused.value)


def test_too_few_questions_are_counted() -> None:
    with pytest.raises(UserError, match=r"found \d+ different questions for train, and 400 were asked for"):
        gym.read_gym("reasoning-gym:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1", "train")


def test_the_generators_without_a_stored_answer_are_those_that_are_refused_for_it() -> None:
    names: list[str] = gym_program._reply({"name": ""})["names"]
    without = {
        name for name in set(names) - {"composite", "game_of_life", "game_of_life_halting"} if not answered(name)
    }
    assert without == {name for name, why in gym.REFUSED.items() if why == gym._NO_ANSWER}
    assert without == {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
    assert set(gym.REFUSED) < set(names)


def answered(name: str) -> bool:
    from reasoning_gym import create_dataset

    return create_dataset(name, seed=1, size=5)[0]["answer"] is not None


# --- the metric -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_stored_answers_of_every_generator_score_1_and_no_constant_always_does() -> None:
    wrong = []
    for name in known():
        rows = made(name, 4)
        assert len(rows) == 4, name
        always = set(ALWAYS)
        for _, answer, check in rows:
            best, garbage, *others = grades(check, answer, "garbage of seven words", *ALWAYS)
            if best != 1.0:
                wrong.append(f"{name}: the stored answer scores {best}")
            if garbage > 0.5:
                wrong.append(f"{name}: garbage scores {garbage}")
            always &= {one for one, value in zip(ALWAYS, others, strict=True) if value > 0.99}
        wrong += [f"{name}: {one!r} is always right" for one in always]
    assert not wrong, "\n".join(wrong)


def test_the_refused_scorers_are_refused_for_what_they_do() -> None:
    """The audit hook of the scoring program names them: what they would run is not run, and scores nothing."""
    marker = "__import__('os').getpid() and '0'"
    for name, why in gym.REFUSED.items():
        if why == gym._RUNS_ENTRY:
            ((_, _, check),) = made(name, 1)
            read = json.loads(check)
            read["entry"]["answer"] = marker
            read["entry"].setdefault("metadata", {})["problem"] = marker
            assert grades(json.dumps(read), "0") == [0.0] or math.isnan(grades(json.dumps(read), "0")[0])
        elif why == gym._RUNS_ANSWER:
            ((_, _, check),) = made(name, 1)
            assert all(value < 0.1 or math.isnan(value) for value in grades(check, marker, "[exit()]"))


def test_scorers_that_would_run_code_are_stopped(tmp_path: Any) -> None:
    ((_, stored, check),) = made("binary_matrix", 1)
    touched = tmp_path / "touched"
    found = grades(check, f"open({str(touched)!r}, 'w').close() or [[1]]", stored)
    assert found == [0.0, 1.0]
    assert not touched.exists()


def test_hostile_answers_are_worth_little_and_end_in_time() -> None:
    """One that reads numbers, one that reads JSON, one that reads lines; the first makes the library calculate for
    ever."""
    for name in ("coin_flip", "jugs", "sudoku"):
        ((_, stored, check),) = made(name, 1)
        found = grades(check, *HOSTILE.values(), stored)
        assert found[-1] == 1.0, "the next answer is graded after one that ended the program"
        assert max(found[:-1]) < 0.3


@pytest.mark.parametrize("check", ["", "  ", "no JSON", "[]", "{}", '{"generator": "nothing"}', "[" * 5000])
def test_a_check_that_cannot_be_read_leaves_its_item_unscored(check: str) -> None:
    assert math.isnan(grades(check, "7")[0])


def test_whether_an_item_is_scored_does_not_depend_on_the_answer() -> None:
    ((_, stored, check),) = made("chain_sum", 1)
    broken = json.dumps({**json.loads(check), "entry": {"answer": 5, "metadata": {}}})
    assert not any(math.isnan(value) for value in grades(check, stored, *list(HOSTILE.values())[:8]))
    assert all(math.isnan(value) for value in grades(broken, stored, "5", ""))


def test_options_reach_the_scorer() -> None:
    """How near a sum has to be follows from how many decimals there were."""
    source = "reasoning-gym:decimal_arithmetic?train=1&min_num_decimal_places=6&max_num_decimal_places=6"
    ((stored, check),) = loaded(source, "train").values()
    assert grades(check, stored, str(float(stored) + 0.001)) == [1.0, 0.0]


def test_values_that_json_does_not_have_come_back() -> None:
    values = {"a": (1, [2, (3,)]), "b": {1: "x", (2, 3): {4}}, "c": {"()": 1}, "d": None, "e": 1.5}
    assert scoring.unpacked(json.loads(json.dumps(gym_program.packed(values)))) == values
