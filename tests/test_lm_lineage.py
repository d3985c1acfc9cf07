"""Saved language models against their base: honest ones pass, and each thing that was exchanged is seen."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from postgrad.audit.case import Case
from postgrad.audit.weights import weight_checks
from postgrad.records import Generation, Recipe, Row, Stage
from postgrad.testing.language import make_tiny_lm
from postgrad.train.base import FitJob
from postgrad.train.causal_lm import CausalLM
from postgrad.train.lineage import Distance, encoders
from postgrad.train.lm_lineage import claims, in_bf16, language_differences, language_distance, tune_of
from postgrad.train.models import model_hash

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

COLOURS, THINGS = ("red", "blue", "green"), ("car", "hat", "pen", "cup")
TEXTS = [f"the {colour} {thing}" for colour in COLOURS for thing in THINGS]
WAYS: dict[str, dict[str, Any]] = {
    "none": {"tune": "none"},
    "lora": {"tune": "lora", "lr": 3e-3, "epochs": 2},
    "full": {"tune": "full", "lr": 1e-3, "epochs": 2},
    "staged": {"tune": "lora", "lr": 3e-3, "then": [{"method": "sft", "tune": "full"}, {"method": "interpolate"}]},
}


def stage(way: str) -> Stage:
    return Stage(backend="causal_lm", params={**WAYS[way], "precision": "fp32", "batch_size": 8})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_lm(tmp_path_factory.mktemp("base"), TEXTS)


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Way of tuning -> the saved model, trained for real."""
    found = {}
    for way in WAYS:
        folder = tmp_path_factory.mktemp(way)
        job = FitJob(
            rows=tuple(Row(text, text, text.split()[1]) for text in TEXTS),
            params=CausalLM.Params.model_validate(stage(way).params),
            base_model=base,
            seed=3,
            threads=1,
            checkpoint=folder / "checkpoint",
            labels=(),
            out_of_scope=None,
            generation=Generation(max_new_tokens=6),
        )
        CausalLM().fit(job).save(folder / "model")
        found[way] = folder / "model"
    return found


