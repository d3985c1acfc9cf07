"""A recorded landscape as one Parquet file: packed from the work folder of `bench record`, and read back.

One row a recipe and training seed: what every item came to as bits, seconds, failure. Items are numbers in the order of
the split plan; the file holds no text and no label of the data sets.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from postgrad import __version__
from postgrad.errors import UserError
from postgrad.evaluate.evaluator import apply_threshold, cross_fitted, frozen_threshold
from postgrad.metrics.base import Answers
from postgrad.metrics.items import Items, join
from postgrad.records import Failure, Recipe, TaskSpec
from postgrad.runner import machine, packages

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FOLDER = Path("bench/landscapes")
PLAN = "plan.npz"
FACTS = b"postgrad"
PARTS = ("search", "select", "sealed")


@dataclass(frozen=True)
class Tried:
    """One recipe, trained with S seeds.

    Attributes:
        failures: of each seed, None where there was none.
        seconds: of each seed, failed or not: folds, and all rows.
        fold_s: of each seed, seconds of the folds alone; of a failed one what it took.
        search, select, sealed: (S, N) 1 where an item was answered rightly; 0 throughout where the training failed.
    """

    recipe: Recipe
    failures: tuple[Failure | None, ...]
    seconds: tuple[float, ...]
    fold_s: tuple[float, ...]
    search: NDArray[np.uint8]
    select: NDArray[np.uint8]
    sealed: NDArray[np.uint8]

    @property
    def stood(self) -> list[int]:
        """The seeds that did not fail."""
        return [number for number, failure in enumerate(self.failures) if failure is None]

    @cached_property
    def truth(self) -> float:
        """Mean sealed score over the seeds that did not fail; 0 where all did."""
        return float(self.sealed[self.stood].mean()) if self.stood else 0.0


@dataclass(frozen=True)
class Recording:
    """A file.

    Attributes:
        tried: by the recipe's hash, in the order they were recorded.
        fold, group: (N,) of each search item, its fold and the row it was made from.
        outside: part -> (N,) True for items that are out of scope.
        facts: what the file says of itself.
    """

    task: TaskSpec
    tried: Mapping[str, Tried]
    fold: NDArray[np.int64]
    group: NDArray[np.int64]
    outside: Mapping[str, NDArray[np.bool_]]
    facts: Mapping[str, Any]

    @property
    def folds(self) -> int:
        return int(self.fold.max()) + 1


# --- packing ----------------------------------------------------------------------------------------------------------


def pack(folder: Path, target: Path) -> Path | None:
    """Write what a work folder holds to `target`; None where no recipe is recorded yet."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    with np.load(folder / PLAN) as file:
        plan = {name: file[name] for name in file.files}
    found = sorted(folder.glob("*.npz"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    rows = [row for path in found if path.name != PLAN for row in _rows(path, plan)]
    if not rows:
        return None
    folds = int(plan["unit"].max())
    inside = plan["unit"] < folds
    places = {"search": inside, "select": ~inside & ~plan["sealed"], "sealed": ~inside & plan["sealed"]}
    facts = {
        "postgrad": __version__,
        "machine": machine(),
        "packages": packages(),
        "ground": str(plan["hash"]),
        "task": json.loads(str(plan["task"])),
        "items": {part: int(places[part].sum()) for part in PARTS},
        "fold": plan["unit"][inside].tolist(),
        "group": plan["group"][inside].tolist(),
        "outside": {part: (plan["truth"][places[part]] < 0).astype(int).tolist() for part in PARTS},
    }
    table = pa.Table.from_pylist(rows).replace_schema_metadata({FACTS: json.dumps(facts, separators=(",", ":"))})
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".part")
    pq.write_table(table, unfinished, compression="zstd", compression_level=19)
    unfinished.replace(target)
    return target


def _rows(path: Path, plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of one recipe's file."""
    import numpy as np

    with np.load(path) as file:
        facts = json.loads(file["facts"].tobytes())
        arrays = {name: file[name] for name in file.files if name != "facts"}
    recipe, rows = Recipe.model_validate(facts["recipe"]), []
    for number, seed in enumerate(facts["seeds"]):
        failure, units = facts["failures"][number], facts["units"][number]
        right = dict.fromkeys(PARTS, b"")
        if failure is None:
            marks = judged(recipe, arrays[f"argmax{number}"], arrays[f"score{number}"], plan)
            right = {part: np.packbits(mark).tobytes() for part, mark in marks.items()}
        rows.append(
            {
                "recipe": recipe.model_dump_json(),
                "seed": seed,
                "failure": json.dumps(failure) if failure else None,
                "seconds": facts["seconds"][number],
                "fold_seconds": units[:-1],
                "wall_seconds": facts["walls"][number],
                **right,
            }
        )
    return rows


def judged(
    recipe: Recipe, argmax: NDArray[np.uint8], score: NDArray[np.float32], plan: Mapping[str, Any]
) -> dict[str, NDArray[np.bool_]]:
    """Part -> (N,) whether each item was answered rightly, rejection included.

    As the referee does it: a fold is answered with the threshold that the other folds chose, held-out rows with that of
    all folds together.
    """
    unit, truth, labels = plan["unit"], plan["truth"], int(plan["labels"]) + 1
    truth = _known(truth, labels - 1)
    # The mark that the threshold rule knows disturbed copies by.
    keys = [
        f"{u}/{g}{'+typos' if copy else ''}" for u, g, copy in zip(unit, plan["group"], plan["disturbed"], strict=True)
    ]
    parts = [
        _items(unit == number, keys, plan["group"], truth, argmax, score, labels) for number in range(unit.max() + 1)
    ]
    rejects = json.loads(str(plan["task"]))["data"]["out_of_scope"] is not None
    search = cross_fitted(parts[:-1], recipe.inference, rejects).labelled
    threshold = frozen_threshold(join(parts[:-1]), recipe.inference) if rejects else None
    held = apply_threshold(parts[-1], threshold).labelled
    sealed = plan["sealed"][unit == unit.max()]
    right = held.predicted == held.truth
    return {"search": search.predicted == search.truth, "select": right[~sealed], "sealed": right[sealed]}


def _known(truth: NDArray[np.int64], unknown: int) -> NDArray[np.int64]:
    """Labels that no train row has become a class of their own."""
    import numpy as np

    return np.where(truth > unknown, unknown, truth).astype(np.int64)


def _items(
    chosen: NDArray[np.bool_],
    keys: Sequence[str],
    group: NDArray[np.int64],
    truth: NDArray[np.int64],
    argmax: NDArray[np.uint8],
    score: NDArray[np.float32],
    labels: int,
) -> Items:
    import numpy as np

    at = np.flatnonzero(chosen)
    best = argmax[at].astype(np.int64)
    answers = Answers(truth[at], best, best, score[at].astype(np.float64), labels)
    return Items(np.array(keys)[at], group[at].astype(str), answers)


# --- reading ----------------------------------------------------------------------------------------------------------


def recording(name: str) -> Recording:
    """A recorded landscape that is in the current folder, else one that came with the sources.

    Raises:
        UserError: there is no such file, or it is no recording.
    """
    places = (FOLDER / f"{name}.parquet", Path(__file__).resolve().parents[3] / FOLDER / f"{name}.parquet")
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise UserError(
            f"The recorded landscape '{name}' was expected in {places[0]} and is not there. Start Postgrad in the "
            f"folder of its sources, which has it, or record it: postgrad bench record --sets {name}"
        )
    return read(path.resolve(), path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def read(path: Path, changed: int) -> Recording:
    """The recording in a file; `changed` keeps an older one from being taken for it.

    Raises:
        UserError: it is no recording.
    """
    import numpy as np
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    text = (table.schema.metadata or {}).get(FACTS)
    if text is None:
        raise UserError(f"{path} is no recorded landscape: `postgrad bench record` did not write it. Record it again.")
    facts = json.loads(text)
    by_recipe: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        by_recipe.setdefault(row["recipe"], []).append(row)
    tried = (_tried(Recipe.model_validate_json(plain), rows, facts["items"]) for plain, rows in by_recipe.items())
    return Recording(
        task=TaskSpec.model_validate(facts["task"]),
        tried={each.recipe.hash: each for each in tried},
        fold=np.array(facts["fold"]),
        group=np.array(facts["group"]),
        outside={part: np.array(facts["outside"][part], dtype=bool) for part in PARTS},
        facts=facts,
    )


def _tried(recipe: Recipe, rows: Sequence[Mapping[str, Any]], items: Mapping[str, int]) -> Tried:
    import numpy as np

    def bits(part: str) -> NDArray[np.uint8]:
        found = np.zeros((len(rows), items[part]), dtype=np.uint8)
        for number, row in enumerate(rows):
            if row["failure"] is None:
                found[number] = np.unpackbits(np.frombuffer(row[part], dtype=np.uint8), count=items[part])
        return found

    failures = tuple(Failure.model_validate_json(row["failure"]) if row["failure"] else None for row in rows)
    return Tried(
        recipe=recipe,
        failures=failures,
        seconds=tuple(row["seconds"] for row in rows),
        fold_s=tuple(row["seconds"] if row["failure"] else sum(row["fold_seconds"]) for row in rows),
        search=bits("search"),
        select=bits("select"),
        sealed=bits("sealed"),
    )
