"""Everything that is said of the bad cases of one experiment. Works without a language model.

The caller gives train rows and items of the search split: nothing here knows of other rows.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Mapping, Sequence

from postgrad.analyze.causes import Cause, curve_causes, inference_causes, path_causes
from postgrad.analyze.clusters import clusters_of, encoded
from postgrad.analyze.matrix import ItemMatrix, Solved, Values, counts, item_matrix, right_or_wrong, solving
from postgrad.analyze.missing import far_from_train, similarity_to_label
from postgrad.analyze.slices import Case, Slice, weak_slices
from postgrad.data.labels import Suspect, conflicts, suspects
from postgrad.metrics.base import Answers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from postgrad.metrics.items import Items
    from postgrad.records import Row

SHOWN = 10
# Copies that were made of a row have the maker's name in their id.
_MADE = re.compile(r"\+([a-z_]+)")


@dataclass(frozen=True)
class Material:
    """What the analysis of an experiment reads.

    Attributes:
        experiment: whose bad cases these are. before: the experiments on the path to it, the nearest last.
        answered: experiment -> its search items; with those of `experiment`.
        recipes: experiment -> hash of its recipe.
        search, train: rows by id.
        units: name of a unit -> ids of the rows it trains on.
        histories: loss curves of the experiment's units.
        values, best: as in `item_matrix`.
        max_new_tokens: where answers in words are cut.
        encoder: folder of a sentence encoder; None clusters by words.
        tags: row id -> further columns; a copy has those of the row it was made from.
    """

    experiment: str
    answered: Mapping[str, Items]
    search: Mapping[str, Row]
    train: Mapping[str, Row]
    units: Mapping[str, tuple[str, ...]]
    recipes: Mapping[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    histories: tuple[tuple[tuple[int, float], ...], ...] = ()
    values: Values = right_or_wrong
    best: float = 1.0
    max_new_tokens: int | None = None
    encoder: Path | None = None
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Topic:
    """A cluster of bad cases: its name, how many texts, and the most central of them."""

    name: str
    size: int
    texts: tuple[str, ...]
    silhouette: float


@dataclass(frozen=True)
class Hard:
    """An item that no recipe solves."""

    key: str
    text: str
    label: str
    asked: int
    sure: float


@dataclass(frozen=True)
class Findings:
    """What there is to say.

    Attributes:
        items, wrong: how many search items were asked, and how many of them were not solved.
        solved: over all experiments, how many items are never, sometimes, always solved, or asked too seldom.
        hard: some that are never solved. suspects: labels of train and search rows that look wrong, the surest first.
    """

    experiment: str
    experiments: int
    items: int
    wrong: int
    solved: Mapping[Solved, int]
    hard: tuple[Hard, ...]
    slices: tuple[Slice, ...]
    topics: tuple[Topic, ...]
    causes: tuple[Cause, ...]
    suspects: tuple[Suspect, ...]


def findings_of(material: Material) -> Findings:
    """Analyse one experiment. Deterministic; seconds for thousands of items."""
    import numpy as np

    matrix = item_matrix(material.answered, material.recipes, material.values, material.best)
    mine = matrix.row(material.experiment)
    wrong = mine == 0
    asked = int((~np.isnan(mine)).sum())
    often = solving(matrix)
    never = sorted((each for each in often if each.state == "never"), key=lambda each: (-each.asked, each.key))
    labelled = isinstance(material.answered[material.experiment].answers, Answers)
    odd = _suspects(material) if labelled else ()
    return Findings(
        experiment=material.experiment,
        experiments=len(matrix.experiments),
        items=asked,
        wrong=int(wrong.sum()),
        solved=counts(often),
        hard=tuple(_hard(material, each.key, each.asked, each.sure) for each in never[:SHOWN]),
        slices=weak_slices(_cases(material, matrix, mine)),
        topics=_topics(material, [str(key) for key in matrix.keys[wrong]]),
        causes=(
            *(_data_causes(material, matrix, mine, odd) if labelled else ()),
            *curve_causes(material.histories, int(wrong.sum()) / max(1, asked)),
            *path_causes(matrix, material.experiment, material.before),
            *inference_causes(material.answered[material.experiment], material.max_new_tokens),
        ),
        suspects=odd,
    )


def _row(material: Material, key: str) -> Row:
    return material.search[key.split("/", 1)[1]]


def _hard(material: Material, key: str, asked: int, sure: float) -> Hard:
    row = _row(material, key)
    return Hard(key, row.text, row.label, asked, sure)


def _cases(material: Material, matrix: ItemMatrix, mine: NDArray[np.float64]) -> list[Case]:
    """The items that were asked, as slices see them. What a unit asks as out of scope has no label there."""
    items = material.answered[material.experiment]
    truth: dict[str, int] = {}
    if isinstance(items.answers, Answers):
        truth = {str(key): int(true) for key, true in zip(items.keys, items.answers.truth, strict=True)}
    rejects = any(true < 0 for true in truth.values())
    cases = []
    for key, group, solved in zip(matrix.keys, matrix.groups, mine, strict=True):
        if solved != solved:
            continue
        row, true = _row(material, str(key)), truth.get(str(key))
        made = _MADE.search(str(key))
        cases.append(
            Case(
                key=str(key),
                group=str(group),
                text=row.text,
                label=row.label if true is not None and true >= 0 else "",
                wrong=bool(solved == 0),
                out_of_scope=true is not None and true < 0 if rejects else None,
                tags={**_tags(material, row.id), **({"made by": made[1]} if made else {})},
            )
        )
    return cases


def _tags(material: Material, name: str) -> Mapping[str, str]:
    return material.tags.get(name) or material.tags.get(_MADE.split(name)[0], {})


def _topics(material: Material, keys: Sequence[str]) -> tuple[Topic, ...]:
    texts = sorted({_row(material, key).text for key in keys})
    others = sorted({row.text for row in material.search.values()} - set(texts))
    vectors = encoded(texts, material.encoder) if material.encoder and texts else None
    return tuple(
        Topic(each.name, len(each.members), tuple(texts[i] for i in each.members[:3]), each.silhouette)
        for each in clusters_of(texts, vectors, others)
    )


# --- causes in the data ---------------------------------------------------------------------------------------------


def _originals(material: Material) -> list[Row]:
    """Train and search rows that nothing made: labels of copies are those of their rows."""
    rows = {**material.train, **material.search}
    return [rows[name] for name in sorted(rows) if not _MADE.search(name)]


def _suspects(material: Material) -> tuple[Suspect, ...]:
    return suspects(_originals(material))


def _data_causes(
    material: Material, matrix: ItemMatrix, mine: NDArray[np.float64], odd: Sequence[Suspect]
) -> list[Cause]:
    """Wrong labels, near copies with other labels, and nothing alike among the train rows, of the wrong items."""
    keys = [str(key) for key, solved in zip(matrix.keys, mine, strict=True) if solved == 0]
    ids = {key: key.split("/", 1)[1] for key in keys}
    suspected = {each.id: each for each in odd}
    twice = conflicts(_originals(material))
    found = []
    if doubtful := [key for key in keys if ids[key] in suspected]:
        told = {key: f"{suspected[ids[key]].label}, or rather {suspected[ids[key]].suggested}" for key in doubtful}
        found.append(
            Cause(
                "mislabelled", tuple(doubtful), f"{len(doubtful)} of the wrong items have labels that look wrong", told
            )
        )
    if double := [key for key in keys if ids[key] in twice]:
        told = {key: ", ".join(twice[ids[key]]) for key in double}
        found.append(Cause("conflict", tuple(double), f"{len(double)} have near copies with other labels", told))
    if alone := _alone(material):
        told = {key: f"cosine {cosine:.2f}" for key, cosine in alone.items()}
        found.append(Cause("missing", tuple(alone), f"{len(alone)} are like no train row of their label", told))
    return found


def _alone(material: Material) -> dict[str, float]:
    """The wrong in-scope items that are like no train row of their label, with how like they are."""
    import numpy as np

    items = material.answered[material.experiment]
    answers = items.labelled
    places: dict[str, list[int]] = defaultdict(list)
    for at, key in enumerate(items.keys):
        if answers.truth[at] >= 0:
            places[str(key).split("/", 1)[0]].append(at)
    similar, wrong = np.full(len(items), np.nan), answers.truth != answers.predicted
    for unit, chosen in sorted(places.items()):
        asked = [_row(material, str(items.keys[at])) for at in chosen]
        similar[chosen] = similarity_to_label(asked, [material.train[name] for name in material.units.get(unit, ())])
    far = far_from_train(similar, wrong)
    return {str(items.keys[at]): float(similar[at]) for at in np.flatnonzero(far)}
