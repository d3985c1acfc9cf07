"""How the weights of a language model are moved: what every stage of a training has in common."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from postgrad.records import Record


class Tuning(Record):
    """How weights are moved.

    Attributes:
        tune: what is trained: nothing, every weight, or low-rank adapters of all linear layers but the last (Hu et al.
            2021), with `dora` split into length and direction (Liu et al. 2024), with `qlora` on a base whose weights
            are held in four bits while it is trained (Dettmers et al. 2023).
        batch_size: rows a step. Fewer go through the model at once where memory is short, with the same gradient.
        warmup: the share of the steps in which the learning rate rises.
        lora_r, lora_alpha, lora_dropout: rank of the adapters, the factor alpha / r that they are multiplied with, and
            the dropout in front of them.
        gradient_checkpointing: less memory for a third more time.
        ranks: processes that train together, each with its part of every batch; 0 for one a GPU of the job.
        shard: each of them holds its part of the weights alone (FSDP), for models that no GPU can hold.
    """

    tune: Literal["none", "full", "lora", "dora", "qlora"] = "lora"
    epochs: int = Field(1, ge=1, le=200)
    batch_size: int = Field(16, ge=1, le=1024)
    lr: float = Field(2e-4, gt=0)
    warmup: float = Field(0.1, ge=0, le=0.9)
    scheduler: Literal["linear", "cosine", "constant"] = "cosine"
    weight_decay: float = Field(0.0, ge=0, le=1)
    max_grad_norm: float = Field(1.0, gt=0, le=100)
    lora_r: int = Field(16, ge=1, le=512)
    lora_alpha: int = Field(32, ge=1, le=2048)
    lora_dropout: float = Field(0.0, ge=0, le=0.9)
    gradient_checkpointing: bool = False
    ranks: int = Field(0, ge=0, le=64)
    shard: bool = False

    @property
    def adapters(self) -> bool:
        """True where low-rank adapters are trained."""
        return self.tune in ("lora", "dora", "qlora")
