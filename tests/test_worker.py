"""The worker: what it writes, what it says when something is wrong, and that a killed job ends as one that was not."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

import postgrad
from postgrad.data.decontaminate import find_overlaps
from postgrad.data.negatives import background_texts
from postgrad.engines.local import WORKER, environment
from postgrad.errors import UserError
from postgrad.execute.boundary import JobFailed, boundary
from postgrad.execute.worker import STOPPED, TRAINED, Progress, Worker, main
from postgrad.records import JobResult, JobSpec, Limits, Recipe, Row, Stage, Step, Unit
from postgrad.testing.backend import LABELS, OUT_OF_SCOPE, WORDS, example_rows
from postgrad.testing.encoder import make_tiny_encoder
from postgrad.testing.engine import until
from postgrad.train import BACKENDS
from postgrad.train.base import TrainingDiverged, labelled

ASKED = [{"id": f"q{number}", "text": f"{row.text} thanks"} for number, row in enumerate(example_rows(3))]
TINY: dict[str, Any] = {"batch_size": 8, "lr": 5e-4, "epochs": 60, "precision": "fp32"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = {word for phrases in WORDS.values() for phrase in phrases for word in phrase.split()}
    return make_tiny_encoder(tmp_path_factory.mktemp("tiny"), sorted(words))


def make_job(folder: Path, stage: Stage, units: int = 1, rows: tuple[Row, ...] | None = None, **facts: Any) -> JobSpec:
    """A job folder as the executor writes it."""
    recipe = Recipe(stage=stage, data=facts.pop("data", ()))
    spec = JobSpec(
        job="job",
        experiment="e0001",
        recipe=recipe,
        labels=LABELS,
        out_of_scope=OUT_OF_SCOPE,
        base_model=facts.pop("base_model", None),
        units=tuple(Unit(name=f"u{i}", train=f"t{i}.jsonl", predict=f"p{i}.jsonl", seed=5 + i) for i in range(units)),
        limits=Limits(wall_s=100, memory_mb=4000, threads=1),
        **facts,
    )
    folder.mkdir(exist_ok=True)
    for unit in spec.units:
        lines = [json.dumps(row._asdict()) for row in (example_rows() if rows is None else rows)]
        (folder / unit.train).write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / unit.predict).write_text("".join(json.dumps(item) + "\n" for item in ASKED), encoding="utf-8")
    (folder / "job.json").write_text(spec.model_dump_json())
    return spec


def outputs(folder: Path, unit: str = "u0") -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    with np.load(folder / f"out-{unit}.npz", allow_pickle=False) as file:
        assert [str(name) for name in file["ids"]] == [item["id"] for item in ASKED]
        return file["probs"], file["score"]


def start(folder: Path) -> subprocess.Popen[bytes]:
    private = folder / "private"
    private.mkdir(exist_ok=True)
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen([*WORKER, str(folder)], env=environment(private, 1), stdout=log, stderr=log)


CLASSIC = Stage(backend="classic")


# --- what it writes ---------------------------------------------------------------------------------------------------


def test_units_are_trained_and_answered(tmp_path: Path) -> None:
    spec = make_job(tmp_path, CLASSIC, units=2, data=(Step(op="normalise"), Step(op="dedup")))
    assert main([str(tmp_path)]) == 0
    result = JobResult.model_validate_json((tmp_path / "result.json").read_text())
    assert result.failure is None and result.model is None
    assert [unit.name for unit in result.units] == [unit.name for unit in spec.units]
    for unit in result.units:
        probs, score = outputs(tmp_path, unit.name)
        assert probs.shape == (len(ASKED), len(LABELS)) and score.shape == (len(ASKED),)
        assert probs.dtype == score.dtype == np.float32
        assert [step.op for step in unit.steps] == ["normalise", "dedup", "decontaminate"]
        assert unit.steps[0].rows_in == len(example_rows()) and unit.wall_s > 0
    facts = json.loads((tmp_path / "progress.json").read_text())
    assert (facts["unit"], facts["units"], facts["name"]) == (2, 2, "u1")


def test_data_steps_depend_on_the_unit_seed_alone(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        spec = make_job(tmp_path / name, CLASSIC, units=2, data=(Step(op="typos"),))
        worker = Worker(tmp_path / name, spec)
        found.append([worker._rows(unit)[0] for unit in spec.units])
    assert found[0] == found[1]
    assert found[0][0] != found[0][1], "units with other seeds are changed in other ways"


def test_rows_that_are_asked_are_not_trained_on(tmp_path: Path) -> None:
    leaked = Row("leak", f"  {ASKED[0]['text'].upper()} ", LABELS[0])
    spec = make_job(tmp_path, CLASSIC, rows=(*example_rows(), leaked))
    rows, reports = Worker(tmp_path, spec)._rows(spec.units[0])
    assert leaked not in rows
    assert reports[-1].op == "decontaminate" and reports[-1].dropped >= 1
    near = find_overlaps(example_rows(), [(item["id"], item["text"]) for item in ASKED])
    assert {row.id for row in example_rows()} - {row.id for row in rows} == {match.row for match in near}
    assert 0 < len(near) < len(example_rows())


def test_rows_that_data_steps_made_are_checked_and_named_by_id(tmp_path: Path) -> None:
    """Everyday utterances are negatives to train on and questions of the referee: not in the same unit."""
    asked = background_texts()
    spec = make_job(tmp_path, CLASSIC, data=(Step(op="background", params={"share": 1.0, "max_similarity": 1.0}),))
    lines = [json.dumps({"id": str(n), "text": text.upper() + "!"}) + "\n" for n, text in enumerate(asked)]
    (tmp_path / "p0.jsonl").write_text("".join(lines), encoding="utf-8")
    rows, (made, checked) = Worker(tmp_path, spec)._rows(spec.units[0])
    assert made.added == len(example_rows()) and not any("+background" in row.id for row in rows)
    gone = [name for ids in checked.removed.values() for name in ids]
    assert sum("+background" in name for name in gone) == made.added
    assert checked.dropped == len(gone) == checked.rows_in - checked.rows_out
    assert not any(text in checked.model_dump_json() for text in asked if len(text) > 12)


def test_what_the_final_model_was_trained_on_is_kept(tmp_path: Path) -> None:
    spec = make_job(tmp_path, CLASSIC, save_model=True, data=(Step(op="typos"),))
    assert main([str(tmp_path)]) == 0
    lines = (tmp_path / TRAINED).read_text(encoding="utf-8").splitlines()
    assert tuple(Row(**json.loads(line)) for line in lines) == Worker(tmp_path, spec)._rows(spec.units[0])[0]
    other = tmp_path / "other"
    make_job(other, CLASSIC)
    assert main([str(other)]) == 0 and not (other / TRAINED).exists()


def test_the_saved_model_is_the_one_that_answered(tmp_path: Path) -> None:
    spec = make_job(tmp_path, CLASSIC, save_model=True)
    assert Worker(tmp_path, spec).run().model == "model"
    facts = json.loads((tmp_path / "model" / "postgrad.json").read_text())
    assert tuple(facts["labels"]) == LABELS and facts["out_of_scope"] == OUT_OF_SCOPE
    assert facts["seed"] == 5 and facts["postgrad"] == postgrad.__version__
    assert Recipe.model_validate(facts["recipe"]) == spec.recipe
    loaded = BACKENDS.get(facts["backend"]).load(tmp_path / "model")
    probs, score = outputs(tmp_path)
    again = labelled(loaded.predict([item["text"] for item in ASKED]))
    assert np.allclose(again.probs, probs, atol=1e-5) and np.allclose(again.score, score, atol=1e-5)


def test_a_text_may_hold_line_separators(tmp_path: Path) -> None:
    rows = (*example_rows(), Row("odd", "one\u2028two\x85three\nfour", "size"))
    spec = make_job(tmp_path, CLASSIC, rows=rows)
    text = "\n".join(json.dumps(row._asdict(), ensure_ascii=False) for row in rows)
    (tmp_path / "t0.jsonl").write_text(text, encoding="utf-8")
    assert rows[-1] in Worker(tmp_path, spec)._rows(spec.units[0])[0]


def test_history_is_thinned_and_finite(tmp_path: Path) -> None:
    progress = Progress(tmp_path, units=1)
    progress.start(1, "u0")
    for step in range(1000):
        progress.report(step, float("nan") if step == 500 else 1.0 / (step + 1))
    thinned = progress.thinned()
    assert len(thinned) <= 200 and thinned[-1][0] == 999 and thinned[0][0] < 10
    assert all(np.isfinite(loss) for _, loss in thinned)


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "data", "address", "message"),
    [
        (Stage(backend="classic", params={"C": -1}), (), ("recipe", "invalid"), "C: Input should be greater than 0"),
        (Stage(backend="classic", params={"c": 1}), (), ("recipe", "invalid"), "c: Extra inputs"),
        (Stage(backend="clasic"), (), ("recipe", "invalid"), "Did you mean 'classic'"),
        (Stage(backend="embedder"), (), ("recipe", "invalid"), "base_model"),
        (CLASSIC, (Step(op="dedupe"),), ("recipe", "invalid"), "Did you mean 'dedup'"),
        (CLASSIC, (Step(op="typos", params={"no": 1}),), ("recipe", "invalid"), "no: Extra inputs"),
    ],
)
def test_recipes_that_cannot_be_run(
    stage: Stage, data: tuple[Step, ...], address: tuple[str, str], message: str, tmp_path: Path
) -> None:
    result = Worker(tmp_path, make_job(tmp_path, stage, data=data)).run()
    assert result.failure is not None and not result.units
    assert (result.failure.boundary, result.failure.kind) == address
    assert message in result.failure.message


@pytest.mark.parametrize("rows", [(), (Row("a", "a joke", OUT_OF_SCOPE),)])
def test_no_rows_are_left(rows: tuple[Row, ...], tmp_path: Path) -> None:
    failure = Worker(tmp_path, make_job(tmp_path, CLASSIC, rows=rows)).run().failure
    assert failure is not None and (failure.boundary, failure.kind) == ("data", "empty")


def test_a_diverging_training(tiny: Path, tmp_path: Path) -> None:
    stage = Stage(backend="embedder", params={**TINY, "lr": 1e30, "head_lr": 1e30})
    failure = Worker(tmp_path, make_job(tmp_path, stage, base_model=str(tiny))).run().failure
    assert failure is not None and (failure.boundary, failure.kind) == ("train", "nan")
    assert "TrainingDiverged" in failure.evidence


def test_a_broken_base_model(tiny: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny.glob("*.json"):
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.safetensors").write_bytes(b"not weights")
    stage = Stage(backend="embedder", params={"tune": "frozen"})
    failure = Worker(tmp_path, make_job(tmp_path, stage, base_model=str(broken))).run().failure
    assert failure is not None and (failure.boundary, failure.kind) == ("train", "crash")
    assert len(failure.evidence.splitlines()) <= 20 and "SafetensorError" in failure.evidence


def test_what_was_done_before_a_failure_is_kept(tmp_path: Path) -> None:
    spec = make_job(tmp_path, CLASSIC, units=3)
    (tmp_path / "t2.jsonl").write_text('{"id": "broken"')
    assert main([str(tmp_path)]) == 1
    result = JobResult.model_validate_json((tmp_path / "result.json").read_text())
    assert [unit.name for unit in result.units] == ["u0", "u1"]
    assert result.failure is not None and (result.failure.boundary, result.failure.kind) == ("data", "crash")
    assert outputs(tmp_path, "u1")[0].shape[0] == len(ASKED)
    assert spec.units[2].name not in {unit.name for unit in result.units}


def _raise(error: BaseException) -> Callable[[], object]:
    def raising() -> object:
        raise error

    return raising


def _torch_out_of_memory() -> object:
    import torch

    return torch.empty(1 << 50)


def _invalid() -> object:
    return TypeAdapter(int).validate_python("x")


@pytest.mark.parametrize(
    ("act", "address"),
    [
        (_raise(MemoryError()), ("resource", "oom")),
        (lambda: np.ones((1 << 25, 1 << 25)), ("resource", "oom")),
        (_torch_out_of_memory, ("resource", "oom")),
        (_raise(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))), ("resource", "oom")),
        (_raise(OSError(errno.ENOSPC, "No space left on device")), ("resource", "disk")),
        (_raise(TrainingDiverged("the loss is nan")), ("train", "nan")),
        (_raise(UserError("no")), ("recipe", "invalid")),
        (_invalid, ("recipe", "invalid")),
        (lambda: 1 / 0, ("predict", "crash")),
        (_raise(OSError(errno.ENOENT, "gone")), ("predict", "crash")),
    ],
)
def test_exceptions_have_an_address(act: Callable[[], object], address: tuple[str, str]) -> None:
    with pytest.raises(JobFailed) as caught, boundary("predict"):
        act()
    failure = caught.value.failure
    assert (failure.boundary, failure.kind) == address
    assert failure.message and failure.evidence


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_an_order_to_stop_is_no_failure(error: BaseException) -> None:
    with pytest.raises(type(error)), boundary("train"):
        _raise(error)()


def test_the_innermost_boundary_counts() -> None:
    with pytest.raises(JobFailed) as caught, boundary("train"), boundary("data"):
        _raise(ValueError("x"))()
    assert caught.value.failure.boundary == "data"


# --- killed and started again -----------------------------------------------------------------------------------------


def test_finished_units_are_not_done_again(tmp_path: Path) -> None:
    spec = make_job(tmp_path, CLASSIC, units=2)
    (tmp_path / "t1.jsonl").rename(tmp_path / "hidden")
    first = Worker(tmp_path, spec).run()
    assert [unit.name for unit in first.units] == ["u0"]
    written = (tmp_path / "out-u0.npz").stat().st_mtime_ns
    (tmp_path / "hidden").rename(tmp_path / "t1.jsonl")
    second = Worker(tmp_path, spec).run()
    assert second.failure is None and [unit.name for unit in second.units] == ["u0", "u1"]
    assert second.units[0] == first.units[0]
    assert (tmp_path / "out-u0.npz").stat().st_mtime_ns == written


def test_a_killed_training_ends_as_if_it_had_not_been(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(backend="embedder", params=TINY)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    specs = [make_job(folder, stage, base_model=str(tiny)) for folder in (whole, killed)]
    process = start(killed)
    until(lambda: any((killed / "checkpoint" / "u0").glob("state-*.pt")) or process.poll() is not None)
    assert process.poll() is None, "it was still training when its first checkpoint appeared"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "out-u0.npz").exists()
    straight, resumed = (Worker(folder, spec).run() for folder, spec in zip((whole, killed), specs, strict=True))
    assert straight.failure is None and resumed.failure is None
    assert "goes on after step" in capsys.readouterr().out, "it did not begin again"
    assert resumed.units[0].history[-1] == straight.units[0].history[-1]
    for mine, theirs in zip(outputs(whole), outputs(killed), strict=True):
        assert np.array_equal(mine, theirs)
    assert not (killed / "checkpoint" / "u0").exists(), "what nobody goes on from takes no room"


def test_a_worker_whose_controller_is_gone_does_not_start(tmp_path: Path) -> None:
    make_job(tmp_path, CLASSIC)
    ours, theirs = socket.socketpair()
    ours.close()
    env = {**environment(tmp_path, 1), "POSTGRAD_LINE": str(os.fstat(theirs.fileno()).st_ino)}
    with theirs:
        command = [sys.executable, "-m", "postgrad.execute.worker", str(tmp_path)]
        done = subprocess.run(command, env=env, stdin=theirs.fileno())
    assert done.returncode == STOPPED
    assert not (tmp_path / "result.json").exists()


def test_a_job_of_a_newer_postgrad_is_refused(tmp_path: Path) -> None:
    make_job(tmp_path, CLASSIC)
    facts = json.loads((tmp_path / "job.json").read_text())
    (tmp_path / "job.json").write_text(json.dumps({**facts, "from_the_future": 1}))
    with pytest.raises(ValidationError):
        main([str(tmp_path)])
