"""Tasks whose answers are words: splits without labels, answers read without trust, grading, and a whole run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from postgrad.admission import refusal
from postgrad.analyze.badcases import worst
from postgrad.data.sources import load_rows
from postgrad.errors import UserError
from postgrad.evaluate.evaluator import all_metrics, items_of, read_outputs
from postgrad.evaluate.graded import UnitTexts
from postgrad.evaluate.sealed import Entrant, Questions, agreement, read_sealed
from postgrad.evaluate.splits import Parts, metrics_of, split_task
from postgrad.evaluate.statistics import difference, estimate, point, sign_test
from postgrad.evaluate.statistics.influence import contributions
from postgrad.execute.answers import BadAnswers
from postgrad.execute.answers import questions as asked_of
from postgrad.execute.forms import TextForm, form_of
from postgrad.execute.texts import TextAnswers, read_text_answers, text_disagreement, written_texts
from postgrad.metrics import TEXT_METRICS
from postgrad.metrics.base import Graded
from postgrad.metrics.items import Items, dump_items, join, load_items, shared_items
from postgrad.records import DataSpec, Failure, Generation, Guard, JobSpec, Limits, Recipe, Row, Stage, TaskSpec
from postgrad.research import edit
from postgrad.research.drafts import starts_of
from postgrad.research.moves import PLAYS
from postgrad.research.options import PlaybookOptions
from postgrad.research.references import reference_recipes
from postgrad.research.repairs import repaired
from postgrad.spec.load import load_task
from postgrad.testing.language import make_tiny_lm
from postgrad.train import BACKENDS
from postgrad.train.base import FitJob, Texts

ITEMS = ("apple", "pear", "plum", "fig", "nut", "melon", "grape", "lime")
COLOURS = ("red", "green", "blue", "black", "white")


def orders(count: int, seed: int = 0) -> list[Row]:
    """Order lines with what is in them."""
    rng, found = Random(seed), dict[str, Row]()
    while len(found) < count:
        item, colour, number = rng.choice(ITEMS), rng.choice(COLOURS), rng.randint(1, 99)
        text = rng.choice(("{n} {c} {i}", "please send the {i} in {c}: {n}", "{i}, {c}, {n} pieces for monday"))
        line = text.format(n=number, c=colour, i=item)
        answer = json.dumps({"item": item, "colour": colour, "count": number})
        found.setdefault(line, Row(f"r{len(found):04d}", line, answer))
    return list(found.values())


def task_of(**changes: Any) -> TaskSpec:
    known = {"name": "orders", "objective": "o", "data": DataSpec(train="t"), "metric": "json_field_f1"}
    return TaskSpec(**{**known, "kind": "generation", "base_models": ("path:lm",), **changes})


PLAN, STORED = split_task(task_of(), Parts(train=tuple(orders(240)), test=tuple(orders(60, seed=1))))


# --- splits, references, moves ----------------------------------------------------------------------------------------


def test_splits_of_answers_in_words_share_no_question_and_have_no_labels() -> None:
    assert PLAN.labels == () and PLAN.mode == "cv" and PLAN.graded[0] == "json_field_f1"
    asked = [set(unit.items) for unit in PLAN.search]
    assert sum(map(len, asked)) == len(set().union(*asked)) == len(STORED["train"])
    assert all(not set(unit.items) & set(unit.train) for unit in PLAN.search)
    texts = {row.text for row in STORED["sealed"]}
    assert not texts & {row.text for row in STORED["train"]}
    sizes = [len(items) for items in asked]
    assert max(sizes) - min(sizes) < 0.25 * max(sizes)


def test_a_task_in_words_begins_with_answers_that_need_no_training() -> None:
    kinds = [proposal.kind for proposal in reference_recipes(task_of())]
    assert kinds == ["reference.constant", "reference.nearest", "reference.base_model", "reference.few_shot"]
    starts = starts_of(task_of(), "path:lm")
    assert {start.recipe.stage.backend for start in starts} == {"causal_lm", "nearest"}
    tuned = next(start.recipe for start in starts if start.kind == "draft.lm_lora")
    fitting = [play for play in PLAYS if play.applies(tuned, task_of())]
    assert {"lm.full", "lm.longer", "lm.shots"} <= {play.kind for play in fitting}
    assert all(play.kind.startswith("lm.") for play in fitting), "moves on encoders and labels are not offered"
    for play in fitting:
        after = play.apply(tuned, task_of()).stage
        BACKENDS.get(after.backend).Params.model_validate(after.params)


def test_answers_in_words_are_never_averaged() -> None:
    options = PlaybookOptions(task_of(), lambda recipe: 1.0)
    recipes = [start.recipe for start in options.starts()]
    found = [mixed.recipe for one in recipes for two in recipes for mixed in options.both(one, two)]
    found += [change.recipe for recipe in recipes for change in options.changes(recipe)]
    assert found and all(recipe.stage.backend != "ensemble" for recipe in found)
    untouched = next(each.recipe for each in reference_recipes(task_of()) if each.kind == "reference.base_model")
    assert not edit.seeded(untouched) and all(edit.seeded(recipe) for recipe in recipes[:3])


def test_metrics_of_a_run_are_its_own_and_those_beside_it() -> None:
    assert metrics_of("rougeL")[0] == "rougeL"
    assert {"rouge1", "rouge2", "exact_match"} <= set(metrics_of("rougeL")) and "pr_auc" not in metrics_of("rougeL")


# --- what a job leaves ------------------------------------------------------------------------------------------------

ASKED = asked_of("s0", orders(5))


def lines(**changes: Any) -> bytes:
    """An honest file, but for `changes` of the third line."""
    shown = [{"id": number, "text": f"to {text}", "tokens": 3} for number, text in ASKED.shown]
    shown[2] |= changes
    return "".join(json.dumps(line) + "\n" for line in shown).encode()


def test_answers_in_words_come_back_in_the_referees_order() -> None:
    found = read_text_answers(lines(), ASKED, 10)
    assert found.texts == tuple(f"to {text}" for text in ASKED.texts)
    stored = read_outputs(written_texts(ASKED.ids, found))
    assert isinstance(stored, UnitTexts) and stored.ids == ASKED.ids and stored.texts == found.texts


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (lines(tokens=11), "longer than the limit"),
        (lines(text="x" * 10_000), "longer than the limit"),
        (lines(tokens=-1), "count of tokens"),
        (lines(tokens=0), "fewer tokens than its text"),
        (lines(tokens=True), "count of tokens"),
        (lines(text=["a"]), "a text"),
        (lines(id="q000007"), "not to the questions"),
        (lines()[:-20], "lines of JSON"),
        (b"\xff\xfe", "lines of JSON"),
        (b"[" * 100_000, "lines of JSON"),
        (b"", "not to the questions"),
    ],
)
def test_answers_that_were_not_asked_for_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(BadAnswers, match=why):
        read_text_answers(data, ASKED, 10)


def test_half_a_surrogate_pair_in_an_answer_does_no_harm() -> None:
    found = read_text_answers(lines(text="a\ud800b"), ASKED, 10)
    assert "a?b" in found.texts
    assert written_texts(ASKED.ids, found)


def test_a_saved_model_that_answers_otherwise_is_seen() -> None:
    mine = TextAnswers(tuple("abcdefghijklmnopqrst"), (1,) * 20)
    one = TextAnswers(("x", *mine.texts[1:]), mine.tokens)
    many = TextAnswers(("x",) * 5 + mine.texts[5:], mine.tokens)
    assert text_disagreement(mine, one) == "" and "5 of 20" in text_disagreement(mine, many)


def test_the_form_of_a_job_follows_from_its_labels() -> None:
    limits = Limits(wall_s=1, memory_mb=1, threads=1)
    recipe = Recipe(stage=Stage(backend="constant"))
    known: dict[str, Any] = {"job": "j", "experiment": "e", "recipe": recipe, "out_of_scope": None, "base_model": None}
    in_words = JobSpec(labels=(), units=(), limits=limits, generation=Generation(max_new_tokens=7), **known)
    form: object = form_of(in_words)
    assert form == TextForm(7)
    assert form_of(in_words.model_copy(update={"labels": ("a", "b")})).suffix == ".npz"


# --- grading and statistics -------------------------------------------------------------------------------------------


def answered(wrong: int, unit: str = "s0") -> Items:
    """Items of 40 rows, the first of them answered wrongly."""
    rows = orders(40)
    texts = tuple('{"item": "stone"}' if i < wrong else row.label for i, row in enumerate(rows))
    outputs = UnitTexts(tuple(row.id for row in rows), texts, (9,) * 40)
    return items_of(unit, outputs, {row.id: row for row in rows}, PLAN)


def test_answers_are_graded_joined_stored_and_paired() -> None:
    metric = TEXT_METRICS.get("json_exact")
    some, none = answered(10), answered(0)
    assert point(metric, some.answers) == 0.75 and point(metric, none.answers) == 1.0
    both = join([answered(10, "s0"), answered(0, "s1")])
    assert len(both) == 80 and point(metric, both.answers) == 0.875
    again = load_items(dump_items(both))
    assert isinstance(again.answers, Graded) and isinstance(both.answers, Graded)
    assert again.answers.answered == both.answers.answered
    assert dump_items(again) == dump_items(both)
    gap = difference(metric, none, some)
    assert gap.value == 0.25 and 0 < gap.low < 0.25 < gap.high and gap.p < 0.01
    left, right = shared_items(some, both)
    assert len(left) == 40 and point(metric, right.answers) == 0.75
    assert all_metrics(some)["exact_match"] == 0.75
    found = estimate(metric, some)
    assert found.low < 0.75 < found.high and found.n == 40


def test_values_of_items_have_the_metric_as_their_mean() -> None:
    for name in ("json_field_f1", "exact_match"):
        metric, graded = TEXT_METRICS.get(name), answered(7).answers
        values = contributions(metric, graded)
        assert values.mean() == pytest.approx(point(metric, graded))
        assert values[:7].max() < values[7:].min()


def test_columns_that_depend_on_all_references_are_graded_together() -> None:
    """Macro-F1 over sets has a column a label: units that have other labels are not laid side by side."""
    rows = [Row(f"r{i}", f"text {i}", "a; b" if i % 2 else "c") for i in range(8)]
    plan = PLAN.model_copy(update={"graded": ("label_set_macro_f1",)})
    by_id = {row.id: row for row in rows}
    halves = [rows[::2], rows[1::2]]
    parts = [
        items_of(f"s{i}", UnitTexts(tuple(r.id for r in half), tuple(r.label for r in half), (1,) * 4), by_id, plan)
        for i, half in enumerate(halves)
    ]
    assert point(TEXT_METRICS.get("label_set_macro_f1"), join(parts).answers) == 1.0


def test_the_sign_test_is_exact_and_leaves_ties_out() -> None:
    from scipy.stats import binomtest

    gaps = np.array([0.5, 0.1, 0.2, -0.3, 0.0, 0.0, 1.0])
    assert sign_test(gaps) == pytest.approx(binomtest(4, 5).pvalue)
    assert sign_test(np.zeros(4)) == 1.0


def test_the_sealed_read_pairs_two_models_in_words() -> None:
    rows = tuple(orders(40))
    ids = tuple(row.id for row in rows)
    said = [tuple("no" if i < wrong else row.label for i, row in enumerate(rows)) for wrong in (4, 20)]
    outputs = [UnitTexts(ids, texts, (2,) * 40) for texts in said]
    entrants = [
        (Entrant(role=role, experiment=f"e{i}", threshold=None, outputs=""), said)
        for i, (role, said) in enumerate(zip(("champion", "baseline"), outputs, strict=True))
    ]
    read = read_sealed(
        "json_exact", entrants, Questions(rows=rows, labels=(), out_of_scope=None, graded=PLAN.graded), seed=0
    )
    assert read.difference.value == pytest.approx(0.4) and read.difference.low > 0.2 and read.mcnemar_p < 0.001
    assert read.discordant == pytest.approx(0.4)
    assert agreement(outputs[0], outputs[0])["same_answer"] == 1.0
    assert agreement(outputs[0], outputs[1])["same_answer"] == pytest.approx(0.6)


def test_guards_of_other_metrics_are_graded_too() -> None:
    task = task_of(metric="token_f1", guards=(Guard(metric="rougeL", min=0.1), Guard(metric="json_valid", min=0.5)))
    plan, _ = split_task(task, Parts(train=tuple(orders(60)), test=tuple(orders(20, seed=1))))
    assert plan.graded[0] == "token_f1" and {"rougeL", "json_valid", "exact_match"} <= set(plan.graded)


def test_parts_of_an_experiment_are_compared_on_columns_of_their_own() -> None:
    """After a race only some folds were answered: columns that depend on all references are made again."""
    rows = {f"r{i}": Row(f"r{i}", f"text {i}", f"{chr(97 + i % 5)}; x") for i in range(10)}
    plan = PLAN.model_copy(update={"graded": ("label_set_macro_f1",)})
    said = {name: row.label for name, row in rows.items()}
    whole = items_of("s0", UnitTexts(tuple(rows), tuple(said.values()), (1,) * 10), rows, plan)
    some = items_of("s0", UnitTexts(tuple(rows)[:2], ("a", "nothing"), (1, 1)), rows, plan)
    first, second = shared_items(some, whole)
    gap = difference(TEXT_METRICS.get("label_set_macro_f1"), second, first)
    assert gap.n == 2 and gap.value > 0.4


def test_bad_cases_are_answers_that_are_wrong() -> None:
    items, rows = answered(3), {row.id: row for row in orders(40)}
    metric = TEXT_METRICS.get("json_field_f1")
    found = worst(items, contributions(metric, items.answers), rows, metric.high)
    assert len(found) == 3 and all(case.predicted == '{"item": "stone"}' != case.truth for case in found)


def test_a_backend_of_the_other_form_is_not_tried() -> None:
    classic, nearest = Recipe(stage=Stage(backend="classic")), Recipe(stage=Stage(backend="nearest"))
    assert refusal(nearest, task_of()) is None and refusal(Recipe(stage=Stage(backend="constant")), task_of()) is None
    wrong = refusal(classic, task_of())
    assert wrong is not None and "does not answer with words" in wrong.message
    labels = task_of(kind="classification", metric="mcc")
    assert refusal(classic, labels) is None and refusal(nearest, labels) is not None


# --- answers without a language model ---------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["constant", "nearest"])
def test_answers_without_training_are_saved_and_read_back(backend: str, tmp_path: Path) -> None:
    rows = (*orders(30), Row("again", "2 red figs", orders(1)[0].label))
    made = BACKENDS.get(backend)
    job = FitJob(rows, (), None, made.Params(), None, 0, 1, tmp_path / "none")
    model = made.fit(job)
    said = model.predict([row.text for row in rows[:5]])
    assert isinstance(said, Texts)
    expected = [orders(1)[0].label] * 5 if backend == "constant" else [row.label for row in rows[:5]]
    assert list(said.texts) == expected
    model.save(tmp_path / "model")
    loaded = made.load(tmp_path / "model").predict(["7 green nut", "", "💶"])
    again = model.predict(["7 green nut", "", "💶"])
    assert isinstance(loaded, Texts) and isinstance(again, Texts) and loaded.texts == again.texts
    assert isinstance(model.predict([]), Texts)
    short = made.fit(replace(job, generation=Generation(max_new_tokens=2))).predict(["7 green nut"])
    assert isinstance(short, Texts) and len(short.texts[0].split()) == 2 == short.tokens[0], (
        "within the limit of others"
    )


# --- the task file ----------------------------------------------------------------------------------------------------


def write_task(folder: Path, **changes: str) -> Path:
    keys = {
        "name": "orders",
        "objective": "order lines as JSON",
        "kind": "generation",
        "data": "{train: train.jsonl, dev: dev.jsonl, test: test.jsonl, input: text, target: answer}",
        "metric": "json_field_f1",
        "base_models": "[path:lm]",
        "budget": "5 experiments",
        "generation": "{max_new_tokens: 40}",
        "engine": "{workers: 2, threads: 1}",
        "memory": "off",
        **changes,
    }
    (folder / "task.yaml").write_text("".join(f"{key}: {value}\n" for key, value in keys.items() if value))
    return folder / "task.yaml"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, answers as JSON objects, and a tiny language model."""
    folder = tmp_path_factory.mktemp("orders")
    rows = orders(290)
    for name, part in (("train", rows[:130]), ("dev", rows[130:180]), ("test", rows[180:])):
        records = ({"text": row.text, "answer": json.loads(row.label)} for row in part)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    make_tiny_lm(folder / "lm", [f"{row.text} {row.label}" for row in rows])
    return folder


