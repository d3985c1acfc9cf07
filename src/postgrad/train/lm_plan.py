"""What a language model is trained on and asked with: shots, training examples, candidates, batches in their order."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Sequence

from postgrad.records import Row
from postgrad.train.base import FitJob
from postgrad.train.chat import Example
from postgrad.train.lm_params import CausalLMParams

# Rows are sorted by length within this many batches, and the batches are shuffled again.
BATCHES_A_GROUP = 16


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

    rest = [row for row in inside if row.id not in held]
    return Plan(
        shots=tuple(example(row) for row in chosen),
        examples=tuple(example(row) for row in part_of(rest, params.share, bool(number), job.seed)),
        candidates=tuple(answers) if number else (),
        columns=tuple(used) if number else (),
    )


def part_of(rows: Sequence[Row], share: float, balanced: bool, seed: int) -> list[Row]:
    """A share of the rows drawn by chance, in the order they had; where `balanced`, of each label, and one of it at
    least."""
    rng = Random(f"{seed}:share")
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(row.label if balanced else "", []).append(number)
    kept = {number for group in groups.values() for number in rng.sample(group, max(1, round(share * len(group))))}
    return [row for number, row in enumerate(rows) if number in kept]


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
