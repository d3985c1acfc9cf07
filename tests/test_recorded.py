"""Recorded landscapes: recipes really trained, packed, read back and played; killed recordings go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest

from postgrad.bench.record import Place, file_of, packed, placed, record
from postgrad.bench.record_data import BASE_MODEL, Ground, ground_of
from postgrad.bench.record_names import exactly, shape
from postgrad.bench.record_pool import pool
from postgrad.bench.record_train import Trainer
from postgrad.bench.recorded import Recorded
from postgrad.bench.recorded_file import FACTS, pack, recording
from postgrad.bench.simulated import SimulatedRun
from postgrad.bench.simulated_parts import Grant
from postgrad.data.steps import training_rows
from postgrad.data.text import row_ids
from postgrad.errors import PostgradError, UserError
from postgrad.metrics.items import join
from postgrad.records import Failure, Recipe, Row, Stage, Step
from postgrad.research import edit
from postgrad.research.play import CLASSIC, FROZEN
from postgrad.research.tuner import described
from postgrad.testing.encoder import make_tiny_encoder
from postgrad.train import BACKENDS
from postgrad.train.base import FitJob, labelled

TOPICS = {
    "refund": ("refund", "money", "return", "cancel"),
    "shipping": ("parcel", "delivery", "courier", "late"),
    "login": ("password", "account", "locked", "login"),
}
FILLERS = ("please", "today", "again", "quickly", "for me", "now", "somehow", "since monday", "twice", "at home")
OUT = "other"
RECIPES, WALKS = 14, 60


def rows_of(count: int, seed: int, outside: int = 0) -> list[Row]:
    rng = Random(seed)
    found = []
    for number in range(count + outside):
        label = rng.choice(sorted(TOPICS)) if number < count else OUT
        words = TOPICS.get(label, ("weather", "football", "pizza", "holiday"))
        middle = rng.sample([word for known in TOPICS.values() for word in known], 2)
        found.append((f"{rng.choice(words)} {rng.choice(middle)} {rng.choice(FILLERS)} {rng.randrange(1000)}", label))
    texts = [text for text, _ in found]
    return [Row(i, text, label) for i, (text, label) in zip(row_ids(texts), found, strict=True)]


def tiny(out_of_scope: str | None = OUT, base_models: tuple[str, ...] = ()) -> Ground:
    held = rows_of(40, 2, 20 if out_of_scope else 0)
    return ground_of("tiny", rows_of(48, 1), held, out_of_scope, base_models)


def tiny_place(folder: Path, count: int = RECIPES) -> Place:
    found = tiny()
    return placed(found, pool(found.task, count, 0, WALKS), folder)


class Tiny(Recorded):
    name = "tiny"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a recording in its work folder and as bench/landscapes/tiny.parquet."""
    home = tmp_path_factory.mktemp("recorded")
    place = tiny_place(home / "work")
    record([place], 60.0, lambda line: None)
    assert pack(place.folder, home / "bench/landscapes/tiny.parquet")
    return home


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


# --- recording ------------------------------------------------------------------------------------------------------


def test_a_pool_holds_references_neighbours_and_numbers() -> None:
    task = tiny(base_models=(BASE_MODEL,)).task
    recipes = pool(task, 120, 3, 300)
    names = [exactly(recipe) for recipe in recipes]
    assert len(set(names)) == len(names) == 120
    assert [recipe.stage.backend for recipe in recipes[:3]] == ["constant", "classic", "embedder"]
    shapes = [shape(recipe) for recipe in recipes]
    assert len(set(shapes)) < 110, "some differ in numbers only"
    assert pool(task, 120, 3, 300) == recipes, "the same every time"
    # Leaving a data step out often leads to another recipe of the pool.
    smaller = [shape(edit.without_step(recipe, recipe.data[0].op)) for recipe in recipes if recipe.data]
    assert sum(each in shapes for each in smaller) > len(smaller) / 2


def test_order_and_written_defaults_make_no_other_recipe() -> None:
    typos, dedup = Step(op="typos", params={"share": 0.5}), Step(op="dedup")
    one = edit.with_member(Recipe(base_model="x", stage=FROZEN, data=(typos, dedup)), CLASSIC)
    two = edit.with_member(Recipe(base_model="x", stage=CLASSIC, data=(dedup, typos)), FROZEN)
    found = edit.members(two)
    found[0], found[1] = (
        {**found[0], "weight": 1.0, "score_weight": 1.0},
        {**found[1], "weight": 2.0, "score_weight": 2.0},
    )
    two = edit.with_numbers(edit.with_members(two, found), {})
    assert one.hash != two.hash and exactly(one) == exactly(two)
    other = edit.with_numbers(one, {"members.0.stage.params.C": 3.0})
    assert exactly(other) != exactly(one) and shape(other) == shape(one)
    assert described(one, two) == "other numbers", "one path names the numbers of two members"
    assert "C 10 -> 3" in described(one, other)


