"""Answers that are code, graded by running tests against it."""

from __future__ import annotations

import ast
import json
import re
from functools import lru_cache

from postgrad.metrics.base import Answered
from postgrad.metrics.code_run import Tests, passed
from postgrad.metrics.texts import MeanMetric

LONGEST = 100_000
MOST_TESTS = 200
_FENCE = re.compile(r"```[ \t]*(?:python3?|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)


class CodeTests(MeanMetric):
    """Mean share of its tests that an answer's Python code passes.

    The check is a JSON object {"tests": [...], "entry": ..., "setup": ...}, of which tests are needed: each is Python
    code that passes where it raises nothing. A test that defines `check(candidate)`, as those of HumanEval do (Chen et
    al. 2021), is given the answer's function `entry`. Or the check is Python code, such as the lines of asserts of MBPP
    (Austin et al. 2021): then each top-level assert and call is a test, and the rest is run before them. Unscored where
    a check has no test, is no valid Python, or has more than 200 tests.

    The code of an answer is its first Markdown code block, the first that defines `entry` where there is one, else all
    of it. It has Python's own library, and no packages.

    What this protects from. Code runs in a sandbox (bubblewrap, else sandlock; without one this metric refuses), where
    it reads Python's library and itself, no other file, no variable of the environment, and writes into a temporary
    folder of 16 MB in memory (under sandlock nowhere). It has no network, makes no process, and has 1 GB of memory,
    files of 1 MB, 5 seconds a test and 30 for all of them; what it prints goes nowhere. Tests run in another process of
    the same kind, which gets plain data from the answer's: the answer does not see tests, and neither the objects that
    it returns nor what it does to its own interpreter, and no exit code or output, can pass one. Not protected from:
    holes in the kernel, timing, and tests that are too weak.
    """

    name = "code_tests"
    dear = True

    def score(self, item: Answered) -> float | None:
        tests = tests_of(item.check)
        if tests is None:
            return None
        code = code_of(item.answer, tests.entry)
        return _share(code, tests) if code and len(code) <= LONGEST else 0.0


@lru_cache(maxsize=4096)
def _share(code: str, tests: Tests) -> float:
    """Kept, because the same answers are graded again whenever items are joined."""
    return passed(code, tests) / len(tests.tests)


@lru_cache(maxsize=4096)
def tests_of(check: str) -> Tests | None:
    """The tests of a check; None where it has none that could be run."""
    try:
        read = json.loads(check)
    except (ValueError, RecursionError):
        read = None
    try:
        found = _of_object(read) if isinstance(read, dict) else _of_code(check)
        for text in (found.setup, *found.tests):
            ast.parse(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return found if 0 < len(found.tests) <= MOST_TESTS else None


def _of_object(read: dict[str, object]) -> Tests:
    tests, entry, setup = read.get("tests"), read.get("entry") or "", read.get("setup") or ""
    tests = [tests] if isinstance(tests, str) else tests
    whole = isinstance(tests, list) and all(isinstance(one, str) and one.strip() for one in tests)
    if not (whole and isinstance(tests, list) and isinstance(entry, str) and isinstance(setup, str)):
        raise ValueError("not the form of a check")
    return Tests(tuple(map(str, tests)), entry, setup)


def _of_code(check: str) -> Tests:
    """Asserts and calls are tests, in order; all else is run before them."""
    tests: list[str] = []
    setup: list[str] = []
    for statement in ast.parse(check).body:
        called = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
        is_test = called or isinstance(statement, ast.Assert)
        (tests if is_test else setup).append(ast.unparse(statement))
    return Tests(tuple(tests), setup="\n".join(setup))


def code_of(answer: str, entry: str = "") -> str:
    """The code in an answer, "" where it is no valid Python."""
    blocks = _FENCE.findall(answer)
    defines = re.compile(rf"(?:def|class)\s+{re.escape(entry)}\b|^{re.escape(entry)}\s*=", re.MULTILINE)
    code: str = next((block for block in blocks if entry and defines.search(block)), blocks[0] if blocks else answer)
    try:
        code.encode()
        ast.parse(code)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ""
    return code
