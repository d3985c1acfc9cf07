"""The isolated environments of Training Hub: which algorithm needs which, with what is pinned in it.

One for all of them cannot be: the parts that `lora_sft` needs and those that `sft` needs ask for different versions of
one library, so that no set of packages suits both.
"""

from __future__ import annotations

from pathlib import Path

from postgrad.train.environments import Environment

VERSION = "0.11.2"
# The last version whose LoRA extra can be installed: from 0.9.8 on, two of its parts ask for versions of the library
# `datasets` that exclude each other.
LORA_VERSION = "0.9.7"
# One of its parts takes no Python from 3.13 on.
PYTHON = ((3, 11), (3, 13))
PINS = Path(__file__).with_name("th_pins.txt")


def _pins() -> tuple[str, ...]:
    lines = PINS.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def base() -> Environment:
    """For `embedding_sft`, `sft` and `osft`.

    Torchvision comes along with a package that is imported nowhere here, and its compiled part does not fit a CPU build
    of torch: transformers would try to import it and fail, so both go again.
    """
    return Environment(
        name="training-hub",
        python=PYTHON,
        steps=(("torch==2.13.0",), (f"training-hub[embedding]=={VERSION}",)),
        constraints=_pins(),
        without=("torchvision", "timm"),
        probe="import training_hub, sentence_transformers; training_hub.embedding_sft",
        megabytes=3000,
    )


def lora() -> Environment:
    """For `lora_sft`."""
    return Environment(
        name="training-hub-lora",
        python=PYTHON,
        steps=((f"training-hub[lora]=={LORA_VERSION}",),),
        constraints=("transformers==5.3.0", "trl==0.24.0", "unsloth==2026.3.11", "datasets==4.3.0"),
        megabytes=12000,
    )


def grpo() -> Environment:
    """For `lora_grpo` and `grpo`."""
    return Environment(
        name="training-hub-grpo",
        python=PYTHON,
        steps=((f"training-hub[grpo-verl]=={VERSION}",),),
        megabytes=20000,
    )


def environment_of(algorithm: str) -> Environment:
    """The environment that an algorithm runs in."""
    made = {"lora_sft": lora, "lora_grpo": grpo, "grpo": grpo}
    return made.get(algorithm, base)()