def test_a_killed_recording_goes_on(tmp_path: Path) -> None:
    """Killed for good in the middle: what was recorded stays, untouched, and the rest follows."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nfrom test_recorded import tiny_place\nfrom postgrad.bench.record import record\n"
        "import time\nlines = []\n"
        "def say(line):\n"
        "    lines.append(line)\n    print(line, flush=True)\n"
        "    if len(lines) == 10: time.sleep(600)  # It is killed before that.\n"
        f"record([tiny_place(Path({str(tmp_path)!r}))], 60.0, say)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    place = tiny_place(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in place.folder.glob("*.npz")}
    assert 3 <= len(before) - 1 < RECIPES
    lines: list[str] = []
    record([place], 60.0, lines.append)
    assert len(lines) == RECIPES - (len(before) - 1)
    assert all(file_of(place, recipe).exists() for recipe in place.recipes)
    assert all(path.stat().st_mtime_ns == changed for path, changed in before.items())


def test_a_folder_of_other_rows_is_refused(tmp_path: Path) -> None:
    tiny_place(tmp_path)
    other = ground_of("tiny", rows_of(48, 9), rows_of(40, 2), None, ())
    with pytest.raises(UserError, match="other rows"):
        placed(other, pool(other.task, RECIPES, 0, WALKS), tmp_path)


def test_failures_are_recorded_with_their_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe that no row gets through, and a limit that is too short for another."""
    ground = tiny()
    rare = Recipe(stage=Stage(backend="classic", params={"min_df": 20, "char_max": 0, "word_max": 4}))
    place = placed(ground, (*pool(ground.task, 3, 0, WALKS), rare), tmp_path / "crash")
    record([place], 60.0, lambda line: None)
    late = placed(ground, pool(ground.task, 3, 0, WALKS), tmp_path / "late")
    record([late], 1e-6, lambda line: None)
    for folder in (place.folder, late.folder):
        pack(folder, tmp_path / "bench/landscapes" / f"{folder.parent.name}.parquet")
    monkeypatch.chdir(tmp_path)
    crashed, cut = recording("crash").tried[rare.hash], next(iter(recording("late").tried.values()))
    assert [f.kind for f in crashed.failures if f] == ["crash", "crash"]
    assert [f.kind for f in cut.failures if f] == ["timeout", "timeout"]
    assert min(crashed.seconds) > 0 and crashed.truth == 0.0 and not crashed.stood

    class Crash(Recorded):
        name = "crash"

    failed = Crash(0).train(rare, 5)
    assert isinstance(failed, Failure) and failed.kind == "crash"


def test_shared_parts_answer_as_the_backends_do(tmp_path: Path) -> None:
    """Frozen, tuned and ensemble: what shares embeddings and members gives the answers of the backend alone."""
    base = make_tiny_encoder(tmp_path / "encoder", [word for words in TOPICS.values() for word in words])
    ground = tiny(base_models=("path:x",))
    tuned = Stage(backend="embedder", params={"tune": "full", "epochs": 1, "score": "knn", "head": "logistic"})
    steps = (Step(op="typos", params={"share": 0.5}), Step(op="near_misses", params={"share": 0.2}))
    both = edit.with_member(Recipe(base_model="path:x", stage=tuned, data=steps), FROZEN)
    trainer = Trainer(ground, tmp_path / "tuned", base, 60.0)
    for recipe in (Recipe(base_model="path:x", stage=FROZEN), Recipe(base_model="path:x", stage=tuned), both):
        outputs, seconds = trainer.train(recipe, 2)
        again, as_before = trainer.train(recipe, 2)
        for unit in (ground.folds[1], ground.whole):
            texts = [row.text for row in unit.rows]
            rows, _ = training_rows(unit.train, texts, recipe.data, seed=2, out_of_scope=OUT, base_model=base)
            backend = BACKENDS.get(recipe.stage.backend)
            params = backend.Params.model_validate(recipe.stage.params)
            job = FitJob(rows, ground.plan.labels, OUT, params, base, 2, 1, tmp_path / f"check-{unit.name}")
            alone = labelled(backend.fit(job).predict(texts))
            np.testing.assert_allclose(outputs[unit.name].probs, alone.probs, atol=1e-4)
            np.testing.assert_allclose(outputs[unit.name].score, alone.score, atol=1e-4)
            np.testing.assert_array_equal(again[unit.name].probs, outputs[unit.name].probs)
        assert as_before == pytest.approx(seconds, rel=0.2), "what is shared counts as if it were made again"
    assert len(list((tmp_path / "tuned").glob("*.npz"))) == 2 * len(ground.units), "tuned once with and without steps"


