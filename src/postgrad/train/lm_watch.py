"""What goes on beside a training by TRL: checkpoints, progress, giving up; and the settings that all share."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any, Callable, Mapping

from postgrad.records import content_hash
from postgrad.train.base import FitJob, TrainingDiverged, digest_of, is_out_of_memory
from postgrad.train.curve import hopeless
from postgrad.train.lm_memory import Probe
from postgrad.train.lm_ranks import agreed, is_first, together, world
from postgrad.train.lm_tuning import Tuning

# As in tuning.py: checkpoints may write this much for each second of training.
CHECKPOINT_MB_A_SECOND = 10.0
CHECKPOINT_PAUSE_S = 1.0
# Written last into a checkpoint: one without it was cut off while it was written.
WHOLE = "whole.json"
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}

Read = Callable[[Mapping[str, Any]], float | None]


def loss_of(logs: Mapping[str, Any]) -> float | None:
    """What a trainer logged as its loss."""
    found: float | None = logs.get("loss")
    return found


class Watch:
    """Reports, keeps and finds checkpoints, and gives a training up that goes nowhere."""

    def __init__(self, job: FitJob, model: Any, steps: int, read: Read, probe: Probe) -> None:
        """Watch a training of so many steps.

        Args:
            read: the number to follow in what is logged. A training whose number is not its loss is never given up.
            probe: looks at the first steps.
        """
        self.job, self.steps, self.read, self.probe = job, steps, read, probe
        self.identity = identity_of(job)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.pause_s = max(CHECKPOINT_PAUSE_S, 12 * trained / 1e6 / CHECKPOINT_MB_A_SECOND)
        self.next = time.monotonic() + CHECKPOINT_PAUSE_S
        self.losses: list[float] = []
        self._unwritten = ""

    def latest(self) -> str | None:
        """The newest whole checkpoint of this training; others are removed."""
        newest: str | None = agreed(self._newest() if is_first() else None)
        return newest

    def _newest(self) -> str | None:
        found = None
        for folder in sorted(self.job.checkpoint.glob("checkpoint-*"), key=_step):
            if is_whole(folder, self.identity):
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
        return bool(agreed(time.monotonic() >= self.next))

    def careful(self, save: Callable[..., None]) -> Callable[..., None]:
        """A trainer's way to save that ends no training where there is no room on the disk: `saved` then says so. Not
        among several processes: the others would wait for this one."""
        from safetensors import SafetensorError

        if world() > 1:
            return save

        def saving(*given: Any, **named: Any) -> None:
            try:
                self._unwritten = ""
                save(*given, **named)
            except (OSError, RuntimeError, SafetensorError) as error:
                if is_out_of_memory(error):
                    raise
                self._unwritten = str(error) or type(error).__name__

        return saving

    def saved(self, step: int) -> bool:
        """A checkpoint is on the disk: mark it, and let the older ones go. False where it could not be written: then
        the one before stays."""
        self.next = time.monotonic() + self.pause_s
        together()
        if not is_first():
            return True
        folder = self.job.checkpoint / f"checkpoint-{step}"
        try:
            if not self._unwritten:
                mark_whole(folder, self.identity)
        except OSError as error:
            self._unwritten = str(error)
        if self._unwritten:
            print(f"a checkpoint cannot be written: {self._unwritten[:500]}", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            return False
        self.only(folder)
        return True

    def logged(self, step: int, value: float) -> None:
        """Called after every step."""
        if not math.isfinite(value):
            raise TrainingDiverged(f"the loss is {value} at step {step}")
        self.losses.append(value)
        self.job.report(step, value)
        self.probe.stepped()
        if self.read is loss_of and (why := hopeless(self.losses, self.steps)) is not None:
            raise TrainingDiverged(why)


def identity_of(job: FitJob) -> str:
    """What a checkpoint has to be of to be gone on from."""
    base = job.base_model.name if job.base_model is not None else ""  # On another node it may lie elsewhere.
    facts = [job.params.model_dump(mode="json"), job.rows, job.labels, job.out_of_scope, base]
    return content_hash([*facts, job.seed, job.generation.model_dump(mode="json")])


def is_whole(folder: Path, identity: str) -> bool:
    """True for a checkpoint that was written to its end, by the training of this identity, and holds what it did."""
    try:
        facts = json.loads((folder / WHOLE).read_text(encoding="utf-8"))
        return bool(facts["identity"] == identity and facts["files"] == _digests_in(folder))
    except (OSError, ValueError, LookupError, TypeError):
        return False


def mark_whole(folder: Path, identity: str) -> None:
    """Flush what lies in the folder to the disk, then say that it is whole."""
    unfinished = folder / f"{WHOLE}.part"
    for path in folder.rglob("*"):
        _flush(path)
    unfinished.write_text(json.dumps({"identity": identity, "files": _digests_in(folder)}), encoding="utf-8")
    _flush(unfinished)
    os.replace(unfinished, folder / WHOLE)


def _digests_in(folder: Path) -> dict[str, str]:
    """Name -> digest of every file of a checkpoint but the mark."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(WHOLE))
    return {path.relative_to(folder).as_posix(): digest_of(path) for path in files}


