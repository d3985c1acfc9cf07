"""How well bad-case analysis finds what was planted in real texts: wrong labels, and a slice that is answered worse.

No training: labels are judged from the texts alone, and which answers are wrong is drawn by chance. What is suspected
of the untouched rows is counted apart, because public data has wrong labels of its own.
"""

from __future__ import annotations

import time
from dataclasses import replace
from random import Random
from typing import Any, Callable, NamedTuple, Sequence

from postgrad.analyze.slices import Case, all_slices, weak_slices
from postgrad.bench.base import BenchSpec, whole_number
from postgrad.data.labels import LARGEST, suspects
from postgrad.data.sources import load_rows
from postgrad.errors import UserError
from postgrad.records import Row

SOURCES = "hint3:sofmattress/v2,hint3:curekart/v2,ftbench:sst2"
WRONG, PLANTED = 0.15, 0.45
SLICED = 400
COLUMNS = {"ftbench": ("text", "answer"), "hint3": ("sentence", "label")}


class Found(NamedTuple):
    """What one planting of wrong labels came to."""

    planted: int
    suspected: int
    hits: int
    before: int
    seconds: float


class BadCases:
    """The benchmark."""

    options = {
        "sources": (SOURCES, "labelled data with commas: hint3:... or ftbench:..."),
        "share": ("0.05", "share of the labels that are planted wrong"),
        "seeds": ("5", "plantings of each"),
    }

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        """Plant in every source; one row of the table for each."""
        options = dict(spec.options) | ({"seeds": "1", "sources": "hint3:sofmattress/v2"} if spec.quick else {})
        seeds, share = whole_number(options, "seeds"), _share(options["share"])
        table = []
        for source in options["sources"].split(","):
            rows = _rows(source)
            before = suspects(rows)
            found = [_labels(rows, share, seed, len(before)) for seed in range(seeds)]
            slices = [_slice(rows, seed) for seed in range(4 * seeds)]
            table.append(_row(source, rows, found, slices))
            say(f"{source}: {table[-1]['found']:.2f} of the planted labels, {table[-1]['right']:.2f} of the suspects")
        return {"options": options, "table": table, "markdown": _markdown(table)}


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 0.5:
        raise UserError(f"--share is '{text}'; expected a number between 0 and 0.5, such as --share 0.05.")
    return share


def _rows(source: str) -> list[Row]:
    kind = source.split(":")[0]
    if kind not in COLUMNS:
        raise UserError(f"Got the source '{source}'. Expected hint3:... or ftbench:..., such as --sources {SOURCES}.")
    text, label = COLUMNS[kind]
    return list(load_rows(source, input=text, target=label))[:LARGEST]


def _labels(rows: Sequence[Row], share: float, seed: int, before: int) -> Found:
    """Some labels are exchanged for another, as often as it occurs."""
    rng = Random(f"labels/{seed}")
    chosen = {row.id for row in rng.sample(rows, round(share * len(rows)))}
    labels = [row.label for row in rows]

    def other(row: Row) -> str:
        return next(label for label in iter(lambda: rng.choice(labels), None) if label != row.label)

    planted = [row._replace(label=other(row)) if row.id in chosen else row for row in rows]
    started = time.perf_counter()
    found = suspects(planted)
    seconds = time.perf_counter() - started
    return Found(len(chosen), len(found), sum(each.id in chosen for each in found), before, seconds)


def _slice(rows: Sequence[Row], seed: int) -> tuple[bool, int]:
    """(whether the planted slice is found first, how many others are reported). The slice is one of those that the
    analysis knows, of a tenth to a half of the texts; answers are wrong by chance, in it more often."""
    rng = Random(f"slice/{seed}")
    texts = rng.sample(rows, min(SLICED, len(rows)))
    plain = [Case(row.id, row.id, row.text, row.label, wrong=False) for row in texts]
    # Every answer is wrong, so that a slice's keys are its members.
    every = all_slices([replace(case, wrong=True) for case in plain])
    fitting = [each for each in every if 0.1 <= each.size / len(plain) <= 0.5]
    chosen = rng.choice(fitting)
    inside = set(chosen.keys)
    cases = [replace(case, wrong=rng.random() < (PLANTED if case.key in inside else WRONG)) for case in plain]
    found = [(each.kind, each.value) for each in weak_slices(cases)]
    name = (chosen.kind, chosen.value)
    return found[:1] == [name], len([each for each in found if each != name])


def _row(
    source: str, rows: Sequence[Row], found: Sequence[Found], slices: Sequence[tuple[bool, int]]
) -> dict[str, Any]:
    planted, suspected, hits = (sum(each[at] for each in found) for at in range(3))
    return {
        "source": source,
        "rows": len(rows),
        "labels": len({row.label for row in rows}),
        "suspected_before": found[0].before,
        "planted": planted,
        "found": round(hits / max(1, planted), 4),
        "right": round(hits / max(1, suspected), 4),
        "seconds": round(max(each.seconds for each in found), 1),
        "slices": len(slices),
        "slice_first": sum(first for first, _ in slices),
        "others_reported": sum(others for _, others in slices),
    }


def _markdown(table: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| data | rows | labels | planted found | of the suspects planted | suspected untouched | planted slice first "
        "| other slices |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in table:
        lines.append(
            f"| {row['source']} | {row['rows']:,} | {row['labels']} | {row['found']:.0%} of {row['planted']} "
            f"| {row['right']:.0%} | {row['suspected_before']} | {row['slice_first']} of {row['slices']} "
            f"| {row['others_reported']} |"
        )
    return "\n".join(lines) + "\n"
