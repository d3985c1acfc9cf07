"""`postgrad bench throughput`: how fast and in how much memory a language model is trained, beside a loop and TRL.

Each training runs in a process of its own; the contenders take turns, in an order that is drawn for every round, so
that what else the machine does meets all of them. Ratios are within a round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from statistics import geometric_mean, median
from typing import Any, Callable

from postgrad.bench.base import BenchSpec, whole_number
from postgrad.data.sources import load_rows
from postgrad.errors import PostgradError
from postgrad.records import Generation, content_hash
from postgrad.spec import load_task
from postgrad.train.models import resolve_model

WHO = ("postgrad", "plain", "trl")
NAMES = {"postgrad": "Postgrad", "plain": "a plain PyTorch loop", "trl": "TRL's SFTTrainer"}


class Throughput:
    """The benchmark."""

    options = {
        "task": ("examples/smollm2-extraction.yaml", "a task whose first base model and train rows are taken"),
        "steps": ("6", "counted steps of a training; one more comes before them"),
        "batch": ("16", "rows a step"),
        "rounds": ("3", "how often each contender is measured"),
        "threads": ("2", "of a training"),
        "tune": ("full,lora", "what is trained, names with commas"),
    }

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        """Measure what is not measured yet, and return one table row for each contender and way to train."""
        steps, rounds = whole_number(spec.options, "steps"), whole_number(spec.options, "rounds")
        if spec.quick:
            steps, rounds = 2, 1
        batch, threads = whole_number(spec.options, "batch"), whole_number(spec.options, "threads")
        model, rows = _ground(Path(spec.options["task"]), batch * (steps + 1))
        spec.folder.mkdir(parents=True, exist_ok=True)
        shared = {"model": str(model), "rows": rows, "batch": batch, "threads": threads}
        found: dict[str, list[dict[str, Any]]] = {}
        for number in range(rounds):
            for tune in spec.options["tune"].split(","):
                cases = [(who, False) for who in WHO] + [("postgrad", True)]
                Random(number).shuffle(cases)
                for who, own in cases:
                    work = {**shared, "who": who, "tune": tune, "own": own}
                    told = _measured(spec.folder, number, work)
                    say(f"round {number + 1}, {tune}, {who}{' own batches' * own}: {_rate(told):.0f} tokens a second")
                    found.setdefault(f"{tune}/{who}{'/own' * own}", []).append(told)
        table = [_line(found, tune, who, own) for tune in spec.options["tune"].split(",") for who, own in _CASES]
        return {"table": table, "measured": found, "markdown": _markdown(table, steps, rounds, batch, threads, model)}


_CASES = (("postgrad", True), *((who, False) for who in WHO))


def _ground(task: Path, count: int) -> tuple[Path, list[tuple[list[int], list[int]]]]:
    """The model's folder, and rows as token ids with the loss on the answer."""
    from postgrad.train.chat import Example, renderer
    from postgrad.train.lm_checks import tokens_of
    from postgrad.train.lm_model import load_tokenizer

    spec = load_task(task)
    folder = resolve_model(spec.base_models[0])
    data = spec.data
    words = spec.kind == "generation"
    found = load_rows(data.train, input=data.input, target=data.target, words=words)[:count]
    asked = spec.generation if words else Generation()
    made = renderer(load_tokenizer(folder), asked, (), asked.max_prompt_tokens)
    tokens = [tokens_of(made, Example(row.text, row.label)) for row in found]
    return folder, [(list(one.ids), list(one.labels)) for one in tokens]


def _measured(folder: Path, number: int, work: dict[str, Any]) -> dict[str, Any]:
    """One measurement, from the disk where it was made before."""
    name = content_hash([number, {**work, "model": Path(work["model"]).name}])
    path = folder / f"{name}.json"
    if path.is_file():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return known
    given = folder / f"{name}.work"
    given.write_text(json.dumps({**work, "folder": str(folder / name)}), encoding="utf-8")
    threads = str(work["threads"])
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-P", "-m", "postgrad.bench.throughput_train", str(given)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    given.unlink()
    if done.returncode:
        raise PostgradError(f"The training of '{work['who']}' failed: {done.stderr.strip()[-500:]}")
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    path.write_text(json.dumps(told), encoding="utf-8")
    return told


def _rate(told: dict[str, Any]) -> float:
    return float(told["tokens"] / told["seconds"])


def _line(found: dict[str, list[dict[str, Any]]], tune: str, who: str, own: bool) -> dict[str, Any]:
    """One row: rates of this contender, and its ratio to the faster of the other two, round by round."""
    mine = found[f"{tune}/{who}{'/own' * own}"]
    others = [found[f"{tune}/{name}"] for name in WHO if name != "postgrad"]
    ratios = [_rate(one) / max(_rate(other[at]) for other in others) for at, one in enumerate(mine)]
    peaks = [one["peak_mb"] / min(other[at]["peak_mb"] for other in others) for at, one in enumerate(mine)]
    return {
        "tune": tune,
        "who": NAMES[who] + (", own batches" if own else ""),
        "tokens a second": round(median(_rate(one) for one in mine)),
        "to the faster rival": round(geometric_mean(ratios), 2),
        "lowest": round(min(ratios), 2),
        "highest": round(max(ratios), 2),
        "peak MB": round(median(one["peak_mb"] for one in mine)),
        "to the leaner rival": round(geometric_mean(peaks), 2),
        "last loss": round(median(one["losses"][-1] for one in mine), 3),
    }


def _markdown(table: list[dict[str, Any]], steps: int, rounds: int, batch: int, threads: int, model: Path) -> str:
    names = list(table[0])
    lines = [f"| {' | '.join(names)} |", f"| {' | '.join('---' for _ in names)} |"]
    lines += [f"| {' | '.join(str(row[name]) for name in names)} |" for row in table]
    said = (
        f"{model.name}, {steps} counted steps of {batch} rows, {threads} threads, {rounds} rounds in which the "
        "contenders take turns. Tokens are those of the rows, padding not counted. Ratios are geometric means over the "
        "rounds, with the lowest and the highest. All have the same batches but for the lines that say so."
    )
    return "\n".join([said, "", *lines, ""])
