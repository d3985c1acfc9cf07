"""One training of the throughput benchmark, in a process of its own: `python -m postgrad.bench.throughput_train FILE`.

Every contender is given the same rows as token ids with the loss on the answer, the same batches or the freedom to
make its own, the same optimizer and precision, and says when each of its steps ended. The first step is not counted: it
holds what is done once.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Callable, Sequence

NO_LOSS = -100
Rows = Sequence[tuple[list[int], list[int]]]


@dataclass(frozen=True)
class Work:
    """What is to be trained.

    Attributes:
        who: the contender.
        tune: every weight, or adapters.
        own: whether a contender makes its batches itself.
    """

    who: str
    model: str
    rows: Rows
    tune: str
    batch: int
    threads: int
    own: bool
    folder: str
    lr: float = 5e-5


def main(arguments: Sequence[str]) -> int:
    """Train, and print a JSON object: seconds and tokens of the counted steps, their losses, and the peak of memory."""
    import torch

    work = Work(**json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
    torch.manual_seed(0)
    torch.set_num_threads(work.threads)
    ends: list[float] = []
    losses: list[float] = []

    def stepped(loss: float) -> None:
        ends.append(time.perf_counter())
        losses.append(loss)

    order = CONTENDERS[work.who](work, stepped)
    counted = [number for number in order[work.batch :]]
    tokens = sum(len(work.rows[number][0]) for number in counted)
    print(
        json.dumps(
            {
                "seconds": ends[-1] - ends[0],
                "tokens": tokens,
                "rows": len(counted),
                "losses": losses,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    )
    return 0


def _model(work: Work) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(work.model, dtype=torch.float32, local_files_only=True)
    return loaded


def _adapted(model: Any, work: Work) -> Any:
    from peft import LoraConfig, get_peft_model

    if work.tune == "full":
        return model
    return get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))


def _order(work: Work) -> list[int]:
    """Row numbers in a random order, the same for all; short batches are left out."""
    order = list(range(len(work.rows)))
    Random(0).shuffle(order)
    return order[: len(order) // work.batch * work.batch]


def _plain(work: Work, stepped: Callable[[float], None]) -> list[int]:
    """A loop as one writes it by hand: pad, forward, the model's own loss, backward, clip, step."""
    import torch

    model = _adapted(_model(work), work).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=work.lr, weight_decay=0.0)
    order = _order(work)
    for start in range(0, len(order), work.batch):
        ids, mask, labels = _padded([work.rows[number] for number in order[start : start + work.batch]])
        with torch.autocast("cpu", torch.bfloat16) if _bf16() else nullcontext():
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        stepped(float(loss))
    return order


def _padded(rows: Rows) -> tuple[Any, Any, Any]:
    import torch

    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows])
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [NO_LOSS] * (width - len(labels)) for _, labels in rows])
    return ids, mask, labels


def _trl(work: Work, stepped: Callable[[float], None]) -> list[int]:
    """TRL's trainer as its documentation has it, with its defaults, on rows that are tokenized already."""
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    class Told(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
            if "loss" in (logs or {}):
                stepped(logs["loss"])

    order = _order(work)
    columns = {"input_ids": [work.rows[n][0] for n in order], "labels": [work.rows[n][1] for n in order]}
    told = SFTConfig(
        output_dir=work.folder,
        use_cpu=True,
        per_device_train_batch_size=work.batch,
        num_train_epochs=1,
        learning_rate=work.lr,
        lr_scheduler_type="constant",
        bf16=_bf16(),
        gradient_checkpointing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="sequential",
        dataloader_pin_memory=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    tokenizer: Any = AutoTokenizer
    trainer = SFTTrainer(
        model=_adapted(_model(work), work),
        args=told,
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer.from_pretrained(work.model, local_files_only=True),
        callbacks=[Told()],
    )
    trainer.train()
    return order


def _postgrad(work: Work, stepped: Callable[[float], None]) -> list[int]:
    """What a job of Postgrad does; with batches of its own, rows of one length go together."""
    from postgrad.train import lm_train
    from postgrad.train.base import FitJob
    from postgrad.train.lm_checks import Tokens
    from postgrad.train.lm_model import load_tokenizer
    from postgrad.train.lm_params import CausalLMParams
    from postgrad.train.lm_plan import order_of
    from postgrad.train.tuning import repeatable

    given = {"tune": work.tune, "epochs": 1, "batch_size": work.batch, "lr": work.lr, "scheduler": "constant"}
    params = CausalLMParams.model_validate({**given, "warmup": 0.0})
    order = order_of([len(ids) for ids, _ in work.rows], work.batch, 1, 0) if work.own else _order(work)
    order = order[: len(order) // work.batch * work.batch]
    job = FitJob((), (), None, params, None, 0, work.threads, Path(work.folder), lambda step, loss: stepped(loss))
    rows = [Tokens(tuple(work.rows[number][0]), tuple(work.rows[number][1])) for number in order]
    with repeatable(0, work.threads):
        model = _model(work)
        tuned = lm_train.with_adapters(model, params) if params.adapters else model
        tuned.train()
        lm_train.tune(job, params, tuned, load_tokenizer(Path(work.model)), rows, _bf16(), in_order=True)
    return order


def _bf16() -> bool:
    from postgrad.train.tuning import has_bf16

    return has_bf16()


CONTENDERS = {"postgrad": _postgrad, "plain": _plain, "trl": _trl}

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
