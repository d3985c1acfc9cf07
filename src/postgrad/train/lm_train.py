"""Supervised fine-tuning of a language model by TRL, with checkpoints, and the same weights for the same seed."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any, Sequence

from postgrad.records import content_hash
from postgrad.train.base import FitJob, TrainingDiverged
from postgrad.train.curve import hopeless
from postgrad.train.lm_checks import NO_LOSS, Tokens
from postgrad.train.lm_model import Adapter
from postgrad.train.lm_params import CausalLMParams
from postgrad.train.lm_plan import micro_batch, order_of

# As in tuning.py: checkpoints may write this much for each second of training.
CHECKPOINT_MB_A_SECOND = 10.0
CHECKPOINT_PAUSE_S = 1.0
# Written last into a checkpoint: one without it was cut off while it was written.
WHOLE = "whole.json"
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def with_adapters(model: Any, params: CausalLMParams) -> Any:
    """The model with new low-rank adapters, which alone are trained."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=params.lora_r,
        lora_alpha=params.lora_alpha,
        lora_dropout=params.lora_dropout,
        use_dora=params.tune == "dora",
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def adapter_of(model: Any, job: FitJob) -> Adapter:
    """The adapters of a model, by themselves. The base is named without the folders that lead to it."""
    from peft import get_peft_model_state_dict

    tensors = {name: tensor.detach().cpu().clone() for name, tensor in get_peft_model_state_dict(model).items()}
    facts = model.peft_config["default"].to_dict() | {"inference_mode": True}
    facts["base_model_name_or_path"] = job.base_model.name if job.base_model else None
    facts["target_modules"] = sorted(facts["target_modules"])
    return Adapter(tensors, json.dumps(facts, indent=1, sort_keys=True, default=str))


def tune(job: FitJob, params: CausalLMParams, model: Any, tokenizer: Any, rows: Sequence[Tokens], bf16: bool) -> None:
    """Train the weights of `model` that require a gradient.

    Raises:
        TrainingDiverged: a loss or a weight is not finite, or the loss has only risen.
    """
    import torch

    lengths = [len(row.ids) for row in rows]
    batch = min(params.batch_size, len(rows))
    order = order_of(lengths, batch, params.epochs, job.seed)
    asked = max(sum(label != NO_LOSS for label in row.labels) for row in rows)
    micro = micro_batch(params, batch, model, max(lengths), asked if job.labels else max(lengths))
    steps = math.ceil(len(order) / batch)
    watch = Watch(job, params, model, steps)
    trainer = _trainer(
        job, params, model, tokenizer, _dataset(rows, order), watch, (micro, batch // micro, steps), bf16
    )
    trainer.train(resume_from_checkpoint=watch.latest())
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters() if p.requires_grad):
        raise TrainingDiverged("a weight is not finite after the last step")


def _dataset(rows: Sequence[Tokens], order: Sequence[int]) -> Any:
    """The rows as they are to be seen, one after the other. They are kept once."""
    from datasets import Dataset

    columns = {"input_ids": [list(row.ids) for row in rows], "labels": [list(row.labels) for row in rows]}
    return Dataset.from_dict(columns).select(order, keep_in_memory=True)


