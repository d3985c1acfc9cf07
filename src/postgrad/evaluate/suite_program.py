"""The referee's program that asks a model tasks of lm-eval: `python -m postgrad.evaluate.suite_program FOLDER`.

FOLDER holds the order, the model, and the folder of tasks where there is one; the values of each example are written
beside them. The only file that knows lm-eval (EleutherAI, "Language Model Evaluation Harness"; written for 0.4.13). A
task may bring Python of its own, which is why this runs in a job's sandbox, without network.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Mapping, Sequence

COMMAND = (sys.executable, "-P", "-m", "postgrad.evaluate.suite_program")
ORDER, FOUND, TASKS = "suite.json", "scores.json", "tasks"
BATCH = 8
# What a broken task, or the Hub's library without network, was seen to raise. Anything else ends the process.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, RuntimeError)
SHOWN = 10


class Refused(Exception):
    """A task that cannot be asked here. The text says why and what to do."""


def scores_of(folder: Path) -> dict[str, Any]:
    """Task -> metric, whether higher is better, and for each example its number, the hash of its content, and value.

    Raises:
        Refused: a task is not known, its rows are not at hand, or its metric has no value of a single example.
    """
    order = json.loads((folder / ORDER).read_text(encoding="utf-8"))
    tasks = folder / TASKS
    if tasks.is_dir():
        os.chdir(tasks)  # Paths of data files are relative to the tasks.
    found = _asked(order["tasks"], Path(order["model"]), tasks if tasks.is_dir() else None, order["limit"])
    return {name: _values(name, samples, found["higher_is_better"][name]) for name, samples in found["samples"].items()}


def _asked(names: Sequence[str], model: Path, include: Path | None, limit: int | None) -> Mapping[str, Any]:
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(include), include_defaults=False) if include else None
    if manager is None or not set(names) <= set(manager.all_tasks):
        manager = TaskManager(include_path=str(include) if include else None)
    if unknown := sorted(set(names) - set(manager.all_tasks)):
        raise Refused(f"there is no task {', '.join(unknown)}. {_known(manager.all_tasks, unknown[0])}")
    gpu = torch.cuda.is_available()
    try:
        manager.load(list(names))
    except UNREADABLE as broken:
        raise Refused(
            f"{', '.join(names)} cannot be loaded ({type(broken).__name__}: {str(broken).strip()[:200]}). Tasks that "
            "come with lm-eval read their rows from the Hub, and a measurement has no network: put the task's YAML "
            "into a folder with its rows as jsonl (dataset_path: json), and name that folder."
        ) from broken
    asked = HFLM(
        pretrained=str(model),
        device="cuda" if gpu else "cpu",
        dtype="bfloat16" if gpu else "float32",
        batch_size=BATCH,
        trust_remote_code=False,
    )
    found: Mapping[str, Any] = simple_evaluate(
        asked, tasks=list(names), task_manager=manager, limit=limit, bootstrap_iters=0, log_samples=True
    )
    return found


def _known(every: Sequence[str], name: str) -> str:
    from postgrad.errors import near_miss

    shown = sorted(every)[:SHOWN]
    more = f" and {len(every) - SHOWN:,} more" if len(every) > SHOWN else ""
    return f"{near_miss(name, every)} Known: {', '.join(shown)}{more}.".strip()


def _values(name: str, samples: Sequence[Mapping[str, Any]], higher: Mapping[str, bool]) -> dict[str, Any]:
    """The first metric of a task that has a number for every example, after the first of its filters."""
    kept = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    metric = next(
        (one for one in samples[0]["metrics"] if all(isinstance(sample[one], bool | int | float) for sample in kept)),
        None,
    )
    if metric is None:
        raise Refused(f"{name} has no metric with a number for each example, so no two models can be paired on it.")
    return {
        "metric": metric,
        "higher_is_better": bool(higher.get(metric, True)),
        "ids": [str(sample["doc_id"]) for sample in kept],
        "groups": [sample["doc_hash"] for sample in kept],
        "values": [float(sample[metric]) for sample in kept],
    }


def main(arguments: Sequence[str]) -> int:
    """Ask the model as the folder that is the only argument says."""
    folder = Path(arguments[0]).resolve()
    try:
        found: dict[str, Any] = {"tasks": scores_of(folder)}
    except Refused as wrong:
        found = {"problem": str(wrong)}
    unfinished = folder / f"{FOUND}.part"
    unfinished.write_text(json.dumps(found), encoding="utf-8")
    unfinished.replace(folder / FOUND)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
