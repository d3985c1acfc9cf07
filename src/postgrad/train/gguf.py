"""GGUF files, the format of llama.cpp: converted once into a folder that training libraries read."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from postgrad.errors import UserError

SUFFIX = "*.gguf"
# Written last: a folder without it is not whole.
CONFIG = "config.json"


def gguf_of(folder: Path) -> Path | None:
    """The only GGUF file of a folder without config.json; None where there is none, or more than one."""
    if not folder.is_dir() or (folder / CONFIG).is_file():
        return None
    found = sorted(folder.glob(SUFFIX))
    return found[0] if len(found) == 1 else None


def cache_folder() -> Path:
    """Where converted models are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "postgrad" / "models"


def converted(file: Path, cache: Path | None = None) -> Path:
    """The folder with weights (bf16, safetensors), tokenizer and configuration of a GGUF file, made on first use.

    It is written beside its place and renamed, so that a conversion that was cut off leaves nothing that looks whole,
    and two at once do no harm. Weights that were quantized stay as coarse as they were.

    Args:
        cache: instead of $XDG_CACHE_HOME/postgrad/models, else ~/.cache/postgrad/models.

    Raises:
        UserError: a library is missing, the architecture is not known, or the folder cannot be written.
    """
    with file.open("rb") as opened:
        name = hashlib.file_digest(opened, "sha256").hexdigest()
    place = (cache or cache_folder()) / name
    if (place / CONFIG).is_file():
        return place
    unfinished = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=place.parent))
        _convert(file, unfinished)
        unfinished.chmod(0o755)
        try:
            unfinished.rename(place)
        except OSError:
            if not (place / CONFIG).is_file():
                raise
    except OSError as wrong:
        raise UserError(
            f"The model {file} is converted into {place.parent}, which failed: {wrong}. Make room there, or name "
            "another folder in XDG_CACHE_HOME."
        ) from wrong
    finally:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
    return place


def _convert(file: Path, folder: Path) -> None:
    try:
        import gguf  # noqa: F401 - transformers needs it and says so late
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ModuleNotFoundError as missing:
        raise UserError(
            f"The model {file} needs the library '{missing.name}' to be read, which is not installed. Install it with: "
            f"pip install 'postgrad[train]' gguf"
        ) from missing
    where: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **where)
        model = AutoModelForCausalLM.from_pretrained(str(file.parent), dtype=torch.float32, **where)
    except (ValueError, KeyError, RuntimeError) as wrong:
        first = str(wrong).strip().split("\n")[0].rstrip(".")
        raise UserError(
            f"The model {file} cannot be read: {first}. Take the same model in safetensors, or a GGUF file of an "
            "architecture that transformers reads."
        ) from wrong
    # transformers takes a model from GGUF for one that is quantized still, and refuses to write it.
    setattr(model, "hf_quantizer", None)  # noqa: B010 - a module's attributes are typed as its parts
    for name in ("is_quantized", "quantization_method", "_is_quantized_training_enabled"):
        model.__dict__.pop(name, None)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    tokenizer.save_pretrained(str(folder), save_jinja_files=False)
    model.save_pretrained(str(folder))
