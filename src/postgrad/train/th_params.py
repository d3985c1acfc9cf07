"""Settings of the backend `training_hub`: an algorithm of Training Hub, its arguments by their own names, and what
Postgrad puts on top of the model that comes back.

An argument that the chosen algorithm has not, or takes and never reads, is refused: a search that turns a knob without
effect learns from noise.
"""

from __future__ import annotations

from typing import Any, Literal, Mapping

from pydantic import Field, model_validator

from postgrad.errors import near_miss
from postgrad.records import Record, Value
from postgrad.train.embedder import EmbedderParams
from postgrad.train.lm_params import CausalLMParams
from postgrad.train.th_arguments import ALGORITHMS, NEVER, SET_BY_POSTGRAD, TABLE, Arguments

EmbeddingScore = Literal["max_prob", "energy", "max_logit", "knn", "mahalanobis", "blend"]
#: What is Postgrad's own: settings of the head on an encoder, and of how a language model is asked.
HEAD = ("head", "score", "C", "scale", "knn_k", "max_length", "negatives")
ASKING = ("labels_as", "normalise", "calibrate", "lm_score")


class TrainingHubParams(Record):
    """Settings of the backend. What is None is left to Training Hub.

    Attributes:
        algorithm: a function of Training Hub.
        backend: which of the algorithm's backends trains; its first if not given.
        loss_type ... max_prompt_length: Training Hub's arguments, see `th_arguments.TABLE`.
        head, score, C, scale, knn_k, max_length, negatives: the head over a trained encoder, as in `EmbedderParams`.
            Negatives are a label of their own for the encoder too, or nothing.
        labels_as, normalise, calibrate, lm_score: how a trained language model is asked, as in `CausalLMParams`.
    """

    algorithm: Literal["embedding_sft", "sft", "osft", "lora_sft", "lora_grpo", "grpo"] = "embedding_sft"
    backend: str | None = None

    loss_type: Literal["batch_all_triplet", "batch_hard_triplet", "mnrl"] | None = None
    batch_sampler: Literal["group_by_label", "no_duplicates", "default"] | None = None
    batch_size: int | None = Field(None, ge=2, le=1024)
    warmup_ratio: float | None = Field(None, ge=0, le=0.9)

    num_epochs: int | None = Field(None, ge=1, le=200)
    learning_rate: float | None = Field(None, gt=0, le=1)
    effective_batch_size: int | None = Field(None, ge=1, le=4096)
    max_seq_len: int | None = Field(None, ge=16, le=131_072)
    max_tokens_per_gpu: int | None = Field(None, ge=16)
    warmup_steps: int | None = Field(None, ge=0)
    weight_decay: float | None = Field(None, ge=0, le=1)
    beta1: float | None = Field(None, ge=0, lt=1)
    beta2: float | None = Field(None, ge=0, lt=1)
    eps: float | None = Field(None, gt=0)
    lr_scheduler: Literal["linear", "cosine", "constant"] | None = None

    unfreeze_rank_ratio: float | None = Field(None, ge=0, le=1)
    target_patterns: tuple[str, ...] | None = None
    use_liger: bool | None = None
    unmask_messages: bool | None = None

    lora_r: int | None = Field(None, ge=1, le=512)
    lora_alpha: int | None = Field(None, ge=1, le=2048)
    lora_dropout: float | None = Field(None, ge=0, le=0.9)
    target_modules: tuple[str, ...] | None = None
    use_rslora: bool | None = None
    use_dora: bool | None = None
    gradient_accumulation_steps: int | None = Field(None, ge=1, le=1024)
    max_grad_norm: float | None = Field(None, gt=0, le=100)
    load_in_4bit: bool | None = None
    load_in_8bit: bool | None = None

    num_iterations: int | None = Field(None, ge=1, le=10_000)
    group_size: int | None = Field(None, ge=2, le=128)
    prompt_batch_size: int | None = Field(None, ge=1, le=4096)
    temperature: float | None = Field(None, gt=0, le=2)
    max_tokens: int | None = Field(None, ge=1, le=32_768)
    max_prompt_length: int | None = Field(None, ge=16, le=131_072)
    gpu_memory_utilization: float | None = Field(None, gt=0, lt=1)
    tensor_parallel_size: int | None = Field(None, ge=1, le=64)
    n_gpus: int | None = Field(None, ge=1, le=64)
    use_dr_grpo: bool | None = None
    concurrency: int | None = Field(None, ge=1, le=1024)
    max_lora_rank: int | None = Field(None, ge=1, le=512)
    enforce_eager: bool | None = None

    head: Literal["logistic", "prototype", "knn"] = "logistic"
    score: EmbeddingScore = "blend"
    C: float = Field(10.0, gt=0, le=1000)
    scale: float = Field(16.0, gt=0, le=200)
    knn_k: int = Field(1, ge=1, le=50)
    max_length: int = Field(64, ge=8, le=512)
    negatives: Literal["class", "none"] = "none"

    labels_as: Literal["given", "words"] = "given"
    normalise: Literal["none", "tokens"] = "none"
    calibrate: bool = False
    lm_score: Literal["likelihood", "mass", "max_prob", "margin"] = "likelihood"

    @model_validator(mode="before")
    @classmethod
    def _checked(cls, given: Any) -> Any:
        """Refuse what would not do anything, and fill in what the algorithm has by default."""
        if not isinstance(given, Mapping) or given.get("algorithm", "embedding_sft") not in ALGORITHMS:
            return given
        name = str(given.get("algorithm", "embedding_sft"))
        takes = TABLE[name]
        backend = str(given.get("backend") or takes.backends[0])
        # What stands at its default says nothing: a recipe that was tuned has all of them written out.
        usual = {key: field.default for key, field in cls.model_fields.items()}
        said = [key for key, value in given.items() if key not in usual or value != usual[key]]
        problems = [why for key in said if (why := _wrong(key, name, backend, takes))]
        if problems:
            raise ValueError("; ".join(problems))
        own = {key: value for key, value in takes.defaults.items() if key not in takes.never_read(backend)}
        return {**own, **{key: value for key, value in given.items() if value is not None or key not in own}}

    @model_validator(mode="after")
    def _has_the_backend(self) -> TrainingHubParams:
        known = self.known_backends
        if self.backend is not None and self.backend not in known:
            raise ValueError(f"{self.algorithm} has no backend '{self.backend}'; it has: {', '.join(known)}")
        return self

    @property
    def takes(self) -> Arguments:
        """What its algorithm takes."""
        return TABLE[self.algorithm]

    @property
    def known_backends(self) -> tuple[str, ...]:
        cpu = self.takes.cpu_backend
        return (*self.takes.backends, cpu) if cpu else self.takes.backends

    @property
    def encodes(self) -> bool:
        """True where an encoder is trained, which gets a head; else it is a language model."""
        return self.algorithm == "embedding_sft"

    @property
    def needs_gpu(self) -> bool:
        return self.takes.gpu and (self.backend is None or self.backend != self.takes.cpu_backend)

    def arguments(self) -> dict[str, Value]:
        """What Training Hub is called with, by its own names; where things lie and the seed come on top."""
        set_here = {name: getattr(self, name) for name in self.takes.defaults}
        backend = {"backend": self.backend} if self.backend else {}
        return {**(self.takes.fixed or {}), **{k: v for k, v in set_here.items() if v is not None}, **backend}

    def head_params(self) -> EmbedderParams:
        """The head as the embedder backend makes it over an encoder that stays as it is."""
        return EmbedderParams.model_validate({"tune": "frozen", **{name: getattr(self, name) for name in HEAD}})

    def asking_params(self) -> CausalLMParams:
        """How the trained language model is asked, as the causal language model backend does it."""
        shared = {name: getattr(self, name) for name in ("labels_as", "normalise", "calibrate")}
        return CausalLMParams.model_validate({"tune": "none", "score": self.lm_score, **shared})


def _wrong(key: str, algorithm: str, backend: str, takes: Arguments) -> str | None:
    """Why a setting is refused, or None."""
    if key in takes.never_read(backend):
        by = f" with its backend {backend}" if key not in takes.ignored else ""
        return f"{algorithm} takes {key} and never reads it{by}, so nothing would change. Leave it out"
    if key in ("algorithm", "backend") or key in takes.defaults:
        return None
    if key in (HEAD if algorithm == "embedding_sft" else ASKING):
        return None
    if key in (*HEAD, *ASKING):
        kind = "a language model" if algorithm == "embedding_sft" else "an encoder"
        return f"{key} is about {kind}, and {algorithm} trains none. Leave it out"
    if key in SET_BY_POSTGRAD or key in (takes.fixed or {}):
        return f"{key} is set by Postgrad. Leave it out"
    if key in NEVER:
        return (
            f"{key} cannot be part of a recipe: it brings code, data, machines or services from outside. Leave it out"
        )
    known = tuple(takes.defaults)
    return f"{algorithm} has no argument {key}.{near_miss(key, known)} It takes: {', '.join(known)}"
