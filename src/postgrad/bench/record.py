"""`postgrad bench record`: trains hundreds of real recipes on four data sets and writes down what each item came to.

What it records is what `bench search` plays the recorded landscapes from. Every recipe is one file in the work folder,
written at once: a recording that was killed goes on with the recipe after the last whole one. It runs on one core.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Callable, Mapping, NamedTuple

from postgrad.bench.base import BenchSpec, whole_number
from postgrad.bench.record_data import SETS, Ground, ground
from postgrad.bench.record_pool import in_turn, pool
from postgrad.bench.record_table import correlations, facts_of, markdown
from postgrad.bench.record_train import Failed, Trainer
from postgrad.bench.recorded_file import FOLDER, PLAN, pack, read
from postgrad.errors import UserError
from postgrad.records import Failure, Recipe, TaskSpec
from postgrad.train.models import resolve_model

SEEDS = (0, 2)
LIMIT_S = 120.0
POOL = "pool.jsonl"


class Place(NamedTuple):
    """A ground with its recipes in the order they are recorded, and its folder."""

    ground: Ground
    recipes: tuple[Recipe, ...]
    folder: Path


class Record:
    """The benchmark."""

    options = {
        "sets": (",".join(SETS), "names with commas"),
        "recipes": ("252", "recipes of each data set"),
        "tunings": ("3", "ways to fine-tune among them; they take most of the time"),
        "limit": (f"{LIMIT_S:g}", "seconds that one training of a recipe may take; longer is a failure"),
        "landscapes": (str(FOLDER), "folder of the packed files"),
        "train": ("on", "off: pack what is recorded, and train nothing"),
    }

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        """Record what is not recorded yet, pack it, and say how well search scores order the recipes."""
        names = [name.strip() for name in spec.options["sets"].split(",") if name.strip()]
        limit = float(whole_number(spec.options, "limit"))
        if spec.options["train"] not in ("on", "off"):
            raise UserError(f"Got --train {spec.options['train']}. Expected on or off.")
        if spec.options["train"] == "on":
            record([self._place(spec, name) for name in names], limit, say)
        return packed({name: spec.folder / name for name in names}, Path(spec.options["landscapes"]))

    def _place(self, spec: BenchSpec, name: str) -> Place:
        found = ground(name)
        sizes = [whole_number(spec.options, option) for option in ("recipes", "tunings")]
        return placed(found, _pool(spec.folder / name / POOL, found.task, *sizes), spec.folder)


def _pool(path: Path, task: TaskSpec, size: int, tunings: int) -> tuple[Recipe, ...]:
    """The recipes of a data set, as they were when its recording began: playbooks change."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        lines = [f"{recipe.model_dump_json()}\n" for recipe in pool(task, size, tunings)]
        unfinished.write_text("".join(lines), encoding="utf-8")
        unfinished.replace(path)
    return tuple(Recipe.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines())


def placed(found: Ground, recipes: tuple[Recipe, ...], folder: Path) -> Place:
    """Where a ground is recorded, and in which order.

    Raises:
        UserError: the folder holds a recording of other rows.
    """
    place = Place(found, in_turn(recipes, found.name), folder / found.name)
    place.folder.mkdir(parents=True, exist_ok=True)
    write_plan(place)
    return place


def packed(folders: Mapping[str, Path], target: Path) -> dict[str, Any]:
    """Pack what is recorded; return the table of it, with rank correlations.

    Raises:
        UserError: nothing is recorded in any of these folders.
    """
    rows, found = [], {}
    for name, folder in folders.items():
        path = pack(folder, target / f"{name}.parquet") if (folder / PLAN).exists() else None
        if path is not None:
            known = read(path.resolve(), path.stat().st_mtime_ns)
            rows.append(facts_of(name, known) | {"bytes": path.stat().st_size})
            found[name] = correlations(known)
    if not rows:
        raise UserError(f"Nothing is recorded in {', '.join(map(str, folders.values()))} yet. Record with --train on.")
    return {"table": rows, "correlations": found, "markdown": markdown(rows, found)}