def test_answers_that_are_objects_are_read_as_json(place: Path) -> None:
    rows = load_rows(str(place / "train.jsonl"), input="text", target="answer", words=True)
    assert json.loads(rows[0].label)["item"] in ITEMS
    with pytest.raises(UserError, match="is not one label"):
        load_rows(str(place / "train.jsonl"), input="text", target="answer")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "mcc"}, "'mcc' is a metric, and the task's kind is generation"),
        ({"metric": "json_exactly"}, "Did you mean 'json_exact'"),
        ({"kind": "classification"}, "is a text metric, and the task's kind is classification"),
        ({"generation": "{prompt: Hello}"}, "{input} was expected in it"),
        ({"generation": "{max_new_tokens: 0}"}, "1 to 32,768 was expected"),
        ({"generation": "{stop: ['']}"}, "an empty text"),
        ({"generation": "{max_tokens: 5}"}, "Unknown key 'generation.max_tokens'"),
        ({"base_models": "[]"}, "need a causal language model"),
        ({"guards": "[{metric: macro_f1, min: 0.5}]"}, "'macro_f1' is a metric, which this kind"),
        ({"data": "{train: train.jsonl, input: text, target: answer, out_of_scope: none}"}, "reject nothing"),
    ],
)
def test_what_does_not_fit_answers_in_words_is_said(place: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as wrong:
        load_task(write_task(place, **changes))
    assert message in str(wrong.value)


def test_the_metric_of_answers_in_words_has_a_default(place: Path) -> None:
    assert load_task(write_task(place, metric="")).metric == "normalised_match"


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_a_run_in_words_goes_the_whole_way(place: Path) -> None:
    """Constant, nearest, the model as it is, with examples, and tuned; then select, sealed, report and replay."""

    def postgrad(*words: str) -> Any:
        command = [sys.executable, "-m", "postgrad", *words, "--json"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    write_task(place)
    found = postgrad("run", "task.yaml")
    assert found["experiments"] == 5 and found["failures"] == 0 and found["certified"]
    assert found["sealed"]["metric"] == "json_field_f1" and found["sealed"]["champion"] > 0.4
    shown = postgrad("show", "last", "e0004")
    assert "causal_lm" in json.dumps(shown)
    assert postgrad("replay", "last")["reproduced"]
    screen = [sys.executable, "-m", "postgrad", "resume", "last"]
    told = subprocess.run(screen, cwd=place, capture_output=True, text=True, timeout=100)
    assert told.returncode == 0 and "few-shot" in told.stdout, told.stderr + told.stdout
    postgrad("report", "last")
    page = (place / "runs" / "orders-001" / "report.html").read_text()
    assert "few-shot" in page and "sign test" in page and "stone" not in page


@pytest.mark.parametrize(
    ("kind", "params", "key", "value"),
    [
        ("nan", {"tune": "full", "lr": 5e-5}, "lr", 5e-6),
        ("oom", {"tune": "lora"}, "gradient_checkpointing", True),
        ("oom", {"tune": "lora", "gradient_checkpointing": True}, "batch_size", 8),
        ("timeout", {"tune": "lora"}, "share", 0.25),
        ("timeout", {"tune": "lora", "share": 1 / 64}, "epochs", 1),
        ("truncation", {"tune": "none", "shots": 8}, "shots", 4),
        ("prompt", {"tune": "lora", "shots": 1}, "shots", 0),
    ],
)
def test_failures_of_language_models_are_repaired(kind: str, params: dict[str, Any], key: str, value: object) -> None:
    recipe = Recipe(base_model="path:lm", stage=Stage(backend="causal_lm", params=params))
    found = repaired(recipe, Failure(boundary="train", kind=kind, message="said"))
    assert found is not None and found[1].stage.params[key] == value
    untouched = Recipe(base_model="path:lm", stage=Stage(backend="causal_lm", params={"tune": "none"}))
    assert kind == "oom" or repaired(untouched, Failure(boundary="train", kind="truncation", message="said")) is None