# --- the file -------------------------------------------------------------------------------------------------------


def test_the_file_holds_numbers_and_no_text(here: Path) -> None:
    import pyarrow.parquet as pq

    path = here / "bench/landscapes/tiny.parquet"
    table = pq.read_table(path)
    shown = json.dumps(json.loads(table.schema.metadata[FACTS])) + json.dumps(table.to_pylist(), default=str)
    content = path.read_bytes() + shown.encode()
    words = {word for row in (*rows_of(48, 1), *rows_of(40, 2, 20)) for word in row.text.split() if word.isalpha()}
    for word in (words | set(TOPICS)) - {"at", "me", "for"}:
        assert word.encode() not in content, word
    assert path.stat().st_size < 100_000


def test_what_is_packed_is_what_was_answered(here: Path) -> None:
    """The classic reference, trained once more by hand, is right on as many sealed questions as the file says."""
    from postgrad.evaluate.evaluator import UnitOutputs, apply_threshold, frozen_threshold, unit_items

    ground, found = tiny(), recording("tiny")
    recipe = Recipe(stage=Stage(backend="classic"))
    parts = []
    for unit in ground.units:
        rows, _ = training_rows(
            unit.train, [row.text for row in unit.rows], (), seed=0, out_of_scope=OUT, base_model=None
        )
        backend = BACKENDS.get("classic")
        job = FitJob(rows, ground.plan.labels, OUT, backend.Params(), None, 0, 1, here / "none")
        said = labelled(backend.fit(job).predict([row.text for row in unit.rows]))
        outputs = UnitOutputs(tuple(row.id for row in unit.rows), said.probs, said.score)
        truth = {row.id: row.label for row in unit.rows}
        parts.append(unit_items(unit.name, outputs, truth, ground.plan.labels, OUT, unit.held_out))
    threshold = frozen_threshold(join(parts[:-1]), recipe.inference)
    held = apply_threshold(parts[-1], threshold).labelled
    right = (held.predicted == held.truth)[np.array(ground.sealed)]
    np.testing.assert_array_equal(found.tried[recipe.hash].sealed[0], right)
    assert 0.2 < right.mean() < 1.0


def test_the_result_has_counts_and_correlations(here: Path, tmp_path: Path) -> None:
    result = packed({"tiny": here / "work/tiny", "absent": tmp_path}, tmp_path / "packed")
    (row,) = result["table"]
    assert row["recipes"] == RECIPES and row["trainings"] == 2 * RECIPES and row["failures"] == 0
    found = result["correlations"]["tiny"]["all folds, two seeds"]
    assert -1 <= found["low"] <= found["rho"] <= found["high"] <= 1
    assert "Rank correlation" in result["markdown"]
    with pytest.raises(UserError, match="Nothing is recorded"):
        packed({"absent": tmp_path}, tmp_path)


# --- the landscape --------------------------------------------------------------------------------------------------


def test_worlds_differ_and_truth_does_not(here: Path) -> None:
    one, same, other = Tiny(1), Tiny(1), Tiny(2)
    recipe = next(each.recipe for each in one.recording.tried.values() if each.recipe.stage.backend == "classic")
    first = one.train(recipe, 0)
    assert not isinstance(first, Failure)
    again, elsewhere = same.train(recipe, 0), other.train(recipe, 0)
    assert not isinstance(again, Failure) and not isinstance(elsewhere, Failure)
    np.testing.assert_array_equal(first.search, again.search)
    assert not np.array_equal(first.select, elsewhere.select)
    assert one.truth(recipe) == other.truth(recipe) == pytest.approx(one.recording.tried[recipe.hash].truth)
    assert one.best() == max(one.truth(each.recipe) for each in one.recording.tried.values())
    part = one.train_part(recipe, 0, one.rungs[0])
    assert not isinstance(part, Failure) and 0 < len(part.search) < len(first.search)
    assert 0.0 <= first.search.mean() <= 1.0 and one.cost_s(recipe) > 0