class Watch:
    """Reports, keeps and finds checkpoints, and gives a training up that goes nowhere."""

    def __init__(self, job: FitJob, params: CausalLMParams, model: Any, steps: int) -> None:
        self.job, self.steps = job, steps
        facts = [job.params.model_dump(mode="json"), job.rows, job.labels, job.out_of_scope, str(job.base_model)]
        self.identity = content_hash([*facts, job.seed, job.generation.model_dump(mode="json")])
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.pause_s = max(CHECKPOINT_PAUSE_S, 12 * trained / 1e6 / CHECKPOINT_MB_A_SECOND)
        self.next = time.monotonic() + CHECKPOINT_PAUSE_S
        self.losses: list[float] = []

    def latest(self) -> str | None:
        """The newest whole checkpoint of this training; others are removed."""
        found = None
        for folder in sorted(self.job.checkpoint.glob("checkpoint-*"), key=_step):
            mark = folder / WHOLE
            if mark.exists() and json.loads(mark.read_text(encoding="utf-8")).get("identity") == self.identity:
                found = folder
        self.only(found)
        return str(found) if found else None

    def only(self, kept: Path | None) -> None:
        """Remove all other checkpoints."""
        for folder in self.job.checkpoint.glob("checkpoint-*"):
            if folder != kept:
                shutil.rmtree(folder, ignore_errors=True)

    def due(self) -> bool:
        """True when it is time for a checkpoint."""
        return time.monotonic() >= self.next

    def saved(self, step: int) -> None:
        """A checkpoint is on the disk: mark it, and let the older ones go."""
        folder = self.job.checkpoint / f"checkpoint-{step}"
        unfinished = folder / f"{WHOLE}.part"
        for path in folder.iterdir():
            _flush(path)
        unfinished.write_text(json.dumps({"identity": self.identity}), encoding="utf-8")
        os.replace(unfinished, folder / WHOLE)
        self.only(folder)
        self.next = time.monotonic() + self.pause_s

    def logged(self, step: int, loss: float) -> None:
        """Called after every step."""
        if not math.isfinite(loss):
            raise TrainingDiverged(f"the loss is {loss} at step {step}")
        self.losses.append(loss)
        self.job.report(step, loss)
        if (why := hopeless(self.losses, self.steps)) is not None:
            raise TrainingDiverged(why)


def _step(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _flush(path: Path) -> None:
    if path.is_file():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _trainer(
    job: FitJob,
    params: CausalLMParams,
    model: Any,
    tokenizer: Any,
    dataset: Any,
    watch: Watch,
    sizes: tuple[int, int, int],
    bf16: bool,
) -> Any:
    """TRL's trainer, which writes nothing but checkpoints and reaches no network.

    Args:
        sizes: rows at once, how often before a step, and steps.
    """
    import torch
    from transformers import PrinterCallback
    from trl.trainer.sft_config import SFTConfig

    at_once, accumulated, steps = sizes
    settings = SFTConfig(
        output_dir=str(job.checkpoint),
        use_cpu=model.device.type == "cpu",
        seed=job.seed % 2**32,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=accumulated,
        num_train_epochs=1,
        learning_rate=params.lr,
        lr_scheduler_type=SCHEDULES[params.scheduler],
        warmup_steps=round(params.warmup * steps),
        weight_decay=params.weight_decay,
        max_grad_norm=params.max_grad_norm,
        optim="adamw_torch",
        bf16=bf16,
        fp16=False,
        gradient_checkpointing=params.gradient_checkpointing,
        padding_free=params.packing,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="sequential",
        dataloader_pin_memory=False,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        push_to_hub=False,
        disable_tqdm=True,
    )
    torch.manual_seed(job.seed)
    trainer = _trainer_class()(
        model=model, args=settings, train_dataset=dataset, processing_class=tokenizer, callbacks=[_callback(watch)]
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _trainer_class() -> Any:
    """TRL's trainer without its telemetry; on a CPU with a loss that looks at the tokens of answers only.

    TRL works the output layer out for every token there, which for short answers to long prompts is most of what that
    layer costs; on a GPU it leaves the others out by itself.
    """
    from torch.nn import functional as F
    from trl.trainer.sft_trainer import SFTTrainer

    class AnswerTrainer(SFTTrainer):
        def _send_telemetry(self) -> None:
            return None

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            if inputs["labels"].device.type != "cpu":
                theirs: Any = super().compute_loss
                return theirs(model, inputs, return_outputs, num_items_in_batch)
            labels = inputs.pop("labels")[:, 1:]
            kept = (labels != NO_LOSS).any(0).nonzero()[:, 0]
            logits = model(**inputs, use_cache=False, logits_to_keep=kept).logits
            labels = labels[:, kept].flatten()
            total = F.cross_entropy(logits.flatten(0, 1).float(), labels, ignore_index=NO_LOSS, reduction="sum")
            return total / (num_items_in_batch if num_items_in_batch is not None else (labels != NO_LOSS).sum())

    return AnswerTrainer


def _callback(watch: Watch) -> Any:
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            watch.losses = [entry["loss"] for entry in state.log_history if "loss" in entry]

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
            control.should_save = watch.due() and state.global_step < watch.steps
            return control

        def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            watch.saved(state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
            if "loss" in (logs or {}):
                watch.logged(state.global_step, logs["loss"])

    return Watcher()
