"""What is looked at before a language model is trained or asked: mistakes that cost a run and are seen in a second.

Each check raises `CheckFailed` with what was found and the fix. What is odd and yet works is a note, for the log.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Sequence

from postgrad.train.base import CheckFailed
from postgrad.train.chat import Example, Renderer

NO_LOSS = -100
CUT_SHARE = 0.2
LONG_SHARE = 0.05
LOOKED_AT = 50
# Nats that the log-likelihood of an answer may differ by when it is computed token by token.
SCORING_GAP = {"float32": 0.01, "bfloat16": 0.5}
OVERFIT_ROWS, OVERFIT_STEPS, OVERFIT_SHARE = 8, 30, 0.5


@dataclass(frozen=True)
class Tokens:
    """One training row: token ids, and the same ids where loss is taken, `NO_LOSS` elsewhere."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    cut: bool = False


def tokens_of(renderer: Renderer, example: Example) -> Tokens:
    """A training row whose loss is that of the answer and its end."""
    prompt, target = renderer.prompt(example.text), renderer.target(example.answer)
    return Tokens((*prompt.ids, *target), (*(NO_LOSS,) * len(prompt.ids), *target), prompt.cut)


def check_vocabulary(tokenizer: Any, model: Any) -> None:
    """Every token has its row in the model's embeddings."""
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise CheckFailed(
            "vocabulary",
            f"the tokenizer knows {len(tokenizer)} tokens and the model {rows}: they do not belong together. Take the "
            "tokenizer that came with the model.",
        )


def check_template(renderer: Renderer, examples: Sequence[Example]) -> tuple[str, ...]:
    """Every text can be read off its prompt. Notes where tokenizing the whole text at once gives other tokens."""
    other = 0
    looked_at = [example for example in examples[:LOOKED_AT] if not renderer.prompt(example.text).cut]
    for example in looked_at:
        prompt, target = renderer.prompt(example.text).ids, renderer.target(example.answer)
        text = renderer.tokenizer.decode(prompt)
        if _letters(example.text) not in _letters(text):
            raise CheckFailed(
                "template",
                f"the prompt does not hold its text: {example.text[:80]!r} became {text[-160:]!r}. The tokenizer of "
                "the base model cannot spell it: take another base model, or normalise the rows.",
            )
        whole = renderer.tokenizer.decode((*prompt, *target))
        other += tuple(renderer.tokenizer(whole, add_special_tokens=False)["input_ids"]) != (*prompt, *target)
    if not other:
        return ()
    return (
        f"In {other} of {len(looked_at)} rows, prompt and answer have other tokens when they are tokenized in one "
        "piece. Training and asking tokenize them apart, both in the same way.",
    )


def check_mask(renderer: Renderer, rows: Sequence[Tokens], examples: Sequence[Example]) -> None:
    """Exactly the tokens of the answer carry loss, and its end is among them."""
    for row, example in zip(rows[:LOOKED_AT], examples[:LOOKED_AT], strict=True):
        carrying = [token for token in row.labels if token != NO_LOSS]
        if tuple(carrying) != renderer.target(example.answer) or row.ids[-len(carrying) :] != tuple(carrying):
            raise CheckFailed("mask", f"the loss is not on the answer alone: {shown(renderer.tokenizer, row)[-400:]}")
        if carrying[-1] != renderer.end or renderer.end in carrying[:-1]:
            raise CheckFailed(
                "eos",
                f"the answer does not end in the token that ends a turn, once: {shown(renderer.tokenizer, row)[-400:]}",
            )


def shown(tokenizer: Any, row: Tokens) -> str:
    """A training row for a person to read: what carries loss stands in [[...]], each token by itself."""
    found, plain = [], []
    for token, label in zip(row.ids, row.labels, strict=True):
        if label == NO_LOSS:
            plain.append(token)
            continue
        if plain:
            found.append(tokenizer.decode(plain))
            plain = []
        found.append(f"[[{tokenizer.decode([token])}]]")
    return "".join([*found, tokenizer.decode(plain)])


