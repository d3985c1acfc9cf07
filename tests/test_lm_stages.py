"""What a language model goes through after its supervised fine-tuning: preferences, grades, teachers, merging."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import pytest
from pydantic import ValidationError

from postgrad.errors import UserError
from postgrad.records import Generation, Row
from postgrad.testing.language import make_tiny_lm
from postgrad.train import lm_watch
from postgrad.train.base import CheckFailed, FitJob, Texts
from postgrad.train.causal_lm import CausalLM
from postgrad.train.lm_model import load_weights
from postgrad.train.lm_score import log_likelihoods

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

COLOURS = ("red", "blue", "green", "black")
THINGS = ("car", "hat", "pen", "cup", "bag", "key")
GENERATION = Generation(prompt="{input}", max_new_tokens=6)
SFT: dict[str, Any] = {"tune": "full", "lr": 3e-3, "epochs": 12, "batch_size": 8, "precision": "fp32"}
NONE: dict[str, Any] = {"tune": "none", "precision": "fp32"}
NO_START = {"method": "grpo", "tune": "full", "beta": 0.1}
ALL = {"tune": "full", "lr": 1e-3, "batch_size": 8}


def _rows() -> tuple[Row, ...]:
    """Texts whose answer is their second word."""
    return tuple(Row(f"{c} {t}", f"the {c} {t}", c) for t in THINGS for c in COLOURS)


def _grade(rows: Sequence[Row], answers: Sequence[str]) -> list[float]:
    return [float(row.label == answer) for row, answer in zip(rows, answers, strict=True)]


def _job(base: Path, folder: Path, params: dict[str, Any], **more: Any) -> FitJob:
    given: dict[str, Any] = {"labels": (), "out_of_scope": None, "generation": GENERATION, "grade": _grade, **more}
    checked = CausalLM.Params.model_validate(params)
    return FitJob(
        rows=_rows(), params=checked, base_model=base, seed=3, threads=1, checkpoint=folder / "checkpoint", **given
    )


def _right(model: Any) -> float:
    rows = _rows()
    said = model.predict([row.text for row in rows])
    assert isinstance(said, Texts)
    return float(np.mean(_grade(rows, said.texts)))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_lm(tmp_path_factory.mktemp("tiny"), [f"the {c} {t}" for t in THINGS for c in COLOURS] * 3)


@pytest.fixture(scope="module")
def half(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model that answers with a colour, and rarely with the right one."""
    folder = tmp_path_factory.mktemp("half")
    CausalLM().fit(_job(tiny, folder, {**SFT, "epochs": 10})).save(folder / "model")
    return folder / "model" / "language_model"


def _margin(model: Any, rows: Sequence[Row]) -> float:
    """How much likelier the right colour is than the others, in nats, on average."""
    prompts = [model.renderer.prompt(row.text).ids for row in rows]
    answers = [model.renderer.target(colour) for colour in COLOURS]
    found = log_likelihoods(model.model, prompts, answers, model.renderer.prefix)
    own = np.array([found[i, COLOURS.index(row.label)] for i, row in enumerate(rows)])
    return float((own - (found.sum(1) - own) / (len(COLOURS) - 1)).mean())


@pytest.mark.parametrize("method", ["dpo", "kto", "orpo"])
def test_preferences_make_the_right_answer_likelier_than_the_wrong_ones(
    method: str, half: Path, tmp_path: Path
) -> None:
    before: Any = CausalLM().fit(_job(half, tmp_path / "before", NONE))
    epochs = 20 if method == "orpo" else 6
    stage = {**ALL, "method": method, "rows": 24, "samples": 4, "epochs": epochs, "beta": 0.5}
    after: Any = CausalLM().fit(_job(half, tmp_path / "after", {**NONE, "then": [stage]}))
    assert _margin(after, _rows()) > _margin(before, _rows()) + 1.0
    assert [method for method, _ in after.passed] == ["none", method]


