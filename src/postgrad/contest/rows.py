"""Training rows against the test data of a contest, as far as it lies in or beside its folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Iterator, Sequence

from postgrad.contest.folder import Contest, is_own
from postgrad.data.decontaminate import Match, cleared
from postgrad.data.files import SUFFIXES, read_file
from postgrad.errors import UserError
from postgrad.evaluate.splits import Parts
from postgrad.prepare import load_parts
from postgrad.records import DataSpec, Row, TaskSpec

# Names that test data goes by. Data of the contest under another name is not known to be test data.
NAMES = re.compile(r"test|gold|eval|bench|held|hidden|secret", re.IGNORECASE)
BESIDE = "test_data.json"
# A shorter cell is an answer or a name, which honest rows have too.
LEAST_WORDS, LEAST_CHARACTERS = 3, 12
PARTS = ("train", "dev", "test")


def test_files(contest: Contest) -> list[Path]:
    """Data files of the contest that hold what is asked: in its folder, and beside it."""
    beside = contest.root.parent / BESIDE
    inside = [
        path
        for path in sorted(contest.root.rglob("*"))
        if path.suffix.lower() in (*SUFFIXES, ".json") and NAMES.search(path.name) and path.is_file()
    ]
    return [path for path in inside if not is_own(contest, path)] + ([beside] if beside.is_file() else [])


def test_texts(files: Sequence[Path]) -> list[tuple[str, str]]:
    """(where, text) of everything in the files that is long enough to be a question."""
    found = []
    for path in files:
        for place, text in _leaves(_read(path), path.name):
            if len(text) >= LEAST_CHARACTERS and len(text.split()) >= LEAST_WORDS:
                found.append((place, text))
    return found


def _read(path: Path) -> Any:
    if path.suffix.lower() == ".json":
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as wrong:
            raise UserError(f"{path} looks like test data and is no JSON: {wrong}.") from wrong
    return [cells for _, cells in read_file(path).records]


def _leaves(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{place}/{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{place}/{number}")


def checked_task(contest: Contest, task: TaskSpec, *, clean: bool) -> tuple[TaskSpec, dict[str, Any]]:
    """The task with no row of any part near the contest's test data, and what was looked at.

    Args:
        clean: take such rows out, into files of the work folder, instead of refusing.

    Raises:
        UserError: the task's data is a file of the test data, or there are such rows and `clean` is False.
    """
    files = test_files(contest)
    named = {Path(source).absolute() for part in PARTS if (source := getattr(task.data, part))}
    if same := named & {path.absolute() for path in files}:
        raise UserError(f"{min(same)} is test data of the contest. It may not be trained on: name data of your own.")
    texts = test_texts(files)
    told: dict[str, Any] = {"test_files": [str(path) for path in files], "test_texts": len(texts), "removed": {}}
    if not texts:
        return task, told
    parts = load_parts(task)
    kept, gone = {}, dict[str, tuple[Match, ...]]()
    for part in PARTS:
        kept[part], gone[part] = cleared(getattr(parts, part), texts)
    told["removed"] = {part: len(matches) for part, matches in gone.items() if matches}
    if not told["removed"]:
        return task, told
    if not clean:
        raise UserError(_refusal(gone))
    return task.model_copy(update={"data": _written(contest.work / "data", task, Parts(**kept))}), told


def _refusal(gone: dict[str, tuple[Match, ...]]) -> str:
    counted = ", ".join(f"{len(matches)} of {part}" for part, matches in gone.items() if matches)
    first = next(match for matches in gone.values() for match in matches)
    return (
        f"Rows are copies of the contest's test data: {counted}. The first is row {first.row}, which is {first.how} "
        f"{first.item}. The rules forbid training on test data. Take them out, or let this command do it: --clean"
    )


def _written(folder: Path, task: TaskSpec, parts: Parts) -> DataSpec:
    """Write what was kept as JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, str | None] = {}
    for part in PARTS:
        rows: tuple[Row, ...] = getattr(parts, part)
        path = folder / f"{part}.jsonl"
        records = ({"text": row.text, "label": row.label, "check": row.check} for row in rows)
        path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records), encoding="utf-8")
        paths[part] = str(path) if rows else None
    if paths["train"] is None:
        raise UserError("All train rows are copies of the contest's test data. Name data of your own.")
    check = "check" if task.data.check else None
    changes = {**paths, "input": "text", "target": "label", "check": check}
    return task.data.model_copy(update=changes)
