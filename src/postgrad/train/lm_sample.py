"""What a language model answers to its own train rows while it is trained: drawn, read and graded."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from random import Random
from typing import Any, Sequence

from postgrad.train.chat import Example
from postgrad.train.lm_generate import read_answer, sample
from postgrad.train.lm_model import rounded
from postgrad.train.lm_stages import Ground


@dataclass(frozen=True)
class Drawn:
    """An answer that the model gave: token ids, its text, and what it is worth, NaN where nobody knows."""

    ids: tuple[int, ...]
    text: str
    grade: float


def chosen(ground: Ground, most: int) -> tuple[Example, ...]:
    """So many of the examples, drawn with the job's seed."""
    found = list(ground.examples)
    Random(ground.job.seed).shuffle(found)
    return tuple(found[:most])


def answering(model: Any, ground: Ground) -> Any:
    """A copy of a model as it would answer: adapters merged, in the precision in which it is asked.

    A copy, because merging adapters into trained weights and taking them out again leaves other weights behind.
    """
    import torch

    twin = copy.deepcopy(model)
    if hasattr(twin, "merge_and_unload"):
        twin = twin.merge_and_unload()
    # A trainer's own forward pass belongs to the model that was copied.
    twin.__dict__.pop("forward", None)
    twin.config.use_cache = True
    if ground.params.gradient_checkpointing or any(getattr(s, "gradient_checkpointing", 0) for s in ground.params.then):
        twin.gradient_checkpointing_disable()
    return rounded(twin, torch.bfloat16 if ground.bf16 else torch.float32).eval()


def drawn(ground: Ground, model: Any, examples: Sequence[Example], count: int, temperature: float) -> list[list[Drawn]]:
    """`count` answers to each example, graded."""
    job = ground.job
    prompts = [ground.renderer.prompt(example.text).ids for example in examples for _ in range(count)]
    asked = [example for example in examples for _ in range(count)]
    made = sample(model, ground.renderer, job.generation, prompts, temperature)
    texts = [read_answer(ground.renderer, job.generation, ids)[0] for ids in made]
    grades = ground.grade(asked, texts)
    every = [Drawn(tuple(ids), text, grade) for ids, text, grade in zip(made, texts, grades, strict=True)]
    return [every[start : start + count] for start in range(0, len(every), count)]


def mean_grade(answers: Sequence[Sequence[Drawn]]) -> float:
    """The mean of all grades that are known; NaN where none is."""
    known = [one.grade for group in answers for one in group if not math.isnan(one.grade)]
    return sum(known) / len(known) if known else math.nan
