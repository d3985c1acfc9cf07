"""The corpus: failures with their true causes, as JSON lines, and what the classifier makes of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Iterable, Sequence

from postgrad.analyze.failures import root_cause
from postgrad.bench.failures.provocations import PARTS, Part
from postgrad.records import Cause, Left, Record


class Kept(Record):
    """One failure of the corpus; `how` it was made, the YAML file of its part says by name."""

    name: str
    part: Part
    cause: Cause
    how: str
    left: Left


class Judged(Record):
    """What was said of one failure."""

    name: str
    part: Part
    cause: Cause
    said: Cause
    confidence: float

    @property
    def right(self) -> bool:
        return self.cause == self.said


def read_corpus(folder: Path) -> tuple[Kept, ...]:
    """The corpus in a folder, both parts; empty where there is none yet."""
    paths = [folder / f"{part}.jsonl" for part in PARTS]
    lines = [line for path in paths if path.exists() for line in path.read_text(encoding="utf-8").split("\n") if line]
    return tuple(Kept.model_validate_json(line) for line in lines)


def append_to(folder: Path, kept: Kept) -> None:
    """Add a failure to its part."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{kept.part}.jsonl").open("a", encoding="utf-8") as file:
        file.write(kept.model_dump_json() + "\n")


def judged(corpus: Iterable[Kept]) -> tuple[Judged, ...]:
    """The corpus under the classifier."""
    found = []
    for kept in corpus:
        said = root_cause(kept.left)
        judgement = Judged(
            name=kept.name, part=kept.part, cause=kept.cause, said=said.cause, confidence=said.confidence
        )
        found.append(judgement)
    return tuple(found)


def share(right: int, asked: int) -> dict[str, Any]:
    """A share with its 95 % interval (Wilson 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(right, asked).proportion_ci(method="wilson")
    return {"right": right, "of": asked, "share": right / asked, "low": interval.low, "high": interval.high}


def summary(found: Sequence[Judged]) -> list[dict[str, Any]]:
    """One row a part, and within it one for each level of confidence."""
    rows = []
    for part in PARTS:
        here = [one for one in found if one.part == part]
        if here:
            rows.append({"part": part, "confidence": "all", **share(sum(one.right for one in here), len(here))})
        for level in sorted({one.confidence for one in here}, reverse=True):
            these = [one for one in here if one.confidence == level]
            rows.append({"part": part, "confidence": level, **share(sum(one.right for one in these), len(these))})
    return rows


def by_cause(found: Sequence[Judged]) -> list[dict[str, Any]]:
    """One row a cause: how many there are in each part, how many were named, and how often it was said wrongly."""
    rows = []
    for cause in sorted({one.cause for one in found} | {one.said for one in found}):
        row: dict[str, Any] = {"cause": cause}
        for part in PARTS:
            true = [one for one in found if one.part == part and one.cause == cause]
            row[part] = f"{sum(one.right for one in true)} of {len(true)}"
        wrongly = Counter(one.part for one in found if one.said == cause and not one.right)
        row["said wrongly"] = wrongly["development"] + wrongly["held_out"]
        rows.append(row)
    return rows
