"""The metric `code_tests`: what counts as a passed test, and what code that means harm gets and does."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Callable

import psutil
import pytest

from postgrad.errors import UserError
from postgrad.metrics import code, code_box, code_run
from postgrad.metrics.base import Answered
from postgrad.testing.engine import until

BOXES = {box.name: box for box in code_box._boxes() if not code_box._problem(box)}
pytestmark = pytest.mark.skipif(not BOXES, reason="no sandbox works here")

CHECK = "assert f(1) == 2\nassert f(2) == 3"


def share(answer: str, check: str = CHECK) -> float | None:
    return code.CodeTests().score(Answered("question", "reference", answer, 1, check))


@pytest.fixture(params=sorted(BOXES))
def box(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each sandbox in turn, with nothing remembered of another."""
    code._share.cache_clear()
    monkeypatch.setattr(code_run, "chosen", lambda: BOXES[request.param])
    return str(request.param)


# --- honest answers ---------------------------------------------------------------------------------------------------


def test_asserts_count_one_by_one(box: str) -> None:
    assert share("def f(x):\n    return x + 1") == 1.0
    assert share("def f(x):\n    return 2") == 0.5
    assert share("Here it is:\n```python\ndef f(x):\n    return x + 1\n```\nIt adds one.") == 1.0
    assert share("I do not know.") == 0.0
    assert share("") == 0.0


def test_the_form_of_humaneval() -> None:
    test = "METADATA = {}\n\ndef check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n"
    check = json.dumps({"tests": [test], "entry": "total"})
    assert share("```\nprint('an example')\n```\n```python\ndef total(xs):\n    return sum(xs)\n```", check) == 1.0
    assert share("def total(xs):\n    return 3", check) == 0.0
    assert share("def other(xs):\n    return sum(xs)", check) == 0.0


def test_the_form_of_mbpp() -> None:
    check = json.dumps({"tests": ["assert g((1, 2)) == {1: [2.5]}", "assert g(()) == {}"], "setup": "import math"})
    assert share("def g(t):\n    return {t[0]: [2.5]} if t else {}", check) == 1.0
    assert share("def g(t):\n    return {}", check) == 0.5


def test_values_classes_iterators_and_errors_go_between_the_processes() -> None:
    answer = (
        "class Pair:\n    def __init__(self, a, b): self.a, self.b = a, b\n"
        "    def total(self): return self.a + self.b\n"
        "def longest(pairs): return max(pair.total() for pair in pairs)\n"
        "def count():\n    yield 1\n    yield (2, None)\n"
        "def same(value): return value\n"
        "def fails(): raise KeyError('no')\n"
    )
    values = "[1, -2.5, 'é\\n', True, None, (1, [2]), {3: {4}}, b'x', 2j, frozenset({5}), 10 ** 5000, float('inf')]"
    tests = [
        "assert longest([Pair(5, 24), Pair(a=1, b=2)]) == 29",
        "assert Pair(1, 2).a == 1",
        "assert list(count()) == [1, (2, None)]",
        f"assert same({values}) == {values}",
        "assert type(same((1,))) is tuple and same(True) is True",
        "try:\n    fails()\n    wrong = True\nexcept KeyError:\n    wrong = False\nassert not wrong",
    ]
    assert share(answer, json.dumps({"tests": tests})) == 1.0


def test_a_test_that_takes_too_long_or_ends_the_process_costs_itself_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_run, "TEST_S", 1.5)
    check = "assert f(0) == 0\nassert f(1) == 1\nassert f(2) == 2\nassert f(3) == 3"
    assert share("import os\ndef f(x):\n    while x == 0: pass\n    if x == 2: os._exit(0)\n    return x", check) == 0.5


@pytest.mark.parametrize("check", ["", "x = 1", "def f(", "[]", "{}", '{"tests": []}', '{"tests": [1]}', "[" * 9999])
def test_a_check_without_tests_leaves_its_item_unscored(check: str) -> None:
    assert code.tests_of(check) is None
    assert math.isnan(code.CodeTests().grade([Answered("q", "r", "x = 1", 1, check)])[0, 0])


def test_code_is_the_first_block_that_defines_the_entry() -> None:
    answer = "```py\nx = 1\n```\n```python\ndef f(): pass\n```"
    assert code.code_of(answer) == "x = 1\n"
    assert code.code_of(answer, "f") == "def f(): pass\n"
    assert code.code_of("```python\ndef f(): pass") == "def f(): pass"
    assert code.code_of("no code here") == "" == code.code_of("x = '\ud800'")


# --- hostile answers --------------------------------------------------------------------------------------------------

