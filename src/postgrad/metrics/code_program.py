"""Both sides of a code test: `python code_program.py answer FILE` and `python code_program.py tests FILE`, each in a
sandbox and a process of its own, started by `code_run.py` as a file and without Postgrad.

The tests run beside a stand-in for what the answer defines: a call goes to the answer's process as plain data, and its
result comes back as plain data. So the answer's code never sees a test, shares no interpreter with one, and cannot say
that it passed. Values go by copy: what a function does to its arguments is not seen by the tests.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import json
import os
import platform
import resource
import struct
import sys
from types import TracebackType
from typing import Any, BinaryIO, Callable, Mapping

CPU_S, MEMORY, FILE_BYTES, OPEN_FILES = 20, 1 << 30, 1 << 20, 32
LARGEST = 4 << 20  # bytes of one message
DIGITS = 50_000
# What a process may not ask of the kernel: processes, programs, signals, sockets, higher limits. By machine:
# (audit number, clone, the others). The newest calls have one number everywhere.
MACHINES = {
    "x86_64": (0xC000003E, 56, (41, 57, 58, 59, 62, 101, 129, 160, 200, 234, 297, 302, 310, 311, 322)),
    "aarch64": (0xC00000B7, 220, (117, 129, 130, 131, 138, 164, 198, 221, 240, 261, 270, 271, 281)),
}
SIGNAL_BY_FILE, IO_URING = 424, 425
CLONE3, CLONE_THREAD, X32 = 435, 0x10000, 0x40000000
KILL, ALLOW, REFUSE = 0x80000000, 0x7FFF0000, 0x00050000
LOAD, EQUALS, AT_LEAST, HAS_BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 38, 22, 2


# --- limits -----------------------------------------------------------------------------------------------------------


def rules() -> list[tuple[int, int, int, int]]:
    """The seccomp filter: (code, steps if true, steps if false, operand). Threads may be made, processes may not.

    Raises:
        KeyError: the numbers of this machine's kernel are not known.
    """
    audit, clone, others = MACHINES[platform.machine()]
    found = [(LOAD, 0, 0, 4), (EQUALS, 1, 0, audit), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    found += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, KILL)]
    for number in (*others, SIGNAL_BY_FILE, IO_URING):
        found += [(EQUALS, 0, 1, number), (RETURN, 0, 0, REFUSE | errno.EPERM)]
    # Its flags cannot be looked at, and the C library goes on with clone.
    found += [(EQUALS, 0, 1, CLONE3), (RETURN, 0, 0, REFUSE | errno.ENOSYS)]
    found += [(EQUALS, 0, 3, clone), (LOAD, 0, 0, 16), (HAS_BITS, 1, 0, CLONE_THREAD)]
    return [*found, (RETURN, 0, 0, REFUSE | errno.EPERM), (RETURN, 0, 0, ALLOW)]


def confine() -> None:
    """Limits that this process cannot lift again."""
    for what, most in (
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    packed = b"".join(struct.pack("HBBI", *rule) for rule in rules())
    held = ctypes.create_string_buffer(packed, len(packed))
    program = struct.pack("HxxxxxxP", len(packed) // 8, ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "the filter on system calls was refused")


# --- values as plain data ---------------------------------------------------------------------------------------------


def flat(value: Any, other: Callable[[Any], Any]) -> Any:
    """A value as JSON; `other` says what stands for what is no plain data."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    for kinds, mark in ((tuple, "t"), (set, "s"), (frozenset, "z")):
        if isinstance(value, kinds):
            return {mark: [flat(one, other) for one in value]}
    if isinstance(value, list):
        return [flat(one, other) for one in value]
    if isinstance(value, dict):
        return {"d": [[flat(key, other), flat(one, other)] for key, one in value.items()]}
    if isinstance(value, bytes | bytearray):
        return {"b": value.hex()}
    if isinstance(value, complex):
        return {"c": [value.real, value.imag]}
    return {"o": other(value)}


def full(value: Any, other: Callable[[Any], Any]) -> Any:
    """What `flat` made flat."""
    if isinstance(value, list):
        return [full(one, other) for one in value]
    if not isinstance(value, dict):
        return value
    (mark, held), *more = value.items()
    if more:
        raise ValueError("a message has another form than expected")
    if mark == "d":
        return {full(key, other): full(one, other) for key, one in held}
    if mark in ("b", "c"):
        return bytes.fromhex(held) if mark == "b" else complex(*held)
    if mark == "o":
        return other(held)
    return {"t": tuple, "s": set, "z": frozenset}[mark](full(one, other) for one in held)


class Gone(BaseException):
    """The other process has ended, or says more than it may."""


