"""Answers of a causal language model that Postgrad tuned. Beside `predict.py`, and as that without Postgrad.

Prompts are put together from the token ids that stand in `language_model.json`, so that a text cannot end its own turn.
Labels are scored one candidate at a time: slower than in Postgrad, with the same likelihoods up to rounding. A JSON
schema is not enforced here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Callable, Sequence

import numpy as np

LOG_PROB_SCALE = 0.3


class Language:
    """A saved language model."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        weights = str(folder / WEIGHTS)
        kind = torch.bfloat16 if bf16(self.facts["params"]["precision"]) else torch.float32
        self.tokenizer: Any = AutoTokenizer.from_pretrained(weights, local_files_only=True)
        model: Any = AutoModelForCausalLM.from_pretrained(
            weights, dtype=kind, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
        self.model = model.eval()

    def plain(self, text: str) -> list[int]:
        """Token ids of a text, with special tokens read as letters."""
        found: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return found

    def prompt(self, text: str) -> list[int]:
        """A text too long for the limit loses tokens from its middle."""
        pieces = self.facts["pieces"]
        fixed = sum(len(piece) for piece in pieces if piece is not None)
        room = (self.facts["limit"] - fixed) // pieces.count(None)
        leads, whole = iter(self.facts["leads"]), list[int]()
        for piece in pieces:
            ids = piece if piece is not None else self.plain(next(leads) + text)
            if piece is None and len(ids) > room:
                head = (room + 1) // 2
                ids = ids[:head] + ids[len(ids) - (room - head) :]
            whole += ids
        return whole

    def answer(self, text: str) -> str:
        """The likeliest of the options that the text lists, where the task has them; else the likeliest tokens one by
        one."""
        import torch

        kind = self.facts["generation"].get("choices")
        if kind and (options := [pair[kind != "letter"] for pair in options_in(text)]):
            said = [self.likelihood(self.prompt(text), option) for option in options]
            sizes = [len(option.encode()) if kind == "text_per_byte" else 1 for option in options]
            return options[int(np.argmax(np.array(said) / np.array(sizes)))]
        generation, end = self.facts["generation"], self.facts["end"]
        ids = torch.tensor([self.prompt(text)])
        with torch.inference_mode():
            said = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=generation["max_new_tokens"],
                do_sample=False,
                num_beams=1,
                eos_token_id=end,
                pad_token_id=end,
            )[0, ids.shape[1] :].tolist()
        found: str = self.tokenizer.decode(said[: said.index(end)] if end in said else said, skip_special_tokens=True)
        for stop in generation["stop"]:
            found = found.split(stop, 1)[0]
        return found.strip()

    def likelihoods(self, text: str) -> Any:
        """(C,) log-likelihood of each candidate behind the prompt, divided and calibrated as the recipe says."""
        start, found = self.prompt(text), []
        for candidate in self.facts["candidates"]:
            said = self.likelihood(start, candidate)
            found.append(said / len(self.target(candidate)) if self.facts["params"]["normalise"] == "tokens" else said)
        return np.array(found) - np.array(self.facts["offsets"] or 0.0)

    def target(self, answer: str) -> list[int]:
        """Token ids of an answer and its end."""
        return [*self.plain(self.facts["leads"][-1] + answer), self.facts["end"]]

    def likelihood(self, prompt: list[int], answer: str) -> float:
        """Log-likelihood of an answer and its end behind a prompt."""
        import torch

        target = self.target(answer)
        with torch.inference_mode():
            logits = self.model(input_ids=torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1].float()
        found: float = torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(target)[:, None]).sum().item()
        return found


FACTS, WEIGHTS = "language_model.json", "language_model"
LETTERS = "ABCDEFGHIJ"
OPTION = re.compile(r"^[ \t]*\(?([A-J])[).:：、．][ \t]*(\S.*?)\s*$", re.MULTILINE)
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def bf16(precision: str) -> bool:
    """Whether the model answers in bf16 here: asked for, or there are instructions for it."""
    if precision != "auto":
        return precision == "bf16"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return bool(BF16_FLAGS & set(flags))


def options_in(text: str) -> list[tuple[str, str]]:
    """Letter and words of the last list of options in a text, a line each; [] where there are not two."""
    found: list[tuple[str, str]] = []
    run: list[tuple[str, str]] = []
    for letter, said in OPTION.findall(text):
        run = run if letter == LETTERS[len(run) : len(run) + 1] else []
        if letter == LETTERS[len(run)]:
            run.append((letter, said))
        found = list(run) if len(run) > 1 else found
    return found


def load_texts(folder: Path) -> Callable[[Sequence[str]], list[str]]:
    """Answers in words."""
    language = Language(folder)
    return lambda texts: [language.answer(text) for text in texts]


def load_labels(folder: Path) -> Callable[[Sequence[str]], tuple[Any, Any]]:
    """(N, K) probabilities over the in-scope labels and (N,) in-scope scores."""
    language = Language(folder)
    columns, labels = language.facts["columns"], language.facts["labels"]
    inside = [number for number, column in enumerate(columns) if column >= 0]
    outside = [number for number, column in enumerate(columns) if column < 0]

    def answer(texts: Sequence[str]) -> tuple[Any, Any]:
        found = np.stack([language.likelihoods(text) for text in texts])
        probs = np.zeros((len(found), labels), dtype=np.float32)
        probs[:, [columns[number] for number in inside]] = softmax(found[:, inside])
        return probs, score(found, inside, outside, language.facts["params"]["score"])

    return answer


def softmax(logits: Any) -> Any:
    raised = np.exp(logits - logits.max(1)[:, None])
    return raised / raised.sum(1)[:, None]


def score(found: Any, inside: list[int], outside: list[int], name: str) -> Any:
    """How surely in scope."""
    shares = softmax(found)
    best = shares[:, inside].max(1)
    if name == "max_prob":
        return best.astype(np.float32)
    if name == "margin":
        second = np.sort(shares, axis=1)[:, -2] if shares.shape[1] > 1 else np.zeros(len(shares))
        return np.where(best >= shares.max(1), best - second, best - shares.max(1)).astype(np.float32)
    whole = found[:, inside].max(1) if name == "likelihood" else np.logaddexp.reduce(found[:, inside], axis=1)
    rival = found[:, outside[0]] if outside else 0.0
    return (LOG_PROB_SCALE * (whole - rival)).astype(np.float32)
