"""Answers in words as a task wants them: generated, or the option of a multiple-choice question that is likeliest."""

from __future__ import annotations

from typing import Any, Sequence

from postgrad.choices import answers_in
from postgrad.records import Generation
from postgrad.train.base import Texts
from postgrad.train.chat import Renderer
from postgrad.train.lm_generate import generate
from postgrad.train.lm_score import log_likelihoods_of


def answer(model: Any, renderer: Renderer, generation: Generation, texts: Sequence[str]) -> Texts:
    """Answer every text, by `choose` where the task has options and by `generate` elsewhere."""
    way = generate if generation.choices is None else choose
    return way(model, renderer, generation, texts)


def choose(model: Any, renderer: Renderer, generation: Generation, texts: Sequence[str]) -> Texts:
    """Answer every text with one of its options, by letter or in the option's words as `generation.choices` has it.

    The likeliest wins, the first of equals; `text_per_byte` divides the log-likelihood by the option's bytes in UTF-8,
    so that long options stand no worse (Gao 2021, "Multiple choice normalization in LM evaluation"). A text that lists
    no options is answered freely.
    """
    import numpy as np

    options = [answers_in(text, generation) for text in texts]
    free = [number for number, found in enumerate(options) if not found]
    said = generate(model, renderer, generation, [texts[number] for number in free])
    answers, tokens = [""] * len(texts), np.zeros(len(texts), np.int64)
    for number, text, count in zip(free, said.texts, said.tokens, strict=True):
        answers[number], tokens[number] = text, count
    bound = [number for number, found in enumerate(options) if found]
    prompts = [renderer.prompt(texts[number]).ids for number in bound]
    targets = [[renderer.target(option) for option in options[number]] for number in bound]
    for number, target, likely in zip(
        bound, targets, log_likelihoods_of(model, prompts, targets, renderer.prefix), strict=True
    ):
        sizes = [len(option.encode()) if generation.choices == "text_per_byte" else 1 for option in options[number]]
        best = int(np.argmax(likely / np.array(sizes)))
        answers[number], tokens[number] = options[number][best], len(target[best])
    return Texts(tuple(answers), tokens)
