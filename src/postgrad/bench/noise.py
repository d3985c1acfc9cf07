"""`postgrad bench noise`: how often the decision rule is wrong, on simulated runs whose truth is known.

Every rule gets the same worlds and the same number of trainings. What a rule made of a cell is kept in the work folder,
so the benchmark goes on where it was stopped; after a change of a rule, delete its folder there. Trains nothing and
says nothing about search policies: proposals come from the world, one after another, each a change of what the rule
builds on.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Sequence

from postgrad.bench.base import BenchSpec, whole_number
from postgrad.bench.keep_rules import RULES, Outcome
from postgrad.bench.noise_table import markdown, row_of
from postgrad.bench.worlds import Setting, World, world
from postgrad.errors import UserError
from postgrad.evaluate.statistics import difference
from postgrad.evaluate.statistics.intervals import widened
from postgrad.metrics.items import Items

if TYPE_CHECKING:
    from postgrad.records import Difference

ITEMS, EXPERIMENTS, BETTER = (100, 300, 1000, 5000), (20, 100, 400), (0.0, 0.05, 0.2)
QUICK_ITEMS, QUICK_EXPERIMENTS, QUICK_RUNS = (100, 1000), (20, 100), 20
FINAL_TRAINING = 10**6


class Noise:
    """The benchmark."""

    options = {
        "runs": ("200", "simulated runs of each cell"),
        "world": ("accuracy", "accuracy, graded, mcc, or package.module:Name"),
        "items": (",".join(map(str, ITEMS)), "question counts"),
        "experiments": (",".join(map(str, EXPERIMENTS)), "training budgets"),
        "better": (",".join(map(str, BETTER)), "shares of truly better proposals"),
        "processes": ("2", "side by side"),
    }

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        """Play every rule in every cell and return one table row a cell."""
        options = dict(spec.options)
        if spec.quick:
            options["items"], options["experiments"] = _text(QUICK_ITEMS), _text(QUICK_EXPERIMENTS)
            options["runs"] = str(QUICK_RUNS)
        runs, name = whole_number(options, "runs"), options["world"]
        world(name)
        settings = _settings(options)
        folder = spec.folder / name.replace(":", ".")
        cells: list[dict[str, Any]] = []
        with ProcessPoolExecutor(whole_number(options, "processes")) as pool:
            for number, cell in enumerate(pool.map(_cell, ((folder, name, s, runs) for s in settings)), 1):
                cells.append(cell)
                say(f"{number} of {len(settings)}: {_told(cell)}")
        rows = [row_of(cell) for cell in cells]
        return {"world": name, "runs": runs, "table": rows, "markdown": markdown(rows)}


def _text(numbers: Sequence[float]) -> str:
    return ",".join(map(str, numbers))


def _settings(options: dict[str, str]) -> list[Setting]:
    try:
        items = [int(text) for text in options["items"].split(",")]
        experiments = [int(text) for text in options["experiments"].split(",")]
        shares = [float(text) for text in options["better"].split(",")]
    except ValueError as wrong:
        raise UserError(
            f"A list of numbers cannot be read ({wrong}). Expected for example: --items 100,1000"
        ) from wrong
    if min(items) < 10 or min(experiments) < 5 or not all(0 <= share <= 1 for share in shares):
        raise UserError("Expected at least 10 items, at least 5 experiments, and shares from 0 to 1.")
    # Long cells first would keep the last process waiting least; short ones first show soonest whether it works.
    return [
        Setting(items=n, seed_noise=noise, experiments=count, better=share)
        for count in experiments
        for n in items
        for noise in ("low", "high")
        for share in shares
    ]


def _told(cell: dict[str, Any]) -> str:
    row = row_of(cell)
    return ", ".join(f"{key} {value}" for key, value in list(row.items())[:10])


def _cell(task: tuple[Path, str, Setting, int]) -> dict[str, Any]:
    """One cell, every rule of it."""
    folder, name, setting, runs = task
    stem = f"{setting.experiments}-{setting.items}-{setting.seed_noise}-{setting.better}-{runs}"
    rules = {label: _played(folder / label / f"{stem}.json", name, setting, runs, label) for label in RULES}
    return {"setting": setting.model_dump(), "runs": runs, "rules": rules}


def _played(path: Path, name: str, setting: Setting, runs: int, label: str) -> dict[str, list[float]]:
    """What a rule made of a cell: read from its file when it was played already."""
    if path.exists():
        known: dict[str, list[float]] = json.loads(path.read_text(encoding="utf-8"))
        return known
    facts = []
    for seed in range(runs):
        made = world(name)
        outcome = RULES[label].play(made, setting, seed)
        facts.append(_facts(made, setting, outcome, sealed=label == "postgrad"))
    result = {key: [fact[key] for fact in facts] for key in facts[0]}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(result), encoding="utf-8")
    unfinished.replace(path)
    return result


def _facts(made: World, setting: Setting, out: Outcome, *, sealed: bool) -> dict[str, float]:
    """What is counted of one run."""
    gain = made.truth(out.final) - made.truth(out.first)
    better = sum(out.proposals)
    facts = {
        "gain": gain,
        "optimism": out.claimed_gain - gain,
        "keeps": len(out.keeps),
        "false_keeps": len(out.keeps) - sum(out.keeps),
        "leads": len(out.leads),
        "false_leads": len(out.leads) - sum(out.leads),
        "better": better,
        "missed": max(0, better - sum(out.leads)),
        "trainings": out.trainings,
        "decide_s": out.decide_s,
    }
    return facts | (_sealed(made, out) if sealed else {})


def _sealed(made: World, out: Outcome) -> dict[str, float]:
    """Whether the 95 % intervals of the sealed read hold the truth: of the two trained models (the project's own
    bootstrap), and of their recipes (widened by the seed noise that the run measured)."""
    champion, baseline = made.train(out.final, FINAL_TRAINING), made.train(out.first, FINAL_TRAINING + 1)
    first, second = (_items(made, model) for model in (champion, baseline))
    found = difference(made.metric, first, second)
    recipes = widened(found, 2 * out.seed_variance, 1.0 + out.replicates)
    models_true = made.model_truth(champion) - made.model_truth(baseline)
    recipes_true = made.truth(out.final) - made.truth(out.first)
    return {
        "covers": float(_holds(found, models_true)),
        "covers_recipes": float(_holds(recipes, recipes_true)),
        "half_width": (found.high - found.low) / 2,
    }


def _holds(found: Difference, truth: float) -> bool:
    return found.low - 1e-12 <= truth <= found.high + 1e-12


def _items(made: World, model: Any) -> Items:
    import numpy as np

    answers = made.answers(model, "sealed")
    keys = np.array([f"{i:06d}" for i in range(len(answers.truth))])
    return Items(keys, keys, answers)
