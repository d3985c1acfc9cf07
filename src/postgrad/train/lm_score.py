"""How likely a language model finds each of a few answers: exact log-likelihoods, without generating anything.

The part that all prompts share goes through the model once, each prompt's own part once, and all answers behind it in
one pass: they are laid out as a tree of their tokens, in which shared beginnings stand once and each token sees the
prompt and its own ancestors only (as in the verification step of SpecInfer, Miao et al. 2024).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Sequence

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

PROMPT_TOKENS_A_BATCH = 2048
LOGITS_MB = 256


@dataclass(frozen=True)
class Tree:
    """K answers as a tree of tokens.

    Attributes:
        tokens: of each node; the last token of an answer is asked for and never given, so it is no node.
        parents: node in front of each node, -1 for the prompt.
        steps: for each answer, (node that asks, token asked for); -1 is the end of the prompt.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    steps: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def depths(self) -> tuple[int, ...]:
        """How many nodes stand in front of each node."""
        found: list[int] = []
        for parent in self.parents:
            found.append(0 if parent < 0 else found[parent] + 1)
        return tuple(found)


def tree_of(answers: Sequence[Sequence[int]]) -> Tree:
    """The tree of answers, each at least one token."""
    nodes: dict[tuple[int, ...], int] = {(): -1}
    tokens: list[int] = []
    parents: list[int] = []
    steps: list[tuple[tuple[int, int], ...]] = []
    for answer in answers:
        path = []
        for length, token in enumerate(answer):
            path.append((nodes[tuple(answer[:length])], token))
            own = tuple(answer[: length + 1])
            if length + 1 < len(answer) and own not in nodes:
                nodes[own] = len(tokens)
                tokens.append(token)
                parents.append(path[-1][0])
        steps.append(tuple(path))
    return Tree(tuple(tokens), tuple(parents), tuple(steps))


def log_likelihoods(
    model: Any, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], prefix: Sequence[int] = ()
) -> NDArray[np.float64]:
    """(N, K) log p(answer | prompt), summed over the tokens of the answer.

    Args:
        prompts: token ids, each of them beginning with `prefix` and longer than it.
    """
    import numpy as np

    found = log_likelihoods_of(model, prompts, [answers] * len(prompts), prefix)
    return np.stack(found) if found else np.zeros((0, len(answers)))


def log_likelihoods_of(
    model: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[Sequence[int]]],
    prefix: Sequence[int] = (),
) -> list[NDArray[np.float64]]:
    """For each of N prompts (K,) log p(answer | prompt) of its own K answers.

    Prompts of the same length with the same answers go through the model together, so that none is padded.

    Args:
        prompts: as in `log_likelihoods`.
        answers: token ids of the answers to each prompt.
    """
    import numpy as np
    import torch

    found = [np.zeros(0)] * len(prompts)
    alike: dict[tuple[int, tuple[tuple[int, ...], ...]], list[int]] = {}
    for number, (prompt, own) in enumerate(zip(prompts, answers, strict=True)):
        alike.setdefault((len(prompt), tuple(map(tuple, own))), []).append(number)
    vocabulary = model.get_output_embeddings().weight.shape[0]
    with torch.inference_mode():
        shared = _cache(model, prefix)
        for (length, own), numbers in sorted(alike.items()):
            tree = tree_of(own)
            fits = int(LOGITS_MB * 1e6 / (4 * vocabulary * (len(tree.tokens) + 1)))
            size = max(1, min(fits, PROMPT_TOKENS_A_BATCH // (length - len(prefix))))
            for start in range(0, len(numbers), size):
                batch = numbers[start : start + size]
                ids = torch.tensor([list(prompts[number][len(prefix) :]) for number in batch], device=model.device)
                for number, row in zip(batch, _batch(model, ids, tree, shared, len(prefix)), strict=True):
                    found[number] = row
    return found


def _cache(model: Any, prefix: Sequence[int]) -> Any:
    """What the model keeps of the tokens that all prompts begin with."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache()
    if prefix:
        ids = torch.tensor([list(prefix)], device=model.device)
        model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def _batch(model: Any, ids: torch.Tensor, tree: Tree, shared: Any, before: int) -> NDArray[np.float64]:
    """(B, K) for (B, L) ids behind `before` shared tokens."""
    import numpy as np
    import torch

    count = len(ids)
    cache = copy.deepcopy(shared)
    if before:
        cache.batch_repeat_interleave(count)
    first = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    logits = [first[:, -1:]]
    if tree.tokens:
        past = before + ids.shape[1]
        nodes = torch.tensor(tree.tokens, device=ids.device).expand(count, -1)
        places = torch.tensor(tree.depths, device=ids.device).expand(count, -1) + past
        mask = _mask(tree, past, first.dtype).to(ids.device).expand(count, 1, -1, -1)
        behind = model(input_ids=nodes, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True)
        logits.append(behind.logits)
    asked = sorted({step for steps in tree.steps for step in steps})
    at = {step: number for number, step in enumerate(asked)}
    both = torch.cat(logits, 1).float()
    norms = both.logsumexp(-1)
    nodes_asked = torch.tensor([node + 1 for node, _ in asked], device=ids.device)
    tokens_asked = torch.tensor([token for _, token in asked], device=ids.device)
    single = (both[:, nodes_asked, tokens_asked] - norms[:, nodes_asked]).double().cpu().numpy()
    columns = [single[:, [at[step] for step in steps]].sum(1) for steps in tree.steps]
    return np.stack(columns, 1)


def _mask(tree: Tree, past: int, kind: torch.dtype) -> torch.Tensor:
    """(T, past + T), to be added: each node sees all that is past, its ancestors and itself."""
    import torch

    size = len(tree.tokens)
    sees = torch.eye(size, dtype=torch.bool)
    for node, parent in enumerate(tree.parents):
        if parent >= 0:
            sees[node] |= sees[parent]
    sees = torch.cat([torch.ones(size, past, dtype=torch.bool), sees], 1)
    return torch.zeros(sees.shape, dtype=kind).masked_fill(~sees, torch.finfo(kind).min)