def test_preferences_over_labels_take_the_likeliest_wrong_one(half: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {"labels": COLOURS, "grade": None}
    rows = [row.text for row in _rows()]
    truth = np.array([COLOURS.index(row.label) for row in _rows()])

    def right(params: dict[str, Any], name: str) -> float:
        found: Any = CausalLM().fit(_job(half, tmp_path / name, params, **more)).predict(rows)
        return float((found.probs.argmax(1) == truth).mean())

    stage = {**ALL, "method": "dpo", "epochs": 10, "lr": 2e-3}
    assert right({**NONE, "then": [stage]}, "after") > right(NONE, "before") + 0.15


def test_grpo_raises_the_grade_that_it_learns_from(half: Path, tmp_path: Path) -> None:
    told: list[float] = []
    stage = {**ALL, "method": "grpo", "steps": 20, "prompts": 8, "samples": 8, "lr": 4e-3}
    job = _job(half, tmp_path / "after", {**NONE, "then": [stage]})
    after = CausalLM().fit(replace(job, report=lambda step, loss: told.append(loss)))
    before = CausalLM().fit(_job(half, tmp_path / "before", NONE))
    assert _right(after) > _right(before) + 0.2
    assert len(told) == 20 and np.mean(told[-5:]) < np.mean(told[:5]) - 0.2


def test_rejection_sampling_trains_on_answers_that_the_metric_accepts(half: Path, tmp_path: Path) -> None:
    stage = {**ALL, "method": "rejection", "rows": 24, "samples": 8, "epochs": 4, "with_given": False}
    # Two ways to be right: what is kept is what the model itself says, and not the row's own answer.
    shouted = {**NONE, "then": [stage]}

    def grade(rows: Sequence[Row], answers: Sequence[str]) -> list[float]:
        return [
            float(answer.startswith(row.label[0]) and answer != row.label)
            for row, answer in zip(rows, answers, strict=True)
        ]

    def worth(model: Any) -> float:
        said = model.predict([row.text for row in _rows()]).texts
        return float(np.mean(grade(_rows(), said)))

    before = CausalLM().fit(_job(half, tmp_path / "before", NONE))
    after = CausalLM().fit(_job(half, tmp_path / "after", shouted, grade=grade))
    assert worth(after) > worth(before)


def test_nothing_to_train_on_is_said_before_the_training(half: Path, tmp_path: Path) -> None:
    def none(rows: Sequence[Row], answers: Sequence[str]) -> list[float]:
        return [0.0] * len(answers)

    for stage, kind in (
        ({"method": "rejection", "with_given": False, "rows": 4}, "rejection"),
        ({"method": "dpo", "rows": 4}, "pairs"),
        ({"method": "distil", "rows": 4, "at_least": 0.5, "shots": 2}, "distillation"),
    ):
        with pytest.raises(CheckFailed) as failed:
            CausalLM().fit(_job(half, tmp_path / kind, {**NONE, "then": [stage]}, grade=none))
        assert failed.value.kind == kind


def test_a_teacher_is_learnt_from(tiny: Path, tmp_path: Path) -> None:
    CausalLM().fit(_job(tiny, tmp_path / "teacher", {**SFT, "epochs": 16})).save(tmp_path / "taught")
    teacher = tmp_path / "taught" / "language_model"
    stage = {**ALL, "method": "distil", "teacher": "teacher", "shots": 0, "rows": 24, "epochs": 25, "lr": 3e-3}
    job = _job(tiny, tmp_path / "student", {**NONE, "then": [stage]}, models={"teacher": teacher})
    assert _right(CausalLM().fit(_job(tiny, tmp_path / "before", NONE))) == 0.0
    assert _right(CausalLM().fit(job)) > 0.4
    with pytest.raises(UserError, match="base_models"):
        CausalLM().fit(replace(job, models={}, checkpoint=tmp_path / "other"))


def test_interpolation_lies_between_the_base_and_the_tuned_weights(half: Path, tmp_path: Path) -> None:
    tuned: Any = CausalLM().fit(_job(half, tmp_path / "tuned", SFT))
    merge = {"method": "interpolate", "share": 0.25}
    between: Any = CausalLM().fit(_job(half, tmp_path / "between", {**SFT, "then": [merge]}))
    import torch

    base = dict(load_weights(half, torch.float32).named_parameters())
    own = dict(between.model.named_parameters())
    for name, parameter in tuned.model.named_parameters():
        wanted = 0.75 * base[name] + 0.25 * parameter
        assert torch.allclose(own[name].float(), wanted.float(), atol=0.01, rtol=0.02), name


def test_continued_pretraining_learns_the_texts_and_no_answers(tiny: Path, tmp_path: Path) -> None:
    told: list[float] = []
    stage = {**ALL, "method": "pretrain", "epochs": 30, "block": 32, "lr": 3e-3}
    job = _job(tiny, tmp_path, {**NONE, "then": [stage]})
    CausalLM().fit(replace(job, report=lambda step, loss: told.append(loss)))
    assert told[-1] < 0.6 * told[0]


def test_stages_follow_each_other_and_a_killed_one_begins_with_what_it_had(
    half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm_watch, "CHECKPOINT_PAUSE_S", 0.0)
    monkeypatch.setattr(lm_watch, "CHECKPOINT_MB_A_SECOND", 1e9)
    then = [
        {**ALL, "method": "sft", "epochs": 2, "lr": 1e-3},
        {**ALL, "method": "grpo", "steps": 6, "prompts": 4, "samples": 4},
    ]
    job = _job(half, tmp_path, {**SFT, "epochs": 1, "then": then})
    # Three steps of the first training, six of the second, six of GRPO: killed in the middle of the last.
    seen: list[int] = []

    def kill(step: int, loss: float) -> None:
        seen.append(step)
        if len(seen) == 12:
            os.kill(os.getpid(), signal.SIGKILL)

    if not (child := os.fork()):
        try:
            CausalLM().fit(replace(job, report=kill))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    again: list[int] = []
    resumed: Any = CausalLM().fit(replace(job, report=lambda step, loss: again.append(step)))
    assert again == [3, 4, 5, 6]
    whole: Any = CausalLM().fit(replace(job, checkpoint=tmp_path / "whole"))
    assert [method for method, _ in whole.passed] == ["full", "sft", "grpo"]
    assert resumed.passed == whole.passed
    resumed.save(tmp_path / "saved")
    loaded: Any = CausalLM().load(tmp_path / "saved")
    assert loaded.passed == whole.passed


def test_settings_of_another_method_are_refused() -> None:
    for stage in ({"method": "dpo", "steps": 3}, {"method": "magic"}, {"method": "sft", "tune": "none"}, NO_START):
        with pytest.raises(ValidationError):
            CausalLM.Params.model_validate({**SFT, "then": [stage]})


# --- memory and time --------------------------------------------------------------------------------------------------


def test_out_of_memory_goes_on_with_fewer_rows_at_once_to_the_same_weights(
    half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import LlamaForCausalLM

    job = _job(half, tmp_path, {**SFT, "epochs": 2})
    whole: Any = CausalLM().fit(replace(job, checkpoint=tmp_path / "whole"))
    true, calls = LlamaForCausalLM.forward, []

    def forward(self: Any, *args: Any, **more: Any) -> Any:
        if self.training:
            calls.append(len(more["input_ids"]))
            if len(calls) > 3 and calls[-1] > 4:
                raise torch.OutOfMemoryError("made up")
        return true(self, *args, **more)

    monkeypatch.setattr(LlamaForCausalLM, "forward", forward)
    told: list[int] = []
    retried: Any = CausalLM().fit(replace(job, report=lambda step, loss: told.append(step)))
    assert calls[:5] == [8, 8, 8, 8, 4] and told == [1, 2, 3, 4, 5, 6]
    own = dict(retried.model.named_parameters())
    for name, parameter in whole.model.named_parameters():
        assert torch.allclose(own[name], parameter, atol=2e-3), name


def test_memory_that_runs_out_twice_is_a_failure(half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    tried: list[int] = []
    true = LlamaForCausalLM.forward

    def forward(self: Any, *args: Any, **more: Any) -> Any:
        if not self.training:
            return true(self, *args, **more)
        tried.append(len(more["input_ids"]))
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(LlamaForCausalLM, "forward", forward)
    with pytest.raises(RuntimeError, match="allocate"):
        CausalLM().fit(_job(half, tmp_path, SFT))
    assert tried == [8, 4]


def test_a_training_that_cannot_end_in_time_is_given_up_after_its_first_steps(half: Path, tmp_path: Path) -> None:
    told: list[int] = []
    measured: dict[str, float] = {}
    job = _job(half, tmp_path, {**SFT, "epochs": 200})
    job = replace(job, report=lambda step, loss: told.append(step), measure=measured.__setitem__, most_s=1.0)
    with pytest.raises(CheckFailed, match="job_wall_s") as failed:
        CausalLM().fit(job)
    assert failed.value.kind == "too_slow" and len(told) == 5
    assert 0.5 <= measured["memory_factor"] <= 4.0


def test_only_the_first_training_of_a_process_says_what_memory_it_took(half: Path, tmp_path: Path) -> None:
    """Later ones find memory that was given back, and would seem to need none."""
    told: list[str] = []
    then = [{**ALL, "method": "sft", "epochs": 3}]
    job = _job(half, tmp_path, {**SFT, "epochs": 3, "then": then})
    CausalLM().fit(replace(job, measure=lambda name, value: told.append(name)))
    assert told == ["memory_factor"]


def test_what_was_measured_changes_how_many_rows_go_through_at_once() -> None:
    from postgrad.train.lm_memory import Needs

    needs = Needs(model=500, moments=1000, row=100)
    assert needs.micro(16, 3200) == 16
    assert needs.micro(16, 3200, 1.5) == 8
    assert needs.micro(16, 3200, 3.0) == 1


# --- a base in four bits ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs the extra quant")
def test_adapters_learn_on_a_base_in_four_bits_and_are_merged_into_the_whole_one(half: Path, tmp_path: Path) -> None:
    params = {**SFT, "tune": "qlora", "lr": 5e-3, "lora_alpha": 64}
    before = _right(CausalLM().fit(_job(half, tmp_path / "before", NONE)))
    model: Any = CausalLM().fit(_job(half, tmp_path / "after", params))
    assert _right(model) > before + 0.3
    assert not any("bitsandbytes" in type(module).__module__ for module in model.model.modules())
    # Reads the model back, and the adapter on its base in full precision.
    model.save(tmp_path / "saved")


def test_four_bits_without_the_library_say_what_to_install(
    half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postgrad.train.lm_model.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"postgrad\[quant\]"):
        CausalLM().fit(_job(half, tmp_path, {**SFT, "tune": "qlora"}))
