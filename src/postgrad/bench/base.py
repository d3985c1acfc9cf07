"""The contract of a benchmark, and the result file that every one of them writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Protocol

from postgrad import __version__
from postgrad.errors import UserError
from postgrad.records import Record
from postgrad.runner import machine, packages


class BenchSpec(Record):
    """What was asked for on the command line. A benchmark reads what it knows and ignores nothing: `options` it does
    not know are refused."""

    quick: bool
    folder: Path
    command: str
    options: dict[str, str]


def whole_number(options: dict[str, str], name: str) -> int:
    """The value of an option that counts something.

    Raises:
        UserError: it is no whole number above 0.
    """
    text = options[name]
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--{name} is '{text}'; expected a whole number above 0, such as --{name} 3.")
    return int(text)


class Benchmark(Protocol):
    """One benchmark."""

    #: option name -> (default, help)
    options: dict[str, tuple[str, str]]

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        """Run, or go on where an earlier call stopped, and return a JSON-able result with a `table`."""
        ...


def write_result(folder: Path, name: str, command: str, result: dict[str, Any]) -> Path:
    """Write `NAME.json`: the result with the command, versions and machine that made it. A result that holds `markdown`
    has that in `NAME.md`, under its command; one that holds `svg`, a picture, has that in `NAME.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    if (table := result.pop("markdown", None)) is not None:
        (folder / f"{name}.md").write_text(f"Made by `{command}`.\n\n{table}", encoding="utf-8")
    if (picture := result.pop("svg", None)) is not None:
        (folder / f"{name}.svg").write_text(picture, encoding="utf-8")
    path = folder / f"{name}.json"
    body = {
        "benchmark": name,
        "command": command,
        "postgrad": __version__,
        "machine": machine(),
        "packages": packages(),
        **result,
    }
    path.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
