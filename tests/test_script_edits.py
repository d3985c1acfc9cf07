"""Edits of training scripts: which apply, that they are Python and run, that they apply once, and that seeds stay."""

from __future__ import annotations

import ast
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postgrad.scripts.deletions import helper_calls
from postgrad.scripts.edits import EDITS, Edit, deletions, edit_of, edits_for
from postgrad.scripts.seeds import seeds
from postgrad.scripts.splice import Script
from script_texts import LOOPS, NANO

SCRIPTS = {"nano": NANO, "loops": LOOPS}
CASES = [(name, edit) for name, source in SCRIPTS.items() for edit in edits_for(source)]
NAMES = [f"{name}-{edit.kind}" for name, edit in CASES]


CLIPPED = "torch.nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)"


def _changed(source: str, edit: Edit) -> tuple[list[str], list[str]]:
    """The lines that went and those that came, without white space."""
    before, after = source.splitlines(), edit.apply(source).splitlines()
    gone, came = [line for line in before if line not in after], [line for line in after if line not in before]
    return [line.strip() for line in gone], [line.strip() for line in came]


def test_most_of_the_table_applies_to_the_two_scripts() -> None:
    kinds = {edit.kind for _, edit in CASES} & {edit.kind for edit in EDITS}
    assert {edit.kind for edit in EDITS} - kinds == {"schedule.held", "schedule.linear", "weights.untie", "compile.off"}
    assert len({edit.kind for edit in EDITS}) == len(EDITS)


@pytest.mark.parametrize(("name", "edit"), CASES, ids=NAMES)
def test_an_edit_applies_once_and_leaves_the_seeds(name: str, edit: Edit) -> None:
    source = SCRIPTS[name]
    after = edit.apply(source)
    ast.parse(after)
    assert after != source and seeds(after) == seeds(source)
    assert not edit.applies(after)
    with pytest.raises(ValueError, match=edit.kind):
        edit.apply(after)


@pytest.mark.parametrize(("name", "edit"), CASES, ids=NAMES)
def test_an_edit_keeps_line_ends(name: str, edit: Edit) -> None:
    source = SCRIPTS[name]
    assert edit.apply(source.replace("\n", "\r\n")).replace("\r\n", "\n") == edit.apply(source)


@pytest.mark.parametrize(
    ("name", "kind", "gone", "came"),
    [
        ("loops", "clip.add", [], ["torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)"]),
        ("nano", "clip.remove", ["if GRAD_CLIP > 0:", CLIPPED], []),
        ("nano", "activation.relu2", ["x = F.gelu(x)"], ["x = F.relu(x).square()"]),
        ("loops", "activation.silu", ["self.act = nn.ReLU()"], ["self.act = nn.SiLU()"]),
        ("loops", "dropout.remove", ["self.dropout = nn.Dropout(drop)"], ["self.dropout = nn.Identity()"]),
        ("loops", "warmup.shorter", ["warmup_steps = 500"], ["warmup_steps = 20"]),
        ("nano", "warmup.longer", ["WARMUP_RATIO = 0.02"], ["WARMUP_RATIO = 0.1"]),
        ("nano", "weights.tie", ["tie_weights: bool = False"], ["tie_weights: bool = True"]),
        ("nano", "init.zero_head", [], ["nn.init.zeros_(self.lm_head.weight)"]),
        ("nano", "delete.unused",
         ["def old_schedule(step):", '"""Was used once."""', "return LEARNING_RATE / (1 + step)"], []),
        ("loops", "delete.unreachable", ["if False:", "print(step, loss.item())"], []),
    ],
)  # fmt: skip
def test_what_an_edit_changes(name: str, kind: str, gone: list[str], came: list[str]) -> None:
    assert _changed(SCRIPTS[name], edit_of(kind)) == (gone, came)


# --- where an edit is not sure, it keeps away -------------------------------------------------------------------------

