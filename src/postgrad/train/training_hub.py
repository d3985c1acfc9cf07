"""The backend of Red Hat's Training Hub: its algorithms behind one adapter, each run in an environment of its own.

Training Hub trains and does nothing else. Rows, seeds and places are given to it, its metrics are followed, and the
model that it leaves is taken over by the classes that answer for Postgrad's own backends: a head over an encoder, or a
language model that is asked for its labels.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator, Mapping

from postgrad.errors import UserError
from postgrad.records import Dimension, Generation, Row, Value
from postgrad.train.base import CheckFailed, FitJob, Fitted
from postgrad.train.chat import INPUT
from postgrad.train.environments import Environment, among
from postgrad.train.lm_plan import written
from postgrad.train.models import model_kind
from postgrad.train.th_environments import environment_of
from postgrad.train.th_params import TrainingHubParams
from postgrad.train.th_run import Produced, emptied, trained

# Measured on a CPU: starting the environment's Python with what Training Hub imports, and MiniLM (22M) in fp32, in
# which it trains. Pairs of `mnrl` are two texts each.
START_S, ROW_S, EMBED_S = 12.0, 0.02, 0.003
MOST_PAIRS = 10_000
TOKEN_S = 1 / 150
ROW_TOKENS, ASK_S, ROLLOUT_S = 60, 0.2, 0.5
GPU_FILES = ("/dev/nvidiactl", "/proc/driver/nvidia/version")


class TrainingHub:
    """The backend."""

    Params = TrainingHubParams
    answers = frozenset({"labels", "words"})

    def environments(self, params: Mapping[str, Value]) -> tuple[Environment, ...]:
        """What has to be built before a job can run."""
        return (environment_of(TrainingHubParams.model_validate(dict(params)).algorithm),)

    def unable(self, params: Mapping[str, Value]) -> str | None:
        """Why this machine cannot train it, or None."""
        return gpu_problem(TrainingHubParams.model_validate(dict(params)), has_gpu())

    def space(self, params: Mapping[str, Value]) -> dict[str, Dimension]:
        given = TrainingHubParams.model_validate(dict(params))
        known = {
            "num_epochs": Dimension(low=1, high=16, log=True, integer=True),
            "learning_rate": Dimension(low=1e-5, high=3e-4, log=True),
            "batch_size": Dimension(choices=(16, 32, 64)),
            "warmup_ratio": Dimension(low=0.0, high=0.3),
            "effective_batch_size": Dimension(choices=(8, 16, 32)),
            "weight_decay": Dimension(low=0.0, high=0.1),
            "unfreeze_rank_ratio": Dimension(low=0.1, high=0.6),
            "lora_r": Dimension(choices=(8, 16, 32, 64)),
            "lora_alpha": Dimension(choices=(8, 16, 32, 64)),
        }
        found = {name: known[name] for name in known if name in given.takes.defaults}
        if not given.encodes:
            found["learning_rate"] = Dimension(low=1e-6, high=5e-4, log=True)
            return found
        if given.head == "logistic":
            found["C"] = Dimension(low=0.3, high=100.0, log=True)
        if given.head == "knn" or given.score in ("knn", "blend"):
            found["knn_k"] = Dimension(low=1, high=5, integer=True)
        return found

    def nominal_cost(self, params: Mapping[str, Value], rows: int, texts: int) -> float:
        given = TrainingHubParams.model_validate(dict(params))
        if given.encodes:
            # Rows of a label are paired with each other: about twenty labels.
            passes = min(rows * rows / 40, MOST_PAIRS) * 2 if given.loss_type == "mnrl" else rows
            return START_S + ROW_S * passes * (given.num_epochs or 1) + EMBED_S * (rows + texts)
        if given.num_iterations is not None:
            rollouts = given.num_iterations * (given.group_size or 1) * (given.prompt_batch_size or 1)
            return START_S + ROLLOUT_S * rollouts + ASK_S * texts
        return START_S + TOKEN_S * ROW_TOKENS * rows * (given.num_epochs or 1) + ASK_S * texts

    def fit(self, job: FitJob) -> Fitted:
        return fit_with_training_hub(job, TrainingHubParams.model_validate(job.params.model_dump()))

    def load(self, folder: Path) -> Fitted:
        from postgrad.train.heads import load_embedder
        from postgrad.train.lm_model import FACTS, load_language_model

        return load_language_model(folder) if (folder / FACTS).is_file() else load_embedder(folder)


def has_gpu() -> bool:
    """True where the driver of an NVIDIA GPU is loaded. Imports nothing."""
    return any(Path(name).exists() for name in GPU_FILES)


def gpu_problem(params: TrainingHubParams, gpu: bool) -> str | None:
    """Why an algorithm cannot be run on a machine with or without a GPU, or None."""
    if gpu or not params.needs_gpu:
        return None
    small = params.takes.cpu_backend
    other = f"backend: {small}, which trains small models on a CPU, or " if small else ""
    return (
        f"Training Hub's {params.algorithm} needs an NVIDIA GPU, and this machine has none. Take {other}"
        "algorithm: embedding_sft, which runs on a CPU, or run this on a machine with a GPU."
    )


def fit_with_training_hub(job: FitJob, params: TrainingHubParams) -> Fitted:
    """Train in the environment and take over what came out.

    Raises:
        UserError: no base model is named, or it is of the other kind.
        CheckFailed: there is no environment or no GPU, or something would spoil the training.
        TrainingHubFailed: Training Hub left no model that can be used.
        TrainingDiverged: a loss or a weight is not finite.
    """
    _check(job, params)
    environment = among(environment_of(params.algorithm), job.environments)
    if environment is None:
        raise CheckFailed(
            "environment",
            f"the environment of Training Hub for {params.algorithm} was not given to this job. Name the backend in "
            "the task (backends: [training_hub]), so that it is built before the run.",
        )
    work = emptied(job.checkpoint)
    try:
        made = trained(environment, work, spec_of(job, params, work), job.report)
        return _taken_over(job, params, made)
    finally:
        # States of optimizers and the like, many times the size of the model.
        shutil.rmtree(work, ignore_errors=True)


def _check(job: FitJob, params: TrainingHubParams) -> None:
    """What can be known before anything is started."""
    if job.base_model is None:
        raise UserError("Training Hub trains a base model, and the recipe names none. Set its base_model.")
    wanted, kind = "encoder" if params.encodes else "causal_lm", model_kind(job.base_model)
    if kind != wanted:
        raise UserError(
            f"Training Hub's {params.algorithm} trains {'an encoder' if params.encodes else 'a language model'}, "
            f"and the base model {job.base_model.name} is none. Take another base model or another algorithm."
        )
    if params.encodes and not job.labels:
        raise UserError("Training Hub's embedding_sft trains an encoder, which answers with labels and not in words.")
    if (problem := gpu_problem(params, has_gpu())) is not None:
        raise CheckFailed("gpu", problem)
    if not params.encodes and not _chats(job.base_model):
        raise CheckFailed(
            "template",
            f"the base model has no chat template, and {params.algorithm} trains on conversations. Take a base model "
            "that was taught to chat.",
        )
    counts: dict[str, int] = {}
    for row in _rows(job, params):
        counts[row.label] = counts.get(row.label, 0) + 1
    if params.encodes and (len(counts) < 2 or max(counts.values()) < 2):
        raise CheckFailed(
            "empty",
            "embedding_sft learns from rows of one label against rows of others: two labels, one with two rows.",
        )


def _chats(folder: Path) -> bool:
    config = folder / "tokenizer_config.json"
    inside = config.is_file() and bool(json.loads(config.read_text(encoding="utf-8")).get("chat_template"))
    return inside or (folder / "chat_template.jinja").is_file()


# --- what it is given -------------------------------------------------------------------------------------------------


def spec_of(job: FitJob, params: TrainingHubParams, work: Path) -> dict[str, Any]:
    """What `th_runner.py` is told; the rows are written to a file in `work`."""
    data = work / "rows.jsonl"
    data.write_text(
        "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in _data(job, params)), encoding="utf-8"
    )
    arguments: dict[str, Any] = {
        **params.arguments(),
        "model_path": str(job.base_model),
        "data_path": str(data),
        "ckpt_output_dir": str(work / "out"),
    }
    if params.algorithm == "sft":
        arguments |= {"random_seed": job.seed, "data_output_dir": str(work / "data"), "nproc_per_node": 1}
    elif params.algorithm == "osft":
        arguments |= {"seed": job.seed, "data_output_dir": str(work / "data"), "nproc_per_node": 1}
    elif params.algorithm == "embedding_sft":
        arguments["seed"] = job.seed
    elif params.algorithm in ("lora_grpo", "grpo") and job.generation.system:
        arguments["system_prompt"] = job.generation.system
    here = Path(__file__)
    cpu = params.backend is not None and params.backend == params.takes.cpu_backend
    return {
        "algorithm": params.algorithm,
        "arguments": arguments,
        "register": str(here.with_name("th_cpu.py")) if cpu else None,
        "reward": str(here.with_name("th_reward.py")) if params.num_iterations is not None else None,
        "estimate": _estimate(job, params),
        "estimate_file": str(work / "estimate.json"),
    }


def _estimate(job: FitJob, params: TrainingHubParams) -> dict[str, Any] | None:
    """What Training Hub's own estimate of memory is asked, or None where it has none."""
    method = "qlora" if params.load_in_4bit else params.takes.method
    if not method:
        return None
    given = {
        "batch_size": params.effective_batch_size,
        "max_seq_len": params.max_seq_len,
        "max_tokens_per_gpu": params.max_tokens_per_gpu,
        "lora_r": params.lora_r,
        "unfreeze_rank_ratio": params.unfreeze_rank_ratio,
    }
    asked = {name: value for name, value in given.items() if value is not None}
    return {"training_method": method, "model_path": str(job.base_model), **asked}


