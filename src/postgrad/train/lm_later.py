"""Settings of what a language model may go through after its supervised fine-tuning, each by its `method`.

A stage starts from the weights that the one before it left. The methods that learn from grades are graded by the task's
own metric, on train rows only; where answers are labels, the right one is worth 1 and any other 0.
"""

from __future__ import annotations

from typing import Annotated, Literal, Union

from pydantic import Field, field_validator, model_validator

from postgrad.records import Record
from postgrad.train.lm_costs import DRAWN_S, FORWARD_TOKEN_S, ROW_S, SHOT_TOKENS, START_S, TUNE_SHARE
from postgrad.train.lm_tuning import Tuning


class Further(Tuning):
    """A stage that moves weights."""

    @property
    def learns_from_grades(self) -> bool:
        """True where the task's metric has to say what single answers are worth."""
        return False

    @field_validator("tune")
    @classmethod
    def _moves_something(cls, tune: str) -> str:
        if tune == "none":
            raise ValueError(
                "a later stage that trains nothing does nothing: leave it out, or set tune to full or lora"
            )
        if tune == "qlora":
            raise ValueError(
                "qlora takes the base model's file, and a later stage begins with other weights: take lora"
            )
        return tune

    def seconds(self, rows: int) -> float:
        """Rough seconds of the stage, in bf16 on one core, where there are so many train rows."""
        return START_S + self.epochs * rows * self.row_s

    @property
    def row_s(self) -> float:
        """Rough seconds of training on a row once."""
        return ROW_S * TUNE_SHARE[self.tune]


class FurtherSFT(Further):
    """Supervised fine-tuning once more, with settings of its own."""

    method: Literal["sft"] = "sft"


class Pretraining(Further):
    """Continued pretraining on the texts of the rows, without prompt or answer (Gururangan et al. 2020).

    Attributes:
        block: tokens of a piece; texts are laid end to end and cut.
    """

    method: Literal["pretrain"] = "pretrain"
    block: int = Field(256, ge=16, le=8192)


class Sampling(Further):
    """What methods that let the model answer have in common.

    Attributes:
        rows: train rows that are asked, drawn with the job's seed.
        samples: answers to each.
        temperature: of the sampling.
    """

    rows: int = Field(64, ge=1, le=100_000)
    samples: int = Field(4, ge=1, le=64)
    temperature: float = Field(1.0, gt=0, le=5)

    @property
    def learns_from_grades(self) -> bool:
        return True


class Preference(Sampling):
    """Learning from pairs: `dpo` (Rafailov et al. 2023), `orpo` (Hong et al. 2024), or from single answers that are
    good or bad, `kto` (Ethayarajh et al. 2024).

    The better answer of a pair is the row's own, the worse one what the model answers and the metric grades lowest:
    where no answer of it is graded below the row's own by more than `margin`, there is no pair. Where answers are
    labels, each of the `samples` likeliest wrong labels makes a pair.

    Attributes:
        beta: how dear it is to move away from where the stage began (in orpo: the weight of the odds ratio).
    """

    method: Literal["dpo", "orpo", "kto"] = "dpo"
    lr: float = Field(5e-5, gt=0)
    beta: float = Field(0.1, gt=0, le=10)
    margin: float = Field(0.0, ge=0, le=1)

    def seconds(self, rows: int) -> float:
        """Two answers a pair, each gone through by the model as it was as well."""
        return START_S + min(self.rows, rows) * (self.samples * DRAWN_S + self.epochs * 2 * 1.3 * self.row_s)


class Rejection(Sampling):
    """Rejection sampling, then SFT on what was kept (Yuan et al. 2023, "Scaling relationship"; STaR, Zelikman et al.
    2022).

    Attributes:
        at_least: the grade that an answer needs.
        with_given: the rows' own answers are trained on as well.
    """

    method: Literal["rejection"] = "rejection"
    at_least: float = Field(1.0, ge=0, le=1)
    with_given: bool = True

    def seconds(self, rows: int) -> float:
        """As if half of what is drawn were kept."""
        drawn = min(self.rows, rows) * self.samples
        trained = (rows if self.with_given else 0) + drawn / 2
        return START_S + drawn * DRAWN_S + self.epochs * trained * self.row_s


class Distillation(Further):
    """Learning what a teacher answers (sequence-level distillation, Kim and Rush 2016).

    Attributes:
        teacher: one of the task's base models; None for the model that training began with, with `shots` answered
            examples in its prompt, whose answers are then learnt without them (Askell et al. 2021, section 2).
        rows: train rows that are asked.
        at_least: the grade that an answer of the teacher needs; 0 takes all of them.
    """

    method: Literal["distil"] = "distil"
    teacher: str | None = None
    shots: int = Field(8, ge=0, le=256)
    rows: int = Field(64, ge=1, le=100_000)
    at_least: float = Field(0.0, ge=0, le=1)

    @property
    def learns_from_grades(self) -> bool:
        return self.at_least > 0

    def seconds(self, rows: int) -> float:
        """The teacher's answers, and training on them."""
        asked = DRAWN_S + self.shots * SHOT_TOKENS * FORWARD_TOKEN_S
        return START_S + min(self.rows, rows) * (asked + self.epochs * self.row_s)


class PolicyGradient(Further):
    """GRPO (Shao et al. 2024, section 4.1): answers to one question compete, and what is graded above their mean is
    made likelier.

    Attributes:
        steps: of the optimizer; `epochs` is not used.
        prompts: questions a step.
        samples: answers to each.
        temperature: of the sampling.
        beta: weight of the divergence from where the stage began; 0 as in later work (Yu et al. 2025).
        epsilon: how far the ratio to the sampling policy may be from 1.
        spread: rewards of a question are divided by their standard deviation; without, as in Dr. GRPO (Liu et al.
            2025).
        whole: weight of the tokens: of the batch alike, or of each answer alike, as in the first paper.
    """

    method: Literal["grpo"] = "grpo"
    lr: float = Field(5e-5, gt=0)
    scheduler: Literal["linear", "cosine", "constant"] = "constant"
    steps: int = Field(20, ge=1, le=100_000)
    prompts: int = Field(4, ge=1, le=1024)
    samples: int = Field(8, ge=2, le=64)
    temperature: float = Field(1.0, gt=0, le=5)
    beta: float = Field(0.0, ge=0, le=10)
    epsilon: float = Field(0.2, gt=0, lt=1)
    spread: bool = True
    whole: Literal["batch", "answer"] = "batch"

    @property
    def learns_from_grades(self) -> bool:
        return True

    def seconds(self, rows: int) -> float:
        """Drawing, and training on what was drawn."""
        return START_S + self.steps * self.prompts * self.samples * (DRAWN_S + self.row_s)

    @model_validator(mode="after")
    def _knows_where_it_began(self) -> PolicyGradient:
        if self.beta and not self.adapters:
            raise ValueError("beta needs adapters, which can be set aside to see where the stage began: tune: lora")
        return self


class Interpolation(Record):
    """Merging: the mean of the weights and those that training began with (WiSE-FT, Wortsman et al. 2022).

    Attributes:
        share: of the trained weights.
    """

    method: Literal["interpolate"] = "interpolate"
    share: float = Field(0.7, ge=0, le=1)

    @property
    def learns_from_grades(self) -> bool:
        return False

    def seconds(self, rows: int) -> float:
        """Reading the base model."""
        return 2.0


Later = Annotated[
    Union[FurtherSFT, Pretraining, Preference, Rejection, Distillation, PolicyGradient, Interpolation],
    Field(discriminator="method"),
]
