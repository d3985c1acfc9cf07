"""Supervised fine-tuning of a language model by TRL, with checkpoints, and the same weights for the same seed."""

from __future__ import annotations

import json
import math
from typing import Any, Callable, Sequence

from postgrad.records import content_hash
from postgrad.train import lm_ranks
from postgrad.train.base import FitJob, TrainingDiverged
from postgrad.train.lm_checks import NO_LOSS, Tokens
from postgrad.train.lm_memory import MEMORY, Needs, Probe, needs_of, room_mb, within_memory
from postgrad.train.lm_model import Adapter, load_weights
from postgrad.train.lm_plan import order_of
from postgrad.train.lm_shared import logits_of, shared_length
from postgrad.train.lm_tuning import Tuning
from postgrad.train.lm_watch import Read, Watch, identity_of, loss_of, on_one_device, settings, watched


def with_adapters(model: Any, params: Tuning) -> Any:
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


def onto_base(job: FitJob, params: Tuning, adapter: Adapter) -> Any:
    """The base model in full precision with trained adapters merged into it."""
    import torch
    from peft import set_peft_model_state_dict

    assert job.base_model is not None, "adapters were trained on a base model"
    model = with_adapters(load_weights(job.base_model, torch.float32), params)
    set_peft_model_state_dict(model, dict(adapter.tensors))
    return merged(model, params)


def tune(
    job: FitJob,
    params: Tuning,
    model: Any,
    tokenizer: Any,
    rows: Sequence[Tokens],
    bf16: bool,
    packing: bool = False,
    in_order: bool = False,
) -> None:
    """Train the weights of `model` that require a gradient; `in_order` takes the rows as they come, once.

    Raises:
        TrainingDiverged: a loss or a weight is not finite, or the loss has only risen.
    """
    import torch
    from trl.trainer.sft_config import SFTConfig

    lengths = [len(row.ids) for row in rows]
    batch = min(params.batch_size, len(rows))
    if (ranks := lm_ranks.count(job, params, batch, model.device.type)) > 1:
        identity = content_hash([identity_of(job), params.model_dump(mode="json"), [row.ids for row in rows]])
        lm_ranks.train_together(job, params, model, rows, ranks, identity, (bf16, packing, in_order))
        return
    batch_here = batch // lm_ranks.world()
    order = list(range(len(rows))) if in_order else order_of(lengths, batch, params.epochs, job.seed)
    asked = max(sum(label != NO_LOSS for label in row.labels) for row in rows)
    shared = 0 if packing or params.gradient_checkpointing or lm_ranks.world() > 1 else shared_length(rows)
    needs = needs_of(params, model, max(lengths) - shared, asked if job.labels else max(lengths) - shared)
    steps = math.ceil(len(order) / batch)
    dataset = _dataset(*(filled(rows, order, batch) if lm_ranks.world() > 1 else (rows, order)))

    def build(at_once: int) -> Any:
        told = SFTConfig(
            **settings(job, params, model, (at_once, batch_here // at_once, steps), bf16),
            padding_free=packing,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            train_sampling_strategy="sequential",
        )
        torch.manual_seed(job.seed)
        trainer = _trainer_class(shared)
        return trainer(model=model, args=told, train_dataset=dataset, processing_class=tokenizer)

    run(job, model, build, needs, (batch_here, steps))


def run(
    job: FitJob,
    model: Any,
    build: Callable[[int], Any],
    needs: Needs,
    sizes: tuple[int, int],
    read: Read = loss_of,
    again: bool = True,
) -> None:
    """Train from the newest checkpoint, with as many rows at once as memory has room for.

    Args:
        build: makes TRL's trainer for so many rows at once.
        sizes: rows a step, and steps.
        read: the number to follow in what is logged.
        again: whether a trainer can be made of a model that has moved: not where it looks at where training began.

    Raises:
        CheckFailed: the training would take far longer than the job may.
        TrainingDiverged: a loss or a weight is not finite, or the loss has only risen.
    """
    import torch

    batch, steps = sizes
    device = model.device.type
    trainers: list[Any] = []

    def train(at_once: int) -> None:
        watch = Watch(job, model, steps, read, Probe(job, needs, at_once, steps, device))
        trainers[:] = [watched(build(at_once), watch), watch]
        on_one_device(trainers[0].args)
        trainers[0].train(resume_from_checkpoint=watch.latest())

    def keep() -> None:
        trainer, watch = trainers
        if lm_ranks.world() > 1:
            raise MemoryError("out of memory, and several processes cannot change together how much they do at once")
        if trainer.state.global_step and not again:
            raise MemoryError("out of memory, and the training cannot go on from its middle with fewer rows at once")
        trainers.clear()
        if trainer.state.global_step:
            trainer._save_checkpoint(trainer.model, trial=None)
            if not watch.saved(trainer.state.global_step):
                raise MemoryError("out of memory, and the steps that were done cannot be kept to go on from")

    first = needs.micro(batch, room_mb(device), job.calibration.get(MEMORY, 1.0))
    within_memory(first, batch, train, keep)
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters() if p.requires_grad):
        raise TrainingDiverged("a weight is not finite after the last step")


def merged(model: Any, params: Tuning) -> Any:
    """The plain model of a trained one, adapters merged into it."""
    if params.adapters:
        # PEFT has frozen the weights under its adapters, and a later stage may train all of them.
        model = model.merge_and_unload().requires_grad_(True)
    # TRL has put its own forward pass in front of the model's.
    model.__dict__.pop("forward", None)
    model.config.use_cache = True
    return model


def filled(rows: Sequence[Tokens], order: Sequence[int], batch: int) -> tuple[list[Tokens], list[int]]:
    """The rows and their order with a last batch that is full: of a row without loss, which moves nothing. Several
    processes would fill it up with rows from the beginning, and train on those once more."""
    short = rows[order[-1]]
    blank = Tokens(short.ids, (NO_LOSS,) * len(short.ids))
    return [*rows, blank], [*order, *[len(rows)] * (-len(order) % batch)]


def _dataset(rows: Sequence[Tokens], order: Sequence[int]) -> Any:
    """The rows as they are to be seen, one after the other. They are kept once."""
    from datasets import Dataset

    columns = {"input_ids": [list(row.ids) for row in rows], "labels": [list(row.labels) for row in rows]}
    return Dataset.from_dict(columns).select(order, keep_in_memory=True)


def _trainer_class(shared: int) -> Any:
    """TRL's trainer without its telemetry; on a CPU with a loss that looks at the tokens of answers only, and
    the first `shared` tokens of all rows once a batch.

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
            logits = logits_of(model, inputs, kept, shared)
            labels = labels[:, kept].flatten()
            total = F.cross_entropy(logits.flatten(0, 1).float(), labels, ignore_index=NO_LOSS, reduction="sum")
            if num_items_in_batch is None:
                return total / (labels != NO_LOSS).sum()
            # Of all processes: the mean of their gradients is taken, and their sum is meant.
            return total / num_items_in_batch * lm_ranks.world()

    return AnswerTrainer