HAND_MADE = "import math\ndef get_lr(step, total):\n    return 3e-4 * (1 - step / total)\n"
COSINE = "0.5 * (1 + math.cos(math.pi * (x - w) / (1 - w)))"
WAVE = f"import math\ndef rate(x, w):\n    return {COSINE}\n"
DROPPED = "import torch\nfrom torch import nn\nnet = nn.Linear(2, 2)\n"
MODEL = "class A:\n    def __init__(s):\n        s.head = nn.Linear(2, 2)\n"
OPTIMIZER = "optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)\n"


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("clip.add", DROPPED + "opt = make(net)\nopt.step()\n"),
        ("clip.add", DROPPED + OPTIMIZER + "s = torch.amp.GradScaler()\ns.step(optimizer)\noptimizer.step()\n"),
        ("clip.add", DROPPED + OPTIMIZER + "optimizer.step()\nother_optimizer.step()\n"),
        ("clip.add", DROPPED + OPTIMIZER + "x = 1; optimizer.step()\n"),
        ("clip.add", "import torch\n" + OPTIMIZER + "optimizer.step()\n"),
        ("clip.remove", DROPPED + "norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)\n"),
        ("schedule.cosine", HAND_MADE.replace("import math\n", "")),
        ("schedule.cosine", HAND_MADE.replace("get_lr", "area")),
        ("schedule.cosine", "import math\ndef get_lr(cooldown):\n    return cooldown + (1 - cooldown) * 0.1\n"),
        ("activation.gelu", "a = F.relu(x)\nb = F.silu(x)\n"),
        ("activation.gelu", "a = F.relu(x) ** 3\nb = F.relu(x)\n"),
        ("activation.relu2", "a = nn.ReLU()\n"),
        ("init.zero_head", MODEL + "        s.apply(s.init)\n"),
        ("init.zero_head", MODEL + "        s.wte.weight = s.head.weight\n"),
        ("optimizer.fused", "o = torch.optim.AdamW(p, **more)\n"),
        ("optimizer.matrices", "o = torch.optim.AdamW(groups, weight_decay=0.1)\n"),
        ("labels.smooth", "a = F.cross_entropy(x, y, reduction='none')\n"),
        ("labels.hard", "a = F.cross_entropy(x, y, label_smoothing=0.0)\n"),
        ("bias.remove", "a = nn.Linear(2, 3)\nnn.init.zeros_(a.bias)\n"),
        ("data.shuffle", "val_loader = DataLoader(rows, shuffle=False)\n"),
        ("weights.tie", "ties = False\nprint(ties)\n"),
        ("delete.unused", "def f():\n    return 1\nprint(globals()['f']())\n"),
        ("delete.unused", "@register\ndef f():\n    return 1\n"),
        ("delete.unused", "import plugin_with_effects\ndef f(): return plugin_with_effects\nf()\n"),
        ("delete.unused", "import json\nprint(1)\n"),
        ("delete.unreachable", "if False:\n    a = 1\nelse:\n    a = 2\n"),
        ("delete.unreachable", "def f():\n    if 0:\n        return 1\n"),
    ],
)  # fmt: skip
def test_what_is_not_sure_is_left_alone(kind: str, source: str) -> None:
    assert not edit_of(kind).applies(source)


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("schedule.cosine", HAND_MADE,
         HAND_MADE.replace("1 - step / total", "0.5 * (1.0 + math.cos(math.pi * (step / total)))")),
        ("schedule.linear", "import math\ndef lr(x):\n    return 2 * (0.5 * (1.0 + math.cos(math.pi * x)))\n",
         "import math\ndef lr(x):\n    return 2 * ((1.0 - (x)))\n"),
        ("schedule.linear", WAVE, WAVE.replace(COSINE, "(1.0 - ((x - w) / (1 - w)))")),
        ("schedule.held", HAND_MADE,
         HAND_MADE.replace("(1 - step / total)", "(min(1.0, 2.0 * (1.0 - (step / total))))")),
        ("schedule.held", WAVE,
         WAVE.replace(COSINE, "min(1.0, 2.0 * (1.0 - ((x - w) / (1 - w))))")),
        ("optimizer.nadam", "import torch\no = torch.optim.AdamW(p, lr=0.1, weight_decay=0.2)\n",
         "import torch\no = torch.optim.NAdam(p, lr=0.1, weight_decay=0.2, decoupled_weight_decay=True)\n"),
        ("schedule.linear", "import torch\ns = CosineAnnealingLR(opt, T_max=9)\n",
         "import torch\ns = torch.optim.lr_scheduler.LinearLR(opt, start_factor=1.0, end_factor=0.0, total_iters=9)\n"),
        ("weights.untie", "tie = True\nprint(tie)\n", "tie = False\nprint(tie)\n"),
        ("compile.off", "import torch\nmodel = torch.compile(model)\nfit(model)\n", "import torch\nfit(model)\n"),
        ("compile.off", "compile = True\nprint(compile)\n", "compile = False\nprint(compile)\n"),
        ("activation.gelu", "a = F.relu(x).square()\nb = F.relu(y) ** 2\nc = F.relu(z).pow(2)\n",
         "a = F.gelu(x)\nb = F.gelu(y)\nc = F.gelu(z)\n"),
        ("labels.hard", "a = f(cross_entropy(label_smoothing=0.1, reduction='sum'))\n",
         "a = f(cross_entropy(reduction='sum'))\n"),
        ("optimizer.betas", "o = AdamW(\n    p,\n    lr=0.1,  # peak\n)\n",
         "o = AdamW(\n    p,\n    lr=0.1, betas=(0.9, 0.95),  # peak\n)\n"),
        ("delete.unused", "def f():\n    return g()\ndef g():\n    return f()\ndef h():\n    return h()\nprint(g())\n",
         "def f():\n    return g()\ndef g():\n    return f()\nprint(g())\n"),
        ("delete.unreachable", "def f():\n    return 1\n    a = 2\n", "def f():\n    return 1\n"),
    ],
)  # fmt: skip
def test_edits_of_other_scripts(kind: str, before: str, after: str) -> None:
    assert edit_of(kind).apply(before) == after
    assert not edit_of(kind).applies(after)


