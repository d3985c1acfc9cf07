"""The failures that are provoked, read from the two YAML files beside this one, and the files that each starts from."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Literal

import yaml

from postgrad.records import Cause, Record

Part = Literal["development", "held_out"]
PARTS: tuple[Part, ...] = ("development", "held_out")

#: What a program with models gets beside it: small real ones lie in `lm` and `encoder`.
SMALL = """
def config():
    from transformers import AutoConfig
    return AutoConfig.from_pretrained("lm")


def model():
    from transformers import AutoModelForCausalLM
    return AutoModelForCausalLM.from_pretrained("lm")


def tokenizer():
    from transformers import AutoTokenizer
    return AutoTokenizer.from_pretrained("lm")


def rows():
    return [{"input_ids": [3 + i, 5, 7, 9], "attention_mask": [1] * 4, "labels": [3 + i, 5, 7, 9]} for i in range(16)]
"""
#: Makes them, once.
MAKE = """
import pathlib
from postgrad.testing.encoder import make_tiny_encoder
from postgrad.testing.language import make_tiny_lm
make_tiny_encoder(pathlib.Path("encoder"), ["hello", "world"])
make_tiny_lm(pathlib.Path("lm"), ["hello world", "the cat sat on the mat"], chat=False)
"""


class Signal(Record):
    """A signal that is sent once the log holds a text."""

    name: str
    after: str


class Probe(Record):
    """A stack that is taken from outside once the log holds a text; then the program is ended by a signal."""

    tool: Literal["py-spy"]
    after: str
    signal: str


class Confines(Record):
    """Limits of a provocation: those of the kernel for one that runs by itself, those of a job otherwise."""

    address_mb: int | None = None
    file_mb: int | None = None
    wall_s: float = 60.0
    memory_mb: int = 4000
    hung_s: float = 100.0
    disk_mb: int = 2000


class Provocation(Record):
    """One failure that is made to happen, with its true cause.

    Attributes:
        env: beside the environment of a job.
        foreign: a folder that belongs to somebody else; the program has no right to write there, root or not.
        job: backend, its parameters and base model, of a recipe for the worker.
    """

    name: str
    cause: Cause
    run: Literal["python", "shell", "engine", "worker"]
    program: str = ""
    limits: Confines = Confines()
    env: dict[str, str] = {}
    foreign: str = ""
    signal: Signal | None = None
    probe: Probe | None = None
    job: dict[str, Any] = {}


def provocations(part: Part) -> tuple[Provocation, ...]:
    """The provocations of one part, in the order of the file."""
    text = files("postgrad.bench.failures").joinpath(f"{part}.yaml").read_text(encoding="utf-8")
    return tuple(Provocation.model_validate(entry) for entry in yaml.safe_load(text))
