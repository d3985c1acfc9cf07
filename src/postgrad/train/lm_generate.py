"""Answers in a language model's own words: greedy, in batches, the same for the same prompts."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Callable, Sequence

from postgrad.errors import UserError
from postgrad.records import Generation
from postgrad.train.base import Texts
from postgrad.train.chat import Renderer
from postgrad.train.lm_shared import LEAST_SHARED, LEAST_SHARING, plain_layers

if TYPE_CHECKING:
    import torch

TOKENS_A_BATCH = 8192
ROWS_A_BATCH = 32


def generate(model: Any, renderer: Renderer, generation: Generation, texts: Sequence[str]) -> Texts:
    """Answer every text with the likeliest token at each step, until the answer ends or is cut.

    Prompts of about one length are answered together, padded on the left.

    Raises:
        UserError: answers have to conform to a schema, and the library for that is missing or refuses the schema.
    """
    import numpy as np

    prompts = [renderer.prompt(text).ids for text in texts]
    order = sorted(range(len(prompts)), key=lambda number: (len(prompts[number]), prompts[number]))
    answers, tokens = [""] * len(texts), np.zeros(len(texts), np.int64)
    held = None
    if generation.json_schema is not None:
        held = schema_processors(renderer, generation, model.get_output_embeddings().weight.shape[0])
    shared = shared_prefix(model, renderer, prompts)
    for batch in _batches(order, [len(prompt) + generation.max_new_tokens for prompt in prompts]):
        made = _batch(model, renderer, generation, [prompts[number] for number in batch], held, shared)
        for number, ids in zip(batch, made, strict=True):
            answers[number], tokens[number] = read_answer(renderer, generation, ids)
    return Texts(tuple(answers), tokens)


def sample(
    model: Any, renderer: Renderer, generation: Generation, prompts: Sequence[Sequence[int]], temperature: float
) -> list[list[int]]:
    """Token ids of one drawn answer to each prompt, the end token included where it came: from all tokens, as likely as
    the model has them at this temperature. What is drawn hangs on the state of torch's generator.

    Raises:
        UserError: as `generate`.
    """
    held = None
    if generation.json_schema is not None:
        held = schema_processors(renderer, generation, model.get_output_embeddings().weight.shape[0])
    found: list[list[int]] = [[] for _ in prompts]
    shared = shared_prefix(model, renderer, prompts)
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    for batch in _batches(order, [len(prompt) + generation.max_new_tokens for prompt in prompts]):
        made = _batch(model, renderer, generation, [prompts[number] for number in batch], held, shared, temperature)
        for number, ids in zip(batch, made, strict=True):
            found[number] = ids
    return found


@dataclass(frozen=True)
class Shared:
    """What all prompts begin with, gone through the model once: keys and values of so many tokens."""

    cache: Any
    length: int

    def of(self, rows: int) -> Any:
        """The keys and values for a batch of rows."""
        own = copy.deepcopy(self.cache)
        own.batch_repeat_interleave(rows)
        return own


def shared_prefix(model: Any, renderer: Renderer, prompts: Sequence[Sequence[int]]) -> Shared | None:
    """What prompts have in common at their beginning, where that is worth while and the model can go on from it."""
    import torch

    prefix = renderer.prefix
    if len(prefix) < LEAST_SHARED or len(prompts) < LEAST_SHARING:
        return None
    # A cut prompt is cut in the text, behind the prefix; that every prompt has it is what the cache relies on.
    if any(tuple(prompt[: len(prefix)]) != prefix or len(prompt) == len(prefix) for prompt in prompts):
        return None
    with torch.inference_mode():
        found = model(input_ids=torch.tensor([prefix], device=model.device), use_cache=True, logits_to_keep=1)
    return Shared(found.past_key_values, len(prefix)) if plain_layers(found.past_key_values) else None


def _batches(order: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Rows in order, as many at once as fit into the tokens of a batch."""
    batches: list[list[int]] = []
    for number in order:
        size = len(batches[-1]) + 1 if batches else 0
        if not batches or size > ROWS_A_BATCH or size * lengths[number] > TOKENS_A_BATCH:
            batches.append([])
        batches[-1].append(number)
    return batches


