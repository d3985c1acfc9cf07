"""What a language model is trained on and asked with: shots, training examples, candidates, batches in their order."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from random import Random
from typing import Any, Sequence

from postgrad.records import Row
from postgrad.train.base import FitJob
from postgrad.train.chat import Example
from postgrad.train.lm_params import CausalLMParams
from postgrad.train.lm_tuning import Tuning

# Rows are sorted by length within this many batches, and the batches are shuffled again.
BATCHES_A_GROUP = 16
# The engine sets the kernel's limit on a job's data at twice its memory and a gigabyte (engines/local.py).
SPARE_MB = 1024
MEMORY_SHARE = 0.6
# Floats that a layer keeps for each token until the backward pass, by the widths of a Llama layer: inputs of two norms,
# of four attention matrices, of attention and of its output; three intermediate values of the feed-forward part.
HIDDEN_FLOATS, INNER_FLOATS, LOGIT_FLOATS = 12, 4, 3


@dataclass(frozen=True)
class Plan:
    """The texts of a job.

    Attributes:
        shots: answered examples of every prompt.
        examples: what is trained on.
        candidates: the answers to choose from, empty where answers are texts.
        columns: label index of each candidate, -1 for the one that names what is out of scope.
    """

    shots: tuple[Example, ...]
    examples: tuple[Example, ...]
    candidates: tuple[str, ...]
    columns: tuple[int, ...]


def plan_of(job: FitJob, params: CausalLMParams) -> Plan:
    """Sort the rows of a job. A label without rows is no candidate: nothing says what it means.

    Out-of-scope rows train nothing, or, with `negatives: label`, the answer that names them: an answer of its own is
    the only thing that a likelihood can be trained towards without saying which label the text has not.
    """
    number = {label: index for index, label in enumerate(job.labels)}
    inside = [row for row in job.rows if row.label in number or (not number and row.label != job.out_of_scope)]
    outside = [row for row in job.rows if number and row.label == job.out_of_scope]
    used = sorted({number[row.label] for row in inside if number}) or list(range(len(job.labels)))
    answers = [written(job.labels[index], params) for index in used]
    if params.negatives == "label" and outside and job.out_of_scope is not None:
        inside, used = [*inside, *outside], [*used, -1]
        answers.append(written(job.out_of_scope, params))
    chosen = shots_of(inside, params.shots, bool(number), job.seed)
    held = {row.id for row in chosen}

    def example(row: Row) -> Example:
        return Example(row.text, written(row.label, params) if number else row.label, row)

    return Plan(
        shots=tuple(example(row) for row in chosen),
        examples=tuple(example(row) for row in inside if row.id not in held),
        candidates=tuple(answers) if number else (),
        columns=tuple(used) if number else (),
    )


def written(label: str, params: CausalLMParams) -> str:
    """A label as the model is to write it."""
    return label.replace("_", " ").replace("-", " ").strip() if params.labels_as == "words" else label


def shots_of(rows: Sequence[Row], count: int, balanced: bool, seed: int) -> tuple[Row, ...]:
    """`count` rows, drawn from each label in turn where they are to be balanced, in random order."""
    rng = Random(seed)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.label if balanced else "", []).append(row)
    for group in groups.values():
        rng.shuffle(group)
    turns = list(groups.values())
    rng.shuffle(turns)
    chosen: list[Row] = []
    while len(chosen) < min(count, len(rows)):
        chosen += [group.pop() for group in turns if group][: count - len(chosen)]
    rng.shuffle(chosen)
    return tuple(chosen)


def order_of(lengths: Sequence[int], batch: int, epochs: int, seed: int) -> list[int]:
    """Row numbers of all batches, one after the other: each row `epochs` times, rows of a batch of about one length.

    What does not fill a batch waits for the next epoch, and only the very last batch can be short. It is worked out
    beforehand, so that a training that goes on goes on with the right batch.
    """
    rng = Random(seed)
    order: list[int] = []
    waiting: list[int] = []
    for _ in range(epochs):
        epoch = list(range(len(lengths)))
        rng.shuffle(epoch)
        waiting += epoch
        full = len(waiting) // batch * batch
        batches = []
        for start in range(0, full, batch * BATCHES_A_GROUP):
            group = sorted(waiting[start : min(full, start + batch * BATCHES_A_GROUP)], key=lambda row: lengths[row])
            batches += [group[first : first + batch] for first in range(0, len(group), batch)]
        rng.shuffle(batches)
        order += [row for rows in batches for row in rows]
        waiting = waiting[full:]
    return order + waiting


def micro_batch(params: Tuning, batch: int, model: Any, tokens: int, asked: int) -> int:
    """The most rows of a batch that go through the model at once: the largest divisor of `batch` that fits.

    Args:
        batch: rows a step.
        model: its size and shape decide.
        tokens: of the longest row.
        asked: tokens of it that carry loss, at most.
    """
    config = model.config.get_text_config()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    fixed = 4 * sum(p.numel() for p in model.parameters()) + 12 * trained
    inner = getattr(config, "intermediate_size", 4 * config.hidden_size)
    floats = HIDDEN_FLOATS * config.hidden_size + INNER_FLOATS * inner
    if params.gradient_checkpointing:
        floats = config.hidden_size
    row = 4 * (tokens * config.num_hidden_layers * floats + asked * LOGIT_FLOATS * config.vocab_size)
    fits = int((MEMORY_SHARE * memory_mb(model.device.type) * 1e6 - fixed) // row)
    return max(size for size in range(1, batch + 1) if batch % size == 0 and size <= max(1, fits))


def memory_mb(device: str) -> float:
    """What a job may use on this machine: its own limit, or half of what there is."""
    import psutil

    if device == "cuda":
        import torch

        return float(torch.cuda.get_device_properties(0).total_memory / 1e6)
    physical = float(psutil.virtual_memory().total / 2e6)
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return physical if limit == resource.RLIM_INFINITY else min(physical, (limit / 2**20 - SPARE_MB) / 2)