def _rows(job: FitJob, params: TrainingHubParams) -> tuple[Row, ...]:
    """The rows that are trained on: negatives only where they are a label of their own."""
    kept = params.encodes and params.negatives == "class"
    return tuple(row for row in job.rows if kept or row.label != job.out_of_scope)


def _data(job: FitJob, params: TrainingHubParams) -> Iterator[dict[str, Any]]:
    """The rows in the form that the algorithm reads."""
    if params.encodes:
        # Whole numbers in the order of the labels: what it makes of texts would depend on which are there.
        number = {label: index for index, label in enumerate((*job.labels, job.out_of_scope))}
        for row in _rows(job, params):
            yield {"text": row.text, "label": number[row.label]}
        return
    asking = params.asking_params()
    for row in _rows(job, params):
        answer = written(row.label, asking) if job.labels else row.label
        asked = _asked(job.generation, row.text)
        if params.algorithm in ("lora_grpo", "grpo"):
            yield {"question": asked[-1]["content"], "ground_truth": answer}
        elif params.algorithm == "lora_sft":
            yield {"prompt": asked, "completion": [{"role": "assistant", "content": answer}]}
        else:
            yield {"messages": [*asked, {"role": "assistant", "content": answer}]}


def _asked(generation: Generation, text: str) -> list[dict[str, str]]:
    system = [{"role": "system", "content": generation.system}] if generation.system else []
    return [*system, {"role": "user", "content": generation.prompt.replace(INPUT, text)}]