class Caught:
    """Holds what a block of other people's code raised, which can be of any kind."""

    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds = kinds
        self.raised: BaseException | None = None

    def __enter__(self) -> Caught:
        return self

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, _: TracebackType | None) -> bool:
        self.raised = raised
        return isinstance(raised, self._kinds)


class Line:
    """Messages to and from the other process, one JSON line each."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming, self._outgoing = incoming, outgoing

    def say(self, message: Any) -> None:
        self._outgoing.write(json.dumps(message).encode() + b"\n")
        self._outgoing.flush()

    def hear(self) -> Any:
        line = self._incoming.readline(LARGEST)
        if not line.endswith(b"\n"):
            raise Gone
        return json.loads(line)


# --- the answer's side ------------------------------------------------------------------------------------------------


def answer_side(code: str, line: Line) -> None:
    """Run the code, say what it defines, and do what is asked with it until nobody asks any more."""
    objects: list[Any] = []

    def kept(value: Any) -> int:
        objects.append(value)
        return len(objects) - 1

    defined: dict[str, Any] = {"__name__": "answer"}
    exec(compile(code, "answer", "exec"), defined)
    line.say({name: flat(value, kept) for name, value in defined.items() if not name.startswith("__")})
    while True:
        what, on, *details = full(line.hear(), lambda number: objects[number])
        with Caught(Exception) as caught:
            reply = {"is": flat(_done(what, on, details), kept)}
        if caught.raised is not None:
            kinds = [kind.__name__ for kind in type(caught.raised).__mro__]
            reply = {"raised": [next(name for name in kinds if hasattr(builtins, name)), str(caught.raised)[:1000]]}
        line.say(reply)


def _done(what: str, on: Any, details: list[Any]) -> Any:
    if what == "call":
        return on(*details[0], **details[1])
    if what == "get":
        return getattr(on, details[0])
    return next(on) if what == "next" else iter(on)


# --- the tests' side --------------------------------------------------------------------------------------------------


class Answers:
    """The answer's process, as the tests' side sees it. Whatever comes from there is plain data or a stand-in."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._known: dict[int, StandIn] = {}

    def defined(self) -> dict[str, Any]:
        return {name: full(value, self.stand_in) for name, value in self._line.hear().items()}

    def stand_in(self, number: int) -> StandIn:
        return self._known.setdefault(number, StandIn(self, number))

    def ask(self, what: str, number: int, *details: Any) -> Any:
        self._line.say(flat((what, self.stand_in(number), *details), _number))
        reply = self._line.hear()
        if "raised" in reply:
            name, text = reply["raised"]
            kind = getattr(builtins, name, None)
            if isinstance(kind, type) and issubclass(kind, Exception):
                raise kind(text)
            raise RuntimeError(text)
        return full(reply["is"], self.stand_in)


class StandIn:
    """Something of the answer that is no plain data: a function, a class, an object. Equal to itself alone."""

    def __init__(self, answers: Answers, number: int) -> None:
        self._answers, self._number = answers, number

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._answers.ask("call", self._number, arguments, named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._answers.ask("get", self._number, name)

    def __iter__(self) -> Any:
        return self._answers.ask("iter", self._number)

    def __next__(self) -> Any:
        return self._answers.ask("next", self._number)


def _number(value: Any) -> int:
    if not isinstance(value, StandIn):
        raise TypeError(f"a test can give the answer plain data only, and this is a {type(value).__name__}")
    return value._number


def tests_side(asked: Mapping[str, Any], line: Line, verdicts: BinaryIO) -> None:
    """Run the tests, and write a byte for each: + where it passed, - where it did not."""
    entry, own = asked["entry"], set(dir(builtins))
    answers = Answers(line)
    # A function that is called like one that tests use is not taken from the answer: `len` could say what it likes.
    space = {name: one for name, one in answers.defined().items() if name == entry or name not in own}
    space["__name__"] = "tests"
    exec(compile(asked["setup"], "setup", "exec"), space)
    for test in asked["tests"]:
        verdicts.write(b"+" if _passes(test, entry, space) else b"-")
        verdicts.flush()


def _passes(test: str, entry: str, space: dict[str, Any]) -> bool:
    with Caught(Exception, SystemExit) as caught:
        space.pop("check", None)
        exec(compile(test, "test", "exec"), space)
        if entry and callable(space.get("check")):
            space["check"](space[entry])
    return caught.raised is None


def main(role: str, file: str) -> None:
    with open(file, encoding="utf-8") as opened:
        asked = json.load(opened)
    # What code prints goes nowhere; the lines are at numbers of their own.
    line = Line(os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"))
    verdicts = os.fdopen(os.dup(2), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    sys.set_int_max_str_digits(DIGITS)
    confine()
    if role == "answer":
        verdicts.close()
        answer_side(asked["code"], line)
    else:
        tests_side(asked, line, verdicts)


if __name__ == "__main__":
    main(*sys.argv[1:])