@pytest.fixture
def copies(trained: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The same, to tamper with."""
    return {way: Path(shutil.copytree(folder, tmp_path / way)) for way, folder in trained.items()}


def away(base: Path, saved: Path, way: str) -> Distance:
    return language_distance(base, saved / "language_model", tune_of(stage(way)))


def change(saved: Path, part: str, amount: float = 0.01) -> None:
    path = saved / "language_model" / "model.safetensors"
    tensors = {name: tensor + amount * (part in name) for name, tensor in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize("way", WAYS)
def test_an_honest_model_has_no_problem(way: str, base: Path, trained: dict[str, Path]) -> None:
    found = away(base, trained[way], way)
    assert found.problems(tune_of(stage(way))) == ()
    assert found.tensors >= 20 and not (found.missing or found.added)
    assert (found.moved == 0) == (way == "none")
    assert language_differences(base, trained[way] / "language_model") == ()
    assert claims(trained[way], base, stage(way)) == ()
    if way == "lora":
        assert found.moved == 14, "seven linear layers in each of two blocks, and nothing else"


def test_a_recipe_moves_what_its_freest_stage_moves() -> None:
    assert [tune_of(stage(way)) for way in WAYS] == ["none", "lora", "full", "full"]


def test_weights_of_another_model_are_far_away(base: Path, copies: dict[str, Path], tmp_path: Path) -> None:
    stranger = make_tiny_lm(tmp_path / "stranger", TEXTS, seed=1)
    for way in ("lora", "full"):
        shutil.copy(stranger / "model.safetensors", copies[way] / "language_model" / "model.safetensors")
        problems = away(base, copies[way], way).problems(tune_of(stage(way)), 0.5)
        assert any("not a tuned copy" in problem for problem in problems)


def test_what_adapters_leave_alone_has_not_moved(base: Path, copies: dict[str, Path]) -> None:
    for part in ("embed_tokens", "layers.1.input_layernorm"):
        change(copies["lora"], part)
        found = away(base, copies["lora"], "lora")
        assert any(part in name for name in found.untouchable) and "never trains" in found.problems("lora")[0]
    change(copies["full"], "embed_tokens")
    assert not away(base, copies["full"], "full").problems("full"), "full tuning may move anything"


def test_a_layer_that_the_adapters_are_not_on_has_not_moved(base: Path, copies: dict[str, Path]) -> None:
    path = copies["lora"] / "adapter" / "adapter_model.safetensors"
    save_file({name: t for name, t in load_file(path).items() if "layers.0.mlp.up_proj" not in name}, path)
    assert away(base, copies["lora"], "lora").untouchable == ("model.layers.0.mlp.up_proj.weight",)


def test_a_model_that_was_not_to_be_trained_is_its_base_to_the_bit(base: Path, copies: dict[str, Path]) -> None:
    change(copies["none"], "layers.0.mlp.up_proj", 0.002)
    assert "never trains" in away(base, copies["none"], "none").problems("none")[0]


def test_trained_weights_that_are_the_bases_own_are_seen(base: Path, copies: dict[str, Path]) -> None:
    source = copies["none"] / "language_model" / "model.safetensors"
    shutil.copy(source, copies["lora"] / "language_model" / "model.safetensors")
    assert "was trained" in away(base, copies["lora"], "lora").problems("lora")[0]


def test_another_template_vocabulary_or_architecture_is_seen(base: Path, copies: dict[str, Path]) -> None:
    folder = copies["full"] / "language_model"
    for name, key, value, words in (
        ("tokenizer_config.json", "chat_template", "{{ messages }}", "chat template"),
        ("tokenizer_config.json", "eos_token", "<|pad|>", "eos_token"),
        ("config.json", "num_attention_heads", 8, "num_attention_heads"),
    ):
        kept = (folder / name).read_text()
        (folder / name).write_text(json.dumps({**json.loads(kept), key: value}))
        assert [words in odd for odd in language_differences(base, folder)] == [True]
        (folder / name).write_text(kept)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["extra"] = 9999
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "another model" in language_differences(base, folder)[0]
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert "another chat template" in language_differences(base, folder)
    (folder / "tokenizer.json").unlink()
    assert "there is no tokenizer.json" in language_differences(base, folder)


def test_what_a_model_says_of_itself_is_compared(base: Path, copies: dict[str, Path], tmp_path: Path) -> None:
    facts = copies["staged"] / "language_model.json"
    kept = json.loads(facts.read_text())
    assert kept["base"]["hash"] == model_hash(base)
    for forged, words in (
        ({"base": {"name": "base", "hash": "0" * 64}}, "names content 000000000000"),
        ({"base": {}}, "names no base model"),
        ({"passed": kept["passed"][:2]}, "went through lora > sft, in the recipe lora > sft > interpolate"),
        ({"params": {**kept["params"], "lr": 1.0}}, "parameters"),
    ):
        facts.write_text(json.dumps({**kept, **forged}))
        (odd,) = claims(copies["staged"], base, stage("staged"))
        assert words in odd
    other = make_tiny_lm(tmp_path / "other", TEXTS, seed=2)
    assert "base model has content" in claims(copies["lora"], other, stage("lora"))[0]


def test_rounding_is_that_of_torch() -> None:
    import torch

    values = np.random.default_rng(0).normal(size=4096).astype(np.float32)
    values[:3] = 0.0, 1.00390625, 1.01171875  # nothing, and two ties
    wanted = torch.from_numpy(values).to(torch.bfloat16).to(torch.float64).numpy()
    assert np.array_equal(in_bf16(values.astype(np.float64)), wanted)


def test_names_that_a_library_writes_otherwise_are_the_same_tensors(base: Path, tmp_path: Path) -> None:
    """Old checkpoints have no prefix, hold the tied output layer, and tables that follow from the configuration."""
    import torch

    old = Path(shutil.copytree(base, tmp_path / "old"))
    tensors = load_file(old / "model.safetensors")
    old_names = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    old_names |= {"lm_head.weight": tensors["model.embed_tokens.weight"].clone(), "h.0.attn.bias": torch.ones(4, 4)}
    save_file(old_names, old / "model.safetensors", {"format": "pt"})
    found = language_distance(old, base, "full")
    assert (found.missing, found.added, found.moved) == ((), (), 0) and found.tensors == len(tensors)


@dataclass(frozen=True)
class Known:
    """What the checks of weights read of a run."""

    recipe: Recipe
    base: Path

    def base_hashes(self) -> tuple[str]:
        return (model_hash(self.base),)


def test_the_audit_shows_it(base: Path, copies: dict[str, Path]) -> None:
    for way, folder in copies.items():
        known = cast(Case, Known(Recipe(base_model=f"path:{base}", stage=stage(way)), base))
        found = [check for check, _ in weight_checks(known, folder)]
        assert [check.state for check in found] == ["clean"] * 3, found
        assert [check.about for check in found] == ["lineage", "configuration", "weights"]
        assert all(check.name.startswith("language_model: ") for check in found)
        change(folder, "layers.0.input_layernorm", 0.5)
        wanted = "finding" if way in ("none", "lora") else "clean"
        assert [check.state for check, _ in weight_checks(known, folder)] == ["clean", "clean", wanted]
        (folder / "language_model.json").unlink()
        assert [check.state for check, _ in weight_checks(known, folder)] == ["finding"]


def test_language_models_inside_an_ensemble_are_found(tmp_path: Path) -> None:
    members = [{"stage": stage("lora").model_dump()}, {"stage": {"backend": "classic"}}]
    found = list(encoders(Stage.model_validate({"backend": "ensemble", "params": {"members": members}}), tmp_path))
    assert [(each.name, each.tune) for each in found] == [("member-0/language_model", "lora")]