# --- what it gave -----------------------------------------------------------------------------------------------------


def _taken_over(job: FitJob, params: TrainingHubParams, made: Produced) -> Fitted:
    """A model that answers, made of what Training Hub left; nothing of the folder is needed afterwards."""
    if params.encodes:
        from postgrad.train.tuning import fit_embedder

        head = params.head_params()
        return fit_embedder(replace(job, params=head, base_model=made.folder), head)
    from postgrad.train.causal_lm import fit_language_model

    asking = params.asking_params()
    folder = _merged(job, made) if made.adapters else made.folder
    found = fit_language_model(replace(job, params=asking, base_model=folder), asking)
    # The folder goes, and the base model stays what it was tuned from.
    return replace(found, base=job.base_model)


def _merged(job: FitJob, made: Produced) -> Path:
    """Low-rank adapters put into their base model, as a folder."""
    import torch
    from peft import PeftModel

    from postgrad.train.lm_model import load_tokenizer, load_weights

    assert job.base_model is not None, "checked before the training"
    place = job.checkpoint / "merged"
    tuned: Any = PeftModel.from_pretrained(load_weights(job.base_model, torch.float32), str(made.folder))
    tuned.merge_and_unload().save_pretrained(str(place))
    load_tokenizer(job.base_model).save_pretrained(str(place))
    return place
