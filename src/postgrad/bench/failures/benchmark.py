"""`postgrad bench failures`: makes failures happen, and says how often the classifier names their true cause.

Each of the two parts is a file of provocations. Rules are written with the development part at hand; the held-out part
is what is reported.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Callable

from postgrad.bench.base import BenchSpec
from postgrad.bench.failures.corpus import Kept, append_to, by_cause, judged, read_corpus, summary
from postgrad.bench.failures.provocations import PARTS, Provocation, provocations
from postgrad.bench.failures.provoke import provoke
from postgrad.errors import UserError
from postgrad.removing import remove_tree

# Libraries that take seconds to import.
HEAVY = ("torch", "transformers", "trl", "datasets", "small", "sklearn", "pandas", "peft")


class Failures:
    """The benchmark."""

    options = {
        "kept": ("", "folder of a corpus that is classified as it is; nothing is provoked"),
    }

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        """Provoke what is not in the folder yet, then classify all of it."""
        folder = Path(spec.options["kept"] or spec.folder)
        if not spec.options["kept"]:
            _provoke_all(folder, spec.quick, say)
        corpus = read_corpus(folder)
        if not corpus:
            raise UserError(f"There is no corpus in {folder}: development.jsonl and held_out.jsonl were expected.")
        found = judged(corpus)
        wrong = [one.model_dump() for one in found if not one.right]
        return {"table": summary(found), "by_cause": by_cause(found), "wrong": wrong, "markdown": _markdown(found)}


def _provoke_all(folder: Path, quick: bool, say: Callable[[str], None]) -> None:
    done = {kept.name for kept in read_corpus(folder)}
    for part in PARTS:
        for one in provocations(part):
            if one.name in done or (quick and not _light(one)):
                continue
            started = time.monotonic()
            left = provoke(one, folder / "work" / one.name)
            append_to(folder, Kept(name=one.name, part=part, cause=one.cause, how=how_made(one), left=left))
            remove_tree(folder / "work" / one.name)
            say(f"{part}: {one.name} ({time.monotonic() - started:.1f} s)")


def _light(one: Provocation) -> bool:
    return one.run in ("python", "shell") and not any(word in one.program for word in HEAVY)


def how_made(one: Provocation) -> str:
    """In words: what was run, under which limits, and what was done to it."""
    facts = [f"{key} {value}" for key, value in one.limits.model_dump(exclude_defaults=True).items()]
    facts += [f"{one.signal.name} after '{one.signal.after}'"] if one.signal else []
    facts += [f"{one.probe.tool} after '{one.probe.after}', then {one.probe.signal}"] if one.probe else []
    what = {"python": "a Python program", "shell": "a shell script"}.get(one.run, f"a job of the {one.run}")
    return ", ".join([what, *facts])


def _markdown(found: Any) -> str:
    lines = ["| part | confidence | right | of | share | 95 % interval |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    for row in summary(found):
        interval = f"{row['low']:.3f} to {row['high']:.3f}"
        cells = (row["part"], row["confidence"], row["right"], row["of"], f"{row['share']:.3f}", interval)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "| cause | development | held out | said wrongly |", "| --- | --- | --- | ---: |"]
    for row in by_cause(found):
        lines.append(f"| {row['cause']} | {row['development']} | {row['held_out']} | {row['said wrongly']} |")
    return "\n".join(lines) + "\n"
