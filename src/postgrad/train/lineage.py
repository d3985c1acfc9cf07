"""Does a saved model come from the base model that its recipe names? Compared file by file, without loading either.

Reads safetensors headers and tensors itself, so that no training library is needed and bf16 can be read by numpy.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping

from postgrad.records import Record, Stage
from postgrad.train.embedder import EmbedderParams
from postgrad.train.soup import shared_stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Above this share of the base's own length the weights are taken to be others. Unrelated weights of the same size lie
# at about 1.4; see docs/data.md for what fine-tuning moves.
FAR = 0.25
HEADER_BYTES = 100_000_000
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
ROUNDING = {"BF16": 2.0**-8, "F16": 2.0**-11}
# Written by the saving library and not by the training, or without effect on the answers.
PASSING = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "gradient_checkpointing"}
TOKENIZER_PARTS = ("model", "normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens")
TOKENIZER_SETTINGS = ("tokenizer_class", "do_lower_case", "strip_accents", "tokenize_chinese_chars", "chat_template")
NEVER_TRAINED = "embeddings"
UNTRAINED = ("frozen", "none")


@dataclass(frozen=True)
class Encoder:
    """A copy of a base model inside a saved model.

    Attributes:
        name: where it is, relative to the saved model.
        folder: the same on the disk.
        tune: what the recipe trains of it, as in `EmbedderParams` or `CausalLMParams`.
        language: the stage that made it, where it is a language model.
    """

    name: str
    folder: Path
    tune: str
    language: Stage | None = None


class Distance(Record):
    """How far a saved model's weights are from the base's.

    Attributes:
        total: the length of the difference by the length of the base, over all tensors.
        moved: how many tensors differ at all, of `tensors`.
        farthest: the tensors that moved most, with their own relative distance, largest first.
        missing, added, reshaped: tensors that only the base has, only the saved model, or both in other shapes.
        untouchable: tensors that the recipe never trains and that differ all the same.
    """

    total: float
    moved: int
    tensors: int
    farthest: tuple[tuple[str, float], ...] = ()
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()
    untouchable: tuple[str, ...] = ()

    def problems(self, tune: str, far: float = FAR) -> tuple[str, ...]:
        """What cannot be, when a base model was tuned in the way of `tune`; from `far` on it is another model."""
        found = [
            f"{len(names)} tensors {what} ({names[0]})"
            for names, what in (
                (self.missing, "of the base are not there"),
                (self.added, "are not in the base"),
                (self.reshaped, "have another shape"),
                (self.untouchable, "moved that this recipe never trains"),
            )
            if names
        ]
        if tune not in UNTRAINED and self.total == 0:
            found.append("no weight differs from the base, and the recipe says that it was trained")
        if not self.total < far:
            found.append(f"the weights are {self.total:.2f} of the base's length away: they are not a tuned copy of it")
        return tuple(found)


def encoders(stage: Stage, folder: Path, name: str = "") -> Iterator[Encoder]:
    """The copies of the base model that the backends of this project save, those of an ensemble's members too.

    Models that Training Hub trained are left out.
    """
    if stage.backend in ("embedder", "soup"):
        tune = EmbedderParams.model_validate(shared_stage(stage).params).tune
        yield Encoder(f"{name}encoder", folder / "encoder", tune)
    if stage.backend == "causal_lm":
        from postgrad.train.lm_lineage import tune_of
        from postgrad.train.lm_model import WEIGHTS

        yield Encoder(f"{name}{WEIGHTS}", folder / WEIGHTS, tune_of(stage), stage)
    members: Any = stage.params.get("members") if stage.backend == "ensemble" else None
    for number, member in enumerate(members or ()):
        inner = f"member-{number}"
        yield from encoders(Stage.model_validate(member["stage"]), folder / inner, f"{name}{inner}/")


def differences(base: Path, saved: Path) -> tuple[str, ...]:
    """Settings of architecture and tokenizer in which a saved encoder is not its base, in words.

    What libraries rewrite when they save (versions, padding, truncation) is left out; a file that only one of them has
    is compared with nothing.
    """
    found = []
    before, after = read_object(base / "config.json"), read_object(saved / "config.json")
    for key in sorted((before.keys() & after.keys()) - PASSING):
        if before[key] != after[key]:
            found.append(f"config.json: {key} is {_short(after[key])}, in the base {_short(before[key])}")
    before, after = read_object(base / "tokenizer.json"), read_object(saved / "tokenizer.json")
    if before and after:
        found += [f"tokenizer.json: another {part}" for part in TOKENIZER_PARTS if before.get(part) != after.get(part)]
    before, after = read_object(base / "tokenizer_config.json"), read_object(saved / "tokenizer_config.json")
    for key in TOKENIZER_SETTINGS:
        if key in before and key in after and before[key] != after[key]:
            found.append(f"tokenizer_config.json: {key} is {_short(after[key])}, in the base {_short(before[key])}")
    return tuple(found)


def distance(base: Path, saved: Path, tune: str) -> Distance:
    """Compare every floating-point tensor of two folders with safetensors. One tensor of each is in memory at a time.

    Raises:
        ValueError: a file is no safetensors file.
        OSError: a file cannot be read.
    """
    return measured(tensors(base), tensors(saved), lambda name: tune == "frozen" or NEVER_TRAINED in name)


def measured(
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    left_alone: Callable[[str], bool],
    stored: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
) -> Distance:
    """Compare tensors by name.

    Args:
        left_alone: whether the tensor of a name is never trained.
        stored: what saving makes of the base's numbers. Without it, a difference that is no more than the rounding of
            one of the two is none.
    """
    import numpy as np

    shared = [name for name in before if name in after]
    reshaped = tuple(name for name in shared if before[name].shape != after[name].shape)
    away: dict[str, float] = {}
    lost, whole = 0.0, 0.0
    for name in (name for name in shared if name not in reshaped):
        first, second = before[name].read(), after[name].read()
        # Tables that are no parameters are saved as they are.
        first = first if stored is None or np.array_equal(first, second) else stored(first)
        gap, length = float(np.sum((second - first) ** 2)), float(np.sum(first**2))
        lost, whole = lost + gap, whole + length
        if not gap <= length * (_rounding(before[name], after[name]) ** 2 if stored is None else 0.0):
            away[name] = math.sqrt(gap / length) if length else math.inf
    farthest = sorted(away.items(), key=lambda pair: (-pair[1], pair[0]))[:5]
    return Distance(
        total=math.sqrt(lost / whole) if whole else math.inf,
        moved=len(away),
        tensors=len(shared),
        farthest=tuple(farthest),
        missing=tuple(name for name in before if name not in after),
        added=tuple(name for name in after if name not in before),
        reshaped=reshaped,
        untouchable=tuple(name for name in away if left_alone(name)),
    )


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies in a file."""

    file: Path
    start: int
    kind: str
    shape: tuple[int, ...]

    def read(self) -> NDArray[np.float64]:
        import numpy as np

        count = math.prod(self.shape)
        raw = np.memmap(self.file, FLOATS[self.kind], "r", self.start, (count,)) if count else np.zeros(0, "<f4")
        if self.kind == "BF16":
            # The upper half of a float32.
            raw = (raw.astype("<u4") << 16).view("<f4")
        return raw.astype(np.float64)


def _rounding(first: Tensor, second: Tensor) -> float:
    """The relative difference that saving in another precision makes by itself; 0 where both have the same."""
    return 0.0 if first.kind == second.kind else max(ROUNDING.get(kind, 0.0) for kind in (first.kind, second.kind))


def tensors(folder: Path) -> dict[str, Tensor]:
    """Name -> floating-point tensor, of all safetensors files of a folder."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > HEADER_BYTES:
                raise ValueError(f"{path.name} is no safetensors file: its header would have {size:,} bytes")
            header: Mapping[str, Any] = json.loads(file.read(size))
        for name, facts in header.items():
            if name != "__metadata__" and facts["dtype"] in FLOATS:
                start = 8 + size + facts["data_offsets"][0]
                found[name] = Tensor(path, start, facts["dtype"], tuple(facts["shape"]))
    return found


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is no such file."""
    if not path.is_file():
        return {}
    value = json.loads(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
