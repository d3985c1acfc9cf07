"""Small is kept by measuring it: lengths of files and functions, numbers of parameters, and what has no place here."""

from __future__ import annotations

import ast
import re
import socket
from pathlib import Path
from typing import Iterator

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "postgrad"
FILE_LINES, TEST_LINES, FUNCTION_LINES, PARAMETERS = 400, 600, 60, 8
Function = ast.FunctionDef | ast.AsyncFunctionDef

UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError|# type: ignore")
# A path of somebody's machine has no place in what is shipped.
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:work|home/\w+|Users/\w+|root)/")


def _sources(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def _functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            yield node


def _where(path: Path, node: ast.stmt | ast.ExceptHandler) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def test_files_are_short() -> None:
    wrong = []
    for folder, limit in (("src", FILE_LINES), ("tests", TEST_LINES)):
        files = _sources(folder)
        assert files, f"no source was found in {folder}"
        lengths = {file: len(file.read_text("utf-8").splitlines()) for file in files}
        wrong += [f"{f.relative_to(ROOT)}: {n} lines" for f, n in lengths.items() if n > limit]
    assert not wrong, "\n".join(wrong)


def test_functions_are_short() -> None:
    wrong = [
        f"{_where(file, node)} {node.name}: {length} lines"
        for file in _sources("src", "tests")
        for node in _functions(file)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    ]
    assert not wrong, "\n".join(wrong)


def test_functions_have_few_parameters() -> None:
    wrong = []
    for file in _sources("src"):
        for node in _functions(file):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            count = len([name for name in names if name not in ("self", "cls")])
            # The parameters of a command are its options: what a person sees, not what a caller passes.
            is_command = file.parent.name == "cli" and node.name == "command"
            if count > PARAMETERS and not is_command:
                wrong.append(f"{_where(file, node)} {node.name}: {count} parameters")
    assert not wrong, "\n".join(wrong)


def test_no_broad_excepts() -> None:
    """Catching everything hides bugs: a handler names what it can deal with."""
    wrong = []
    for file in _sources("src", "tests"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ExceptHandler) or file == SOURCE / "errors.py":
                continue
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = {kind.id for kind in caught if isinstance(kind, ast.Name)}
            if node.type is None or names & {"Exception", "BaseException"}:
                wrong.append(_where(file, node))
    assert not wrong, "\n".join(wrong)


def test_nothing_is_unfinished() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in _sources("src", "tests")
        if file != Path(__file__).resolve()
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_path_of_a_machine() -> None:
    kept = [file for kind in ("*.py", "*.md", "*.yaml", "*.toml") for file in ROOT.glob(f"*/**/{kind}")]
    shipped = [f for f in kept if f.relative_to(ROOT).parts[0] in ("src", "tests", "docs", "examples")]
    assert shipped
    wrong = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in [*shipped, *ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "constraints.txt"]
        if file != Path(__file__).resolve()
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if MACHINE_PATHS.search(line)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_tests_have_no_network(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as plug, pytest.raises(PermissionError, match="no network"):
        plug.connect((address, 80))
    with pytest.raises(PermissionError, match="no network"):
        socket.getaddrinfo("example.invalid", 80)


def test_tests_may_talk_to_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as plug:
        assert plug.getpeername() == server.getsockname()
