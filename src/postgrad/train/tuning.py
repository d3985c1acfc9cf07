"""The training loop of the embedder: encoder and head together, with checkpoints, the same result for the same seed."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Sequence

from postgrad.records import Row
from postgrad.train import scores
from postgrad.train.base import FitJob, TrainingDiverged
from postgrad.train.embedder import EmbedderParams
from postgrad.train.heads import EmbedderModel, Head, embed, load_encoder

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

CHECKPOINT_EVERY_S = 20.0
NEGATIVES_A_BATCH = 16
GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class TrainingSet:
    """In-scope texts with class numbers 0..K'-1, and negatives."""

    texts: tuple[str, ...]
    classes: NDArray[np.int64]
    negatives: tuple[str, ...]
    columns: tuple[int, ...]


def training_set(rows: Sequence[Row], labels: Sequence[str], out_of_scope: str | None, negatives: str) -> TrainingSet:
    """Sort rows into classes; negatives become the last class (`class`), a side set (`uniform`), or nothing."""
    import numpy as np

    index = {label: i for i, label in enumerate(labels)}
    inside = [row for row in rows if row.label in index]
    outside = tuple(row.text for row in rows if row.label == out_of_scope) if negatives != "none" else ()
    columns = sorted({index[row.label] for row in inside})
    number = {column: i for i, column in enumerate(columns)}
    classes = [number[index[row.label]] for row in inside]
    texts = tuple(row.text for row in inside)
    if negatives == "class" and outside:
        classes += [len(columns)] * len(outside)
        texts, outside, columns = (*texts, *outside), (), [*columns, -1]
    return TrainingSet(texts, np.array(classes, dtype=np.int64), outside, tuple(columns))


