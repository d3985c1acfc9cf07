"""Later stages that learn from better and worse answers, by TRL: DPO, ORPO and KTO.

TRL is given token ids in place of texts, so that a model is trained on the very tokens that it is asked with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, Sequence

from postgrad.train.base import CheckFailed
from postgrad.train.chat import Example
from postgrad.train.lm_later import Preference
from postgrad.train.lm_memory import needs_of
from postgrad.train.lm_plan import order_of
from postgrad.train.lm_sample import answering, chosen, drawn, mean_grade
from postgrad.train.lm_score import log_likelihoods
from postgrad.train.lm_stages import Ground
from postgrad.train.lm_train import merged, run, with_adapters
from postgrad.train.lm_watch import settings


@dataclass(frozen=True)
class Pair:
    """Token ids of a question, of the better and of the worse answer."""

    prompt: tuple[int, ...]
    better: tuple[int, ...]
    worse: tuple[int, ...]

    @property
    def longest(self) -> int:
        """Tokens of the question with the longer answer."""
        return len(self.prompt) + max(len(self.better), len(self.worse))


def prefer(ground: Ground, stage: Preference, model: Any) -> Any:
    """Make pairs, and train on them.

    Raises:
        CheckFailed: no answer of the model is worse than the rows' own.
        TrainingDiverged: a loss or a weight is not finite, or the loss has only risen.
    """
    import torch

    asked = chosen(ground, stage.rows)
    twin = answering(model, ground)
    pairs = (
        _wrong_labels(ground, stage, twin, asked) if ground.candidates else _worse_answers(ground, stage, twin, asked)
    )
    del twin
    if not pairs:
        raise CheckFailed(
            "pairs",
            f"no answer to {len(asked)} rows is graded below the row's own: there is nothing to prefer. Leave the "
            "stage out, raise samples or temperature, or lower margin.",
        )
    tuned = with_adapters(model, stage) if stage.adapters else model
    tuned.train()
    single = stage.method == "kto"
    batch = min(stage.batch_size, len(pairs))
    order = order_of([pair.longest for pair in pairs], batch, stage.epochs, ground.job.seed)
    steps = math.ceil(len(order) / batch)
    longest = max(pair.longest for pair in pairs)
    # Two rows a pair, each gone through by the model as it was as well.
    needs = needs_of(stage, tuned, 2 * longest, 2 * longest)
    rows = [row for number in order for row in _SHAPES[stage.method](pairs[number])]

    def build(at_once: int) -> Any:
        torch.manual_seed(ground.job.seed)
        sizes = (2 * at_once if single else at_once, batch // at_once, steps)
        return _TRAINERS[stage.method](ground, stage, tuned, sizes, rows)

    run(ground.job, tuned, build, needs, (batch, steps), again=stage.adapters or stage.method == "orpo")
    return merged(tuned, stage)


def _wrong_labels(ground: Ground, stage: Preference, model: Any, asked: Sequence[Example]) -> list[Pair]:
    """Each row's own label with the likeliest of the others: with one alone, the next would rise in its place."""
    prompts = [ground.renderer.prompt(example.text).ids for example in asked]
    targets = [ground.renderer.target(candidate) for candidate in ground.candidates]
    found = log_likelihoods(model, prompts, targets, ground.renderer.prefix)
    pairs = []
    for prompt, example, row in zip(prompts, asked, found, strict=True):
        own = ground.candidates.index(example.answer)
        others = [number for number in row.argsort()[::-1].tolist() if number != own]
        pairs += [Pair(prompt, targets[own], targets[other]) for other in others[: stage.samples]]
    return pairs


def _worse_answers(ground: Ground, stage: Preference, model: Any, asked: Sequence[Example]) -> list[Pair]:
    """Each row's own answer, and the worst that was drawn, where that is worse."""
    answers = drawn(ground, model, asked, stage.samples, stage.temperature)
    own = ground.grade(asked, [example.answer for example in asked])
    pairs = []
    for example, group, grade in zip(asked, answers, own, strict=True):
        worst = min((one for one in group if one.ids and not math.isnan(one.grade)), key=_grade, default=None)
        if worst is not None and worst.grade < grade - stage.margin:
            pairs.append(
                Pair(ground.renderer.prompt(example.text).ids, ground.renderer.target(example.answer), worst.ids)
            )
    ground.say(
        f"{stage.method}: {stage.samples} answers to each of {len(asked)} rows, worth {mean_grade(answers):.3f} on "
        f"average; {len(pairs)} rows have one that is worse than their own"
    )
    return pairs


