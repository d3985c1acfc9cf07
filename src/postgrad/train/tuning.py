"""The training loop of the embedder: encoder and head together, with checkpoints, the same result for the same seed."""

from __future__ import annotations

import math
import os
import time
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Iterator

from postgrad.errors import UserError
from postgrad.records import content_hash
from postgrad.train.base import FitJob, TrainingDiverged, digest_of
from postgrad.train.contrastive import contrastive_loss, pair_loss
from postgrad.train.curve import hopeless
from postgrad.train.embedder import EmbedderParams
from postgrad.train.heads import EmbedderModel, embed, load_encoder
from postgrad.train.rows import TrainingSet, finished_head, prototypes, training_set

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

# Checkpoints may write this much for each second of training: a 22M encoder about every 15 seconds.
CHECKPOINT_MB_A_SECOND = 10.0
CHECKPOINT_PAUSE_S = 1.0
# An epoch that ends sooner is kept at its end first.
WITHIN_EPOCH_S = 5.0
NEGATIVES_A_BATCH = 16
GRADIENT_NORM = 1.0
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
TRAINED_HEADS = ("linear", "cosine")


def fit_embedder(job: FitJob, params: EmbedderParams) -> EmbedderModel:
    """Train as `params` say and return the model.

    Raises:
        TrainingDiverged: a loss or a weight is not finite, or the loss has only risen.
        UserError: the recipe names no base model.
    """
    if job.base_model is None:
        raise UserError("The embedder trains a base model, and the recipe names none. Set its base_model.")
    data = training_set(job.rows, job.labels, job.out_of_scope, params.negatives)
    with repeatable(job.seed, job.threads):
        encoder = load_encoder(job.base_model, params.max_length)
        embedded = embed(encoder, data.texts)
        arrays: dict[str, Any] = prototypes(embedded, data.classes, len(data.columns))
        if params.tune != "frozen" or params.head in TRAINED_HEADS:
            encoder, arrays = Tuner(job, params, data, encoder, embedded).run()
        if params.tune != "frozen":
            embedded = embed(encoder, data.texts)
        head = finished_head(job, params, data, embedded, arrays)
    return EmbedderModel(encoder, head, params.max_length)


@contextmanager
def repeatable(seed: int, threads: int) -> Iterator[None]:
    """Seed torch and hold it to deterministic algorithms and a number of threads; the same seed gives the same bits."""
    import torch

    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.set_num_threads(before[1])