def test_helpers_that_write_or_train_are_not_deleted() -> None:
    source = (
        "def show(x):\n    print(x)\ndef keep(x):\n    open('out', 'w').write(x)\ndef train(x):\n    pass\n"
        "def again():\n    torch.manual_seed(1)\nshow(1)\nkeep(2)\ntrain(3)\nagain()\n"
    )
    script = Script.of(source)
    assert script is not None and list(helper_calls(script)) == ["show"]
    (edit,) = deletions(source)
    assert "show" not in edit.apply(source) and edit.words == "without the helper show()"


def test_a_helper_that_is_used_elsewhere_stays() -> None:
    source = "def size(x):\n    return len(x)\nsize('a')\nprint(size('b'))\n"
    (edit,) = deletions(source)
    assert edit.apply(source) == "def size(x):\n    return len(x)\nprint(size('b'))\n"


def test_an_unknown_edit_is_an_error() -> None:
    with pytest.raises(KeyError, match="nothing"):
        edit_of("nothing.at_all")


@settings(max_examples=15, deadline=None, database=None)
@given(st.lists(st.integers(0, 99), max_size=6), st.sampled_from(sorted(SCRIPTS)))
def test_edits_of_edits_are_python_with_the_same_seeds(picks: list[int], name: str) -> None:
    source = SCRIPTS[name]
    for pick in picks:
        ready = edits_for(source)
        source = ready[pick % len(ready)].apply(source)
        ast.parse(source)
        assert seeds(source) == seeds(SCRIPTS[name])


@settings(deadline=None, database=None)
@given(st.text(max_size=40))
def test_any_text_is_read_without_an_error(source: str) -> None:
    for edit in edits_for(source):
        ast.parse(edit.apply(source))


# --- the edited scripts run -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "text").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "text" / "train.txt").write_bytes(b"all work and no play makes a dull boy " * 50)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "--epochs", "1"])
    yield tmp_path


SMALL = {"n_embd: int = 128": "n_embd: int = 16", "block_size: int = 256": "block_size: int = 8", "2**14": "2**7",
         "DEVICE_BATCH_SIZE = 32": "DEVICE_BATCH_SIZE = 4", "TIME_BUDGET = 60.0": "TIME_BUDGET = 0.05",
         "torch.randn(2000": "torch.randn(200"}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "edit"),
    [case for case in CASES if case[1].kind != "compile.on"],
    ids=[n for n in NAMES if "compile" not in n],
)
def test_edited_scripts_run(name: str, edit: Edit, folder: Path) -> None:
    source = edit.apply(SCRIPTS[name])
    for old, new in SMALL.items():
        source = source.replace(old, new)
    (folder / "train.py").write_text(source)
    runpy.run_path("train.py", run_name="trained")
    assert (folder / "out" / "model.pt").stat().st_size > 0
