"""The example repositories of script mode: their referees, and what their scripts leave and print."""

from __future__ import annotations

import importlib
import json
import math
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Iterator, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from postgrad.cli.main import app
from postgrad.spec import load_task

ROOT = Path(__file__).resolve().parent.parent
NANOLM = ROOT / "examples" / "nanolm"
EXPANSION = ROOT / "examples" / "query-expansion"
STAND_IN = ROOT / "tests" / "data" / "autoresearch"
SMALL = {"depth": 1, "width": 16, "heads": 2, "context": 16}
TEXT = b"A referee reads what a script left, and runs nothing of it. " * 40
SUMMARY = [
    "val_bpb",
    "training_seconds",
    "total_seconds",
    "peak_vram_mb",
    "mfu_percent",
    "total_tokens_M",
    "num_steps",
    "num_params_M",
    "depth",
]


class Example(NamedTuple):
    """A copy of an example with hidden data of the test's own, and its two protected files as modules."""

    folder: Path
    model: ModuleType
    referee: ModuleType

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def make(self, **options: Any) -> Any:
        """A small language model for nanolm."""
        torch.manual_seed(0)
        return self.model.Model(self.model.Config(**SMALL | options))

    def score(self) -> dict[str, Any]:
        self.referee.main()
        read: dict[str, Any] = json.loads((self.folder / "score.json").read_text(encoding="utf-8"))
        return read


def _opened(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: bytes) -> Iterator[Example]:
    folder, secret = tmp_path / source.name, tmp_path / "hidden"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("out", "score.json", "__pycache__"))
    secret.mkdir()
    (secret / "hidden-file").write_bytes(hidden)
    monkeypatch.setenv("POSTGRAD_HIDDEN", str(secret))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    threads = torch.get_num_threads()
    yield Example(folder, importlib.import_module("model"), importlib.import_module("referee"))
    for name in ("model", "referee", "retrieval", "train"):
        sys.modules.pop(name, None)
    torch.set_num_threads(threads)


@pytest.fixture
def nanolm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Example]:
    yield from _opened(NANOLM, tmp_path, monkeypatch, TEXT[:2048])


@pytest.fixture
def expansion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Example]:
    """Its hidden queries are two of those that the script may see."""
    rows = (EXPANSION / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    yield from _opened(EXPANSION, tmp_path, monkeypatch, "".join(rows[:2]).encode())


def run(folder: Path, script: str, **settings: str) -> str:
    """What a script prints; it has to end well."""
    done = subprocess.run(
        [sys.executable, script], cwd=folder, env=os.environ | settings, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def summary(printed: str) -> dict[str, float]:
    """The `key: value` lines after the last `---`."""
    lines = printed.rpartition("---\n")[2].splitlines()
    return {key.strip(): float(value) for key, value in (line.split(":") for line in lines)}


# --- nanolm: what the referee measures -------------------------------------------------------------------------------


def test_weights_by_chance_cost_about_eight_bits(nanolm: Example) -> None:
    nanolm.model.save(nanolm.make(), nanolm.out)
    score = nanolm.score()
    assert 7.9 < score["value"] < 8.4
    assert list(score["items"]) == ["piece-01", "piece-02"]
    assert score["value"] == pytest.approx(sum(score["items"].values()) / 2, abs=1e-9)


def test_a_uniform_model_costs_eight_bits(nanolm: Example) -> None:
    model = nanolm.make()
    torch.nn.init.zeros_(model.head.weight)
    nanolm.model.save(model, nanolm.out)
    assert nanolm.score()["value"] == pytest.approx(8, abs=1e-6)


def test_a_model_of_frequencies_costs_their_cross_entropy(nanolm: Example) -> None:
    """A model that gives each byte its frequency whatever came before costs the entropy of the text's bytes."""
    text, counts = TEXT[:2048], Counter(TEXT[:2048])
    model = nanolm.make()
    with torch.no_grad():
        model.norm.weight.zero_()
        model.norm.bias.zero_()[0] = 1
        model.head.weight.fill_(-30)
        for byte, count in counts.items():
            model.head.weight[byte, 0] = math.log(count / len(text))
    nanolm.model.save(model, nanolm.out)
    entropy = -sum(count / len(text) * math.log2(count / len(text)) for count in counts.values())
    assert nanolm.score()["value"] == pytest.approx(entropy, abs=1e-5)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 24, 25, 100])