def check_cut(rows: Sequence[Tokens], limit: int) -> None:
    """Few texts are cut."""
    cut = sum(row.cut for row in rows)
    if cut > CUT_SHARE * len(rows):
        raise CheckFailed(
            "truncation",
            f"{cut} of {len(rows)} texts do not fit into {limit} tokens of prompt and would lose their middle. Raise "
            "max_prompt_tokens (as far as the model's context goes), or take fewer shots.",
        )


def check_targets(renderer: Renderer, examples: Sequence[Example], most: int) -> tuple[str, ...]:
    """Few answers are longer than what may be answered. Notes how many are."""
    long = sum(len(renderer.target(example.answer)) > most for example in examples)
    if long > LONG_SHARE * len(examples):
        raise CheckFailed(
            "long_targets",
            f"{long} of {len(examples)} train answers are longer than the {most} tokens that an answer may have. Raise "
            "max_new_tokens, or shorten the answers.",
        )
    return (f"{long} of {len(examples)} train answers are longer than {most} tokens and left out.",) if long else ()


def check_answers(candidates: Sequence[str]) -> None:
    """No two labels are written alike."""
    if len(set(candidates)) < len(candidates):
        double = next(each for number, each in enumerate(candidates) if each in candidates[:number])
        raise CheckFailed("labels", f"two labels are both written {double!r}. Set labels_as to given.")


def check_scoring(model: Any, renderer: Renderer, text: str, candidates: Sequence[str]) -> None:
    """Scoring all answers in one pass gives what scoring one of them by itself gives.

    It does not for models whose layers see more than what an attention mask lets them (recurrent ones).
    """
    import torch

    from postgrad.train.lm_score import log_likelihoods

    prompt = renderer.prompt(text).ids
    answers = [renderer.target(candidate) for candidate in candidates]
    found = float(log_likelihoods(model, [prompt], answers, renderer.prefix)[0, -1])
    with torch.inference_mode():
        ids = torch.tensor([[*prompt, *answers[-1]]], device=model.device)
        logs = model(input_ids=ids).logits[0].float().log_softmax(-1)
    steps = range(len(prompt) - 1, ids.shape[1] - 1)
    alone = sum(float(logs[step, int(ids[0, step + 1])]) for step in steps)
    gap = SCORING_GAP["bfloat16" if model.dtype == torch.bfloat16 else "float32"]
    if not math.isclose(found, alone, rel_tol=0.02, abs_tol=gap):
        raise CheckFailed(
            "scoring",
            f"the likelihood of an answer is {found:.3f} when all are scored together and {alone:.3f} by itself: this "
            "architecture cannot score answers behind one prompt. Take a base model with attention in every layer.",
        )


def check_overfit(model: Any, rows: Sequence[Tokens], lr: float) -> None:
    """Eight rows can be learnt by heart: the loss halves in thirty steps. The model is left as it was."""
    import torch

    trained = [p for p in model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    optimizer = torch.optim.AdamW(trained, lr=lr)
    losses = []
    for _ in range(OVERFIT_STEPS):
        total = 0.0
        optimizer.zero_grad()
        for row in rows[:OVERFIT_ROWS]:
            ids = torch.tensor([row.ids], device=model.device)
            loss = model(input_ids=ids, labels=torch.tensor([row.labels], device=model.device)).loss
            torch.autograd.backward(loss)
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(total)
    with torch.no_grad():
        for parameter, value in zip(trained, before, strict=True):
            parameter.copy_(value)
    if not losses[-1] < OVERFIT_SHARE * losses[0]:
        raise CheckFailed(
            "overfit",
            f"eight rows could not be learnt by heart: the loss went from {losses[0] / OVERFIT_ROWS:.3f} to "
            f"{losses[-1] / OVERFIT_ROWS:.3f} in {OVERFIT_STEPS} steps. Raise lr or lora_r, or take tune: full.",
        )


def _letters(text: str) -> str:
    return "".join(text.split())
