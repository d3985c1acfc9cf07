"""Settings of the causal language model backend."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from postgrad.train.lm_later import Later
from postgrad.train.lm_tuning import Tuning

MOST_PASSES = 50


class CausalLMParams(Tuning):
    """Settings of the causal language model backend. What is set directly is that of the supervised fine-tuning.

    Attributes:
        then: what the tuned model goes through next, in order.
        shots: train rows that stand in every prompt as answered examples, as many of each label as of any other. They
            are not trained on.
        labels_as: what a label is written as: as given, or in words (`card_arrival` as `card arrival`).
        share: part of the rows that is trained on, drawn by chance, of each label alike.
        least_steps: passes over the rows are added until there are so many steps, up to 50 of them: few rows need more
            passes than many (Mosbach et al. 2021, section 6).
        packing: rows of a batch are laid end to end, each seeing itself only, and nothing is padded.
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

    then: tuple[Later, ...] = Field((), max_length=4)
    shots: int = Field(0, ge=0, le=256)
    labels_as: Literal["given", "words"] = "given"
    share: float = Field(1.0, gt=0, le=1)
    epochs: int = Field(3, ge=1, le=200)
    least_steps: int = Field(0, ge=0, le=100_000)
    lr: float = Field(5e-4, gt=0)
    packing: bool = False
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    normalise: Literal["none", "tokens"] = "none"
    calibrate: bool = False
    score: Literal["likelihood", "mass", "max_prob", "margin"] = "likelihood"
    negatives: Literal["none", "label"] = "none"
    overfit_check: bool = False

    def passes(self, rows: int) -> int:
        """How often so many rows are gone through."""
        needed = math.ceil(self.least_steps * self.batch_size / max(1, rows))
        return max(self.epochs, min(needed, MOST_PASSES))