def _batch(
    model: Any,
    renderer: Renderer,
    generation: Generation,
    prompts: Sequence[Sequence[int]],
    held: Callable[[], Any] | None,
    shared: Shared | None,
    temperature: float | None = None,
) -> list[list[int]]:
    """New token ids of each prompt, the end token included where one came; the likeliest ones without a temperature."""
    import torch
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    # What all prompts begin with stands in front of the padding, where it has been computed already.
    front = 0 if shared is None else shared.length
    width = max(len(prompt) for prompt in prompts)
    ends = sorted({renderer.end, renderer.tokenizer.eos_token_id or renderer.end})
    pad = next(token for token in (renderer.tokenizer.pad_token_id, renderer.end) if token is not None)
    rows = [[*p[:front], *[pad] * (width - len(p)), *p[front:]] for p in prompts]
    seen = [[1] * front + [0] * (width - len(p)) + [1] * (len(p) - front) for p in prompts]
    ids, mask = torch.tensor(rows, device=model.device), torch.tensor(seen, device=model.device)
    # What the makers of a model advise (sampling, penalties) is set aside: the same question has the same answer.
    config: Any = GenerationConfig
    drawn = {"do_sample": False} if temperature is None else {"do_sample": True, "temperature": temperature, "top_k": 0}
    model.generation_config = config(
        max_new_tokens=generation.max_new_tokens, eos_token_id=ends, pad_token_id=pad, **drawn
    )
    allowed = LogitsProcessorList()
    if held is not None:
        allowed.append(held())
    stopping = StoppingCriteriaList([_Stopped(renderer, generation.stop, width)]) if generation.stop else None
    more = {} if shared is None else {"past_key_values": shared.of(len(prompts))}
    with torch.inference_mode():
        made = model.generate(
            input_ids=ids, attention_mask=mask, logits_processor=allowed, stopping_criteria=stopping, **more
        )
    found = []
    for row in made[:, width:].tolist():
        end = next((place for place, token in enumerate(row) if token in ends), len(row) - 1)
        found.append(row[: end + 1])
    return found


def read_answer(renderer: Renderer, generation: Generation, ids: Sequence[int]) -> tuple[str, int]:
    """The text without stop texts, and the tokens that it took."""
    text = _decoded(renderer, ids)
    stops = [place for stop in generation.stop if (place := text.find(stop)) >= 0]
    if not stops:
        return text.strip(), len(ids)
    used = next(
        count
        for count in range(1, len(ids) + 1)
        if any(stop in _decoded(renderer, ids[:count]) for stop in generation.stop)
    )
    return text[: min(stops)].strip(), used


def _decoded(renderer: Renderer, ids: Any) -> str:
    return str(renderer.tokenizer.decode(ids, skip_special_tokens=True))


class _Stopped:
    """Ends a row once a stop text stands in its answer."""

    def __init__(self, renderer: Renderer, stops: Sequence[str], width: int) -> None:
        self.renderer, self.stops, self.width = renderer, stops, width

    def __call__(self, input_ids: torch.Tensor, scores: Any, **more: Any) -> torch.Tensor:
        import torch

        texts = [_decoded(self.renderer, row[self.width :]) for row in input_ids]
        done = [any(stop in text for stop in self.stops) for text in texts]
        return torch.tensor(done, device=input_ids.device)


def schema_processors(renderer: Renderer, generation: Generation, vocabulary: int) -> Callable[[], Any]:
    """Makes what masks the tokens of one batch after which its answers cannot conform to the schema, by llguidance.

    Raises:
        UserError: llguidance is missing, or cannot hold answers to the schema.
    """
    try:
        llguidance = import_module("llguidance")
        from_tokenizer = import_module("llguidance.hf").from_tokenizer
    except ModuleNotFoundError as missing:
        raise UserError(
            "Answers that conform to a JSON schema (generation.json_schema) need the library 'llguidance', which is "
            "not installed. Install it with: pip install llguidance"
        ) from missing
    # Without free space between the parts: a weak model can spend all its tokens on that.
    schema = json.dumps(generation.json_schema)
    grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False})
    if problem := llguidance.LLMatcher.validate_grammar(grammar):
        raise UserError(f"Answers cannot be held to the JSON schema (generation.json_schema): {problem}")
    tokens = from_tokenizer(renderer.tokenizer, n_vocab=vocabulary, eos_token=renderer.end)
    return lambda: _Schema(lambda: llguidance.LLMatcher(tokens, grammar), vocabulary, renderer.end)


class _Schema:
    """One state of the grammar for each row, moved on by the token that was chosen last."""

    def __init__(self, matcher: Any, vocabulary: int, end: int) -> None:
        self.matcher, self.vocabulary, self.end = matcher, vocabulary, end
        self.rows: list[Any] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import numpy as np
        import torch

        masks = import_module("llguidance.numpy")

        if not self.rows:
            self.rows = [self.matcher() for _ in range(len(input_ids))]
        else:
            for row, token in zip(self.rows, input_ids[:, -1].tolist(), strict=True):
                if not row.is_stopped():
                    row.consume_token(token)
        allowed = np.zeros((len(self.rows), self.vocabulary), bool)
        mask = masks.allocate_token_bitmask(1, self.vocabulary)
        for number, row in enumerate(self.rows):
            if row.is_stopped():
                allowed[number, self.end] = True
                continue
            masks.fill_next_token_bitmask(row, mask, 0)
            allowed[number] = np.unpackbits(mask.view(np.uint8), bitorder="little")[: self.vocabulary]
        return scores.masked_fill(~torch.from_numpy(allowed).to(scores.device), float("-inf"))
