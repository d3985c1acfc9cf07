"""Checkpoints that were cut off, damaged or had no room: the one before is gone on from, or the beginning."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import numpy as np
import pytest
import torch

from postgrad.records import Generation, Row
from postgrad.testing.backend import LABELS, OUT_OF_SCOPE, WORDS, example_rows
from postgrad.testing.encoder import make_tiny_encoder
from postgrad.train import lm_watch, tuning
from postgrad.train.base import FitJob
from postgrad.train.embedder import Embedder
from postgrad.train.lm_watch import Watch, is_whole, mark_whole

PARAMS: dict[str, Any] = {
    "epochs": 4, "contrastive_epochs": 2, "batch_size": 4, "lr": 5e-4, "dropout": 0.2, "precision": "fp32",
}  # fmt: skip
STEPS_AN_EPOCH = 6


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = {word for phrases in WORDS.values() for phrase in phrases for word in phrase.split()}
    return make_tiny_encoder(tmp_path_factory.mktemp("tiny"), sorted(words))


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a training that was left alone comes to."""
    return weights(Embedder().fit(job_in(tmp_path_factory.mktemp("whole"), tiny)))


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step."""
    for name, value in (("CHECKPOINT_PAUSE_S", 0.0), ("CHECKPOINT_MB_A_SECOND", 1e9), ("WITHIN_EPOCH_S", 0.0)):
        monkeypatch.setattr(tuning, name, value)


def rows() -> tuple[Row, ...]:
    negatives = tuple(Row(f"n{i}", f"what is {word}", OUT_OF_SCOPE) for i, word in enumerate(("rain", "love", "ink")))
    return (*example_rows()[: 4 * STEPS_AN_EPOCH], *negatives)


def job_in(folder: Path, tiny: Path, **changes: Any) -> FitJob:
    return FitJob(
        rows=rows(),
        labels=LABELS,
        out_of_scope=OUT_OF_SCOPE,
        params=Embedder.Params.model_validate(PARAMS | changes),
        base_model=tiny,
        seed=3,
        threads=1,
        checkpoint=folder / "checkpoint",
    )


def weights(fitted: Any) -> dict[str, Any]:
    """Everything that was trained: the encoder, and the head through its answers."""
    found = {name: tensor.clone() for name, tensor in fitted.encoder.state_dict().items()}
    outputs = fitted.predict([row.text for row in rows()])
    return found | {"probs": torch.from_numpy(np.array(outputs.probs)), "score": torch.from_numpy(outputs.score)}


def assert_same_bits(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert mine.keys() == theirs.keys()
    different = [name for name, tensor in mine.items() if not torch.equal(tensor, theirs[name])]
    assert not different


def killed(job: FitJob, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Train in a process of its own that is killed with SIGKILL in the middle of a step."""
    if not (child := os.fork()):
        try:
            own = tuning.Tuner._loss

            def loss(self: tuning.Tuner, batch: list[int]) -> Any:
                if self.step == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return own(self, batch)

            monkeypatch.setattr(tuning.Tuner, "_loss", loss)
            Embedder().fit(job)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("step", [3, 2 * STEPS_AN_EPOCH, 2 * STEPS_AN_EPOCH + 4])