def _grade(one: Any) -> float:
    return float(one.grade)


# --- what each trainer of TRL takes -----------------------------------------------------------------------------------


def _as_pair(pair: Pair) -> list[dict[str, Any]]:
    return [{"prompt_ids": list(pair.prompt), "chosen_ids": list(pair.better), "rejected_ids": list(pair.worse)}]


def _as_singles(pair: Pair) -> list[dict[str, Any]]:
    shared = {"prompt_ids": list(pair.prompt)}
    return [
        {**shared, "completion_ids": list(pair.better), "label": True},
        {**shared, "completion_ids": list(pair.worse), "label": False},
    ]


def _as_sequences(pair: Pair) -> list[dict[str, Any]]:
    found: dict[str, Any] = {"prompt": "", "chosen": "", "rejected": ""}
    found |= {"prompt_input_ids": list(pair.prompt), "prompt_attention_mask": [1] * len(pair.prompt)}
    for name, answer in (("chosen", pair.better), ("rejected", pair.worse)):
        ids = [*pair.prompt, *answer]
        found[f"{name}_input_ids"], found[f"{name}_attention_mask"] = ids, [1] * len(ids)
        found[f"{name}_labels"] = [-100] * len(pair.prompt) + list(answer)
    return [found]


def _dpo(ground: Ground, stage: Preference, model: Any, sizes: tuple[int, int, int], rows: list[dict[str, Any]]) -> Any:
    from datasets import Dataset
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    class Trainer(DPOTrainer):
        def _send_telemetry(self) -> None:
            return None

        def _prepare_dataset(self, dataset: Any, *args: Any, **more: Any) -> Any:
            return dataset

    told = DPOConfig(
        **settings(ground.job, stage, model, sizes, ground.bf16),
        beta=stage.beta,
        max_length=None,
        # Adapters can be set aside to see where the stage began; trained weights cannot, and a copy would double them.
        precompute_ref_log_probs=not stage.adapters,
        train_sampling_strategy="sequential",
    )
    return Trainer(model=model, args=told, train_dataset=Dataset.from_list(rows), processing_class=ground.tokenizer)


def _kto(ground: Ground, stage: Preference, model: Any, sizes: tuple[int, int, int], rows: list[dict[str, Any]]) -> Any:
    from datasets import Dataset
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    class Trainer(KTOTrainer):
        def _send_telemetry(self) -> None:
            return None

        def _prepare_dataset(self, dataset: Any, *args: Any, **more: Any) -> Any:
            return dataset

    at_once = sizes[0]
    for start in range(0, len(rows), at_once):
        # The divergence is estimated from answers that belong to another question of the batch (section 4.1).
        group = rows[start : start + at_once]
        for row, other in zip(group, [group[-1], *group[:-1]], strict=True):
            row["KL_completion_ids"] = list(other["completion_ids"])
    told = KTOConfig(
        **settings(ground.job, stage, model, sizes, ground.bf16),
        beta=stage.beta,
        max_length=None,
        precompute_ref_log_probs=not stage.adapters,
        train_sampling_strategy="sequential",
    )
    return Trainer(model=model, args=told, train_dataset=Dataset.from_list(rows), processing_class=ground.tokenizer)


def _orpo(
    ground: Ground, stage: Preference, model: Any, sizes: tuple[int, int, int], rows: list[dict[str, Any]]
) -> Any:
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    class Trainer(ORPOTrainer):
        def _send_telemetry(self) -> None:
            return None

        def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
            return {key: value for key, value in feature.items() if key not in ("prompt", "chosen", "rejected")}

        def _get_train_sampler(self, *args: Any, **more: Any) -> Any:
            own: Any = self.train_dataset
            return SequentialSampler(own)

    told = ORPOConfig(
        **settings(ground.job, stage, model, sizes, ground.bf16),
        beta=stage.beta,
        max_length=2**20,
        max_completion_length=ground.job.generation.max_new_tokens,
        remove_unused_columns=False,
    )
    return Trainer(model=model, args=told, train_dataset=Dataset.from_list(rows), processing_class=ground.tokenizer)


_SHAPES: dict[str, Callable[[Pair], list[dict[str, Any]]]] = {
    "dpo": _as_pair,
    "kto": _as_singles,
    "orpo": _as_sequences,
}
_TRAINERS: dict[str, Callable[..., Any]] = {"dpo": _dpo, "kto": _kto, "orpo": _orpo}