def test_each_byte_is_counted_once_whatever_the_batch(
    nanolm: Example, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """Against one window at a time: the first counts whole, each later one its last bytes."""
    model, text = nanolm.make().eval(), TEXT[:length]
    stream = torch.tensor(list(b"\n" + text))
    with torch.inference_mode():
        found = nanolm.referee.bits(model, text)
        monkeypatch.setattr(nanolm.referee, "AT_ONCE", 3)
        assert torch.allclose(nanolm.referee.bits(model, text), found, atol=1e-5)
        for place in range(length):
            # The earliest window that reaches the byte: the first, or one that begins a whole number of strides on.
            start = max(0, -(-(place - 15) // 8) * 8)
            start = max(0, min(start, length - 16))
            logits = model(stream[start : place + 1][None])[0, -1]
            expected = -logits.log_softmax(-1)[stream[place + 1]].item() / math.log(2)
            assert found[place].item() == pytest.approx(expected, abs=1e-4)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"position": "rope", "norm": "rms", "activation": "swiglu", "bias": False, "tied": True},
    {"position": "none", "qk_norm": True, "activation": "relu2"},
    {"convolution": 4, "ngram": 4, "buckets": 64, "activation": "silu", "mlp_ratio": 1},
    {"convolution": 1, "ngram": 2, "activation": "relu", "dropout": 0.5},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_no_option_lets_a_model_see_what_comes(nanolm: Example, options: dict[str, Any]) -> None:
    nanolm.model.save(nanolm.make(**options), nanolm.out)
    model = nanolm.model.load(nanolm.out)
    text = torch.tensor(list(TEXT[:16]))[None]
    with torch.inference_mode():
        whole = model(text)
        for known in (1, 5, 15):
            changed = text.clone()
            changed[:, known:] = 255 - changed[:, known:]
            assert torch.equal(model(changed)[:, :known], whole[:, :known])
            assert torch.allclose(model(text[:, :known]), whole[:, :known], atol=1e-5)


# --- nanolm: what the referee refuses --------------------------------------------------------------------------------


def _config(example: Example, **options: Any) -> None:
    (example.out / "config.json").write_text(json.dumps(SMALL | options), encoding="utf-8")


def _weights(example: Example, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = example.make().state_dict()
    change(weights)
    save_file(weights, example.out / "model.safetensors")


def _pickled(example: Example) -> None:
    (example.out / "model.safetensors").write_bytes(pickle.dumps({"embed.weight": [0.0]}))


def _linked(example: Example) -> None:
    (example.out / "model.safetensors").rename(example.folder / "elsewhere")
    (example.out / "model.safetensors").symlink_to(example.folder / "elsewhere")


FORGED: dict[str, tuple[Callable[[Example], object], str]] = {
    "not a number": (lambda e: _weights(e, lambda w: w["head.weight"][0].fill_(math.nan)), "not finite"),
    "infinite": (lambda e: _weights(e, lambda w: w["head.weight"][0].fill_(math.inf)), "not finite"),
    "overflow": (lambda e: _weights(e, lambda w: w["head.weight"].fill_(3e38)), "predictions are not finite"),
    "shape": (lambda e: _weights(e, lambda w: w.update({"norm.bias": torch.zeros(4)})), "norm.bias"),
    "type": (lambda e: _weights(e, lambda w: w.update({"norm.bias": torch.zeros(16).half()})), "float16"),
    "one too many": (lambda e: _weights(e, lambda w: w.update(more=torch.zeros(1))), "more"),
    "one missing": (lambda e: _weights(e, lambda w: w.pop("norm.bias")), "norm.bias"),
    "pickle": (_pickled, "cannot be read"),
    "link": (_linked, "no plain file"),
    "file missing": (lambda e: (e.out / "config.json").unlink(), "missing"),
    "large file": (lambda e: os.truncate(e.out / "model.safetensors", 30_000_000), "bytes"),
    "too many parameters": (lambda e: _config(e, depth=24, width=1024), "parameters"),
    "too deep": (lambda e: _config(e, depth=1000), "depth"),
    "another option": (lambda e: _config(e, code="model.py"), "other keys"),
    "a word for a number": (lambda e: _config(e, width="16"), "width"),
    "heads": (lambda e: _config(e, heads=3), "multiple"),
    "activation": (lambda e: _config(e, activation="eval"), "activation"),
    "no JSON": (lambda e: (e.out / "config.json").write_text("depth = 1"), "refused"),
    "text cut": (lambda e: Path(os.environ["POSTGRAD_HIDDEN"], "hidden-file").write_bytes(TEXT[:100]), "multiple"),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_checkpoints_are_refused(nanolm: Example, name: str) -> None:
    nanolm.model.save(nanolm.make(), nanolm.out)
    forge, said = FORGED[name]
    forge(nanolm)
    with pytest.raises(SystemExit, match=f"refused: .*{said}" if said != "refused" else said):
        nanolm.score()
    assert not (nanolm.folder / "score.json").exists()


# --- nanolm: the script and the text ---------------------------------------------------------------------------------


def test_three_seconds_of_training_beat_chance(nanolm: Example) -> None:
    printed = summary(run(nanolm.folder, "train.py", POSTGRAD_TIME_S="3", POSTGRAD_SEED="5"))
    assert printed["seed"] == 5
    assert 3 <= printed["training_seconds"] < 10
    assert printed["num_params_M"] <= 1
    assert nanolm.score()["value"] < 7.5


def test_hidden_text_is_nowhere_in_the_training_text() -> None:
    """No line of val or sealed that is long enough to say something, so no document either."""
    lines = {
        name: {line for line in (NANOLM / "text" / f"{name}.txt").read_text("utf-8").splitlines() if len(line) >= 60}
        for name in ("train", "val", "sealed")
    }
    assert all(len(found) > 100 for found in lines.values())
    assert not lines["train"] & (lines["val"] | lines["sealed"]) and not lines["val"] & lines["sealed"]
    assert {(NANOLM / "text" / f"{name}.txt").stat().st_size for name in ("val", "sealed")} == {40 * 1024}


def test_nothing_of_postgrad_is_imported() -> None:
    files = [file for folder in (NANOLM, EXPANSION, STAND_IN) for file in folder.glob("*.py")]
    assert len(files) == 9
    assert not [file for file in files if re.search(r"^\s*(from|import) postgrad", file.read_text("utf-8"), re.M)]


# --- query-expansion -------------------------------------------------------------------------------------------------


def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _writer_of(example: Example, wanted: list[str], **options: Any) -> Any:
    """A model that writes these words first, whatever it is asked."""
    retrieval = importlib.import_module("retrieval")
    vocabulary = sorted({word for row in _rows(EXPANSION / "corpus.jsonl") for word in retrieval.words(row["text"])})
    model = example.model.Expander(example.model.Config(size=4, terms=len(wanted), **options), vocabulary)
    with torch.no_grad():
        model.outward.weight.zero_()
        model.outward.bias.zero_()
        for place, word in enumerate(wanted):
            model.outward.bias[vocabulary.index(word)] = 60.0 - place
    return model


def test_ndcg_and_bm25_on_known_cases(expansion: Example) -> None:
    retrieval = importlib.import_module("retrieval")
    found = [retrieval.ndcg(["a", "b", "c"], wanted) for wanted in "abcd"]
    assert found == pytest.approx([1, 1 / math.log2(3), 0.5, 0])
    sections = [{"id": str(n), "title": text, "text": ""} for n, text in enumerate(("red fox", "red red hen", "owls"))]
    index = retrieval.Index(sections)
    assert index.search({"red": 1}) == ["1", "0"] and index.search({"owl": 1}) == ["2"]
    assert index.search({"red": 1, "fox": 0.5}) == ["0", "1"] and index.search({"elk": 1}) == []
    # One word, once, in one of three sections of mean length 2: log(1 + 2.5 / 1.5) times 2.2 / (1 + 1.2 * 1.0).
    assert index.gains["fox"] == pytest.approx({0: math.log(1 + 2.5 / 1.5)})


def test_an_expansion_is_worth_what_it_finds(expansion: Example) -> None:
    """The same two queries: with words that mislead, well formed as they are, with none, and with words that help."""
    train = importlib.import_module("train")
    rows = _rows(EXPANSION / "train.jsonl")[:2]
    texts = {row["id"]: row for row in _rows(EXPANSION / "corpus.jsonl")}
    retrieval = importlib.import_module("retrieval")
    asked = {word for row in rows for word in retrieval.words(row["query"])}

    def first(section: str, most: int) -> list[str]:
        """Words of a section that no query has."""
        return [word for word in dict.fromkeys(retrieval.words(texts[section]["text"])) if word not in asked][:most]

    helpful = list(dict.fromkeys(first(rows[0]["section"], 12) + first(rows[1]["section"], 12)))
    misleading = first("security/02", 6)
    values = []
    for words, weight in ((misleading, 2.0), (misleading, 0.0), (helpful, 2.0)):
        model = _writer_of(expansion, words, weight=weight)
        assert model.eval().expand(rows[0]["query"]) == words
        assert train.is_well_formed(rows[0]["query"], words) == (words is misleading)
        expansion.model.save(model, expansion.out)
        score = expansion.score()
        assert score["value"] == pytest.approx(sum(score["items"].values()) / 2) and len(score["items"]) == 2
        values.append(score["value"])
    assert values[0] < values[1] < values[2]


def test_three_seconds_of_training_find_more_of_the_logged_queries(
    expansion: Example, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(EXPANSION / "train.jsonl", Path(os.environ["POSTGRAD_HIDDEN"], "hidden-file"))
    printed = summary(run(expansion.folder, "train.py", POSTGRAD_TIME_S="3", POSTGRAD_SEED="2"))
    assert printed["seed"] == 2 and printed["format_reward"] == 1
    value = expansion.score()["value"]
    # How far three seconds reach depends on what else the machine does.
    assert value > float(capsys.readouterr().out.rpartition("without_expansion: ")[2]) + 0.01


FORGED_EXPANDERS: dict[str, tuple[Callable[[dict[str, Any], dict[str, torch.Tensor]], object], str]] = {
    "not a number": (lambda c, w: w["outward.bias"].fill_(math.nan), "not finite"),
    "overflow": (lambda c, w: [w[name].fill_(3e38) for name in ("inward.weight", "outward.weight")], "not finite"),
    "shape": (lambda c, w: w.update({"outward.bias": torch.zeros(3)}), "shapes"),
    "terms": (lambda c, w: c.update(terms=1000), "terms"),
    "weight": (lambda c, w: c.update(weight=math.nan), "weight"),
    "a word twice": (lambda c, w: c["vocabulary"].append(c["vocabulary"][0]), "different"),
    "a sentence as a word": (lambda c, w: c["vocabulary"].append("see section two"), "single words"),
    "another key": (lambda c, w: c.update(code="x"), "other keys"),
}


@pytest.mark.parametrize("name", FORGED_EXPANDERS)
def test_forged_expanders_are_refused(expansion: Example, name: str) -> None:
    expansion.model.save(_writer_of(expansion, ["run"]), expansion.out)
    forge, said = FORGED_EXPANDERS[name]
    config = json.loads((expansion.out / "config.json").read_text(encoding="utf-8"))
    weights = dict(load_file(expansion.out / "model.safetensors"))
    forge(config, weights)
    (expansion.out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(weights, expansion.out / "model.safetensors")
    with pytest.raises(SystemExit, match=f"refused: .*{said}"):
        expansion.score()


def test_hidden_queries_are_others_than_those_logged() -> None:
    files = [EXPANSION / "train.jsonl", EXPANSION / "queries" / "val.jsonl", EXPANSION / "queries" / "sealed.jsonl"]
    rows = [row for file in files for row in _rows(file)]
    assert len({row["query"].lower() for row in rows}) == len(rows) == 210
    assert {row["section"] for row in rows} <= {row["id"] for row in _rows(EXPANSION / "corpus.jsonl")}


# --- the stand-in of an autoresearch repository ----------------------------------------------------------------------


def test_the_stand_in_prints_the_summary_of_autoresearch(tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    shutil.copytree(STAND_IN, folder, ignore=shutil.ignore_patterns("__pycache__"))
    found = summary(run(folder, "train.py"))
    assert list(found) == SUMMARY
    assert found["val_bpb"] < 5 and found["num_steps"] > 10
    assert 2 <= found["training_seconds"] <= found["total_seconds"] < 10
    assert {file.name for file in folder.iterdir()} - {"__pycache__"} == {
        "prepare.py",
        "train.py",
        "program.md",
        "pyproject.toml",
    }


def test_init_writes_a_task_of_the_stand_in(tmp_path: Path) -> None:
    """For an untouched clone of the layout, with nothing asked and nothing edited."""
    shutil.copytree(STAND_IN, tmp_path / "clone", ignore=shutil.ignore_patterns("__pycache__"))
    task = tmp_path / "task.yaml"
    done = CliRunner().invoke(app, ["init", "--script", str(tmp_path / "clone"), "--output", str(task), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["autoresearch"]
    script = load_task(task).script
    assert script is not None
    assert (script.editable, script.run) == (("train.py",), ("python", "train.py"))
    assert (script.printed, script.direction, script.time_s) == ("val_bpb", "min", 2.0)
    assert not script.trusted, "the number is what the script prints"
