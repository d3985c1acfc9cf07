"""Settings of the causal language model backend."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from postgrad.records import Record


class CausalLMParams(Record):
    """Settings of the causal language model backend.

    Attributes:
        tune: what is trained: nothing, every weight, or low-rank adapters of all linear layers but the last (Hu et al.
            2021), with `dora` split into length and direction (Liu et al. 2024).
        shots: train rows that stand in every prompt as answered examples, as many of each label as of any other. They
            are not trained on.
        labels_as: what a label is written as: as given, or in words (`card_arrival` as `card arrival`).
        batch_size: rows a step. Fewer go through the model at once where memory is short, with the same gradient.
        lora_r, lora_alpha, lora_dropout: rank of the adapters, the factor alpha / r that they are multiplied with, and
            the dropout in front of them.
        packing: rows of a batch are laid end to end, each seeing itself only, and nothing is padded.
        gradient_checkpointing: less memory for a third more time.
        precision: arithmetic; `auto` is bf16 on a GPU and on a CPU with instructions for it, and fp32 elsewhere.
            Trained weights are fp32 in any case, and saved as bf16.
        normalise: what a label's log-likelihood is divided by: nothing, or the number of its tokens.
        calibrate: take from each label's log-likelihood what it has without any input (Zhao et al. 2021).
        score: what decides rejection: the likelihood of the likeliest label's text (`likelihood`) or of any label's
            (`mass`), its share among the candidates (`max_prob`), or its lead over the next (`margin`).
        negatives: what out-of-scope rows train: nothing, or the answer that names them (`label`), which then is a
            candidate that the labels have to beat.
        overfit_check: try before the training whether eight rows can be learnt by heart, which costs thirty steps.
    """

    tune: Literal["none", "full", "lora", "dora"] = "lora"
    shots: int = Field(0, ge=0, le=256)
    labels_as: Literal["given", "words"] = "given"
    epochs: int = Field(3, ge=1, le=200)
    batch_size: int = Field(16, ge=1, le=1024)
    lr: float = Field(5e-4, gt=0)
    warmup: float = Field(0.1, ge=0, le=0.9)
    scheduler: Literal["linear", "cosine", "constant"] = "cosine"
    weight_decay: float = Field(0.0, ge=0, le=1)
    max_grad_norm: float = Field(1.0, gt=0, le=100)
    lora_r: int = Field(16, ge=1, le=512)
    lora_alpha: int = Field(32, ge=1, le=2048)
    lora_dropout: float = Field(0.0, ge=0, le=0.9)
    packing: bool = False
    gradient_checkpointing: bool = False
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    normalise: Literal["none", "tokens"] = "none"
    calibrate: bool = False
    score: Literal["likelihood", "mass", "max_prob", "margin"] = "likelihood"
    negatives: Literal["none", "label"] = "none"
    overfit_check: bool = False

    @property
    def adapters(self) -> bool:
        """True where low-rank adapters are trained."""
        return self.tune in ("lora", "dora")