def record(places: list[Place], limit_s: float, say: Callable[[str], None]) -> None:
    """Record the recipes of all grounds in turn, so that a recording that is cut off is even."""
    trainers: dict[str, Trainer] = {}
    for number in range(max(len(place.recipes) for place in places)):
        for place in places:
            if number >= len(place.recipes) or file_of(place, place.recipes[number]).exists():
                continue
            if place.ground.name not in trainers:
                base = resolve_model(place.ground.task.base_models[0]) if place.ground.task.base_models else None
                trainers[place.ground.name] = Trainer(place.ground, place.folder / "tuned", base, limit_s)
            started = time.monotonic()
            facts = recorded(place, place.recipes[number], trainers[place.ground.name])
            took, seconds = time.monotonic() - started, sum(facts["seconds"])
            ended = "; ".join(failure["kind"] for failure in facts["failures"] if failure) or "done"
            say(f"{place.ground.name} {number + 1} of {len(place.recipes)}: {ended}, {seconds:.1f} s in {took:.1f} s")


def recorded(place: Place, recipe: Recipe, trainer: Trainer) -> dict[str, Any]:
    """Train a recipe with every seed and write its file; return its facts.

    The file holds for seed number s `argmax{s}` (uint8, the label before any rejection) and `score{s}` (float32) of
    every item, units one after the other, and `facts` as JSON.
    """
    import numpy as np

    arrays: dict[str, Any] = {}
    seconds: list[float] = []
    walls: list[float] = []
    units: list[list[float]] = []
    failures: list[dict[str, Any] | None] = []
    for number, seed in enumerate(SEEDS):
        started, failure = time.monotonic(), None
        try:
            outputs, took = trainer.train(recipe, seed)
            answers = [outputs[unit.name] for unit in place.ground.units]
            arrays[f"argmax{number}"] = np.concatenate([a.probs.argmax(1) for a in answers]).astype(np.uint8)
            arrays[f"score{number}"] = np.concatenate([a.score for a in answers]).astype(np.float32)
            units.append([round(took[unit.name], 6) for unit in place.ground.units])
            seconds.append(sum(took.values()))
        except Failed as failed:
            failure = failed.failure.model_dump(mode="json")
            units.append([])
            seconds.append(failed.seconds)
        except (ValueError, RuntimeError, ArithmeticError) as wrong:
            failure = Failure(boundary="train", kind="crash", message=str(wrong)[:500]).model_dump(mode="json")
            units.append([])
            seconds.append(time.monotonic() - started)
        failures.append(failure)
        walls.append(round(time.monotonic() - started, 6))
    facts = {
        "recipe": recipe.model_dump(mode="json"),
        "seeds": SEEDS,
        "seconds": [round(each, 6) for each in seconds],
        "units": units,
        "walls": walls,
        "failures": failures,
    }
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
    path = file_of(place, recipe)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)
    unfinished.replace(path)
    return facts


def file_of(place: Place, recipe: Recipe) -> Path:
    """The file of a recipe."""
    return place.folder / f"{recipe.hash}.npz"


def write_plan(place: Place) -> None:
    """What the items are, as numbers: unit, group, truth and half of each, with the hash of the ground.

    Raises:
        UserError: the folder holds a recording of other rows.
    """
    import numpy as np

    from postgrad.evaluate.probes import is_disturbed
    from postgrad.evaluate.splits import group_of

    path, found = place.folder / PLAN, place.ground
    if path.exists():
        with np.load(path) as file:
            if str(file["hash"]) != found.hash:
                raise UserError(f"{place.folder} holds a recording of other rows. Take another --folder, or delete it.")
        return
    items = [(number, unit, row) for number, unit in enumerate(found.units) for row in unit.rows]
    groups: dict[str, int] = {}
    index = {label: i for i, label in enumerate(found.plan.labels)}
    outside = found.plan.out_of_scope
    # A label that no train row has is one that no model can answer.
    truth = [-1 if r.label == outside or r.label in u.held_out else index.get(r.label, 255) for _, u, r in items]
    whole = len(found.units) - 1
    halves = iter(found.sealed)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez(
            file,
            hash=np.array(found.hash),
            unit=np.array([number for number, _, _ in items]),
            group=np.array([groups.setdefault(group_of(row.id), len(groups)) for _, _, row in items]),
            disturbed=np.array([is_disturbed(row.id) for _, _, row in items]),
            truth=np.array(truth),
            sealed=np.array([number == whole and next(halves) for number, _, _ in items]),
            labels=np.array(len(found.plan.labels)),
            task=np.array(found.task.model_dump_json()),
        )
    unfinished.replace(path)
