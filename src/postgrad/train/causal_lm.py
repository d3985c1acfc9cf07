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
from postgrad.train.lm_costs import (
    ANSWER_TOKENS,
    CHECKPOINTING,
    FORWARD_TOKEN_S,
    FP32_FACTOR,
    ROW_TOKENS,
    SHOT_TOKENS,
    START_S,
    TRAIN_TOKEN_S,
    TUNE_SHARE,
)
from postgrad.train.lm_params import CausalLMParams

if TYPE_CHECKING:
    from postgrad.train.chat import Example, Renderer
    from postgrad.train.lm_checks import Tokens
    from postgrad.train.lm_model import Adapter, LanguageModel
    from postgrad.train.lm_plan import Plan
    from postgrad.train.lm_stages import Ground, Passed


class CausalLM:
    """The backend."""

    Params = CausalLMParams
    answers = frozenset({"labels", "words"})

    def space(self, params: Mapping[str, Value]) -> dict[str, Dimension]:
        given = CausalLMParams.model_validate(dict(params))
        if given.tune == "none" and given.then:
            return {}
        if given.tune == "none":
            return {"shots": Dimension(low=0, high=32, integer=True)}
        found = {
            "lr": Dimension(low=5e-6, high=2e-4, log=True),
            "epochs": Dimension(low=1, high=8, log=True, integer=True),
            "batch_size": Dimension(choices=(8, 16, 32)),
            "weight_decay": Dimension(low=0.0, high=0.1),
        }
        if given.least_steps:
            found["least_steps"] = Dimension(low=50, high=800, log=True, integer=True)
        if given.adapters:
            found["lr"] = Dimension(low=5e-5, high=3e-3, log=True)
            found["lora_r"] = Dimension(choices=(4, 8, 16, 32, 64))
            found["lora_alpha"] = Dimension(choices=(8, 16, 32, 64, 128))
            found["lora_dropout"] = Dimension(low=0.0, high=0.2)
        return found

    def seeded(self, params: Mapping[str, Value]) -> bool:
        """False for a model that is asked as it is, without examples that are drawn."""
        given = CausalLMParams.model_validate(dict(params))
        return given.tune != "none" or given.shots > 0 or bool(given.then)

    def nominal_cost(self, params: Mapping[str, Value], rows: int, texts: int) -> float:
        given = CausalLMParams.model_validate(dict(params))
        fp32 = given.precision == "fp32"
        shots = SHOT_TOKENS * given.shots
        later = sum(stage.seconds(rows) for stage in given.then)
        training = TRAIN_TOKEN_S * (FP32_FACTOR["training"] if fp32 else 1.0) * TUNE_SHARE[given.tune]
        if given.gradient_checkpointing:
            training *= CHECKPOINTING
        answering = FORWARD_TOKEN_S * (FP32_FACTOR["answering"] if fp32 else 1.0)
        seen = round(rows * given.share)
        trained = seen * given.passes(seen) * (ROW_TOKENS + shots)
        # What stands in front of every text goes through the model once where labels are scored, and always else.
        asked = texts * (ROW_TOKENS + ANSWER_TOKENS + shots / 2)
        return START_S + training * trained + answering * asked + (FP32_FACTOR["training"] if fp32 else 1.0) * later

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

    from postgrad.train.lm_model import (
        LanguageModel,
        answering_type,
        load_quantised,
        load_tokenizer,
        load_weights,
        rounded,
        uses_bf16,
    )
    from postgrad.train.lm_plan import plan_of
    from postgrad.train.lm_stages import Ground
    from postgrad.train.tuning import repeatable

    if job.base_model is None:
        raise UserError("A language model is tuned from a base model, and the recipe names none. Set its base_model.")
    plan = plan_of(job, params)
    with repeatable(job.seed, job.threads):
        tokenizer = load_tokenizer(job.base_model)
        if params.tune == "qlora":
            model = load_quantised(job.base_model, uses_bf16(params))
        else:
            model = load_weights(job.base_model, torch.float32)
        renderer, rows, examples = _checked(job, params, plan, tokenizer, model)
        ground = Ground(job, params, tokenizer, renderer, examples, plan.candidates, uses_bf16(params))
        model, adapter, passed = _trained(ground, model, rows)
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
            passed=tuple((one.method, one.weights) for one in passed),
        )
        if job.labels and params.calibrate:
            fitted = replace(fitted, offsets=fitted.content_free())
    return fitted


def _checked(
    job: FitJob, params: CausalLMParams, plan: Plan, tokenizer: Any, model: Any
) -> tuple[Renderer, list[Tokens], tuple[Example, ...]]:
    """What prompts are made with, and the training rows as tokens and as texts, once nothing speaks against them."""
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
    return found, rows, examples


def _trained(ground: Ground, model: Any, rows: list[Tokens]) -> tuple[Any, Adapter | None, tuple[Passed, ...]]:
    """The trained model, adapters merged into it; the adapters by themselves, where nothing came after them; and the
    stages that it went through, where there was more than one."""
    import torch

    from postgrad.train.lm_model import load_weights
    from postgrad.train.lm_stages import go_through

    if not rows or not ground.params.then:
        return *_tuned(ground, model, rows), ()
    base = ground.job.base_model
    assert base is not None, "fit_language_model has checked that"
    model, passed = go_through(
        ground, lambda: _tuned(ground, model, rows)[0], lambda: load_weights(base, torch.float32)
    )
    return model, None, passed


def _tuned(ground: Ground, model: Any, rows: list[Tokens]) -> tuple[Any, Adapter | None]:
    """The model after supervised fine-tuning, and the adapters by themselves."""
    from postgrad.train.lm_checks import check_overfit
    from postgrad.train.lm_train import adapter_of, merged, onto_base, tune, with_adapters

    job, params = ground.job, ground.params
    if params.tune == "none" or not rows:
        return model, None
    tuned = with_adapters(model, params) if params.adapters else model
    if params.overfit_check:
        check_overfit(tuned, rows, params.lr)
    tuned.train()
    often = params.model_copy(update={"epochs": params.passes(len(rows))})
    tune(job, often, tuned, ground.tokenizer, rows, ground.bf16, params.packing)
    adapter = adapter_of(tuned, job) if params.adapters else None
    if params.tune == "qlora" and adapter is not None:
        return onto_base(job, params, adapter), adapter
    return merged(tuned, params), adapter
