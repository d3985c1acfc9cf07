"""Training rows that begin alike: what they share goes through the model once a batch, with its gradient.

Keys and values of the shared tokens are handed to every row, as an answering model does with its cache; what flows back
through them adds up in them. Losses and gradients are those of whole rows up to rounding (with dropout, the shared
tokens have one mask a batch). A system message of 60 tokens before questions of 50 is about half of all the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Sequence

from postgrad.train.lm_checks import NO_LOSS, Tokens

if TYPE_CHECKING:
    import torch

# Tokens that a common beginning has at least, and rows that share it, to be worth computing by itself.
LEAST_SHARED, LEAST_SHARING = 16, 4


def shared_length(rows: Sequence[Tokens]) -> int:
    """How many tokens all rows begin with, the answers and the token before them aside: that one foretells an answer,
    so each row needs its own."""
    first = rows[0].ids
    most = min(next((at for at, label in enumerate(row.labels) if label != NO_LOSS), len(row.ids)) - 1 for row in rows)
    most = max(0, most)
    for row in rows[1:]:
        most = next((at for at in range(most) if row.ids[at] != first[at]), most)
    return most


def plain_layers(cache: Any) -> bool:
    """True where a model keeps all keys and values, and nothing else: layers with windows or states of their own do
    not."""
    from transformers import DynamicCache

    return type(cache) is DynamicCache and all(type(layer).__name__ == "DynamicLayer" for layer in cache.layers)


def logits_of(model: Any, inputs: dict[str, Any], kept: torch.Tensor, shared: int) -> Any:
    """(B, len(kept), V) logits of a batch of rows padded on the right, the first `shared` tokens of which are the same.

    Args:
        inputs: `input_ids` and `attention_mask`, (B, L), and what else the model takes.
        kept: places whose logits are asked for, none of them before `shared`.
        shared: 0 where the model must not keep what it has read, as with gradient checkpointing.
    """
    ids = inputs["input_ids"]
    if shared >= LEAST_SHARED and len(ids) >= LEAST_SHARING:
        cache = model(input_ids=ids[:1, :shared], use_cache=True, logits_to_keep=1).past_key_values
        if plain_layers(cache):
            cache.batch_repeat_interleave(len(ids))
            own = {"input_ids": ids[:, shared:], "attention_mask": inputs["attention_mask"]}
            return model(**own, past_key_values=cache, use_cache=True, logits_to_keep=kept - shared).logits
    return model(**inputs, use_cache=False, logits_to_keep=kept).logits
