"""A backend of Training Hub's `sft` for machines without a GPU: TRL's trainer on the CPU, behind Training Hub's own
registry. Loaded by `th_runner.py` in the environment of Training Hub; imports nothing of Postgrad.

The loss is on the last answer of a conversation. All weights are trained, in fp32.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

NAME = "postgrad-trl"
METRICS = "training_metrics.jsonl"


def register(hub: Any) -> None:
    """Make the backend known to Training Hub."""

    backend = type("TrlOnCpu", (hub.Backend,), {"execute_training": lambda self, given: train(given)})
    hub.AlgorithmRegistry.register_backend("sft", NAME, backend)


def train(given: dict[str, Any]) -> dict[str, str]:
    """Tune a causal language model on conversations; return where it lies."""
    from datasets import Dataset
    from transformers import TrainerCallback

    trl: Any = import_module("trl")
    out = Path(given["ckpt_output_dir"])
    lines = Path(given["data_path"]).read_text(encoding="utf-8").split("\n")
    talks = [json.loads(line)["messages"] for line in lines if line]
    rows = Dataset.from_list([{"prompt": talk[:-1], "completion": talk[-1:]} for talk in talks])

    class Written(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
            if logs and "loss" in logs:
                facts = {"step": state.global_step, "loss": float(logs["loss"]), "max_steps": state.max_steps}
                with (out / METRICS).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(facts) + "\n")

    config = trl.SFTConfig(
        output_dir=str(out / "trainer"),
        num_train_epochs=given["num_epochs"],
        per_device_train_batch_size=given["effective_batch_size"],
        learning_rate=given["learning_rate"],
        max_length=given["max_seq_len"],
        warmup_steps=given.get("warmup_steps", 0),
        weight_decay=given.get("weight_decay", 0.0),
        adam_beta1=given.get("beta1", 0.9),
        adam_beta2=given.get("beta2", 0.95),
        adam_epsilon=given.get("eps", 1e-8),
        seed=given.get("random_seed", 42),
        data_seed=given.get("random_seed", 42),
        use_cpu=True,
        bf16=False,
        report_to="none",
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        model_init_kwargs={"dtype": "float32", "local_files_only": True},
    )
    trainer = trl.SFTTrainer(model=given["model_path"], args=config, train_dataset=rows, callbacks=[Written()])
    trainer.train()
    place = out / "hf_format" / f"samples_{len(talks)}"
    trainer.save_model(str(place))
    return {"path": str(place)}