def _step(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _flush(path: Path) -> None:
    if path.is_file():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def settings(job: FitJob, params: Tuning, model: Any, sizes: tuple[int, int, int], bf16: bool) -> dict[str, Any]:
    """What every trainer of TRL is told: it writes nothing but checkpoints and reaches no network.

    Args:
        sizes: rows at once, how often before a step, and steps.
    """
    at_once, accumulated, steps = sizes
    return _sharing(params, model) | {
        "output_dir": str(job.checkpoint),
        "use_cpu": model.device.type == "cpu" and not params.shard,
        "seed": job.seed % 2**32,
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": accumulated,
        "num_train_epochs": 1,
        "learning_rate": params.lr,
        "lr_scheduler_type": SCHEDULES[params.scheduler],
        "warmup_steps": round(params.warmup * steps),
        "weight_decay": params.weight_decay,
        "max_grad_norm": params.max_grad_norm,
        "optim": "adamw_torch_fused",
        "bf16": bf16,
        "fp16": False,
        "gradient_checkpointing": params.gradient_checkpointing,
        "dataloader_pin_memory": False,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "push_to_hub": False,
        "disable_tqdm": True,
    }


def _sharing(params: Tuning, model: Any) -> dict[str, Any]:
    """What one of several processes is told besides: it holds all weights, or its part of them."""
    if world() == 1:
        return {}
    if not params.shard:
        return {"ddp_find_unused_parameters": False, "ddp_backend": "gloo" if model.device.type == "cpu" else None}
    layers = {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "transformer_layer_cls_to_wrap": list(model._no_split_modules or ()),
        "state_dict_type": "FULL_STATE_DICT",
        "cpu_ram_efficient_loading": False,
    }
    return {"fsdp": True, "fsdp_config": layers}


def on_one_device(told: Any) -> None:
    """A single process uses one device: transformers would divide each batch among threads, one a GPU, and multiply
    it by their number."""
    if told.n_gpu > 1:
        told._n_gpu = 1


def watched(trainer: Any, watch: Watch) -> Any:
    """The trainer, watched and silent."""
    from transformers import PrinterCallback

    trainer.add_callback(_callback(watch))
    trainer._save_checkpoint = watch.careful(trainer._save_checkpoint)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _callback(watch: Watch) -> Any:
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            found = (watch.read(entry) for entry in state.log_history)
            watch.losses = [value for value in found if value is not None]

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
            control.should_save = state.global_step < watch.steps and watch.due()
            return control

        def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            watch.saved(state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
            if (value := watch.read(logs or {})) is not None:
                watch.logged(state.global_step, value)

    return Watcher()
