"""The arguments of Training Hub's algorithms: which a recipe may set, which are accepted and never read, and which
Postgrad sets itself. Read off its source in the versions of `th_environments.py`; a slow test compares the names with
the installed package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

from postgrad.records import Value

ALGORITHMS = ("embedding_sft", "sft", "osft", "lora_sft", "lora_grpo", "grpo")


@dataclass(frozen=True)
class Arguments:
    """What one algorithm takes.

    Attributes:
        defaults: what a recipe may set -> what it is without that. None leaves it to Training Hub.
        ignored: accepted by the algorithm and read by nothing: setting one would change nothing.
        fixed: what Postgrad sets to this value, whatever the recipe.
        backends: which parts of Training Hub can do the training, its default first. What one of them ignores on top is
            in `ignored_by`.
        gpu: whether it needs an NVIDIA GPU.
        cpu_backend: a backend of Postgrad's own, registered with Training Hub, that needs none.
        method: what its memory estimate calls it; "" where it has none.
    """

    defaults: Mapping[str, Value]
    ignored: frozenset[str] = frozenset()
    fixed: Mapping[str, Value] | None = None
    backends: tuple[str, ...] = ()
    ignored_by: Mapping[str, frozenset[str]] | None = None
    gpu: bool = True
    cpu_backend: str | None = None
    method: str = ""

    def never_read(self, backend: str) -> frozenset[str]:
        """What changes nothing with a backend."""
        return self.ignored | (self.ignored_by or {}).get(backend, frozenset())


CPU_BACKEND = "postgrad-trl"
LANGUAGE: Mapping[str, Value] = {
    "num_epochs": 3,
    "effective_batch_size": 16,
    "learning_rate": 1e-5,
    "max_seq_len": 1024,
    "warmup_steps": 0,
}
OPTIMIZER: Mapping[str, Value] = {"weight_decay": 0.0, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8}
ROLLOUTS: Mapping[str, Value] = {
    "num_iterations": 15,
    "group_size": 8,
    "prompt_batch_size": 16,
    "learning_rate": 1e-5,
    "temperature": 0.7,
    "max_tokens": 64,
    "max_prompt_length": 1024,
    "gpu_memory_utilization": 0.45,
    "tensor_parallel_size": 1,
    "n_gpus": 1,
    "use_dr_grpo": True,
}
# Machines of a cluster, which a job of Postgrad has none of.
CLUSTER = ("nnodes", "node_rank", "rdzv_id", "rdzv_endpoint", "master_addr", "master_port")

TABLE: Mapping[str, Arguments] = {
    "embedding_sft": Arguments(
        defaults={
            "loss_type": "batch_all_triplet",
            "num_epochs": 4,
            "batch_size": 32,
            "learning_rate": 5e-5,
            "warmup_ratio": 0.1,
            "batch_sampler": None,
        },
        backends=("sentence-transformers",),
        gpu=False,
    ),
    "sft": Arguments(
        defaults={**LANGUAGE, **OPTIMIZER, "max_tokens_per_gpu": None},
        # The state of the optimizer would be written at every epoch, several times the size of the model.
        fixed={"accelerate_full_state_at_epoch": False, "checkpoint_at_epoch": True, "save_samples": 0},
        backends=("instructlab-training",),
        # The small backend for a CPU has no cards to fill.
        ignored_by={CPU_BACKEND: frozenset({"max_tokens_per_gpu"})},
        cpu_backend=CPU_BACKEND,
        method="sft",
    ),
    "osft": Arguments(
        defaults={
            **LANGUAGE,
            **OPTIMIZER,
            "unfreeze_rank_ratio": 0.3,
            "max_tokens_per_gpu": 8192,
            "target_patterns": None,
            "use_liger": False,
            "lr_scheduler": None,
            "unmask_messages": False,
        },
        fixed={"checkpoint_at_epoch": False, "save_final_checkpoint": True},
        backends=("mini-trainer",),
        method="osft",
    ),
    "lora_sft": Arguments(
        defaults={
            **LANGUAGE,
            "learning_rate": 2e-4,
            "weight_decay": 0.01,
            "lora_r": 16,
            "lora_alpha": 32,
            "lora_dropout": 0.0,
            "target_modules": None,
            "use_rslora": None,
            "use_dora": None,
            "gradient_accumulation_steps": None,
            "lr_scheduler": None,
            "max_grad_norm": None,
            "load_in_4bit": None,
            "load_in_8bit": None,
        },
        ignored=frozenset(
            {
                "max_tokens_per_gpu",
                "save_samples",
                "checkpoint_at_epoch",
                "accelerate_full_state_at_epoch",
                "data_output_dir",
                "flash_attention",
                "tf32",
                # Worked out from the effective batch size, which is always set.
                "micro_batch_size",
            }
        ),
        # Its chat form takes the loss on the prompt as well; columns named prompt and completion do not. Rows are not
        # laid end to end: where a few tokens of a row are the answer, that drowns them.
        fixed={"dataset_type": "passthrough", "sample_packing": False, "logging_steps": 1},
        backends=("unsloth",),
        method="lora",
    ),
    "lora_grpo": Arguments(
        defaults={
            **ROLLOUTS,
            "lora_r": 16,
            "lora_alpha": 8,
            "concurrency": None,
            "target_modules": None,
            "max_grad_norm": None,
            "max_lora_rank": None,
            "enforce_eager": None,
        },
        ignored=frozenset({"data_config"}),
        backends=("verl", "art"),
        ignored_by={
            "verl": frozenset({"concurrency", "target_modules", "max_grad_norm", "max_lora_rank", "enforce_eager"}),
            "art": frozenset({"max_prompt_length", "n_gpus", "tensor_parallel_size", "use_dr_grpo"}),
        },
    ),
    "grpo": Arguments(defaults=ROLLOUTS, ignored=frozenset({"data_config"}), backends=("verl",)),
}

#: What Postgrad sets for every algorithm: where things are, and chance.
SET_BY_POSTGRAD = (
    "model_path",
    "data_path",
    "ckpt_output_dir",
    "data_output_dir",
    "seed",
    "random_seed",
    "nproc_per_node",
)
#: What a recipe cannot hold: code, other data, other machines, and services outside.
NEVER = (
    *("loss_fn", "reward_fn", "rollout_fn", "tasks", "callbacks", "iteration_callback", "trust_remote_code"),
    *("eval_data_path", "text_column", "label_column", "checkpoint_storage", "enable_jit_checkpoint"),
    *("wandb_project", "wandb_entity", "wandb_run_name", "tensorboard_log_dir"),
    *("mlflow_tracking_uri", "mlflow_experiment_name", "mlflow_run_name"),
    *CLUSTER,
)
