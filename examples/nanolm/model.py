"""A byte-level transformer whose options are data. Used by train.py and by the referee; experiments do not edit it.

What train.py leaves is `out/config.json` (the options below) and `out/model.safetensors` (the weights), so the referee
runs no code of an experiment. Whatever the options, a byte is predicted from the bytes before it and from nothing else.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

BYTES = 256
MAX_PARAMETERS = 4_000_000
ACTIVATIONS = ("gelu", "relu", "relu2", "silu", "swiglu")
NORMS = ("layer", "rms")
POSITIONS = ("learned", "rope", "none")


@dataclass(frozen=True)
class Config:
    """The architecture. `check` says which values it may have."""

    depth: int = 4  # blocks
    width: int = 128  # of the residual stream
    heads: int = 4
    context: int = 128  # bytes
    mlp_ratio: float = 4.0  # width of the feed-forward layer by width
    activation: str = "gelu"
    norm: str = "layer"
    position: str = "learned"
    tied: bool = False  # one matrix for the embedding and the output
    bias: bool = True
    qk_norm: bool = False  # queries and keys of length 1, with a learned scale for each head
    convolution: int = 0  # bytes that a causal convolution over the embeddings sees; 0: none
    ngram: int = 0  # embeddings of the last 2 to `ngram` bytes are added, by hash; 0: none
    buckets: int = 4096  # rows of the table of each length of n-gram
    dropout: float = 0.0

    def check(self) -> None:
        """Raise ValueError where a value has the wrong type or is out of bounds."""
        for field in fields(self):
            value, default = getattr(self, field.name), field.default
            kinds = (int, float) if isinstance(default, float) else (type(default),)
            if type(value) not in kinds:
                raise ValueError(f"{field.name} is {value!r}, and {type(default).__name__} was expected")
        bounds = {
            "depth": (1, 24),
            "width": (8, 1024),
            "heads": (1, 32),
            "context": (8, 1024),
            "mlp_ratio": (0.25, 8.0),
            "convolution": (0, 16),
            "ngram": (0, 6),
            "buckets": (16, 65536),
            "dropout": (0.0, 0.9),
        }
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}, and {low} to {high} was expected")
        for name, names in {"activation": ACTIVATIONS, "norm": NORMS, "position": POSITIONS}.items():
            if getattr(self, name) not in names:
                raise ValueError(f"{name} is {getattr(self, name)!r}, and one of {', '.join(names)} was expected")
        if self.width % (2 * self.heads):
            raise ValueError(f"width is {self.width}, and a multiple of twice the {self.heads} heads was expected")


def norm_of(config: Config) -> nn.Module:
    if config.norm == "rms":
        return nn.RMSNorm(config.width)
    return nn.LayerNorm(config.width, bias=config.bias)


def rotate(x: Tensor) -> Tensor:
    """Rotary positions (RoFormer, Su et al. 2021, section 3.2) of queries or keys: batch, heads, time, size."""
    time, half = x.shape[-2], x.shape[-1] // 2
    speeds = 10000.0 ** (-torch.arange(half) / half)
    angles = torch.arange(time)[:, None] * speeds
    left, right = x[..., :half], x[..., half:]
    return torch.cat([left * angles.cos() - right * angles.sin(), left * angles.sin() + right * angles.cos()], -1)


class Attention(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.bias)
        self.out = nn.Linear(config.width, config.width, bias=config.bias)
        if config.qk_norm:
            self.scale = nn.Parameter(torch.full((config.heads, 1, 1), 8.0))

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        parts = self.qkv(x).view(batch, time, 3, self.config.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]
        if self.config.position == "rope":
            query, key = rotate(query), rotate(key)
        scale = None
        if self.config.qk_norm:
            query, key, scale = F.normalize(query, dim=-1) * self.scale, F.normalize(key, dim=-1), 1.0
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
        return self.out(mixed.transpose(1, 2).reshape(batch, time, width))


class FeedForward(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.activation = config.activation
        hidden = int(config.width * config.mlp_ratio)
        self.up = nn.Linear(config.width, hidden * (2 if config.activation == "swiglu" else 1), bias=config.bias)
        self.down = nn.Linear(hidden, config.width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        if self.activation == "swiglu":
            gate, x = x.chunk(2, -1)
            return self.down(F.silu(gate) * x)
        if self.activation == "relu2":
            return self.down(F.relu(x).square())
        return self.down({"gelu": F.gelu, "relu": F.relu, "silu": F.silu}[self.activation](x))


class Block(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.before_attention, self.attention = norm_of(config), Attention(config)
        self.before_feed, self.feed = norm_of(config), FeedForward(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.attention(self.before_attention(x)))
        return x + self.drop(self.feed(self.before_feed(x)))


class Model(nn.Module):
    """Bytes (batch, time) in; logits of the next byte (batch, time, 256) out."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.embed = nn.Embedding(BYTES, config.width)
        self.ngrams = nn.ModuleList(nn.Embedding(config.buckets, config.width) for _ in range(config.ngram - 1))
        if config.convolution:
            self.convolve = nn.Conv1d(config.width, config.width, config.convolution, groups=config.width)
        if config.position == "learned":
            self.places = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = norm_of(config)
        self.head = None if config.tied else nn.Linear(config.width, BYTES, bias=False)
        if (count := sum(weight.numel() for weight in self.parameters())) > MAX_PARAMETERS:
            raise ValueError(f"the model has {count} parameters, and at most {MAX_PARAMETERS} were expected")
        self.apply(self.begin)
        for name, weight in self.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                nn.init.normal_(weight, std=0.02 / (2 * config.depth) ** 0.5)

    @staticmethod
    def begin(module: nn.Module) -> None:
        """How GPT-2 begins: normal weights of 0.02, no bias."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, text: Tensor) -> Tensor:
        x = self.embed(text)
        hashed = text
        for back, table in enumerate(self.ngrams, 1):
            hashed = hashed * 257 + F.pad(text, (back, 0))[:, : text.shape[1]] + 1
            x = x + table((hashed * 2654435761 % 2**31) // 2**7 % self.config.buckets)
        if self.config.convolution:
            padded = F.pad(x.transpose(1, 2), (self.config.convolution - 1, 0))
            x = x + self.convolve(padded).transpose(1, 2)
        if self.config.position == "learned":
            x = x + self.places.weight[: text.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.embed.weight if self.head is None else self.head.weight)


def save(model: Model, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(asdict(model.config), indent=1) + "\n", encoding="utf-8")
    save_file(dict(model.state_dict()), folder / "model.safetensors")


def load(folder: Path) -> Model:
    """What `save` left. Raises ValueError for anything else: other options, names, shapes, types or sizes."""
    for name, most in (("config.json", 10_000), ("model.safetensors", 4 * MAX_PARAMETERS + 100_000)):
        file = folder / name
        if file.is_symlink() or not file.is_file():
            raise ValueError(f"{name} is missing or no plain file")
        if file.stat().st_size > most:
            raise ValueError(f"{name} has {file.stat().st_size} bytes, and at most {most} were expected")
    options = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not isinstance(options, dict) or not set(options) <= {field.name for field in fields(Config)}:
        raise ValueError("config.json has other keys than the options of the model")
    config = Config(**options)
    config.check()
    with torch.device("meta"):  # counted before any memory is taken
        expected = Model(config).state_dict()
    try:
        weights = load_file(folder / "model.safetensors")
    except SafetensorError as error:
        raise ValueError(f"model.safetensors cannot be read: {error}") from error
    if set(weights) != set(expected):
        raise ValueError(f"other weights than expected: {', '.join(sorted(set(weights) ^ set(expected))[:5])}")
    for name, weight in weights.items():
        if weight.shape != expected[name].shape or weight.dtype != torch.float32:
            shape = tuple(expected[name].shape)
            raise ValueError(f"{name} is {weight.dtype} of {tuple(weight.shape)}, and float32 of {shape} was expected")
        if not weight.isfinite().all():
            raise ValueError(f"{name} has numbers that are not finite")
    model = Model(config)
    model.load_state_dict(weights)
    return model.eval()
