"""Later stages that ask the model nothing: more supervised fine-tuning, continued pretraining, merging."""

from __future__ import annotations

from typing import Any, Sequence

from postgrad.train.base import CheckFailed
from postgrad.train.chat import Example, plain
from postgrad.train.lm_checks import Tokens, tokens_of
from postgrad.train.lm_later import FurtherSFT, Interpolation, Pretraining
from postgrad.train.lm_stages import Ground
from postgrad.train.lm_train import merged, tune, with_adapters
from postgrad.train.lm_tuning import Tuning


def further(ground: Ground, stage: FurtherSFT, model: Any) -> Any:
    """Supervised fine-tuning on the rows once more."""
    return trained_on(ground, stage, model, ground.examples)


def trained_on(ground: Ground, stage: Tuning, model: Any, examples: Sequence[Example]) -> Any:
    """The model after supervised fine-tuning on these examples."""
    return moved(ground, stage, model, [tokens_of(ground.renderer, example) for example in examples])


def moved(ground: Ground, stage: Tuning, model: Any, rows: Sequence[Tokens]) -> Any:
    """The model after training on these tokens."""
    tuned = with_adapters(model, stage) if stage.adapters else model
    tuned.train()
    tune(ground.job, stage, tuned, ground.tokenizer, rows, ground.bf16)
    return merged(tuned, stage)


def pretrain(ground: Ground, stage: Pretraining, model: Any) -> Any:
    """Continued pretraining: loss on every token of the rows' texts.

    Raises:
        CheckFailed: the texts are too few tokens for a piece.
    """
    ids: list[int] = []
    for example in ground.examples:
        ids += [*plain(ground.tokenizer, example.text), ground.renderer.end]
    pieces = [ids[start : start + stage.block] for start in range(0, len(ids), stage.block)]
    rows = [Tokens(tuple(piece), tuple(piece)) for piece in pieces if len(piece) > 1]
    if not rows:
        raise CheckFailed("texts", "the texts of the rows are too short to train on. Leave the stage out.")
    return moved(ground, stage, model, rows)


def interpolate(ground: Ground, stage: Interpolation, model: Any) -> Any:
    """The mean of the weights and those of the base model."""
    import torch

    from postgrad.train.lm_model import load_weights

    assert ground.job.base_model is not None, "fit_language_model has checked that"
    base = dict(load_weights(ground.job.base_model, torch.float32).named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.lerp(base[name].to(parameter), parameter, stage.share))
    return model
