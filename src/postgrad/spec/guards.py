"""What the guards of a task file must say, beyond their types. Reads no data; their files are only looked for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Iterator, Mapping

from postgrad.data.files import SUFFIXES
from postgrad.data.sources import resolve_source
from postgrad.errors import UserError, near_miss
from postgrad.evaluate.guards import KINDS, PREFIX, kind_name
from postgrad.records import DataSpec, Guard

KEYS = ("metric", "measure", "forbidden", "required")
PROMPTS = ".txt"
NAME_LENGTH = 80
# Key -> what it is for, in the schema.
GUARD_HELP = {
    "name": "Optional. What the report calls the guard.",
    "metric": "A metric over answers: on the search items, on `data`, or on a `slice`.",
    "measure": "A property of the saved model: latency_p95_ms, model_mb, or lm_eval:TASK, a task of lm-eval.",
    "forbidden": "Patterns (RE2); the guard's value is the share of answers that match one of them.",
    "required": "Patterns (RE2); the guard's value is the share of answers that match one of them.",
    "data": "Optional. A file of rows to be asked: labelled for a metric; for patterns also a .txt, one text a line. "
    "For lm_eval:TASK the folder with the task's YAML.",
    "input": "Optional. Column of the text in `data`; the task's own if not set.",
    "target": "Optional. Column of the label in `data`; the task's own if not set.",
    "slice": "Optional. Only search items whose row has this value in this column: {column: ..., equals: ...}.",
    "min": "The lowest value that is accepted.",
    "max": "The highest value that is accepted.",
}
MEASURES = tuple(f"{name}:TASK" if name == PREFIX else name for name in KINDS if name not in KEYS)


def check_guards(sections: dict[str, Any], root: Path, problems: list[str]) -> None:
    """Check each guard on its own, and make the paths of side sets absolute (taken from `root`)."""
    guards: tuple[Guard, ...] = sections.get("guards", ())
    data: DataSpec | None = sections.get("data")
    found = []
    seen: dict[str, int] = {}
    for number, guard in enumerate(guards):
        where = f"guards.{number}"
        if guard.name is not None and seen.setdefault(guard.name, number) != number:
            problems.append(f"{where}: the name '{guard.name}' is that of guards.{seen[guard.name]} too. Take another.")
        problems.extend(f"{where}: {problem}" for problem in _problems(guard, data))
        if guard.data is not None and kind_name(guard) == PREFIX:
            guard = guard.model_copy(update={"data": _folder(guard.data, root, where, problems)})
        elif guard.data is not None:
            guard = guard.model_copy(update={"data": _source(guard.data, root, where, data, problems)})
        found.append(guard)
    if "guards" in sections:
        sections["guards"] = tuple(found)


def _problems(guard: Guard, data: DataSpec | None) -> Iterator[str]:
    yield from _name(guard)
    given = [key for key in KEYS if getattr(guard, key)]
    if len(given) != 1:
        shown = " and ".join(given) if given else "none of them"
        yield f"one of {', '.join(KEYS)} was expected, found {shown}."
        return
    name = kind_name(guard)
    if name not in KINDS or (guard.measure is not None and name in KEYS):
        yield f"unknown measure '{name}'.{near_miss(name, MEASURES)} Known: {', '.join(MEASURES)}."
        return
    kind = KINDS[name]
    rejects = data is None or data.out_of_scope is not None
    yield from kind.problems(guard, rejects)
    for key, taken in (("data", kind.takes_data), ("slice", kind.takes_slice)):
        if getattr(guard, key) is not None and not taken:
            yield f"{name} is measured on the saved model, so it takes no {key}. Remove that key."
    if guard.data is not None and guard.slice is not None:
        yield "data and slice are both set. A slice is a part of the search items; put the rows of `data` into a file."
    for key in ("input", "target"):
        if getattr(guard, key) is not None and guard.data is None:
            yield f"{key} is a column of the guard's own data, and there is no data. Remove it, or name the file."
    if guard.target is not None and guard.metric is None:
        yield f"target is set, and {name} reads no labels. Remove it."
    yield from _bounds(guard, *kind.range(guard))


def _name(guard: Guard) -> Iterator[str]:
    if guard.name is not None and not (
        guard.name.strip() and len(guard.name) <= NAME_LENGTH and guard.name.isprintable()
    ):
        yield f"the name has {len(guard.name)} characters; 1 to {NAME_LENGTH} that can be printed were expected."


def _bounds(guard: Guard, low: float, high: float) -> Iterator[str]:
    bounds: Mapping[str, float | None] = {"min": guard.min, "max": guard.max}
    if guard.min is None and guard.max is None:
        yield f"a guard needs a min or a max for {kind_name(guard) if guard.metric is None else guard.metric}."
    for key, bound in bounds.items():
        if bound is not None and not math.isfinite(bound):
            yield f"{key} is {bound}, and a number was expected."
    if guard.min is not None and guard.max is not None and guard.min > guard.max:
        yield f"min {guard.min} is above max {guard.max}."
    if guard.min is not None and math.isfinite(guard.min) and guard.min > high:
        hint = _percent(guard.min, high)
        yield f"min is {guard.min:g}, and the value is at most {high:g}: nothing could hold it.{hint}"
    if guard.max is not None and math.isfinite(guard.max) and guard.max < low:
        yield f"max is {guard.max:g}, and the value is at least {low:g}: nothing could hold it."


def _percent(bound: float, high: float) -> str:
    return f" For {bound:g} % write {bound / 100:g}." if high == 1.0 and 1 < bound <= 100 else ""


def _folder(source: str, root: Path, where: str, problems: list[str]) -> str:
    """The absolute path of a folder with tasks of lm-eval."""
    path = (root / Path(source).expanduser()).absolute()
    if not any(path.glob("*.yaml")) and not any(path.glob("*/*.yaml")):
        problems.append(
            f"{where}.data: {path} was expected to be a folder with tasks of lm-eval as YAML. Check the path."
        )
    return str(path)


def _source(source: str, root: Path, where: str, data: DataSpec | None, problems: list[str]) -> str:
    """The absolute path of a side set. It must be a file of its own, which nothing is trained on."""
    path = (root / Path(source).expanduser()).absolute()
    try:
        if path.suffix.lower() == PROMPTS:
            if not path.is_file():
                raise UserError(f"There is no file {path}. Check the path; it is taken from the task file's folder.")
            found = str(path)
        else:
            found = resolve_source(source, root, "test")
    except (UserError, OSError) as wrong:
        problems.append(f"{where}.data: {wrong}")
        return source
    if not Path(found).is_absolute():
        problems.append(
            f"{where}.data: '{source}' is no file. A side set is a file: {', '.join((*SUFFIXES, PROMPTS))}."
        )
    for part in ("train", "dev", "test"):
        other = getattr(data, part) if data is not None else None
        if other is not None and Path(other).is_file() and Path(found).is_file() and Path(found).samefile(other):
            problems.append(
                f"{where}.data is data.{part}. A side set has rows of its own; for a part of it take a slice."
            )
    return found
