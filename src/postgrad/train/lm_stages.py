"""What a language model goes through after its supervised fine-tuning: each stage from the last one's weights.

The weights between two stages are kept until the training is over, so that a killed one does not begin again, and are
named by their hash in the log and in the saved model.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Callable, Protocol, Sequence

from postgrad.train.base import FitJob
from postgrad.train.chat import Example, Renderer
from postgrad.train.lm_later import Later
from postgrad.train.lm_params import CausalLMParams
from postgrad.train.lm_watch import identity_of, is_whole, mark_whole

#: Method -> what carries it out. A new method is its settings in `lm_later.py`, a file, and a line here.
METHODS = {
    "sft": "postgrad.train.lm_more:further",
    "pretrain": "postgrad.train.lm_more:pretrain",
    "interpolate": "postgrad.train.lm_more:interpolate",
    "rejection": "postgrad.train.lm_taught:reject",
    "distil": "postgrad.train.lm_taught:distil",
    "dpo": "postgrad.train.lm_prefer:prefer",
    "orpo": "postgrad.train.lm_prefer:prefer",
    "kto": "postgrad.train.lm_prefer:prefer",
    "grpo": "postgrad.train.lm_grpo:reinforce",
}
# Seeds of stages lie this far apart.
SEED_STEP = 7919
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Ground:
    """What every stage has to work with.

    Attributes:
        job: its seed and checkpoint folder are those of the stage.
        examples: what is trained on; `candidates` are all answers where they are labels.
        bf16: whether matrices are multiplied in bf16.
    """

    job: FitJob
    params: CausalLMParams
    tokenizer: Any
    renderer: Renderer
    examples: tuple[Example, ...]
    candidates: tuple[str, ...]
    bf16: bool

    def grade(self, examples: Sequence[Example], answers: Sequence[str]) -> list[float]:
        """What answers are worth, in [0, 1]; where answers are labels, the right one 1 and any other 0."""
        if self.job.grade is None:
            return [float(example.answer == answer) for example, answer in zip(examples, answers, strict=True)]
        return list(self.job.grade([example.row for example in examples if example.row is not None], answers))

    def say(self, text: str) -> None:
        """Put a line into the job's log."""
        print(text, flush=True)


class Method(Protocol):
    """Carries a stage out: takes the plain model, trains it, gives the plain model back."""

    def __call__(self, ground: Ground, stage: Any, model: Any) -> Any: ...


@dataclass(frozen=True)
class Passed:
    """A stage that is over: its method, and the hash of the weights that it left."""

    method: str
    weights: str


def go_through(ground: Ground, first: Callable[[], Any], blank: Callable[[], Any]) -> tuple[Any, tuple[Passed, ...]]:
    """The model after all stages, and what each left.

    Args:
        first: makes the model that the later stages begin with; not called where their weights are kept.
        blank: makes a model of the same architecture to fill with kept weights.
    """
    kept = Kept(ground.job)
    done = kept.last(len(ground.params.then))
    model = kept.filled(blank(), done) if done is not None else first()
    passed = [Passed(ground.params.tune, weights_hash(model))] if done is None else kept.passed(done)
    for number, stage in enumerate(ground.params.then):
        if done is not None and number < done:
            continue
        if done != number:
            kept.keep(model, number, passed)
        model = method_of(stage)(_ground_of(ground, number), stage, model)
        passed.append(Passed(stage.method, weights_hash(model)))
        ground.say(f"stage {number + 2} ({stage.method}): from {passed[-2].weights} to {passed[-1].weights}")
    return model, tuple(passed)


def method_of(stage: Later) -> Method:
    """What carries a stage out."""
    module, _, name = METHODS[stage.method].partition(":")
    found: Method = getattr(import_module(module), name)
    return found


def _ground_of(ground: Ground, number: int) -> Ground:
    job = ground.job
    seed = job.seed + SEED_STEP * (number + 1)
    own = replace(job, seed=seed, checkpoint=job.checkpoint / f"then-{number}", measure=None)
    return replace(ground, job=own)


def weights_hash(model: Any) -> str:
    """16 hex digits that name the weights of a model: the sha256 of its tensors, by name."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().view(torch.uint8).numpy()))
    return digest.hexdigest()[:16]


class Kept:
    """The weights that a stage begins with, on the disk until the next one has begun."""

    def __init__(self, job: FitJob) -> None:
        self.folder, self.identity = job.checkpoint, identity_of(job)

    def _of(self, number: int) -> Path:
        return self.folder / f"before-{number}"

    def _then(self, number: int) -> Path:
        return self.folder / f"then-{number}"

    def last(self, count: int) -> int | None:
        """The last stage whose beginning is kept."""
        whole = [number for number in range(count) if is_whole(self._of(number), self.identity)]
        return max(whole, default=None)

    def keep(self, model: Any, number: int, passed: Sequence[Passed]) -> None:
        """Write the weights that stage `number` begins with, and let go what led to them. Where there is no room, the
        stages before are gone through again after a kill."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        folder = self._of(number)
        shutil.rmtree(folder, ignore_errors=True)
        tensors = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}
        story = {f"{place:03}": f"{one.method} {one.weights}" for place, one in enumerate(passed)}
        try:
            folder.mkdir(parents=True)
            save_file(tensors, str(folder / WEIGHTS), metadata=story)
            mark_whole(folder, self.identity)
        except (OSError, SafetensorError) as error:
            print(f"the weights between two stages cannot be written: {error}", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            return
        before = self.folder.glob("checkpoint-*") if not number else [self._of(number - 1), self._then(number - 1)]
        for passed_over in before:
            shutil.rmtree(passed_over, ignore_errors=True)

    def passed(self, number: int) -> list[Passed]:
        """The stages that led to kept weights."""
        from safetensors import safe_open

        with safe_open(str(self._of(number) / WEIGHTS), "pt") as file:
            story = file.metadata() or {}
        return [Passed(*story[key].split(" ")) for key in sorted(story)]

    def filled(self, model: Any, number: int) -> Any:
        """The model with the kept weights."""
        from safetensors.torch import load_file

        tensors = load_file(str(self._of(number) / WEIGHTS))
        for name, parameter in model.named_parameters():
            parameter.data.copy_(tensors[name])
        return model