def test_trainings_are_recorded_ones(here: Path) -> None:
    """Seeds 0 and 1 are the two recorded ones; a later one takes each fold from one of them."""
    world = Tiny(0)
    name, tried = max(
        world.recording.tried.items(), key=lambda each: int((each[1].search[0] != each[1].search[1]).sum())
    )
    assert (tried.search[0] != tried.search[1]).any(), "a recipe with data steps depends on its seed"
    kept = np.flatnonzero(world._kept)
    groups, index = np.unique(world.recording.group[kept], return_inverse=True)

    def value(right: np.ndarray) -> np.ndarray:
        return np.bincount(index, weights=right[kept].astype(float)) * len(groups) / len(kept)

    recorded = [value(row) for row in tried.search]
    for seed, wanted in enumerate(recorded):
        found = world.train(tried.recipe, seed)
        assert not isinstance(found, Failure)
        np.testing.assert_allclose(found.search, wanted)
    means = [
        result.search.mean()
        for seed in range(2, 30)
        if not isinstance(result := world.train(tried.recipe, seed), Failure)
    ]
    assert len(set(means)) > 2 and name in world.pool


def test_admission_stays_in_the_pool(here: Path) -> None:
    world = Tiny(0)
    recorded = [each.recipe for each in world.recording.tried.values()]
    for recipe in recorded:
        assert world.admit(recipe, world.pool) == recipe, "a recorded recipe is what it is, tried or not"
        assert world.admit(edit.with_numbers(recipe, {}), ()) == recipe
    moved = edit.with_numbers(Recipe(stage=CLASSIC), {"C": 7.7})
    snapped = world.admit(moved, ())
    assert snapped is not None and shape(snapped) == shape(moved) and snapped.hash in world.pool
    same = {recipe.hash for recipe in recorded if shape(recipe) == shape(moved)}
    assert world.admit(moved, same) is None, "no other numbers are left"
    unknown = Recipe(stage=Stage(backend="classic", params={"sublinear": False}), data=(Step(op="dedup"),))
    assert world.admit(unknown, ()) is None
    near = world.admit(unknown, (), near=True)
    assert near is not None and near.hash in world.pool
    after = world.admit(near, {near.hash}, near=True)
    assert after is not None and after != near
    assert world.admit(near, world.pool, near=True) is None
    with pytest.raises(PostgradError, match="not recorded"):
        world.truth(unknown)


@pytest.mark.parametrize("policy", ["greedy", "best_of_n", "tpe", "posterior"])
def test_policies_stay_in_the_pool_to_its_end(here: Path, policy: str) -> None:
    """Real policies train recorded recipes only, try new ones while there are any, and stop when all were tried."""
    world = Tiny(3)
    run = SimulatedRun(world, policy, Grant(30), seed=1)
    out = run.play()
    tried = [node.proposed.proposal.recipe.hash for node in run.tree.all()]
    assert set(tried) == world.pool, "what is new is found while there is any"
    assert out.trainings < 30, "a pool that is used up ends the run"
    assert 0.0 < out.final <= world.best()


def test_a_small_budget_is_kept(here: Path) -> None:
    outcomes = [SimulatedRun(Tiny(4), "random", Grant(8), seed=2).play() for _ in range(2)]
    assert outcomes[0].final == outcomes[1].final and outcomes[0].curve == outcomes[1].curve
    assert outcomes[0].trainings <= 8


def test_a_landscape_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent(Recorded):
        name = "absent"

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"absent\.parquet"):
        Absent(0)


@pytest.mark.parametrize("name", ["sofmattress", "banking77"])
def test_what_is_said_not_to_depend_on_a_seed_answered_alike_with_both(name: str) -> None:
    """So the referee buys no second training of these, and they say nothing about the seed noise of others."""
    tried = [each for each in recording(name).tried.values() if len(each.stood) == 2]
    differ = {edit.seeded(each.recipe): set[bool]() for each in tried}
    for each in tried:
        same = all((part[0] == part[1]).all() for part in (each.search, each.select, each.sealed))
        differ[edit.seeded(each.recipe)].add(not same)
    assert differ[False] == {False} and True in differ[True]
    frozen = [each for each in tried if each.recipe.stage == FROZEN and not each.recipe.data]
    assert frozen and not edit.seeded(frozen[0].recipe)