def test_killed_inside_an_epoch_the_weights_are_the_same_bits(
    step: int, tiny: Path, tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """In the contrastive stage, where the head begins again, and in the last one: optimizer, schedule, order of rows,
    drawn negatives and dropout go on as they would have."""
    job = job_in(tmp_path, tiny)
    killed(job, monkeypatch, step)
    resumed = weights(Embedder().fit(job))
    assert f"goes on after step {step}" in capsys.readouterr().out
    assert_same_bits(resumed, whole)


@pytest.mark.usefixtures("always")
def test_on_a_node_where_the_base_model_lies_elsewhere_a_training_goes_on(
    tiny: Path, tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    job = job_in(tmp_path, tiny)
    killed(job, monkeypatch, 3)
    elsewhere = shutil.copytree(tiny, tmp_path / "cache" / "0123" / tiny.name)
    resumed = weights(Embedder().fit(replace(job, base_model=elsewhere)))
    assert "goes on after step 3" in capsys.readouterr().out
    assert_same_bits(resumed, whole)
    for identity in (tuning._identity, lm_watch.identity_of):
        assert identity(job) == identity(replace(job, base_model=elsewhere))
        assert identity(job) != identity(replace(job, base_model=tmp_path / "another"))


@pytest.mark.usefixtures("always")
def test_killed_adapters_are_the_same_bits(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_in(tmp_path / "killed", tiny, tune="lora")
    killed(job, monkeypatch, 2 * STEPS_AN_EPOCH + 4)
    assert_same_bits(
        weights(Embedder().fit(job)), weights(Embedder().fit(job_in(tmp_path / "whole", tiny, tune="lora")))
    )


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("harm", ["cut", "empty", "flipped", "no archive"])
def test_a_damaged_checkpoint_is_not_used(
    harm: str, tiny: Path, tmp_path: Path, whole: dict[str, Any], capsys: Any
) -> None:
    """A changed byte in the middle is one of a weight, which torch reads without a word."""
    job = job_in(tmp_path, tiny)
    kept = interrupted(job)
    data = bytearray(kept.read_bytes())
    middle = len(data) // 2
    data[middle] ^= 255
    harmed = {"cut": bytes(data[:middle]), "empty": b"", "flipped": bytes(data), "no archive": b"half a state"}[harm]
    kept.write_bytes(harmed)
    assert_same_bits(weights(Embedder().fit(job)), whole)
    said = capsys.readouterr().out
    assert "cannot be read, and is not used" in said and "goes on" not in said


@pytest.mark.usefixtures("always")
def test_where_the_newest_is_damaged_the_one_before_is_used(
    tiny: Path, tmp_path: Path, whole: dict[str, Any], capsys: Any
) -> None:
    """A kill between naming the new one and removing the old one leaves both."""
    job = job_in(tmp_path, tiny)
    interrupted(job)
    (job.checkpoint / f"state-{'0' * 32}.pt").write_bytes(b"half")
    assert_same_bits(weights(Embedder().fit(job)), whole)
    assert f"goes on after step {2 * STEPS_AN_EPOCH}" in capsys.readouterr().out


def interrupted(job: FitJob) -> Path:
    """Train for two of six epochs; the checkpoint that is kept."""

    def stop(step: int, loss: float) -> None:
        if step == 2 * STEPS_AN_EPOCH:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        Embedder().fit(replace(job, report=stop))
    (kept,) = job.checkpoint.iterdir()
    return kept


# --- no room ----------------------------------------------------------------------------------------------------------


def full_after(limit: int) -> None:
    """From here on this process cannot make files larger than that; as on a disk that is full, writing fails."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def in_child(work: Callable[[], None]) -> int:
    """Do it in a process of its own; its exit code."""
    if not (child := os.fork()):
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.usefixtures("always")
def test_where_a_checkpoint_has_no_room_the_one_before_stays_and_training_goes_on(
    tiny: Path, tmp_path: Path, whole: dict[str, Any]
) -> None:
    job = job_in(tmp_path, tiny)
    kept = interrupted(job)
    before = kept.read_bytes()

    def work() -> None:
        full_after(len(before) // 2)
        assert_same_bits(weights(Embedder().fit(job)), whole)

    assert in_child(work) == 0
    assert list(job.checkpoint.iterdir()) == [kept], "nothing half is left"
    assert kept.read_bytes() == before
    assert_same_bits(weights(Embedder().fit(job)), whole)


@pytest.mark.usefixtures("always")
def test_killed_while_it_writes_the_one_before_is_used(
    tiny: Path, tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The kill comes when half of the file is written, before it has its name."""
    job = job_in(tmp_path, tiny)
    interrupted(job)

    def work() -> None:
        own = torch.save

        def half(state: Any, file: Any) -> None:
            own(state, file)
            file.truncate(file.tell() // 2)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(torch, "save", half)
        Embedder().fit(job)

    assert in_child(work) == -signal.SIGKILL
    assert (job.checkpoint / "state.part").exists()
    resumed = weights(Embedder().fit(job))
    assert f"goes on after step {2 * STEPS_AN_EPOCH}" in capsys.readouterr().out
    assert_same_bits(resumed, whole)


# --- of language models -----------------------------------------------------------------------------------------------


def a_checkpoint(folder: Path, step: int) -> Path:
    place = folder / f"checkpoint-{step}"
    place.mkdir(parents=True)
    (place / "model.safetensors").write_bytes(b"weights" * 100)
    (place / "optimizer.pt").write_bytes(b"moments" * 100)
    return place


class Loose:
    """A watch without a training."""

    def __init__(self, folder: Path) -> None:
        job: Any = SimpleNamespace(
            checkpoint=folder,
            params=Embedder.Params.model_validate({}),
            rows=(),
            labels=(),
            out_of_scope=None,
            base_model=None,
            seed=1,
            generation=Generation(),
            report=lambda step, loss: None,
        )
        model = torch.nn.Linear(2, 2)
        probe: Any = SimpleNamespace(stepped=lambda: None)
        self.watch = Watch(job, model, 10, lm_watch.loss_of, probe)


@pytest.mark.parametrize("harm", ["cut", "gone", "mark cut", "mark gone", "changed"])
def test_of_a_language_model_a_checkpoint_that_is_not_as_it_was_is_passed_over(harm: str, tmp_path: Path) -> None:
    watch = Loose(tmp_path).watch
    first, second = a_checkpoint(tmp_path, 1), a_checkpoint(tmp_path, 2)
    for place in (first, second):
        mark_whole(place, watch.identity)
        assert is_whole(place, watch.identity) and not is_whole(place, "another training")
    optimizer, mark = second / "optimizer.pt", second / "whole.json"
    harms: dict[str, Callable[[], object]] = {
        "cut": lambda: optimizer.write_bytes(b"mom"),
        "gone": optimizer.unlink,
        "mark cut": lambda: mark.write_text(mark.read_text()[:20]),
        "mark gone": mark.unlink,
        "changed": lambda: optimizer.write_bytes(optimizer.read_bytes()[:-1] + b"x"),
    }
    harms[harm]()
    assert watch.latest() == str(first)
    assert not second.exists(), "and takes no room"


def test_of_a_language_model_a_checkpoint_without_room_is_none_and_the_one_before_stays(tmp_path: Path) -> None:
    watch = Loose(tmp_path).watch
    first = a_checkpoint(tmp_path, 1)
    assert watch.saved(1)

    def save(*_: Any) -> None:
        (a_checkpoint(tmp_path, 2) / "optimizer.pt").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    watch.careful(save)("model", None)
    assert not watch.saved(2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"] and watch.latest() == str(first)
    a_checkpoint(tmp_path, 3)
    watch.careful(lambda *_: None)("model", None)
    assert watch.saved(3)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


def test_running_out_of_memory_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    def save() -> None:
        raise RuntimeError("CUDA error: out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        Loose(tmp_path).watch.careful(save)()
