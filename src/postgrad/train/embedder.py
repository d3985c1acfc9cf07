"""The embedder backend: a sentence encoder, frozen or fine-tuned, with a head over its unit-length embeddings.

Fine-tuning is one loop over encoder and head together: the head starts at the class prototypes, so that training moves
an answer that already works (Snell et al. 2017 for prototypes; Tunstall et al. 2022, SetFit, for the contrastive stage
in front of it). What decides rejection is a separate choice, see `scores.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Mapping

from pydantic import Field

from postgrad.records import Dimension, Record, Value
from postgrad.train.base import FitJob, Fitted


class EmbedderParams(Record):
    """Settings of the embedder backend.

    Attributes:
        tune: what is trained of the encoder: nothing, everything but the word embeddings, the last `layers` layers, or
            low-rank adapters (Hu et al. 2021) of rank `lora_r`.
        head: `linear` (softmax) and `cosine` (the same, of unit-length weights) are started at the prototypes;
            `logistic` (scikit-learn), `prototype` (cosine to the class mean) and `knn` (cosine to the nearest row of
            each class) are made from the final embeddings, after an encoder that is tuned was tuned with `linear`.
        epochs: passes over the rows with the head; 0 tunes with the contrastive stage alone.
        contrastive_epochs: passes in front of them with a loss over pairs of rows: `supervised` (Khosla et al. 2020,
            with `temperature`) or `pairs` (SetFit's).
        scale: what cosines are multiplied with before the softmax of every head but `logistic`.
        negatives: what out-of-scope rows train: a class of their own, a uniform answer (outlier exposure, Hendrycks et
            al. 2019), or nothing.
        score: what decides rejection; `blend` is the mean of largest logit and nearest neighbour.
        precision: arithmetic of the encoder while it is trained; `auto` is bf16 on a CPU with instructions for it, and
            fp32 elsewhere. A step in bf16 took 0.4 of the time of fp32 with them, and ten times as long without.
    """

    tune: Literal["frozen", "full", "partial", "lora"] = "full"
    head: Literal["linear", "cosine", "logistic", "prototype", "knn"] = "linear"
    epochs: int = Field(6, ge=0, le=200)
    batch_size: int = Field(32, ge=2, le=1024)
    lr: float = Field(1e-4, gt=0)
    head_lr: float = Field(1e-3, gt=0)
    warmup: float = Field(0.1, ge=0, le=0.9)
    weight_decay: float = Field(0.01, ge=0, le=1)
    label_smoothing: float = Field(0.0, ge=0, le=0.5)
    dropout: float = Field(0.1, ge=0, le=0.9)
    layers: int = Field(2, ge=1, le=64)
    lora_r: int = Field(16, ge=1, le=256)
    contrastive_epochs: int = Field(0, ge=0, le=50)
    contrastive_loss: Literal["supervised", "pairs"] = "supervised"
    temperature: float = Field(0.1, gt=0, le=10)
    C: float = Field(10.0, gt=0, le=1000)
    scale: float = Field(16.0, gt=0, le=200)
    knn_k: int = Field(1, ge=1, le=50)
    max_length: int = Field(64, ge=8, le=512)
    negatives: Literal["class", "uniform", "none"] = "none"
    negative_weight: float = Field(0.5, gt=0, le=10)
    score: Literal["max_prob", "energy", "max_logit", "knn", "mahalanobis", "blend"] = "max_logit"
    precision: Literal["auto", "fp32", "bf16"] = "auto"


# Heads that are trained step by step; the others are worked out from the final embeddings.
TRAINED_HEADS = ("linear", "cosine")
# CPU seconds a row and epoch, measured with MiniLM (22M) and intents of about five words on one core of a server from
# 2022 with bf16 instructions: full fine-tunes of 164 rows took 0.9 s an epoch in bf16 and 2.5 s in fp32.
ROW_EPOCH_S = 0.0055
EMBED_S = 0.0025
HEAD_ROW_EPOCH_S = 1e-4
TUNE_SHARE = {"frozen": 0.0, "full": 1.0, "partial": 0.7, "lora": 1.4}


class Embedder:
    """The backend."""

    Params = EmbedderParams

    def space(self, params: Mapping[str, Value]) -> dict[str, Dimension]:
        given = EmbedderParams.model_validate(dict(params))
        found: dict[str, Dimension] = {}
        if given.head == "logistic":
            found["C"] = Dimension(low=0.3, high=100.0, log=True)
        if given.tune == "frozen" and given.head in ("linear", "cosine"):
            found["epochs"] = Dimension(low=10, high=200, log=True, integer=True)
        if given.tune != "frozen":
            found["lr"] = Dimension(low=2e-5, high=4e-4, log=True)
            found["epochs"] = Dimension(low=2, high=16, log=True, integer=True)
        if given.tune == "lora":
            found["lr"] = Dimension(low=1e-4, high=3e-3, log=True)
            found["lora_r"] = Dimension(choices=(4, 8, 16, 32))
        if given.head in ("linear", "cosine"):
            found["scale"] = Dimension(low=8.0, high=32.0, log=True)
            found["head_lr"] = Dimension(low=3e-4, high=1e-2, log=True)
            found["label_smoothing"] = Dimension(low=0.0, high=0.15)
            found["dropout"] = Dimension(low=0.0, high=0.2)
        if given.contrastive_epochs:
            found["contrastive_epochs"] = Dimension(low=1, high=6, integer=True)
        if given.score in ("knn", "blend") or given.head == "knn":
            found["knn_k"] = Dimension(low=1, high=5, integer=True)
        if given.negatives == "uniform":
            found["negative_weight"] = Dimension(low=0.1, high=2.0, log=True)
        return found

    def seeded(self, params: Mapping[str, Value]) -> bool:
        """False where the head is worked out from the embeddings of an encoder that stays as it is."""
        given = EmbedderParams.model_validate(dict(params))
        return given.tune != "frozen" or given.head in TRAINED_HEADS

    def nominal_cost(self, params: Mapping[str, Value], rows: int, texts: int) -> float:
        given = EmbedderParams.model_validate(dict(params))
        slower = 3.0 if given.precision == "fp32" else 1.0
        epochs = given.epochs + given.contrastive_epochs
        training = ROW_EPOCH_S * rows * epochs * TUNE_SHARE[given.tune] * slower
        trained_head = given.tune == "frozen" and given.head in TRAINED_HEADS
        head = HEAD_ROW_EPOCH_S * rows * epochs if trained_head else 0.0
        return 0.5 + training + head + EMBED_S * (rows + texts)

    def fit(self, job: FitJob) -> Fitted:
        from postgrad.train.tuning import fit_embedder

        return fit_embedder(job, EmbedderParams.model_validate(job.params.model_dump()))

    def load(self, folder: Path) -> Fitted:
        from postgrad.train.heads import load_embedder

        return load_embedder(folder)
