"""What a script leaves, prints and is compared by, where it is hostile or odd."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest

from postgrad.engines.local import LocalEngine
from postgrad.errors import PostgradError, UserError
from postgrad.people.ideas import edited, injected
from postgrad.records import Choice, Edit, Inject, Move, Order, Recipe, Stage
from postgrad.research.base import Context
from postgrad.runner import opened
from postgrad.scripts import executor
from postgrad.scripts.left import hand_over
from postgrad.scripts.researcher import ScriptResearcher
from postgrad.scripts.scores import BadScore, printed, written
from postgrad.scripts.session import ScriptSession
from postgrad.scripts.statistics import difference_of, estimate_of
from postgrad.scripts.workspace import Workspace
from postgrad.spec import load_task
from postgrad.store.sqlite import SqliteStore
from postgrad.tree import Tree
from test_people_gate import composed
from test_scripts import MEASURED, driven, run_of, task_of

# --- what is left -----------------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("checkout", "referee", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "elsewhere" / "model").mkdir()
    (tmp_path / "elsewhere" / "model" / "weights.json").write_text("somebody's")
    return tmp_path / "checkout", tmp_path / "referee"


def test_a_link_above_what_is_left_is_not_followed(places: tuple[Path, Path]) -> None:
    checkout, referee = places
    (checkout / "runs").symlink_to("../elsewhere")
    failure = hand_over(checkout, ["runs/model"], referee)
    assert failure is not None and failure.kind == "planted_link"
    assert not list(referee.iterdir())


@pytest.mark.parametrize("name", ["model/__init__.py", "model/deep/x.pyc", "model/fast.so"])
def test_code_is_not_handed_to_the_referee(places: tuple[Path, Path], name: str) -> None:
    """`import model` of a referee takes a folder with an `__init__.py`, and not the `model.py` beside it."""
    checkout, referee = places
    (checkout / name).parent.mkdir(parents=True)
    (checkout / name).write_text("print('it runs')")
    failure = hand_over(checkout, ["model"], referee)
    assert failure is not None and failure.kind == "planted_code"


def test_code_that_the_task_names_is_handed_over(places: tuple[Path, Path]) -> None:
    checkout, referee = places
    (checkout / "kernel.py").write_text("x = 1")
    assert hand_over(checkout, ["kernel.py"], referee) is None
    assert (referee / "kernel.py").read_text() == "x = 1"


@pytest.mark.parametrize("name", [b"out/\xff.json", b"out/a\nb", "out/\u202e.json".encode()])
def test_names_that_cannot_be_recorded_are_a_failure_that_can(places: tuple[Path, Path], name: bytes) -> None:
    checkout, referee = places
    (checkout / "out").mkdir()
    with open(os.path.join(os.fsencode(checkout), name), "wb") as file:
        file.write(b"{}")
    failure = hand_over(checkout, ["out"], referee)
    assert failure is not None and failure.kind == "planted_name"
    assert failure.model_dump_json()


def test_protected_files_of_any_size_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prepare.py").write_text("SCALE = 1")
    known = executor._hashes(tmp_path, ["prepare.py"])
    assert executor._changed(tmp_path, known) == ""
    with (tmp_path / "prepare.py").open("wb") as file:
        file.truncate(1 << 40)
    started = time.monotonic()
    assert executor._changed(tmp_path, known) == "prepare.py"
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("leaf", [".", "..", "../out", "/tmp/out", "out/../..", "", "score.json", "referee.py", "lib"])
def test_what_a_script_leaves_lies_in_a_place_of_its_own(tmp_path: Path, leaf: str) -> None:
    task_of(tmp_path, more={"lib/measure.py": ""})
    path = tmp_path / "task.yaml"
    told = MEASURED.replace("referee.py", "referee.py lib/measure.py").replace("leaves: [out]", f'leaves: ["{leaf}"]')
    path.write_text(path.read_text().replace(MEASURED, told))
    with pytest.raises(UserError, match="script.leaves names"):
        load_task(path)


def test_a_word_of_a_command_may_name_what_is_left(tmp_path: Path) -> None:
    task_of(tmp_path)
    path = tmp_path / "task.yaml"
    path.write_text(path.read_text().replace("run: python train.py", "run: python train.py --to out"))
    assert load_task(path).script is not None


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"value": 1' + "0" * 400 + "}",
        '{"value": 1, "items": {"a": 1' + "0" * 400 + "}}",
        '{"value": 1, "items": {"\\ud800": 1}}',
    ],
)
def test_numbers_and_names_that_cannot_be_held_are_no_score(text: str) -> None:
    with pytest.raises(BadScore):
        written(text.encode(), 1.0)


def test_large_numbers_have_a_mean() -> None:
    assert written(b'{"value": 1e308, "items": {"a": 1e308, "b": 1e308}}', 1.0) == {"a": 1e308, "b": 1e308}


def test_empty_lines_do_not_hold_up_the_controller() -> None:
    started = time.monotonic()
    assert printed("\n" * 200_000 + "loss: 0.5\r\n" + " \n" * 50_000, "loss", -1.0) == {"score": -0.5}
    assert time.monotonic() - started < 60


# --- the end ----------------------------------------------------------------------------------------------------------


def test_a_side_with_one_training_has_the_seed_noise_of_the_other() -> None:
    rng = np.random.default_rng(0)
    many = 1.0 + rng.normal(0, 0.1, (3, 1)) + np.zeros((3, 50))
    alone = np.full((1, 50), 1.2)
    whole, lone = difference_of(many, many, 0.95), difference_of(alone, many, 0.95)
    assert lone.high - lone.low > whole.high - whole.low and lone.p > 0.01
    estimate = estimate_of(alone, 0.95, (alone, many))
    assert estimate.high - estimate.low > 0.1


def test_a_champion_that_is_the_source_is_trained_once_for_each_seed(tmp_path: Path) -> None:
    """Links of the source to folders, and to nothing, are no reason for the end of a run to fail."""
    task = task_of(tmp_path, budget="1 experiments", workers=3, more={"lib/a.txt": "a"})
    (tmp_path / "src" / "library").symlink_to("lib")
    (tmp_path / "src" / "latest").symlink_to("lib/nowhere")
    folder = run_of(tmp_path, task)
    events = driven(folder)
    jobs = [event.body for event in events if event.body.type == "job_finished" and event.body.purpose == "sealed"]
    assert len(jobs) == len({job.job for job in jobs}) == 3
    assert events[-1].body.type == "run_ended"


# --- people -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wish",
    [
        Inject(recipe=Recipe(stage=Stage(backend="classic"))),
        Inject(kind="draft.classic"),
        Inject(recipe=Recipe(stage=Stage(backend="script", params={"tree": "0" * 40})), asks=True),
        Edit(experiment="e0001", changes={"backend": "classic"}),
    ],
)
def test_a_recipe_is_no_idea_for_a_script(tmp_path: Path, wish: Inject | Edit) -> None:
    task, order = task_of(tmp_path), Order(id="0" * 16, by="somebody", at=0.0, wish=wish)
    with pytest.raises(UserError, match="versions of a script's files"):
        if isinstance(wish, Inject):
            injected(wish, order, task, Tree.from_events(()), {})
        else:
            edited(composed("constant"), wish, order, task, Tree.from_events(()), {})


def test_a_number_that_people_closed_keeps_no_other_from_being_tried(tmp_path: Path) -> None:
    folder = run_of(tmp_path, task_of(tmp_path, budget="1 experiments"))
    driven(folder)
    with opened(SqliteStore.open(folder, write=True)) as session:
        assert isinstance(session, ScriptSession)
        choice, closed = Choice(parent="e0000", move=Move.IMPROVE, reason="r"), {"constant.LEARNING_RATE"}
        context = Context(
            tree=session.tree,
            rng=Random(0),
            index=1,
            affordable_s=None,
            nominal_s=lambda recipe: 1.0,
            barred=closed.__contains__,
        )
        found = ScriptResearcher(session).propose(session.task, choice, context)
    assert found.kind == "constant.BATCH_SIZE"


def test_a_hidden_file_that_every_job_may_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the source is a package that was installed as it lies there."""
    monkeypatch.setattr(LocalEngine, "reads", property(lambda self: (tmp_path.resolve() / "src",)))
    with pytest.raises(UserError, match="every job may read"):
        driven(run_of(tmp_path, task_of(tmp_path, budget="1 experiments")))


def test_a_machine_that_refuses_is_no_failure_of_an_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_of(tmp_path, task_of(tmp_path, budget="2 experiments"))

    def full(self: Workspace, commit: str, place: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(Workspace, "checkout", full)
        with pytest.raises(PostgradError, match="No space left on device"):
            driven(folder)
    tree = Tree.from_events(driven(folder))
    assert len(tree) == 2 and all(node.score is not None for node in tree.all()), "it goes on where there is room again"