WRITES = "import os\nfor n in range(32):\n    try:\n        os.write(n, {!r})\n    except OSError:\n        pass\n"
HOSTILE = {
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "fork bomb when called": "import os\ndef f(x):\n    while True:\n        os.fork()",
    "another program": "import subprocess\ndef f(x):\n    subprocess.run(['/bin/true'])\n    return x + 1",
    "this program as another": "import os, sys\ndef f(x):\n    os.execv(sys.executable, [sys.executable])",
    "reads a file of the system": "def f(x):\n    open('/etc/passwd').read()\n    return x + 1",
    "lists the home folder": "import os\ndef f(x):\n    return x + 1 if os.listdir(os.path.expanduser('~root')) else 0",
    "looks for the tests": "import glob\ndef f(x):\n    return x + 1 if glob.glob('/tmp/*/tests') else 0",
    "reads the environment": "import os\ndef f(x):\n    return x + 1 if 'SECRET' in os.environ else 0",
    "network": "import socket\ndef f(x):\n    socket.socket()\n    return x + 1",
    "prints marks": WRITES.format(rb"++\n") + "def f(x): return 0",
    "exits well": "import sys\nsys.exit(0)",
    "exits well when called": "import os\ndef f(x):\n    os._exit(0)",
    "equals everything": "class A:\n    def __eq__(self, other): return True\ndef f(x): return A()",
    "a number that equals everything": "class A(int):\n    def __eq__(self, _): return True\ndef f(x): return A(77)",
    "patches asserts": "import builtins\nbuiltins.AssertionError = None\nbuiltins.exec = print\ndef f(x): return 1",
    "more memory than allowed": "def f(x):\n    held = bytearray(3 << 30)\n    return x + 1",
    "lifts its limits": "import resource\ndef f(x):\n    resource.setrlimit(9, (1 << 40,) * 2)\n    return x + 1",
    "signals everybody": "import os\ndef f(x):\n    os.kill(os.getppid() or 1, 0)\n    return x + 1",
    "a huge value": "def f(x): return 'x' * (50 << 20)",
    "a deep value": "def f(x):\n    held = []\n    for _ in range(100000): held = [held]\n    return held",
    "a large file": "def f(x):\n    open('/tmp/large', 'wb').write(bytes(2 << 20))\n    return x + 1",
    "half a message": WRITES.format(b'{"f": {"o"') + "def f(x): return 0",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_answer_gets_nothing(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "key")
    before = len(psutil.pids())
    assert share(HOSTILE[what]) == 0.0
    assert share("def f(x):\n    return x + 1") == 1.0, "the next answer is graded as ever"
    until(lambda: len(psutil.pids()) < before + 50)  # Others come and go as well.


def test_sandlock_holds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    if "sandlock" not in BOXES:
        pytest.skip("sandlock does not work here")
    code._share.cache_clear()
    monkeypatch.setattr(code_run, "chosen", lambda: BOXES["sandlock"])
    monkeypatch.setenv("SECRET", "key")
    wrong = {what: found for what, answer in HOSTILE.items() if (found := share(answer)) != 0.0}
    assert not wrong


@pytest.mark.parametrize("body", ["while True: pass", "__import__('time').sleep(99)", "while True: print('x' * 10**6)"])
def test_endless_answers_are_ended(body: str, box: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_run, "TEST_S", 1.0)
    begun = time.monotonic()
    assert share(f"def f(x):\n    {body}") == 0.0
    assert time.monotonic() - begun < 60
    until(lambda: not running())


def running() -> list[int]:
    """Processes of this one that run an answer."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found += [process.pid] if str(code_box.PROGRAM) in process.cmdline() else []
    return found


def test_nothing_is_left_on_the_disk(box: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    target = tmp_path.parent / "outside"
    # Under bubblewrap there is a folder of this name, in memory and its own.
    share(f"def f(x):\n    open({str(target)!r}, 'w').close()\n    return x + 1")
    assert not target.exists() and not list(tmp_path.iterdir())


def test_a_function_that_tests_use_is_not_taken_from_the_answer() -> None:
    check = "assert len(f(1)) == 2\nassert abs(g() - 5) < 1e-6"
    assert (
        share("def f(x): return []\ndef g(): return float('nan')\ndef len(x): return 2\ndef abs(x): return 0", check)
        == 0
    )
    # Unless it is what was asked for.
    assert share("def sum(a, b): return 7", json.dumps({"tests": ["assert sum(3, 4) == 7"], "entry": "sum"})) == 1.0


def test_without_a_sandbox_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Callable[[], None]:
        raise AssertionError("was started")

    monkeypatch.setattr(code_box, "_boxes", lambda: iter(()))
    monkeypatch.setattr(code_run, "chosen", code_box.chosen.__wrapped__)
    monkeypatch.setattr("subprocess.Popen", none)
    code._share.cache_clear()
    with pytest.raises(UserError, match="no sandbox for that works here.*never run without a sandbox"):
        share("def f(x): return x + 1")
