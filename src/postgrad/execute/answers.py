"""The questions of a unit as a job sees them, and its answers as the controller takes them.

A job sees texts with numbers that say nothing, in an order that says nothing. Its answers are read without trusting a
byte: sizes and types are checked before anything is unpacked, and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Sequence

from postgrad.execute.files import Refused, plain_text
from postgrad.records import Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MEMBERS = ("ids", "probs", "score")
HEADER_BYTES = 4096
ID_LETTERS = 64
ROUNDING = 1e-3
#: How far two reckonings of one model may be apart, and the share of the questions on which they may be further.
SAME, SLACK = 1e-4, 0.01
FLOATS = ("f2", "f4", "f8")


class BadAnswers(ValueError):
    """Answers that are not valid: of the wrong shape, to other questions, or no numbers."""


@dataclass(frozen=True)
class Questions:
    """The questions of one unit, N of them.

    Attributes:
        ids: the ids that the referee knows, in its order.
        texts: in the same order.
        order: position in the job's file -> position in the referee's order.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    order: tuple[int, ...]

    @property
    def shown(self) -> tuple[tuple[str, str], ...]:
        """(number, text) as the job's file has them."""
        return tuple((numbered(place), self.texts[index]) for place, index in enumerate(self.order))


@dataclass(frozen=True)
class Answers:
    """(N, K) probabilities and (N,) in-scope scores, in the referee's order."""

    probs: NDArray[np.float32]
    score: NDArray[np.float32]


def numbered(place: int) -> str:
    return f"q{place:06d}"


def questions(unit: str, rows: Sequence[Row]) -> Questions:
    """The questions of a unit. Their order in a job follows from unit and texts alone: it tells nothing that the texts
    do not tell, and it is the same in every job, so that equal recipes answer equal batches."""
    keys = [hashlib.sha256(f"{unit}\0{row.text}".encode(errors="surrogatepass")).digest() for row in rows]
    order = sorted(range(len(rows)), key=lambda index: keys[index])
    return Questions(tuple(row.id for row in rows), tuple(row.text for row in rows), tuple(order))


def largest_file(asked: int, labels: int) -> int:
    """Bytes that an honest file of answers cannot exceed: everything in 8 bytes and uncompressed."""
    return asked * (8 * labels + 8 + 4 * ID_LETTERS) + 4 * HEADER_BYTES


def read_answers(data: bytes, asked: Questions, labels: int) -> Answers:
    """Read a file of answers.

    Raises:
        BadAnswers: it is not what was asked for.
        Refused: it is made to harm whoever reads it.
    """
    import numpy as np

    count = len(asked.ids)
    shapes = {"ids": (count,), "probs": (count, labels), "score": (count,)}
    arrays = _arrays(data, shapes)
    if tuple(str(name) for name in arrays["ids"]) != tuple(numbered(place) for place in range(count)):
        raise BadAnswers("the answers are not to the questions that were asked")
    probs, score = arrays["probs"], arrays["score"]
    if not (np.isfinite(probs).all() and np.isfinite(score).all()):
        raise BadAnswers("some probabilities or scores are not finite numbers")
    if (probs < 0).any() or (np.abs(probs.sum(1) - 1.0) > ROUNDING).any():
        raise BadAnswers("some rows of probabilities do not sum to 1")
    with np.errstate(over="ignore"):
        single = score.astype(np.float32)
    if not np.isfinite(single).all():
        raise BadAnswers("some scores are too large for single precision")
    place = np.empty(count, dtype=np.int64)
    place[list(asked.order)] = np.arange(count)
    return Answers(probs.astype(np.float32)[place], single[place])


def written(ids: Sequence[str], answers: Answers) -> bytes:
    """The file that the referee reads: real ids, in its order. Equal answers give equal bytes."""
    import numpy as np

    file = io.BytesIO()
    np.savez(file, ids=np.array(ids, dtype=np.str_), probs=answers.probs, score=answers.score)
    return file.getvalue()


def disagreement(mine: Answers, theirs: Answers) -> str:
    """How two models' answers to the same questions differ, in words; "" when it is one model twice."""
    import numpy as np

    probs = np.abs(mine.probs - theirs.probs).max(1) > SAME
    score = np.abs(mine.score - theirs.score) > SAME * (1.0 + np.abs(mine.score))
    apart = int((probs | score).sum())
    if apart <= math.floor(SLACK * len(probs)):
        return ""
    most = np.abs(mine.probs - theirs.probs).max()
    return f"{apart} of {len(probs)} answers differ, probabilities by up to {most:.3f}"


# --- the file format --------------------------------------------------------------------------------------------------


def _arrays(data: bytes, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """The arrays of an npz, each of the expected shape. Declared sizes are checked before anything is unpacked."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            members = file.infolist()
            if sorted(info.filename for info in members) != sorted(f"{name}.npy" for name in MEMBERS):
                raise BadAnswers(f"the file cannot be read: it was expected to hold {', '.join(MEMBERS)}")
            found = {info.filename.removesuffix(".npy"): info for info in members}
            return {name: _array(_unpacked(file, found[name], shape), name, shape) for name, shape in shapes.items()}
    except BadAnswers:
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, RuntimeError, ValueError) as error:
        raise BadAnswers(f"the file cannot be read ({plain_text(str(error), 200) or type(error).__name__})") from error


def _unpacked(file: zipfile.ZipFile, info: zipfile.ZipInfo, shape: tuple[int, ...]) -> io.BytesIO:
    most = HEADER_BYTES + max(8, 4 * ID_LETTERS if len(shape) == 1 else 8) * math.prod(shape)
    if info.file_size > most:
        raise Refused(
            "oversized", f"{info.filename} unpacks to {info.file_size:,} bytes; answers have at most {most:,}"
        )
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadAnswers("the file cannot be read: it is packed in an unusual way")
    with file.open(info) as opened:
        # What is unpacked beyond the declared size is never read.
        return io.BytesIO(opened.read(most))


def _array(unpacked: io.BytesIO, name: str, shape: tuple[int, ...]) -> Any:
    """An array after its header was found to say what was expected: numpy would believe any size in it."""
    import numpy as np
    from numpy.lib import format as npy

    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(npy.read_magic(unpacked))
    if read is None:
        raise BadAnswers(f"{name} is in a format that numpy does not write")
    found, fortran, kind = read(unpacked, max_header_size=HEADER_BYTES)
    if kind.hasobject:
        raise Refused("pickle", f"{name} holds pickled objects: reading them would run code")
    is_text = kind.kind == "U" and 0 < kind.itemsize <= 4 * ID_LETTERS
    if not (is_text if name == "ids" else kind.str[1:] in FLOATS):
        raise BadAnswers(f"{name} holds values of type {plain_text(str(kind), 100)}")
    if found != shape:
        raise BadAnswers(f"probabilities and scores have other shapes than asked: {name} is {found}, not {shape}")
    data = unpacked.read()
    if len(data) != math.prod(shape) * kind.itemsize:
        raise BadAnswers(f"{name} is cut short")
    return np.frombuffer(data, dtype=kind).reshape(shape, order="F" if fortran else "C")
