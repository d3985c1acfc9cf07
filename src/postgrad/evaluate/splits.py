"""Who is asked what: the split plan of a run, made once, stored with the run, the same for every experiment.

Membership is decided by hashes of the normalised text, so that it does not depend on file order. Duplicates and near
copies never straddle: given train rows that are near a protected row are taken out, and those that are near each other
stay together wherever train itself is split. In-scope rows and out-of-scope questions come from the same fold: where a
task rejects but its train rows hold nothing to reject, each fold also leaves some whole intents out of training and
asks their rows as out of scope.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Callable, Iterable, Literal, Mapping, Sequence

from postgrad.data.decontaminate import Match, cleared, near_groups
from postgrad.data.text import stable_unit
from postgrad.errors import UserError
from postgrad.evaluate.probes import background, disturbed
from postgrad.metrics import TEXT_METRICS
from postgrad.records import Record, Row, TaskSpec

SMALL = 2000
FOLDS = 4
HOLDOUT_SHARE = 0.1
HOLDOUT_UNITS = 3
HOLDOUT_CAP = 2000
SEALED_SHARE = 0.2
# Computed of answers in words in any case.
ALWAYS = ("exact_match", "brevity")


class UnitPlan(Record):
    """One train-and-predict.

    Attributes:
        name: unique in the plan.
        train: ids of the train rows.
        items: ids of the rows that are asked.
        held_out: labels that are left out of `train`; their items' true answer is out of scope.
    """

    name: str
    train: tuple[str, ...]
    items: tuple[str, ...]
    held_out: tuple[str, ...] = ()


class SplitPlan(Record):
    """The whole plan of a run.

    Attributes:
        labels: that can be answered; none where answers are in words.
        graded: metrics that grade answers in words, the task's first.
        rows: part name -> artefact hash of a JSON-lines file.
        removed: given part -> how many of its rows are in no split, being near a protected row.
        matches: given part -> these rows by id, with what found them and the id of what they are near. None in plans
            of runs that looked for equal texts only.
    """

    mode: Literal["cv", "holdout"]
    labels: tuple[str, ...]
    out_of_scope: str | None
    graded: tuple[str, ...] = ()
    rows: dict[str, str]
    search: tuple[UnitPlan, ...]
    select: tuple[UnitPlan, ...]
    sealed: tuple[str, ...]
    removed: dict[str, int]
    matches: dict[str, tuple[Match, ...]] | None = None

    def units(self, split: Literal["search", "select"]) -> tuple[UnitPlan, ...]:
        return self.search if split == "search" else self.select


class Parts(Record):
    """The rows of a task by part, before and after the plan has split off what was missing.

    `side` are those that guards ask: protected as the test rows are, and in no split.
    """

    train: tuple[Row, ...]
    dev: tuple[Row, ...] = ()
    test: tuple[Row, ...] = ()
    side: tuple[Row, ...] = ()


def group_of(row_id: str) -> str:
    """The id without its repeat counter or variant: duplicates and variants of a text share a group."""
    return row_id.split("#", 1)[0].split("+", 1)[0].split("~", 1)[0]


def dump_rows(rows: Iterable[Row]) -> bytes:
    """JSON lines of id, text, label and, where there is one, check."""
    lines = (json.dumps(row.told, ensure_ascii=False) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def load_rows(data: bytes) -> tuple[Row, ...]:
    """Read what `dump_rows` wrote."""
    parsed = (json.loads(line) for line in data.decode().split("\n") if line)
    return tuple(Row(**row) for row in parsed)


class Near:
    """Groups of rows that are one piece of evidence: equal texts, variants, and near copies of each other."""

    def __init__(self, rows: Iterable[Row]) -> None:
        texts: dict[str, str] = {}
        for row in rows:
            name = group_of(row.id)
            texts[name] = min(row.text, texts.get(name, row.text))
        self._groups = near_groups(sorted(texts.items()))

    def __call__(self, row_id: str) -> str:
        """The group of a row, or of a variant of one."""
        name = group_of(row_id)
        return self._groups.get(name, name)


Stratum = Callable[[Row], str]


def by_label(row: Row) -> str:
    """Splits are stratified by label."""
    return row.label


def all_alike(row: Row) -> str:
    """Answers in words are hardly ever the same twice: nothing to stratify by."""
    return ""


def _by_hash(
    rows: Sequence[Row], share: float, salt: str, near: Near, cap: int | None = None, stratum: Stratum = by_label
) -> tuple[list[Row], list[Row]]:
    """Split off `share` of the groups of every stratum, lowest hash first; the rest keeps one group of each."""
    groups: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[stratum(row)][near(row.id)].append(row)
    scale = share if cap is None else min(share, cap / max(1, len(rows)))
    taken: set[str] = set()
    for of_label in groups.values():
        ranked = sorted(of_label, key=lambda group: stable_unit(group, salt))
        taken.update(ranked[: min(len(ranked) - 1, round(scale * len(ranked)))])
    return [r for r in rows if near(r.id) in taken], [r for r in rows if near(r.id) not in taken]


def _without(rows: Sequence[Row], others: Sequence[Row], near: Near) -> list[Row]:
    """Rows in none of the groups of the others."""
    barred = {near(row.id) for row in others}
    return [row for row in rows if near(row.id) not in barred]


def _label_folds(labels: Sequence[str], folds: int, salt: str) -> list[tuple[str, ...]]:
    """Deal the labels to folds, so that each label is left out once; nothing where fewer than two would stay."""
    ranked = sorted(labels, key=lambda label: stable_unit(label, salt))
    if len(ranked) < 3:
        return [() for _ in range(folds)]
    return [tuple(ranked[f::folds]) for f in range(folds)]


def _fold_of(
    rows: Sequence[Row], folds: int, salt: str, near: Near, stratum: Stratum = by_label
) -> dict[str, int | None]:
    """Group -> fold, stratified. A group that is alone in its stratum is never asked (fold None)."""
    strata: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        group = near(row.id)
        if group not in strata[stratum(row)]:
            strata[stratum(row)].append(group)
    fold: dict[str, int | None] = {}
    offset = 0
    for label in sorted(strata):
        ranked = sorted(strata[label], key=lambda group: stable_unit(group, salt))
        for position, group in enumerate(ranked):
            fold.setdefault(group, None if len(ranked) == 1 else (position + offset) % folds)
        offset += len(ranked)
    return fold


def _cv_units(
    rows: Sequence[Row], out_of_scope: str | None, salt: str, near: Near, stratum: Stratum
) -> tuple[tuple[UnitPlan, ...], tuple[Row, ...]]:
    """Stratified group folds and the rows they ask; with rejection, each fold leaves intents out as well."""
    labels = sorted({row.label for row in rows if row.label != out_of_scope})
    leaves_out = out_of_scope is not None and not any(row.label == out_of_scope for row in rows)
    held = _label_folds(labels, FOLDS, salt) if leaves_out else [()] * FOLDS
    copies = disturbed(rows, salt) if leaves_out else ()
    others = background(rows, out_of_scope, salt) if leaves_out and out_of_scope is not None else ()
    fold = _fold_of(rows, FOLDS, salt, near, stratum)
    units = []
    for f in range(FOLDS):
        gone = set(held[f])
        items = [r for r in rows if fold[near(r.id)] == f or r.label in gone]
        # A text that stands under two labels is asked in one role only: its group leaves the train rows.
        train = _without(rows, items, near)
        asked = [*items, *(c for c in copies if fold[near(c.id)] == f and c.label not in gone), *others]
        units.append(
            UnitPlan(
                name=f"{salt}{f}",
                train=tuple(row.id for row in train),
                items=tuple(row.id for row in asked),
                held_out=held[f],
            )
        )
    return tuple(units), (*rows, *copies, *others)


def _holdout_units(
    train: Sequence[Row], items: Sequence[Row], out_of_scope: str | None, salt: str
) -> tuple[UnitPlan, ...]:
    """One unit on all of train; where nothing in the split is out of scope, three units that leave intents out."""
    ids = tuple(row.id for row in items)
    whole = UnitPlan(name=f"{salt}0", train=tuple(row.id for row in train), items=ids)
    if out_of_scope is None or any(row.label == out_of_scope for row in items):
        return (whole,)
    labels = sorted({row.label for row in train if row.label != out_of_scope})
    groups = _label_folds(labels, HOLDOUT_UNITS, salt)
    if not groups[0]:
        return (whole,)
    return tuple(
        UnitPlan(
            name=f"{salt}{f}",
            train=tuple(row.id for row in train if row.label not in gone),
            items=ids,
            held_out=gone,
        )
        for f, gone in enumerate(groups)
    )


def split_task(task: TaskSpec, parts: Parts) -> tuple[SplitPlan, dict[str, tuple[Row, ...]]]:
    """Return the plan and the rows of each part (`train`, `search`, `select`, `sealed`) to be stored beside it.

    Raises:
        UserError: nothing is left to train on, or to ask.
    """
    salt = f"{task.seed}:"
    stratum = all_alike if task.kind == "generation" else by_label
    sealed = list(parts.test)
    dev, from_dev = cleared(parts.dev, sealed)
    kept, from_train = cleared(parts.train, [*sealed, *dev, *parts.side])
    rest = list(kept)
    near = Near(rest)
    if not sealed:
        sealed, rest = _by_hash(rest, SEALED_SHARE, salt + "sealed", near, stratum=stratum)
        dev, from_dev = cleared(parts.dev, sealed)
    matches = {"train": from_train, "dev": from_dev}
    removed = {part: len(found) for part, found in matches.items()}
    oos = task.data.out_of_scope
    if not dev and len(rest) < SMALL:
        search_units, asked = _cv_units(rest, oos, "s", near, stratum)
        select_units, asked_again = _cv_units(rest, oos, "t", near, stratum)
        stored = {"train": rest, "search": list(asked), "select": list(asked_again), "sealed": sealed}
        mode: Literal["cv", "holdout"] = "cv"
    else:
        search, select, rest = _holdout_parts(rest, list(dev), salt, near, stratum)
        search_units, select_units = _holdout_units(rest, search, oos, "s"), _holdout_units(rest, select, oos, "t")
        stored = {"train": rest, "search": search, "select": select, "sealed": sealed}
        mode = "holdout"
    words = task.kind == "generation"
    labels = () if words else tuple(sorted({row.label for row in rest if row.label != oos}))
    if not words:
        _check_labels(labels)
    _check(stored)
    plan = SplitPlan(
        mode=mode,
        labels=labels,
        out_of_scope=oos,
        graded=_graded(task) if words else (),
        rows={},
        search=search_units,
        select=select_units,
        sealed=tuple(row.id for row in sealed),
        removed=removed,
        matches=matches,
    )
    return plan, {name: tuple(rows) for name, rows in stored.items()}


def _holdout_parts(
    rest: list[Row], dev: list[Row], salt: str, near: Near, stratum: Stratum
) -> tuple[list[Row], list[Row], list[Row]]:
    """Search, select and train: the dev file in two halves, or two tenths of train."""
    if dev:
        select, search = _by_hash(dev, 0.5, salt + "select", Near(dev), stratum=stratum)
        return search, select, rest
    search, rest = _by_hash(rest, HOLDOUT_SHARE, salt + "search", near, HOLDOUT_CAP, stratum)
    select, rest = _by_hash(rest, HOLDOUT_SHARE, salt + "select", near, HOLDOUT_CAP, stratum)
    return search, select, rest


def metrics_of(metric: str) -> tuple[str, ...]:
    """The metrics that a run with this one computes of answers in words: this one, those beside it in its file where
    they are cheap, and how often answers are right to the letter and how long they are."""
    TEXT_METRICS.get(metric)  # One that needs a library says so here, before anything is spent.
    module = TEXT_METRICS.module(metric)
    # Others are not even made: they may need libraries that are not installed.
    found = [name for name in TEXT_METRICS.names() if TEXT_METRICS.module(name) == module]
    beside = [name for name in found if not TEXT_METRICS.get(name).dear]
    return tuple(dict.fromkeys((metric, *beside, *ALWAYS)))


def _graded(task: TaskSpec) -> tuple[str, ...]:
    """What answers of a task are graded by: what its metric brings along, and the metrics of its guards."""
    return tuple(dict.fromkeys((*metrics_of(task.metric), *(g.metric for g in task.guards if g.metric is not None))))


def _check_labels(labels: tuple[str, ...]) -> None:
    if len(labels) < 2:
        raise UserError(
            f"The train rows hold {len(labels)} label(s) after the splits; a classifier needs at least 2. "
            "Add rows of other labels, or check that `data.target` names the label column."
        )


def _check(stored: Mapping[str, Sequence[Row]]) -> None:
    for name in ("search", "select", "sealed"):
        if not stored[name]:
            raise UserError(
                f"No row is left for the {name} split. Add rows, or give the task its own dev and test files."
            )