def fit_embedder(job: FitJob, params: EmbedderParams) -> EmbedderModel:
    """Train as `params` say and return the model.

    Raises:
        TrainingDiverged: a loss or a weight is not finite.
    """
    import torch

    assert job.base_model is not None, "the recipe names a base model"
    torch.manual_seed(job.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    encoder = load_encoder(job.base_model, params.max_length)
    data = training_set(job.rows, job.labels, job.out_of_scope, params.negatives)
    arrays: dict[str, Any] = prototypes(embed(encoder, data.texts), data.classes, len(data.columns))
    if params.tune != "frozen" or params.head == "linear":
        encoder, arrays = Tuner(job, params, data, encoder, arrays).run()
    encoder.eval()
    return EmbedderModel(encoder, finished_head(job, params, data, encoder, arrays), params.max_length)


def prototypes(embedded: NDArray[np.float32], classes: NDArray[np.int64], count: int) -> dict[str, Any]:
    """Unit-length class means as a linear map."""
    import numpy as np

    means = np.stack([embedded[classes == k].mean(0) for k in range(count)])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
    return {"weight": means.astype(np.float32), "bias": np.zeros(count, np.float32)}


def finished_head(job: FitJob, params: EmbedderParams, data: TrainingSet, encoder: Any, arrays: dict[str, Any]) -> Head:
    """The head over final embeddings, with what its score needs."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    embedded = embed(encoder, data.texts)
    inside = np.array([data.columns[k] >= 0 for k in data.classes])
    if params.head == "prototype":
        arrays = prototypes(embedded, data.classes, len(data.columns))
    elif params.head == "logistic":
        model = LogisticRegression(C=params.C, class_weight="balanced", max_iter=1000).fit(embedded, data.classes)
        weight, bias = model.coef_, model.intercept_
        if len(weight) == 1:
            weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        arrays = {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
    if params.head == "knn" or params.score in ("knn", "blend"):
        owners = np.array(data.columns)[data.classes]
        keep = inside if params.head != "knn" else np.ones(len(inside), bool)
        arrays = {**arrays, "bank": embedded[keep], "bank_labels": owners[keep].astype(np.int64)}
    if params.score == "mahalanobis":
        own = data.classes[inside]
        means = np.stack([embedded[inside][own == k].mean(0) for k in np.unique(own)])
        precision = scores.shared_precision(embedded[inside], own)
        arrays = {**arrays, "means": means.astype(np.float32), "precision": precision}
    return Head(
        labels=len(job.labels),
        columns=data.columns,
        kind=params.head,
        score=params.score,
        scale=params.scale,
        knn_k=params.knn_k,
        arrays=arrays,
    )


class Tuner:
    """One training: an object, because a checkpoint holds all of its parts."""

    def __init__(
        self, job: FitJob, params: EmbedderParams, data: TrainingSet, encoder: Any, arrays: dict[str, Any]
    ) -> None:
        import torch

        self.job, self.params, self.data = job, params, data
        self.adapters: Any = None
        self.encoder = self._prepared(encoder)
        self.weight = torch.nn.Parameter(torch.from_numpy(arrays["weight"].copy()))
        self.bias = torch.nn.Parameter(torch.from_numpy(arrays["bias"].copy()))
        body = [p for p in self.encoder.parameters() if p.requires_grad] if params.tune != "frozen" else []
        groups: list[dict[str, Any]] = [{"params": [self.weight, self.bias], "lr": params.head_lr, "weight_decay": 0.0}]
        if body:
            groups.append({"params": body, "lr": params.lr, "weight_decay": params.weight_decay})
        self.trained = [p for group in groups for p in group["params"]]
        self.optimizer = torch.optim.AdamW(groups)
        self.epochs = params.contrastive_epochs + params.epochs
        steps = max(1, self.epochs * math.ceil(len(data.texts) / params.batch_size))
        warm = max(1.0, params.warmup * steps)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min((step + 1) / warm, max(0.02, (steps - step) / max(1.0, steps - warm)))
        )
        self.order = torch.Generator().manual_seed(job.seed)
        self.epoch = 0
        self.step = 0
        self.tokens = [self._tokenized(text) for text in data.texts]
        self.negative_tokens = [self._tokenized(text) for text in data.negatives]
        self.fixed = torch.from_numpy(embed(encoder, data.texts)) if params.tune == "frozen" else None
        self._saved_at = time.monotonic()

    def _prepared(self, encoder: Any) -> Any:
        """Freeze what is not trained, add adapters, set dropout."""
        import torch

        model = encoder[0].auto_model
        for module in encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = self.params.dropout
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad = self.params.tune == "full" and "embeddings" not in name
        if self.params.tune == "partial":
            for layer in model.encoder.layer[-self.params.layers :]:
                layer.requires_grad_(True)
        if self.params.tune == "lora":
            from peft import LoraConfig, get_peft_model

            config = LoraConfig(
                r=self.params.lora_r,
                lora_alpha=2 * self.params.lora_r,
                lora_dropout=self.params.dropout,
                target_modules=["query", "key", "value"],
            )
            # The layers are replaced inside `model`; the wrapper is kept to merge them back.
            self.adapters = get_peft_model(model, config)
        return encoder

    def _tokenized(self, text: str) -> list[int]:
        found: list[int] = self.encoder.tokenizer(text, truncation=True, max_length=self.params.max_length)["input_ids"]
        return found

    # --- the loop -------------------------------------------------------------------------------------------------

    def run(self) -> tuple[Any, dict[str, Any]]:
        """Train to the end; return the encoder, adapters merged, and the head's arrays."""
        self._restore()
        self.encoder.train()
        while self.epoch < self.epochs:
            loss = self._one_epoch()
            self.epoch += 1
            self.job.report(self.step, loss)
            self._checkpoint()
        self.encoder.eval()
        if self.params.tune == "lora":
            self.adapters.merge_and_unload()
        return self.encoder, {"weight": self.weight.detach().numpy(), "bias": self.bias.detach().numpy()}

    def _one_epoch(self) -> float:
        import torch

        order = torch.randperm(len(self.tokens), generator=self.order).tolist()
        losses = []
        for start in range(0, len(order), self.params.batch_size):
            loss = self._loss(order[start : start + self.params.batch_size])
            if not bool(torch.isfinite(loss)):
                raise TrainingDiverged(f"loss is {float(loss)} at step {self.step}")
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.trained, GRADIENT_NORM)
            self.optimizer.step()
            self.schedule.step()
            self.step += 1
            losses.append(float(loss))
        return sum(losses) / max(1, len(losses))

    def _loss(self, batch: list[int]) -> torch.Tensor:
        import torch
        from torch.nn import functional as F

        classes = torch.from_numpy(self.data.classes[batch])
        extra = self._drawn_negatives()
        embedded = self._embedded(batch, extra)
        own, others = embedded[: len(batch)], embedded[len(batch) :]
        if self.epoch < self.params.contrastive_epochs:
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
        return self.params.scale * (dropped @ self.weight.T) + self.bias

    def _embedded(self, batch: list[int], extra: list[int]) -> torch.Tensor:
        """(B, D) unit vectors of train rows, then of negatives."""
        import torch
        from torch.nn import functional as F

        if self.fixed is not None and not extra:
            return self.fixed[batch]
        tokens = [self.tokens[i] for i in batch] + [self.negative_tokens[i] for i in extra]
        width = max(len(row) for row in tokens)
        ids = torch.full((len(tokens), width), self.encoder.tokenizer.pad_token_id or 0, dtype=torch.long)
        mask = torch.zeros((len(tokens), width), dtype=torch.long)
        for i, row in enumerate(tokens):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        with torch.autocast("cpu", torch.bfloat16, enabled=self.params.precision == "bf16"):
            made = self.encoder({"input_ids": ids, "attention_mask": mask})["sentence_embedding"]
        return F.normalize(made.float(), dim=-1)

    # --- checkpoints ----------------------------------------------------------------------------------------------

    @property
    def _file(self) -> Path:
        return self.job.checkpoint / "epoch.pt"

    def _checkpoint(self) -> None:
        """Write the whole state, at most every `CHECKPOINT_EVERY_S`: for a small encoder it is 250 MB."""
        import torch

        if time.monotonic() - self._saved_at < CHECKPOINT_EVERY_S:
            return
        state = {
            "encoder": {n: p for n, p in self.encoder.named_parameters() if p.requires_grad},
            "weight": self.weight,
            "bias": self.bias,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "order": self.order.get_state(),
            "chance": torch.get_rng_state(),
            "epoch": self.epoch,
            "step": self.step,
        }
        self.job.checkpoint.mkdir(parents=True, exist_ok=True)
        unfinished = self._file.with_suffix(".part")
        torch.save(state, unfinished)
        os.replace(unfinished, self._file)
        self._saved_at = time.monotonic()

    def _restore(self) -> None:
        import torch

        if not self._file.exists():
            return
        state = torch.load(self._file, weights_only=True)
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
        self.epoch, self.step = state["epoch"], state["step"]


def contrastive_loss(embedded: torch.Tensor, classes: torch.Tensor, temperature: float) -> torch.Tensor:
    """Supervised contrastive loss of a batch of unit vectors (Khosla et al. 2020, equation 2)."""
    import torch

    same = (classes[:, None] == classes[None, :]) & ~torch.eye(len(classes), dtype=torch.bool)
    similar = (embedded @ embedded.T / temperature).masked_fill(torch.eye(len(classes), dtype=torch.bool), -1e9)
    log_share = similar - similar.logsumexp(1, keepdim=True)
    pairs = same.sum(1)
    if not bool((pairs > 0).any()):
        return embedded.sum() * 0.0
    return (-(log_share * same).sum(1) / pairs.clamp(min=1))[pairs > 0].mean()
