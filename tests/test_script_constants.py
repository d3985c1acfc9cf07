"""Constants of training scripts: which are found, with which range, and that a change touches nothing else."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postgrad.scripts.constants import Constant, constants, evaluated, tunable, values_of, with_values
from postgrad.scripts.ranges import is_seed
from postgrad.scripts.seeds import only_seeds_differ, seeds
from postgrad.scripts.tuning import neighbours
from script_texts import LOOPS, NANO

LAYOUT = '''\
"""An autoresearch layout: constants in capitals, a config class that is always overridden."""
from dataclasses import dataclass, field

@dataclass
class GPTConfig:
    sequence_len: int = 2048
    n_layer: int = 12
    n_head: int = field(default=6)
    window_pattern: str = "SSSL"

ASPECT_RATIO = 64       # model_dim = depth * ASPECT_RATIO
HEAD_DIM = 128          # é: a letter of two bytes
TOTAL_BATCH_SIZE = 2**19 # ~524K tokens per optimizer step
EMBEDDING_LR, MATRIX_LR = (0.6, 0.04)
WEIGHT_DECAY = 0.0
ADAM_BETAS = (0.8, 0.95) # Adam beta1, beta2
WARMUP_RATIO = 0.0
FINAL_LR_FRAC = 0.0
DEPTH = 8; DEVICE_BATCH_SIZE = (
    128
)
UNUSED_LR = 3e-4
EVAL_BATCH_SIZE = 256
ANSWER = 42
step = 0
best = 1e9
dropout = 0.1
dropout = 0.2

def build(depth, pattern="L", *, qk_norm=True):
    global WARMDOWN
    WARMDOWN = 0.5
    return GPTConfig(sequence_len=MAX_SEQ_LEN, n_layer=depth, n_head=2, window_pattern=pattern)

model = build(DEPTH * ASPECT_RATIO // HEAD_DIM)
opt = Muon(model, lr=MATRIX_LR, elr=EMBEDDING_LR, wd=WEIGHT_DECAY, betas=ADAM_BETAS, momentum=0.95, nesterov=True)
print(TOTAL_BATCH_SIZE, DEVICE_BATCH_SIZE, EVAL_BATCH_SIZE, WARMUP_RATIO, FINAL_LR_FRAC, ANSWER, dropout, dim=1)
step += 1
'''
SOURCES = {"nano": NANO, "loops": LOOPS, "layout": LAYOUT}


def _found(source: str) -> dict[str, Constant]:
    return {one.name: one for one in constants("train.py", source)}


def test_the_constants_of_an_autoresearch_layout() -> None:
    found = _found(LAYOUT)
    assert set(found) == {
        "ASPECT_RATIO", "HEAD_DIM", "TOTAL_BATCH_SIZE", "EMBEDDING_LR", "MATRIX_LR", "WEIGHT_DECAY", "ADAM_BETAS[0]",
        "ADAM_BETAS[1]", "WARMUP_RATIO", "FINAL_LR_FRAC", "DEPTH", "DEVICE_BATCH_SIZE", "EVAL_BATCH_SIZE",
        "build.qk_norm", "GPTConfig.n_head", "Muon.momentum", "Muon.nesterov",
    }  # fmt: skip
    assert found["EVAL_BATCH_SIZE"].dimension is None and "evaluation" in found["EVAL_BATCH_SIZE"].fixed
    assert found["TOTAL_BATCH_SIZE"].value == 2**19 and found["TOTAL_BATCH_SIZE"].line == 13
    assert found["GPTConfig.n_head"].line == 33, "the default is always overridden; what the call passes counts"


@pytest.mark.parametrize(
    ("source", "name", "low", "high", "log", "integer"),
    [
        ("nano", "LEARNING_RATE", 6e-5, 6e-3, True, False),
        ("nano", "WEIGHT_DECAY", 0.01, 1.0, True, False),
        ("layout", "WEIGHT_DECAY", 0.0, 0.2, False, False),
        ("nano", "ADAM_BETAS[1]", 0.5, 0.999, False, False),
        ("nano", "WARMUP_RATIO", 0.0, 0.5, False, False),
        ("nano", "GPTConfig.n_layer", 2, 8, True, True),
        ("loops", "warmup_steps", 125, 2000, True, True),
        ("loops", "drop", 0.0, 0.5, False, False),
        ("loops", "args.lr", 1e-4, 1e-2, True, False),
    ],
)
def test_ranges(source: str, name: str, low: float, high: float, log: bool, integer: bool) -> None:
    dimension = _found(SOURCES[source])[name].dimension
    assert dimension is not None
    assert (dimension.low, dimension.high, dimension.log, dimension.integer) == (low, high, log, integer)


@pytest.mark.parametrize(
    ("source", "name", "choices"),
    [
        ("nano", "TOTAL_BATCH_SIZE", (2**12, 2**13, 2**14, 2**15, 2**16)),
        ("nano", "GPTConfig.n_embd", (64, 96, 128, 192, 256)),
        ("nano", "SCHEDULE", ("constant", "cosine", "linear")),
        ("nano", "COMPILE", (False, True)),
        ("loops", "args.optimizer", ("adam", "sgd")),
        ("loops", "args.batch_size", (16, 32, 64, 128, 256)),
    ],
)
def test_choices(source: str, name: str, choices: tuple[Any, ...]) -> None:
    dimension = _found(SOURCES[source])[name].dimension
    assert dimension is not None and dimension.choices == choices


MODEL = """
NORMS = ("layer", "rms")
ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}
def position(kind):
    match kind:
        case "rope": return 1
    if config.position in ("learned", "none"): return 2
