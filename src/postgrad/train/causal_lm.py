"""The backend of causal language models: tuned, or asked as they are, for labels or for answers in words.

Where the answers are labels, each is scored by its likelihood behind the prompt and nothing is generated. Where they
are texts, the likeliest tokens are taken one by one. Training is supervised fine-tuning with the loss on the answer
only. Out-of-scope rows are not trained on, unless `negatives` makes them an answer of their own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping

from postgrad.errors import UserError
from postgrad.records import Dimension, Value
from postgrad.train.base import FitJob, Fitted
from postgrad.train.lm_params import CausalLMParams

if TYPE_CHECKING:
    from postgrad.train.chat import Renderer
    from postgrad.train.lm_checks import Tokens
    from postgrad.train.lm_model import Adapter, LanguageModel
    from postgrad.train.lm_plan import Plan

# CPU seconds a token, measured with SmolLM2 (135M) in bf16 on shared cores of a server with instructions for it: 235
# tokens a second in training with LoRA, 750 in scoring. The tokens of a row and of its answers are a guess.
TRAIN_TOKEN_S, FORWARD_TOKEN_S = 1 / 235, 1 / 750
ROW_TOKENS, SHOT_TOKENS, ANSWER_TOKENS = 60, 30, 80
START_S = 10.0
TUNE_SHARE = {"none": 0.0, "full": 1.1, "lora": 1.0, "dora": 1.3}
FP32_FACTOR = {"training": 1.3, "answering": 3.0}


class CausalLM:
    """The backend."""

    Params = CausalLMParams
    answers = frozenset({"labels", "words"})

    def space(self, params: Mapping[str, Value]) -> dict[str, Dimension]:
        given = CausalLMParams.model_validate(dict(params))
        if given.tune == "none":
            return {"shots": Dimension(low=0, high=32, integer=True)}
        found = {
            "lr": Dimension(low=5e-6, high=2e-4, log=True),
            "epochs": Dimension(low=1, high=8, log=True, integer=True),
            "batch_size": Dimension(choices=(8, 16, 32)),
            "weight_decay": Dimension(low=0.0, high=0.1),
        }
        if given.adapters:
            found["lr"] = Dimension(low=5e-5, high=3e-3, log=True)
            found["lora_r"] = Dimension(choices=(4, 8, 16, 32, 64))
            found["lora_alpha"] = Dimension(choices=(8, 16, 32, 64, 128))
            found["lora_dropout"] = Dimension(low=0.0, high=0.2)
        return found

    def seeded(self, params: Mapping[str, Value]) -> bool:
        """False for a model that is asked as it is, without examples that are drawn."""
        given = CausalLMParams.model_validate(dict(params))
        return given.tune != "none" or given.shots > 0

    def nominal_cost(self, params: Mapping[str, Value], rows: int, texts: int) -> float:
        given = CausalLMParams.model_validate(dict(params))
        fp32 = given.precision == "fp32"
        shots = SHOT_TOKENS * given.shots
        training = TRAIN_TOKEN_S * (FP32_FACTOR["training"] if fp32 else 1.0) * TUNE_SHARE[given.tune]
        if given.gradient_checkpointing:
            training *= 1.3
        answering = FORWARD_TOKEN_S * (FP32_FACTOR["answering"] if fp32 else 1.0)
        trained = rows * given.epochs * (ROW_TOKENS + shots)
        # What stands in front of every text goes through the model once.
        asked = shots + texts * (ROW_TOKENS + ANSWER_TOKENS)
        return START_S + training * trained + answering * asked

    def fit(self, job: FitJob) -> Fitted:
        return fit_language_model(job, CausalLMParams.model_validate(job.params.model_dump()))

    def load(self, folder: Path) -> Fitted:
        from postgrad.train.lm_model import load_language_model

        return load_language_model(folder)


def fit_language_model(job: FitJob, params: CausalLMParams) -> LanguageModel:
    """Check, train and make ready.

    Raises:
        CheckFailed: something would spoil the training.
        TrainingDiverged: the loss or a weight is not finite, or the loss has only risen.
        UserError: the recipe names no base model.
    """
    import torch

    from postgrad.train.lm_model import LanguageModel, answering_type, load_tokenizer, load_weights, rounded
    from postgrad.train.lm_plan import plan_of
    from postgrad.train.tuning import repeatable

    if job.base_model is None:
        raise UserError("A language model is tuned from a base model, and the recipe names none. Set its base_model.")
    plan = plan_of(job, params)
    with repeatable(job.seed, job.threads):
        tokenizer = load_tokenizer(job.base_model)
        model = load_weights(job.base_model, torch.float32)
        renderer, rows = _checked(job, params, plan, tokenizer, model)
        adapter = None
        if params.tune != "none" and rows:
            model, adapter = _trained(job, params, model, tokenizer, rows)
        # The weights that answer are those that are saved.
        model = rounded(model, answering_type(params)).eval()
        fitted = LanguageModel(
            model=model,
            renderer=renderer,
            params=params,
            generation=job.generation,
            labels=len(job.labels),
            candidates=plan.candidates,
            columns=plan.columns,
            adapter=adapter,
            base=job.base_model,
        )
        if job.labels and params.calibrate:
            fitted = replace(fitted, offsets=fitted.content_free())
    return fitted


def _checked(
    job: FitJob, params: CausalLMParams, plan: Plan, tokenizer: Any, model: Any
) -> tuple[Renderer, list[Tokens]]:
    """What prompts are made with, and the training rows, once nothing speaks against them."""
    from postgrad.train import lm_checks as checks
    from postgrad.train.chat import plain, renderer

    checks.check_vocabulary(tokenizer, model)
    checks.check_answers(plan.candidates)
    most = max((len(plain(tokenizer, each)) + 1 for each in plan.candidates), default=job.generation.max_new_tokens)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**30
    limit = min(job.generation.max_prompt_tokens, context - most)
    found = renderer(tokenizer, job.generation, plan.shots, limit)
    examples = plan.examples
    notes = list(checks.check_template(found, examples))
    if not job.labels:
        notes += checks.check_targets(found, examples, most)
        examples = tuple(example for example in examples if len(found.target(example.answer)) <= most)
    rows = [checks.tokens_of(found, example) for example in examples]
    checks.check_mask(found, rows, examples)
    checks.check_cut(rows, limit)
    if plan.candidates and plan.examples:
        checks.check_scoring(model, found, plan.examples[0].text, plan.candidates)
    if rows:
        notes.append(f"Loss is taken on what stands in [[...]]: {checks.shown(tokenizer, rows[0])}")
    print("\n".join(notes), flush=True)
    return found, rows


def _trained(
    job: FitJob, params: CausalLMParams, model: Any, tokenizer: Any, rows: list[Tokens]
) -> tuple[Any, Adapter | None]:
    """The trained model, adapters merged into it, and the adapters by themselves."""
    from postgrad.train.lm_checks import check_overfit
    from postgrad.train.lm_model import uses_bf16
    from postgrad.train.lm_train import adapter_of, tune, with_adapters

    tuned = with_adapters(model, params) if params.adapters else model
    if params.overfit_check:
        check_overfit(tuned, rows, params.lr)
    tuned.train()
    tune(job, params, tuned, tokenizer, rows, uses_bf16(params))
    adapter = adapter_of(tuned, job) if params.adapters else None
    if params.adapters:
        model = tuned.merge_and_unload()
    # TRL has put its own forward pass in front of the model's.
    model.__dict__.pop("forward", None)
    model.config.use_cache = True
    return model, adapter