class Tuner:
    """One training: an object, because a checkpoint holds all of its parts."""

    def __init__(
        self, job: FitJob, params: EmbedderParams, data: TrainingSet, encoder: Any, embedded: NDArray[np.float32]
    ) -> None:
        import torch

        self.job, self.params, self.data = job, params, data
        self.adapters: Any = None
        self.encoder = self._prepared(encoder)
        arrays = prototypes(embedded, data.classes, len(data.columns))
        self.weight = torch.nn.Parameter(torch.from_numpy(arrays["weight"].copy()))
        self.bias = torch.nn.Parameter(torch.from_numpy(arrays["bias"].copy()))
        body = [p for p in self.encoder.parameters() if p.requires_grad] if params.tune != "frozen" else []
        groups: list[dict[str, Any]] = [{"params": [self.weight, self.bias], "lr": params.head_lr, "weight_decay": 0.0}]
        if body:
            groups.append({"params": body, "lr": params.lr, "weight_decay": params.weight_decay})
        self.trained = [p for group in groups for p in group["params"]]
        self.optimizer = torch.optim.AdamW(groups)
        self.epochs = params.contrastive_epochs + params.epochs
        self.epoch_steps = math.ceil(len(data.texts) / params.batch_size)
        steps = max(1, self.epochs * self.epoch_steps)
        warm = max(1.0, params.warmup * steps)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min((step + 1) / warm, max(0.02, (steps - step) / max(1.0, steps - warm)))
        )
        self.order = torch.Generator().manual_seed(job.seed)
        self.epoch = 0
        self.step = 0
        self.losses: list[float] = []
        #: Rows that the epoch under way has still to see, in its order.
        self.left: list[int] = []
        self.tokens = [self._tokenized(text) for text in data.texts]
        self.negative_tokens = [self._tokenized(text) for text in data.negatives]
        self.fixed: torch.Tensor | None = None
        if params.tune == "frozen":
            both = [torch.from_numpy(embedded), torch.from_numpy(embed(encoder, data.negatives))]
            self.fixed = torch.cat(both)
        self.bf16 = params.precision == "bf16" or (params.precision == "auto" and has_bf16())
        self.identity = _identity(job)
        self._next_checkpoint = time.monotonic()
        self._next_within = time.monotonic() + WITHIN_EPOCH_S

    def _prepared(self, encoder: Any) -> Any:
        """Freeze what is not trained, add adapters, set dropout."""
        import torch

        for module in encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = self.params.dropout
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad = self.params.tune == "full" and "embeddings" not in name
        if self.params.tune == "partial":
            for layer in _layers(encoder)[-self.params.layers :]:
                layer.requires_grad_(True)
        if self.params.tune == "lora":
            from peft import LoraConfig, get_peft_model

            config = LoraConfig(
                r=self.params.lora_r,
                lora_alpha=2 * self.params.lora_r,
                lora_dropout=self.params.dropout,
                target_modules="all-linear",
            )
            # The layers are replaced inside `model`; the wrapper is kept to merge them back.
            self.adapters = get_peft_model(encoder[0].auto_model, config)
        return encoder

    def _tokenized(self, text: str) -> list[int]:
        found: list[int] = self.encoder.tokenizer(text, truncation=True, max_length=self.params.max_length)["input_ids"]
        return found

    # --- the loop -------------------------------------------------------------------------------------------------

    def run(self) -> tuple[Any, dict[str, Any]]:
        """Train to the end; return the encoder, adapters merged, and the head's arrays."""
        self._restore()
        while self.epoch < self.epochs:
            if self.epoch == self.params.contrastive_epochs > 0 and not self.left:
                self._start_head_again()
                self.losses = []
            self.encoder.train()
            loss = self._one_epoch()
            self.epoch += 1
            self._checkpoint()
            self.job.report(self.step, loss)
        self.encoder.eval()
        if self.params.tune == "lora":
            self.adapters.merge_and_unload()
        return self.encoder, {"weight": self.weight.detach().numpy(), "bias": self.bias.detach().numpy()}

    def _start_head_again(self) -> None:
        """After the contrastive stage the classes lie elsewhere: start the head at their prototypes there."""
        import torch

        moved = prototypes(embed(self.encoder.eval(), self.data.texts), self.data.classes, len(self.data.columns))
        with torch.no_grad():
            self.weight.copy_(torch.from_numpy(moved["weight"]))

    def _one_epoch(self) -> float:
        import torch

        self.left = self.left or torch.randperm(len(self.tokens), generator=self.order).tolist()
        contrastive = self.epoch < self.params.contrastive_epochs
        steps = self.epoch_steps * (self.params.contrastive_epochs if contrastive else self.params.epochs)
        # Negatives add their own loss: what answering everything alike costs is known without them.
        alike = math.inf if contrastive or self.negative_tokens else math.log(max(2, len(self.data.columns)))
        while self.left:
            loss = self._loss(self.left[: self.params.batch_size])
            if not bool(torch.isfinite(loss)):
                raise TrainingDiverged(f"the loss is {loss.item()} at step {self.step}")
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(self.trained, GRADIENT_NORM)
            self.optimizer.step()
            self.schedule.step()
            self.step += 1
            self.losses.append(loss.item())
            self.left = self.left[self.params.batch_size :]
            if (why := hopeless(self.losses, steps, alike)) is not None:
                raise TrainingDiverged(why)
            if self.left and time.monotonic() >= self._next_within:
                self._checkpoint()
        return sum(self.losses[-self.epoch_steps :]) / max(1, self.epoch_steps)

    def _loss(self, batch: list[int]) -> torch.Tensor:
        import torch
        from torch.nn import functional as F

        classes = torch.from_numpy(self.data.classes[batch])
        extra = self._drawn_negatives()
        embedded = self._embedded(batch, extra)
        own, others = embedded[: len(batch)], embedded[len(batch) :]
        if self.epoch < self.params.contrastive_epochs:
            if self.params.contrastive_loss == "pairs":
                return pair_loss(own, classes)
            return contrastive_loss(own, classes, self.params.temperature)
        loss = F.cross_entropy(self._logits(own), classes, label_smoothing=self.params.label_smoothing)
        if len(others):
            loss = loss - self.params.negative_weight * self._logits(others).log_softmax(-1).mean()
        return loss

    def _drawn_negatives(self) -> list[int]:
        import torch

        if not self.negative_tokens:
            return []
        count = min(NEGATIVES_A_BATCH, len(self.negative_tokens))
        drawn: list[int] = torch.randperm(len(self.negative_tokens), generator=self.order)[:count].tolist()
        return drawn

    def _logits(self, embedded: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional as F

        dropped = F.dropout(embedded, self.params.dropout)
        if self.params.head == "cosine":
            return self.params.scale * (dropped @ F.normalize(self.weight, dim=-1).T)
        return self.params.scale * (dropped @ self.weight.T) + self.bias

    def _embedded(self, batch: list[int], extra: list[int]) -> torch.Tensor:
        """(B, D) unit vectors of train rows, then of negatives."""
        import torch
        from torch.nn import functional as F

        if self.fixed is not None:
            return self.fixed[batch + [len(self.tokens) + i for i in extra]]
        tokens = [self.tokens[i] for i in batch] + [self.negative_tokens[i] for i in extra]
        width = max(len(row) for row in tokens)
        ids = torch.full((len(tokens), width), self.encoder.tokenizer.pad_token_id or 0, dtype=torch.long)
        mask = torch.zeros((len(tokens), width), dtype=torch.long)
        for i, row in enumerate(tokens):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            made = self.encoder({"input_ids": ids, "attention_mask": mask})["sentence_embedding"]
        return F.normalize(made.float(), dim=-1)

    # --- checkpoints ----------------------------------------------------------------------------------------------

    @property
    def _files(self) -> list[Path]:
        """The states that were written to their end, the newest first. Each is named by what it holds."""
        return sorted(self.job.checkpoint.glob("state-*.pt"), key=lambda path: -path.stat().st_mtime_ns)

    def _checkpoint(self) -> None:
        """Write the whole state, where it is time to: weights and twice as much for the optimizer. The one before stays
        until this one is whole; where there is no room for it, training goes on without."""
        import torch

        if time.monotonic() < self._next_checkpoint:
            return
        state = {
            "identity": self.identity,
            "encoder": {n: p for n, p in self.encoder.named_parameters() if p.requires_grad},
            "weight": self.weight,
            "bias": self.bias,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "order": self.order.get_state(),
            "chance": torch.get_rng_state(),
            "epoch": self.epoch,
            "step": self.step,
            "losses": self.losses,
            "left": self.left,
        }
        unfinished, before = self.job.checkpoint / "state.part", self._files
        try:
            self.job.checkpoint.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, whole := self.job.checkpoint / f"state-{digest_of(unfinished)}.pt")
            for path in before:
                if path != whole:
                    path.unlink(missing_ok=True)
        except (OSError, RuntimeError) as error:  # torch has no error of its own for a disk that is full.
            print(f"a checkpoint cannot be written: {error}", flush=True)
            unfinished.unlink(missing_ok=True)
        megabytes = 3 * 4 * sum(p.numel() for p in self.trained) / 1e6
        self._next_checkpoint = time.monotonic() + max(CHECKPOINT_PAUSE_S, megabytes / CHECKPOINT_MB_A_SECOND)

    def _kept(self) -> dict[str, Any] | None:
        """The last whole state of this very training; None where there is none that can be read."""
        import torch

        for path in self._files:
            try:
                if path.stem != f"state-{digest_of(path)}":
                    raise ValueError(f"{path.name} is not what it was")
                state: dict[str, Any] = torch.load(path, weights_only=True)
            except (OSError, RuntimeError, EOFError, ValueError, KeyError, UnpicklingError) as error:
                print(f"a checkpoint cannot be read, and is not used: {error}", flush=True)
                path.unlink(missing_ok=True)
                continue
            if state.get("identity") == self.identity:
                return state
        return None

    def _restore(self) -> None:
        import torch

        if (state := self._kept()) is None:
            return
        own = dict(self.encoder.named_parameters())
        with torch.no_grad():
            for name, value in state["encoder"].items():
                own[name].copy_(value)
            self.weight.copy_(state["weight"])
            self.bias.copy_(state["bias"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.order.set_state(state["order"])
        torch.set_rng_state(state["chance"])
        self.epoch, self.step, self.losses = state["epoch"], state["step"], state["losses"]
        self.left = state["left"]
        print(f"the training goes on after step {self.step}", flush=True)


def has_bf16(cpu: Path = Path("/proc/cpuinfo")) -> bool:
    """True when the CPU multiplies matrices of bf16 by itself: its flags say so (Linux). Unknown is no."""
    if not cpu.exists():
        return False
    return bool(BF16_FLAGS & set(cpu.read_text(encoding="utf-8", errors="replace").split()))


def _layers(encoder: Any) -> Any:
    """The transformer layers, first to last: the longest list of modules in the encoder."""
    import torch

    return max((m for m in encoder.modules() if isinstance(m, torch.nn.ModuleList)), key=len)


def _identity(job: FitJob) -> str:
    """What a checkpoint must agree with: the same training."""
    base = job.base_model.name if job.base_model is not None else ""  # On another node it may lie elsewhere.
    facts = [job.params.model_dump(mode="json"), job.rows, job.labels, job.out_of_scope, base, job.seed]
    return content_hash(facts)