"""


@pytest.mark.parametrize(
    ("line", "choices"),
    [
        ('NORM = "layer"', ("layer", "rms")),
        ('activation = "gelu"', ("gelu", "relu", "silu")),
        ('POSITION = "learned"', ("learned", "none")),
        ('OPTIMIZER = "adam"', None),
        ('TITLE = "rms"', None),
    ],
)
def test_words_of_the_other_files_are_choices(line: str, choices: tuple[str, ...] | None) -> None:
    source = f"{line}\nprint({line.split()[0]})\n"
    found = tunable(constants("train.py", source, (MODEL, "no python (")))
    assert [one.dimension and one.dimension.choices for one in found] == ([choices] if choices else [])
    assert not tunable(constants("train.py", source))


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_not_tuned_says_why(source: str) -> None:
    found = constants("train.py", SOURCES[source])
    assert {one.name for one in found} == {one.name for one in tunable(found)} | {o.name for o in found if o.fixed}
    assert not any(one.is_seed for one in tunable(found))
    with pytest.raises(ValueError, match="not changed"):
        fixed = next(one for one in found if one.fixed)
        with_values(SOURCES[source], found, {fixed.name: "other"})


def test_the_learning_rate_comes_first() -> None:
    assert [one.name for one in tunable(constants("train.py", NANO))][:2] == ["LEARNING_RATE", "TOTAL_BATCH_SIZE"]


@pytest.mark.parametrize("source", SOURCES)
def test_a_range_holds_its_value(source: str) -> None:
    for one in tunable(constants("train.py", SOURCES[source])):
        dimension = one.dimension
        assert dimension is not None
        if dimension.choices:
            assert one.value in dimension.choices, one
        else:
            assert dimension.low <= float(one.value) <= dimension.high, one
        assert neighbours(one), f"{one.name} has nowhere to go"


@pytest.mark.parametrize("name", ["SEED", "args.seed", "random_state", "torch_seed", "seed_offset", "manual_seed"])
def test_seeds_are_known(name: str) -> None:
    assert is_seed(name)


@pytest.mark.parametrize("name", ["speed", "LEARNING_RATE", "seedling", "proceed", "DEPTH"])
def test_what_is_no_seed(name: str) -> None:
    assert not is_seed(name)


# --- replacing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_own_values_give_the_identical_text(source: str, newline: str) -> None:
    text = SOURCES[source].replace("\n", newline)
    found = constants("train.py", text)
    assert with_values(text, found, {one.name: one.value for one in found}) == text
    for one in found:
        assert with_values(text, found, {one.name: one.value}) == text


def test_only_the_literal_changes() -> None:
    found = constants("train.py", LAYOUT)
    values = {"TOTAL_BATCH_SIZE": 2**18, "ADAM_BETAS[1]": 0.975, "HEAD_DIM": 64, "MATRIX_LR": 0.0012}
    after = with_values(LAYOUT, found, values)
    expected = LAYOUT.replace("2**19 #", "2**18 #").replace("(0.8, 0.95)", "(0.8, 0.975)")
    assert after == expected.replace("HEAD_DIM = 128  ", "HEAD_DIM = 64  ").replace("(0.6, 0.04)", "(0.6, 1.2e-3)")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NOTHING", 1.0),
        ("DEPTH", 8.5),
        ("DEPTH", "8"),
        ("DEPTH", True),
        ("Muon.nesterov", 1),
        ("MATRIX_LR", float("nan")),
        ("MATRIX_LR", float("inf")),
    ],
)
def test_wrong_values_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        with_values(LAYOUT, constants("train.py", LAYOUT), {name: value})


def test_constants_of_another_text_are_refused() -> None:
    with pytest.raises(ValueError, match="another text"):
        with_values("# one line more\n" + LAYOUT, constants("train.py", LAYOUT), {"DEPTH": 4})


@settings(deadline=None, database=None)
@given(data=st.data(), source=st.sampled_from(sorted(SOURCES)))
def test_changed_texts_have_the_new_values(data: st.DataObject, source: str) -> None:
    text = SOURCES[source]
    found = constants("train.py", text)
    values = {one.name: data.draw(_value(one), one.name) for one in tunable(found) if data.draw(st.booleans())}
    after = constants("train.py", with_values(text, found, values))
    assert values_of(after) == {**values_of(found), **values}
    back = with_values(with_values(text, found, values), after, values_of(found))
    assert values_of(constants("train.py", back)) == values_of(found)


def _value(one: Constant) -> st.SearchStrategy[Any]:
    dimension = one.dimension
    assert dimension is not None
    if dimension.choices:
        return st.sampled_from(dimension.choices)
    if dimension.integer:
        return st.integers(int(dimension.low), int(dimension.high))
    return st.floats(dimension.low, dimension.high, allow_subnormal=False)


@settings(deadline=None, database=None)
@given(
    name=st.sampled_from(["learning_rate", "weight_decay", "MAX_LR"]),
    value=st.floats(1e-6, 1.0),
    comment=st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"])),
    spaces=st.sampled_from(["", " ", "  "]),
)
def test_any_comment_and_layout_stays(name: str, value: float, comment: str, spaces: str) -> None:
    source = f"# {comment}\n{name}{spaces}={spaces}({value!r})  # {comment}\nprint('é', {name})\n"
    found = constants("train.py", source)
    assert [(one.name, one.value, one.line) for one in found] == [(name, value, 2)]
    after = f"# {comment}\n{name}{spaces}={spaces}(0.25)  # {comment}\nprint('é', {name})\n"
    assert with_values(source, found, {name: 0.25}) == after


@settings(deadline=None, database=None)
@given(st.text(max_size=60))
def test_any_text_is_read_without_an_error(source: str) -> None:
    assert with_values(source, constants("train.py", source), {}) == source


@pytest.mark.parametrize(
    ("text", "value"),
    [("2**15", 32768), ("-(3)", -3), ("5 * 8", 40), ("1 / 0", None), ("10**1000", None), ("2**0.5", 2**0.5),
     ("f(1)", None), ("True + 1", None), ("1_000", 1000), ("9**9**9", None), ("(-8) ** 0.5", None)],
)  # fmt: skip
def test_arithmetic_on_literals(text: str, value: float | None) -> None:
    assert evaluated(ast.parse(text, mode="eval").body) == value


# --- seeds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('SEED = int(os.environ.get("POSTGRAD_SEED", "1337"))', "SEED = 7"),
        ("torch.manual_seed(SEED)", "torch.manual_seed(SEED + 1)"),
        ("torch.manual_seed(SEED)", "torch.manual_seed(SEED)\nimport random\nrandom.seed(3)"),
        ("torch.manual_seed(SEED)", "torch.manual_seed(SEED)\ntorch.rand(5)"),
        ("torch.manual_seed(SEED)", "torch.manual_seed(SEED)\nfor _ in range(3):\n    torch.rand(5)"),
        ("torch.manual_seed(SEED)", "torch.manual_seed(SEED)\n_ = torch.rand(5)"),
        ("@dataclass\n", 'os.environ["POSTGRAD_SEED"] = "7"\n@dataclass\n'),
        ("torch.manual_seed(SEED)\n", "# nothing\n"),
    ],
)
def test_a_change_of_seeds_alone_is_seen(old: str, new: str) -> None:
    assert old in NANO
    assert only_seeds_differ(NANO, NANO.replace(old, new))
    assert not only_seeds_differ(NANO, NANO.replace(old, new).replace("6e-4", "5e-4"))


def test_a_changed_comment_is_no_change_of_a_seed() -> None:
    assert not only_seeds_differ(NANO, NANO)
    assert not only_seeds_differ(NANO, NANO + "# more\n")
    assert not only_seeds_differ(NANO, "def f(:\n")
    assert only_seeds_differ(LOOPS, LOOPS.replace("default=42", "default=43"))


def test_seeds_of_a_script() -> None:
    assert len(seeds(NANO)) == 2 and len(seeds(LOOPS)) == 3
    assert seeds(NANO) == seeds(NANO.replace("6e-4", "5e-4"))
    assert seeds(NANO) != seeds(NANO.replace('"1337"', '"1338"'))
