"""A champion as a folder that works without Postgrad: the model's own files, `predict.py`, a model card."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from postgrad.data.text import visible
from postgrad.errors import UserError
from postgrad.events import Certified, current
from postgrad.report import TEXT, read_view, write_report
from postgrad.report.card import model_card
from postgrad.scripts.history import patch_of
from postgrad.session import run_started
from postgrad.store.sqlite import SqliteStore

REQUIREMENTS = {
    "constant": ("numpy",),
    "classic": ("numpy", "scipy", "scikit-learn", "safetensors"),
    "embedder": ("numpy", "safetensors", "torch", "transformers", "sentence-transformers"),
    "nearest": ("numpy", "scipy", "scikit-learn"),
    "causal_lm": ("numpy", "safetensors", "torch", "transformers"),
    "training_hub": ("numpy", "safetensors", "torch", "transformers", "sentence-transformers"),
    "soup": ("numpy", "safetensors", "torch", "transformers", "sentence-transformers"),
}

# What lies beside the files of a script.
CHANGES, REPORT = "changes.patch", "REPORT.md"
LOADING = """\
import sys

sys.path.insert(0, "this-folder")
from predict import load

model = load()
model(["where is my order?"])  # [{"label": ..., "probability": ..., "score": ...}]

# From the shell: python this-folder/predict.py "where is my order?"
# Where the task's answers are words: [{"answer": ...}].
# A language model is a transformers folder: this-folder/language_model.
# A fine-tuned encoder is a sentence-transformers folder: this-folder/encoder, or this-folder/member-0/encoder.
"""


def export_champion(store: SqliteStore, folder: Path) -> Path:
    """Copy the champion's model to a new `folder`, with what it needs to answer; return the folder.

    Raises:
        UserError: the run has no certified champion, or the folder holds something.
    """
    bodies = current(store.events())
    certified = bodies.get("certified")
    model = store.folder / "model"
    if not isinstance(certified, Certified) or "sealed_done" not in bodies or not model.exists():
        raise UserError(
            f"The run '{store.folder.name}' has no certified champion yet. Finish it with: "
            f"postgrad resume {store.folder.name}"
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file. Name a new folder for the model.")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"The folder {folder} is not empty. Name a new one, so that nothing is overwritten.")
    shutil.copytree(model, folder, dirs_exist_ok=True)
    if run_started(store).task.script is not None:
        return _with_changes(store, folder, certified.champion)
    facts = json.loads((model / "postgrad.json").read_text(encoding="utf-8"))
    facts |= {"threshold": certified.threshold, "run": store.folder.name, "experiment": certified.champion}
    (folder / "postgrad.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
    for name in ("predict.py", *(("predict_language.py",) if uses_language_model(facts["recipe"]["stage"]) else ())):
        shutil.copy(Path(__file__).with_name(name), folder / name)
    (folder / "README.md").write_text(visible(model_card(read_view(store), LOADING)), encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(requirements(facts["recipe"]["stage"])) + "\n")
    return folder


def _with_changes(store: SqliteStore, folder: Path, champion: str) -> Path:
    """The files of a script with what they left, the difference to the source, and the report in short."""
    view = read_view(store)
    recipe = view.tree[champion].proposed.proposal.recipe
    (folder / CHANGES).write_text(patch_of(store.folder, store.folder.name, None, recipe), encoding="utf-8")
    shutil.copy(write_report(view, store.folder).with_name(TEXT), folder / REPORT)
    return folder


def requirements(stage: dict[str, object]) -> list[str]:
    """The libraries a stage needs to answer, in the versions that trained it."""
    names = set(_needed(stage))
    lines = []
    for name in sorted(names):
        try:
            lines.append(f"{name}=={version(name).split('+')[0]}")
        except PackageNotFoundError:
            lines.append(name)
    return lines


def uses_language_model(stage: dict[str, object]) -> bool:
    """True where a stage, or a member of it, is a causal language model."""
    params = stage["params"]
    members = params.get("members", []) if isinstance(params, dict) and stage["backend"] == "ensemble" else []
    if stage["backend"] == "training_hub" and isinstance(params, dict):
        return bool(params.get("algorithm", "embedding_sft") != "embedding_sft")
    return stage["backend"] == "causal_lm" or any(uses_language_model(member["stage"]) for member in members)


def _needed(stage: dict[str, object]) -> tuple[str, ...]:
    if stage["backend"] != "ensemble":
        return REQUIREMENTS.get(str(stage["backend"]), ("numpy",))
    params = stage["params"]
    members = params["members"] if isinstance(params, dict) else []
    return tuple(name for member in members for name in _needed(member["stage"]))
