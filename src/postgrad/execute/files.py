"""Reading what a job left, when nothing in its folder can be trusted: links, pipes, devices, bombs, pickles, escapes.

Says what a file is, not whether its answers are right. Every finding is a `Refused`, which becomes a `Failure`.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, Iterator

MODEL_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja", ".md", ".vocab")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".h5", ".msgpack", ".npy", ".npz", ".onnx")
MODEL_FILES, MODEL_DEPTH = 2_000, 12
TEXT_LETTERS = 2_000
# Sequences that move a terminal's cursor or change its title, other control characters, and marks that turn the
# direction of a text around.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Refused(Exception):
    """A file that a job may not leave. `kind` is that of a Failure at the boundary "isolation"."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def read_regular(path: Path, most: int) -> bytes:
    """The contents of a plain file of at most `most` bytes. Never waits, never follows a link.

    Raises:
        Refused: it is a link, has a second name, is no plain file, or is too large.
        OSError: it is not there or cannot be read.
    """
    name = path.name
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refused("planted_link", f"{name} is a link to {_target(path)}") from error
        if error.errno == errno.ENXIO:
            raise Refused("special_file", f"{name} is a socket or a device and not a file") from error
        raise
    try:
        _check(name, os.fstat(number), most)
        with open(number, "rb", closefd=False) as file:
            data = file.read(most + 1)
    finally:
        os.close(number)
    if len(data) > most:
        raise Refused("oversized", f"{name} has more than {most:,} bytes")
    return data


def _target(path: Path) -> str:
    try:
        return plain_text(os.readlink(path), 200)
    except OSError:
        return "something else"


def _check(name: str, status: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket", stat.S_IFLNK: "a link"}
        what = kinds.get(stat.S_IFMT(status.st_mode), "a device")
        kind = "planted_link" if stat.S_ISLNK(status.st_mode) else "special_file"
        raise Refused(kind, f"{name} is {what} and not a plain file")
    if status.st_nlink != 1:
        raise Refused("planted_link", f"{name} has a second name: it is a hard link")
    if status.st_size > most:
        raise Refused("oversized", f"{name} has {status.st_size:,} bytes, and at most {most:,} were expected")


def read_tail(path: Path, most: int) -> str:
    """The last `most` bytes of a plain file as text without control sequences; "" where there is no such file."""
    with suppress(OSError):
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(number)
            if stat.S_ISREG(status.st_mode):
                data = os.pread(number, most, max(0, status.st_size - most))
                return plain_text(data.decode("utf-8", errors="replace"), most)
        finally:
            os.close(number)
    return ""


def check_model(folder: Path, most: int) -> None:
    """Check that a saved model is data: plain files of known kinds, together at most `most` bytes.

    Raises:
        Refused: it is not.
        OSError: it cannot be read.
    """
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise Refused("planted_link", f"{folder.name} is no folder")
    total = 0
    for count, (entry, depth) in enumerate(_walk(folder)):
        name = plain_text(os.path.relpath(entry.path, folder.parent), 200)
        status = entry.stat(follow_symlinks=False)
        if count > MODEL_FILES or depth > MODEL_DEPTH:
            raise Refused("oversized", f"{folder.name} holds more than {MODEL_FILES} files or {MODEL_DEPTH} levels")
        if stat.S_ISDIR(status.st_mode):
            continue
        _check(name, status, most)
        total += status.st_size
        if total > most:
            raise Refused("oversized", f"{folder.name} has more than {most:,} bytes")
        suffix = os.path.splitext(entry.name)[1].lower()
        if suffix in PICKLES:
            raise Refused("pickle", f"{name} is a file that runs code when it is read")
        if suffix not in MODEL_SUFFIXES:
            raise Refused("model_file", f"{name} is no file of a model: {', '.join(MODEL_SUFFIXES)} were expected")


def _walk(folder: Path) -> Iterator[tuple[os.DirEntry[str], int]]:
    waiting = [(str(folder), 0)]
    while waiting:
        place, depth = waiting.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                yield entry, depth
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, depth + 1))


def plain_text(text: str, most: int = TEXT_LETTERS) -> str:
    """A text that can be printed: without control sequences, at most `most` letters."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", _ESCAPES.sub("", text))[:most]


def plain_value(value: Any) -> Any:
    """A JSON value with every text in it made plain."""
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, dict):
        return {plain_text(str(key)): plain_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(inner) for inner in value]
    return value
