"""What is known of the numbers of training scripts by their names: the usual range, and what is never tuned.

The ranges are what is usual for neural networks: learning rates and weight decay over a factor of ten either way,
widths and depths over a factor of two, rates and shares in their natural bounds. A name that no rule knows is left
alone. Order of the rules: the special before the general.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Callable, Sequence

from postgrad.records import Dimension

Literal = int | float | bool | str
Make = Callable[[Literal], "Dimension | None"]

WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
SEED_WORDS = {"seed", "seeds", "randomstate", "prngkey"}
SEED_NAMES = re.compile(r"(^|_)(seeds?|random_state|default_rng|rng_key|prng_key|seedall|seed_\w+)($|_)")

#: (names of constants that are one of a few words, how early they usually matter)
WORDED = (
    (r"optim\w*", 3),
    (r"activation|nonlinearity|^act(_fn|_fun)?$", 4),
    (r"schedul\w*|lr_(schedule|decay_type|policy)", 4),
    (r"pos\w*", 5),
    (r"norm(_type|alization)?", 6),
    (r"init(_type|_scheme|ialization)?", 6),
)


def leaf_of(name: str) -> str:
    """The last part of a name in lower snake case: "GPTConfig.nLayer" -> "n_layer", "ADAM_BETAS[1]" -> "adam_betas"."""
    last = re.sub(r"(\[\d+\])?(#\d+)?$", "", name).rsplit(".", 1)[-1]
    return "_".join(word.lower() for word in WORDS.split(last) if word)


def is_seed(name: str) -> bool:
    """Whether a name is that of a seed of a random generator, or of a function that sets one."""
    leaf = leaf_of(name)
    return bool(SEED_NAMES.search(leaf)) or leaf.replace("_", "") in SEED_WORDS


# --- ranges -----------------------------------------------------------------------------------------------------------


def _number(value: Literal) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _times(factor: float, value: Literal, highest: float = 1e12) -> Dimension | None:
    """Any number within a factor, on a log scale."""
    if not _number(value) or not 0 < float(value) <= highest:
        return None
    low, high = (float(f"{edge:.4g}") for edge in (float(value) / factor, min(highest, float(value) * factor)))
    return Dimension(low=low, high=high, log=True)


def _whole_times(factor: float, value: Literal) -> Dimension | None:
    """A whole number within a factor, on a log scale."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        return None
    return Dimension(low=max(1, -int(-value // factor)), high=int(value * factor), log=True, integer=True)


def _between(low: float, high: float, value: Literal) -> Dimension | None:
    if not _number(value) or not low <= float(value) <= high or (isinstance(value, int) and value not in (0, 1)):
        return None
    return Dimension(low=low, high=high)


def _shares(shares: Sequence[float], value: Literal) -> Dimension | None:
    """These multiples of a whole number, those that are whole."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        return None
    found = sorted({int(value * share) for share in shares if value * share == int(value * share) >= 1})
    return Dimension(choices=tuple(found)) if len(found) > 1 else None


def _one_of(usual: Sequence[int], value: Literal) -> Dimension | None:
    """These whole numbers, of which 0 switches something off."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= max(usual):
        return None
    return Dimension(choices=tuple(sorted({*usual, value})))


def _decay(value: Literal) -> Dimension | None:
    """Weight decay: from none where it is off, else on a log scale."""
    return _between(0.0, 0.2, value) if value == 0 else _times(10, value, highest=1.0)


def _clip(value: Literal) -> Dimension | None:
    return _between(0.0, 2.0, value) if value == 0 else _times(5, value)


def _warmup(value: Literal) -> Dimension | None:
    """A share of training where it is a float up to 1, else a number of steps."""
    if isinstance(value, float):
        return _between(0.0, 0.5, value)
    if isinstance(value, int) and value == 0 and not isinstance(value, bool):
        return Dimension(low=0, high=200, integer=True)
    return _whole_times(4, value)


def _warmdown(value: Literal) -> Dimension | None:
    return _between(0.0, 1.0, value) or _whole_times(4, value)


def _widths(value: Literal) -> Dimension | None:
    return _shares((0.5, 0.75, 1, 1.5, 2), value)


def _ratio(value: Literal) -> Dimension | None:
    return _whole_times(2, value) if isinstance(value, int) else _times(2, value)


def _flag(value: Literal) -> Dimension | None:
    return Dimension(choices=(False, True)) if isinstance(value, bool) else None


@dataclass(frozen=True)
class Rule:
    """Names that match `pattern` wholly, or as `_`-separated words of them, have the range that `make` gives.

    Attributes:
        rank: what usually matters comes first, from 0.
    """

    pattern: str
    rank: int
    make: Make

    def knows(self, leaf: str) -> bool:
        """Whether the rule is for this name, as `leaf_of` writes it."""
        return bool(re.search(rf"(?:^|_)(?:{self.pattern})(?:$|_)", leaf))


_powers = partial(_shares, (0.25, 0.5, 1, 2, 4))
_halves = partial(_shares, (0.5, 1, 2))
_share = partial(_between, 0.0, 0.5)
_beta = partial(_between, 0.5, 0.999)

NEVER_FIXED = re.compile(r"warm_?(up|down)|cool_?down|^(per_)?device_(train_)?batch")
#: (pattern, why it is never tuned)
FIXED = (
    (r"time|timeout|deadline|budget|seconds|minutes|hours|wall|kill", "a budget of time"),
    (r"dirs?|dir_name|path|file|folder|root|url|out|dataset|project|run_name|name|tag|version", "a place or a name"),
    (r"vocab\w*|n_classes|num_classes|n_labels|num_labels|out_dim", "given by the data"),
    (
        r"(max_)?(seq|sequence|context|ctx)(_len|_length|_size)?|seqlen|block_size|max_len(gth)?",
        "given by the evaluation",
    ),
    (r"evals?|val|valid|validation|test|evaluate|holdout|split|fold|folds", "part of the evaluation"),
    (
        r"log|logs|logging|print|report|verbose|save|checkpoint|ckpt|wandb|tensorboard|interval|every|profile",
        "for reports",
    ),
    (r"device|dtype|cuda|gpu|gpus|threads?|workers|num_workers|backend|world|rank|port|host|amp|ddp", "of the machine"),
)

RULES = (
    Rule(r"(final|min|end)_(lr_)?(rate|frac|fraction|ratio|share|factor|scale)|lr_floor", 4, _share),
    Rule(r"decay_lr|lr_decay", 6, _flag),
    Rule(r"(warm_?down|cool_?down|anneal)(_\w+)?", 4, _warmdown),
    Rule(r"warm_?up(_\w+)?", 4, _warmup),
    Rule(r"(min|final|end)_(lr|learning_rate)", 5, partial(_times, 10)),
    Rule(r"lr|learning_rate|step_size", 0, partial(_times, 10, highest=10.0)),
    Rule(r"weight_decay|wd", 3, _decay),
    Rule(r"(grad\w*_)?accum\w*(_steps)?", 1, _powers),
    Rule(r"(lr_decay|max|num|n|total)_(iters|iterations|steps|epochs|updates)|^(epochs|steps|iters|iterations)$",
         7, partial(_whole_times, 2)),
    Rule(r"(device|micro|per_device\w*)_batch(_?size)?", 5, _powers),
    Rule(r"batch_?size|bs|batch", 1, _powers),
    Rule(r"n_layers?|num_layers?|layers|depth|n_blocks?|num_blocks?|n_hidden_layers", 2, partial(_whole_times, 2)),
    Rule(r"n_kv_heads?|num_kv_heads?|n_heads?|num_heads?|heads", 3, _halves),
    Rule(r"head_dim|head_size|d_head", 3, _halves),
    Rule(r"n_embd|n_embed|d_model|d_ff|d_hidden|hidden(_size|_dim|_units|s)?|width|model_dim|emb\w*_(dim|size)"
         r"|^emb(ed|edding)?$|dim|ff_dim|ffn_dim|intermediate_size|aspect_ratio|channels|n_channels", 2, _widths),
    Rule(r"mlp_ratio|widening|ff_mult|ffn_mult|expansion(_factor)?|mlp_mult", 3, _ratio),
    Rule(r"betas?|betas?_?[12]|beta1|beta2|momentum|(first|second)_moment|ema(_decay|_beta)?|b1|b2", 5, _beta),
    Rule(r"\w*drop(out)?(_rate|_prob|_p)?|dropout\w*", 6, partial(_between, 0.0, 0.5)),
    Rule(r"label_smoothing|smoothing", 6, partial(_between, 0.0, 0.2)),
    Rule(r"(grad\w*_)?clip\w*(_norm|_value)?|max_norm|max_grad_norm", 6, _clip),
    Rule(r"gamma|decay_rate", 6, _beta),
    Rule(r"n_?grams?", 3, partial(_one_of, (0, 2, 3, 4))),
    Rule(r"convolution|short_conv|conv_(size|width|kernel)", 4, partial(_one_of, (0, 2, 3, 4, 8))),
    Rule(r"n_buckets|buckets|hash_size", 5, _powers),
    Rule(r"eps|epsilon", 8, partial(_times, 100, highest=0.1)),
    Rule(r"(init_)?std|init_scale|initializer_range|sigma", 6, partial(_times, 4)),
    Rule(r"(logit_)?soft_?cap|temperature|rope_(base|theta)", 7, partial(_times, 4)),
    Rule(r"use_\w+|bias|tie\w*|tied\w*|weight_tying|untie\w*|qk_norm|nesterov|amsgrad|pre_norm|shuffle", 6, _flag),
    Rule(r"compile", 7, _flag),
)  # fmt: skip


@dataclass(frozen=True)
class Known:
    """What is known of a number: its range, or why it is never tuned."""

    dimension: Dimension | None
    fixed: str
    rank: int


def known(name: str, value: Literal, offered: Sequence[str] = ()) -> Known | None:
    """What is known of a constant by its name and value; None where nothing is.

    Args:
        offered: strings that are known to be taken in its place.
    """
    leaf = leaf_of(name)
    if is_seed(leaf):
        return Known(None, "a seed", 9)
    for pattern, why in FIXED:
        if not NEVER_FIXED.search(leaf) and re.search(rf"(?:^|_)(?:{pattern})(?:$|_)", leaf):
            return Known(None, why, 9)
    if isinstance(value, str):
        rank = next((rank for pattern, rank in WORDED if re.search(rf"(?:^|_)(?:{pattern})(?:$|_)", leaf)), None)
        choices = tuple(sorted({*offered, value})) if offered else ()
        return Known(Dimension(choices=choices), "", rank) if rank is not None and len(choices) > 1 else None
    for rule in RULES:
        if rule.knows(leaf):
            dimension = _flag(value) if isinstance(value, bool) and rule.make is _flag else rule.make(value)
            return None if dimension is None else Known(dimension, "", rule.rank)
    return None
