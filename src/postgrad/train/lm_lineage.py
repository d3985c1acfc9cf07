"""Does a saved language model come from the base model that its recipe names? Compared without loading either.

A saved model holds bf16 numbers whatever its base holds, so the base is rounded as they were before it is compared.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping

from postgrad.records import Stage
from postgrad.train.lineage import Distance, Tensor, differences, measured, read_object, tensors
from postgrad.train.lm_model import ADAPTER, FACTS
from postgrad.train.lm_params import CausalLMParams
from postgrad.train.models import model_hash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPECIAL = ("bos_token", "eos_token", "unk_token")
TEMPLATE_FILE = "chat_template.jinja"
HEAD = "lm_head.weight"
# Layers that adapters are not put on: those that turn tokens into vectors and back.
_TOKENS = re.compile(r"embed|lm_head|(^|\.)(wte|wpe|shared)\.")
# Tables that old libraries saved and that are worked out from the configuration.
_TABLES = re.compile(r"\.(attn|attention)\.(masked_)?bias$|rotary_emb\.inv_freq$")


def tune_of(stage: Stage) -> str:
    """What a recipe's stages together may move: `full` where one trains every weight, else adapters, else `none`."""
    params = CausalLMParams.model_validate(stage.params)
    ways = {*(str(later.tune) for later in (params, *params.then) if hasattr(later, "tune"))}
    ways = {"lora" if way == "qlora" else way for way in ways}
    return next((way for way in ("full", "dora", "lora") if way in ways), "none")


def language_differences(base: Path, saved: Path) -> tuple[str, ...]:
    """Settings of architecture, vocabulary and chat template in which a saved language model is not its base, in words.

    Raises:
        ValueError: a file is no JSON.
        OSError: a file cannot be read.
    """
    found = [odd for odd in differences(base, saved) if "chat_template" not in odd]
    if _template(base) != _template(saved):
        found.append("another chat template")
    before, after = (read_object(folder / "tokenizer_config.json") for folder in (base, saved))
    for key in SPECIAL:
        old, new = _token(before.get(key)), _token(after.get(key))
        if old is not None and old != new:
            found.append(f"tokenizer_config.json: {key} is {new!r}, in the base {old!r}")
    if not (saved / "tokenizer.json").is_file() and (base / "tokenizer.json").is_file():
        found.append("there is no tokenizer.json")
    return tuple(found)


def language_distance(base: Path, saved: Path, tune: str) -> Distance:
    """Compare the weights of two folders; `untouchable` are those that `tune` leaves alone and that moved.

    Raises:
        ValueError: a file is no safetensors file.
        OSError: a file cannot be read.
    """
    before, after = tensors(base), tensors(saved)
    before = _aligned(before, after, bool(read_object(base / "config.json").get("tie_word_embeddings")))
    adapted = _adapted(saved.parent / ADAPTER)
    vocabulary = read_object(saved / "config.json").get("vocab_size")

    def left_alone(name: str) -> bool:
        if tune in ("full", "none"):
            return tune == "none"
        shape = before[name].shape
        if len(shape) != 2 or shape[0] == vocabulary or _TOKENS.search(name):
            return True
        return bool(adapted) and name.removesuffix(".weight") not in adapted

    return measured(before, after, left_alone, in_bf16)


def claims(folder: Path, base: Path, stage: Stage) -> tuple[str, ...]:
    """What a saved language model says of itself and is not so, in words.

    Args:
        folder: holds `language_model.json`.
        base: the base model at hand.
        stage: of the recipe that it should come from.

    Raises:
        ValueError, KeyError, TypeError: the file is not one that `LanguageModel.save` wrote.
        OSError: it cannot be read.
    """
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    wanted = CausalLMParams.model_validate(stage.params)
    found = []
    if CausalLMParams.model_validate(facts["params"]) != wanted:
        found.append("its parameters are not those of the recipe")
    told, here = facts["base"].get("hash"), model_hash(base)
    if told != here:
        named = f"content {str(told)[:12]}" if told else "no base model"
        found.append(f"it names {named}, and the base model has content {here[:12]}")
    passed = [method for method, _ in facts.get("passed", ())]
    stages = [wanted.tune, *(later.method for later in wanted.then)] if wanted.then else []
    if passed != stages:
        found.append(
            f"it went through {' > '.join(passed) or 'one stage'}, in the recipe {' > '.join(stages) or 'one'}"
        )
    if (folder / ADAPTER).is_dir() and (wanted.then or not wanted.adapters):
        found.append("it has adapters, and the recipe leaves none")
    return tuple(found)


def in_bf16(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers as they are after being stored in bf16: to the nearest, ties to the even one, as torch rounds."""
    import numpy as np

    bits = values.astype("<f4").view("<u4").astype(np.uint64)
    upper = ((bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)) << np.uint64(16)
    return upper.astype("<u4").view("<f4").astype(np.float64)


def _aligned(before: Mapping[str, Tensor], after: Mapping[str, Tensor], tied: bool) -> dict[str, Tensor]:
    """The base's tensors under the names of the saved ones: what a library derives is left out, and a prefix that it
    puts in front of names is put there."""
    kept = {name: tensor for name, tensor in before.items() if name in after or not _TABLES.search(name)}
    if tied and HEAD not in after:
        kept.pop(HEAD, None)
    found: dict[str, Tensor] = {}
    for name, tensor in kept.items():
        longer = [] if name in after else [other for other in after if other.endswith(f".{name}")]
        found[longer[0] if len(longer) == 1 and longer[0] not in kept else name] = tensor
    return found


def _adapted(folder: Path) -> frozenset[str]:
    """The layers that saved adapters are on; none where there are no adapters."""
    names = tensors(folder) if folder.is_dir() else {}
    return frozenset(name.removeprefix("base_model.model.").split(".lora_")[0] for name in names if ".lora_" in name)


def _template(folder: Path) -> str | None:
    """The chat template, from either place."""
    path = folder / TEMPLATE_FILE
    if path.is_file():
        return path.read_text(encoding="utf-8").strip()
    found: Any = read_object(folder / "tokenizer_config.json").get("chat_template")
    return found.strip() if isinstance(found, str) else None if found is None else json.dumps(found, sort_keys=True)


def _token(value: Any) -> Any:
    """A special token's text, which libraries write by itself or with its settings."""
    return value.get("content") if isinstance(value, Mapping) else value
