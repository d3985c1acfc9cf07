"""Later stages that train on answers which a model gave: its own that were good enough, or those of a teacher."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Sequence

from postgrad.errors import UserError
from postgrad.train.base import CheckFailed
from postgrad.train.chat import Example, Renderer, renderer
from postgrad.train.lm_choose import answer
from postgrad.train.lm_later import Distillation, Rejection
from postgrad.train.lm_more import trained_on
from postgrad.train.lm_plan import shots_of
from postgrad.train.lm_sample import answering, chosen, drawn, mean_grade
from postgrad.train.lm_stages import Ground


def reject(ground: Ground, stage: Rejection, model: Any) -> Any:
    """Draw answers, keep the different ones that are good enough, train on them.

    Raises:
        CheckFailed: no answer was good enough, and the rows' own are not trained on.
    """
    asked = chosen(ground, stage.rows)
    answers = drawn(ground, answering(model, ground), asked, stage.samples, stage.temperature)
    kept = [
        replace(example, answer=text)
        for example, group in zip(asked, answers, strict=True)
        for text in dict.fromkeys(one.text for one in group if one.grade >= stage.at_least)
        if text and text != example.answer
    ]
    ground.say(
        f"rejection sampling: {stage.samples} answers to each of {len(asked)} rows, worth {mean_grade(answers):.3f} on "
        f"average; {len(kept)} that are new and worth {stage.at_least} or more are kept"
    )
    rows = (*(ground.examples if stage.with_given else ()), *kept)
    if not rows:
        raise CheckFailed(
            "rejection",
            f"none of {stage.samples * len(asked)} drawn answers is worth {stage.at_least}: there is nothing to train "
            "on. Lower at_least, tune on the rows first, or set with_given.",
        )
    return trained_on(ground, stage, model, rows)


def distil(ground: Ground, stage: Distillation, model: Any) -> Any:
    """Have a teacher answer, and train on what it says.

    Raises:
        CheckFailed: no answer of the teacher was good enough.
        UserError: the teacher is no base model of the task.
    """
    asked = chosen(ground, stage.rows)
    teacher, speaks = _teacher(ground, stage, asked)
    said = answer(teacher, speaks, ground.job.generation, [example.text for example in asked]).texts
    grades = ground.grade(asked, said) if stage.learns_from_grades else [1.0] * len(said)
    kept = [
        replace(example, answer=text)
        for example, text, grade in zip(asked, said, grades, strict=True)
        if text and not grade < stage.at_least and text in (ground.candidates or (text,))
    ]
    ground.say(f"distillation: the teacher answered {len(asked)} rows, {len(kept)} of them well enough")
    if not kept:
        raise CheckFailed(
            "distillation",
            f"no answer of the teacher is worth {stage.at_least}. Lower at_least, or take another teacher.",
        )
    return trained_on(ground, stage, model, kept)


def _teacher(ground: Ground, stage: Distillation, asked: Sequence[Example]) -> tuple[Any, Renderer]:
    """The teacher, and how it is asked: with examples in its prompt that it is not asked about, where there are any."""
    import torch

    from postgrad.train.lm_model import load_tokenizer, load_weights

    job = ground.job
    folder = job.base_model if stage.teacher is None else job.models.get(stage.teacher)
    if folder is None:
        known = ", ".join(job.models) or "none"
        raise UserError(
            f"The teacher {stage.teacher!r} is no base model of the task (it has {known}). Add it to base_models."
        )
    tokenizer = load_tokenizer(folder)
    teacher = load_weights(folder, torch.bfloat16 if ground.bf16 else torch.float32)
    others = [example for example in ground.examples if example not in set(asked)] or list(ground.examples)
    rows = [example.row for example in others if example.row is not None]
    held = {row.id for row in shots_of(rows, stage.shots, bool(ground.candidates), job.seed)}
    shots = [example for example in others if example.row is not None and example.row.id in held]
    context = getattr(teacher.config.get_text_config(), "max_position_embeddings", None) or 2**30
    limit = min(job.generation.max_prompt_tokens, context - job.generation.max_new_tokens)
    return teacher, renderer(tokenizer, job.generation, shots, limit)
