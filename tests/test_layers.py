"""The folder tree is the architecture: who may import whom, and what may be imported when the command line starts."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Iterator

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "postgrad"

# The first part after `postgrad.` names the unit: a folder, or a file. A file imports from units of lower layers and
# from its own unit.
LAYERS = (
    {
        "records",
        "events",
        "errors",
        "removing",
        "registry",
        "shelf",
        "experiment",
        "archived",
        "tree",
        "groups",
        "unchanged",
        "views",
        "choices",
        "quoting",
    },
    {"budget"},
    {"search", "data", "train", "metrics", "engines", "store"},
    {"spec", "memory", "llm"},
    {"pace", "forecast"},
    {"research", "execute", "evaluate", "analyze"},
    {
        "admission",
        "chooser",
        "costs",
        "isolated",
        "keeping",
        "rebuild",
        "session",
        "recall",
        "prepare",
        "referee",
        "packing",
        "pare",
        "side_by_side",
        "people",
        "racer",
        "racing",
        "certify",
        "confirm",
        "describe",
        "erring",
        "finished",
        "scoring",
        "scripts",
        "seal",
        "tester",
        "loop",
        "runner",
        "replay",
        "prospect",
        "reserve",
        "spending",
        "retests",
    },
    {"report", "testing"},
    {"bench"},
    {"export", "audit", "contest"},
    {"selftest"},
    {"cli", "__main__"},
)
# The files of these layers may import each other: the records and what is read off them, the spine, which would be one
# file if files were not kept short, and the command line.
OPEN_LAYERS = (LAYERS[0], LAYERS[-6], LAYERS[-1])
# The task file is checked against the names of the researchers, the providers and the kinds of guards, and nothing else
# of their folders.
NAMES_ONLY = {
    ("spec", "postgrad.research"),
    ("spec", "postgrad.evaluate.guards"),
    ("spec", "postgrad.llm"),
    ("spec", "postgrad.llm.presets"),
}

HEAVY = {
    "torch",
    "transformers",
    "sentence_transformers",
    "sklearn",
    "optuna",
    "cmaes",
    "pandas",
    "pyarrow",
    "datasets",
    "peft",
    "safetensors",
    "lm_eval",
    "openai",
    "anthropic",
    "httpx2",
    "mcp",
    "ray",
    "fsspec",
    "s3fs",
}
NOT_AT_START = HEAVY | {"numpy", "scipy", "jinja2", "postgrad.records", "postgrad.events"}


@dataclass(frozen=True)
class Import:
    """One imported module, and whether that happens when the file is imported."""

    module: str
    line: int
    at_start: bool


def _files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def _module(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _statements(body: list[ast.stmt], at_start: bool) -> Iterator[tuple[ast.stmt, bool]]:
    """Every statement, with whether it runs when the file is imported."""
    for node in body:
        yield node, at_start
        inner = at_start and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            inner = False
        for name in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, name, []), inner)
        for handler in getattr(node, "handlers", []):
            yield from _statements(handler.body, inner)


@cache
def _imports(path: Path) -> tuple[Import, ...]:
    """All imports of a file. `from postgrad.a import b` is an import of `postgrad.a.b` where that is a module."""
    known = {_module(file) for file in _files()}
    found = []
    for node, at_start in _statements(ast.parse(path.read_text(encoding="utf-8")).body, True):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno, at_start) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            base = node.module or ""
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.append(Import(whole if whole in known else base, node.lineno, at_start))
    return tuple(found)


def _unit(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def _layer(unit: str) -> int:
    return next(number for number, units in enumerate(LAYERS) if unit in units)


def _allowed(who: str, what: str, module: str) -> bool:
    if who == what or any({who, what} <= layer for layer in OPEN_LAYERS) or (who, module) in NAMES_ONLY:
        return True
    return _layer(what) < _layer(who)


def test_every_file_has_a_layer() -> None:
    units = {unit for file in _files() if (unit := _unit(_module(file))) is not None}
    assert units <= set().union(*LAYERS), f"name the layer of: {units - set().union(*LAYERS)}"


def test_imports_go_down() -> None:
    wrong = []
    for file in _files():
        who = _unit(_module(file))
        for used in _imports(file):
            what = _unit(used.module) if used.module.split(".")[0] == "postgrad" else None
            if who is not None and what is not None and not _allowed(who, what, used.module):
                wrong.append(f"{file.relative_to(SOURCE)}:{used.line} imports {used.module}")
    assert not wrong, "\n".join(wrong)


def test_no_cycles() -> None:
    graph = {_module(file): {used.module for used in _imports(file) if used.at_start} for file in _files()}
    own = {module: {used for used in uses if used in graph and used != module} for module, uses in graph.items()}
    TopologicalSorter(own).prepare()


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    wrong = [
        f"{file.relative_to(SOURCE)}:{used.line} imports {used.module}"
        for file in _files()
        for used in _imports(file)
        if used.at_start and used.module.split(".")[0] in HEAVY
    ]
    assert not wrong, "\n".join(wrong)


def test_no_global_statements() -> None:
    wrong = [
        f"{file.relative_to(SOURCE)}:{node.lineno}"
        for file in _files()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Global)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["run", "--help"]])
def test_the_command_line_starts_light(arguments: list[str]) -> None:
    """Importing the command line, and answering --help, loads no library that takes long."""
    program = (
        "import json, sys\n"
        "from postgrad.cli import main\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "try:\n    main.main() if sys.argv[1:] else None\n"
        "except SystemExit:\n    pass\n"
        "print(json.dumps(list(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "typer" in loaded
    assert not loaded & NOT_AT_START
