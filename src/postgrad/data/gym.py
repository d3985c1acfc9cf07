"""Questions of the library reasoning-gym (Stojanovski et al. 2025, arXiv 2505.24760): `reasoning-gym:NAME`.

A hundred seeded generators of puzzles, each with a scorer that the metric `reasoning_gym` grades answers with. Columns
question, answer and check. Nothing is downloaded, and the same source gives the same rows under the same version.

`reasoning-gym:NAME?train=400&dev=100&test=200&seed=1&OPTION=VALUE...`: sizes and seed are ours, what else is named is
an option of the generator, such as how hard it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Mapping

from postgrad.data.files import Table
from postgrad.errors import UserError, near_miss

PREFIX = "reasoning-gym:"
COLUMNS = ("question", "answer", "check")
SIZES = {"train": 400, "dev": 100, "test": 200}
LARGEST = 100_000
SLOWEST_S = 1800.0
PYTHON_SETTINGS = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}

_RUNS_ANSWER = "its scorer runs an answer as code"
_RUNS_ENTRY = "its scorer runs what is stored with the question as code"
_NO_ANSWER = "it stores no answer that could be learnt from"
# Generators that are refused, and why. What is not in here was read: its scorer runs nothing.
REFUSED: Mapping[str, str] = {
    "binary_matrix": _RUNS_ANSWER,
    "countdown": _RUNS_ANSWER,
    "intermediate_integration": _RUNS_ANSWER,
    "n_queens": _RUNS_ANSWER,
    "polynomial_multiplication": _RUNS_ANSWER,
    "puzzle24": _RUNS_ANSWER,
    "simple_integration": _RUNS_ANSWER,
    "spiral_matrix": _RUNS_ANSWER,
    "string_insertion": _RUNS_ANSWER,
    "bitwise_arithmetic": _RUNS_ENTRY,
    "number_sorting": _RUNS_ENTRY,
    "boxnet": _NO_ANSWER,
    "graph_color": _NO_ANSWER,
    "propositional_logic": _NO_ANSWER,
    "rubiks_cube": _NO_ANSWER,
    "rush_hour": _NO_ANSWER,
    "game_of_life_halting": "its scorer takes every answer for the right one",
    "complex_arithmetic": "its scorer takes nan for the right answer to everything",
    "composite": "it mixes other generators: name one of them",
}


@dataclass(frozen=True)
class GymSource:
    """A source, taken apart.

    Attributes:
        counts: how many rows each part has.
        options: of the generator, as they were written.
    """

    name: str
    counts: Mapping[str, int]
    seed: int
    options: Mapping[str, str]

    def request(self, part: str) -> dict[str, Any]:
        return {"name": self.name, "seed": self.seed, "part": part, "options": dict(self.options)}


def check_gym(source: str, part: str) -> GymSource:
    """Take `reasoning-gym:NAME?KEY=VALUE&...` apart.

    Raises:
        UserError: the library is not installed, there is no such generator or option, a value is of another type than
            expected, the generator refuses it, or the part has no rows.
    """
    found = _parsed(source, part)
    _refused(source, found, _asked(json.dumps(found.request(part))))
    return found


def read_gym(source: str, part: str) -> Table:
    """Make the rows of a part. Parts never share a question, whatever their sizes and seeds are, and have none twice.

    Raises:
        UserError: as `check_gym`, or the generator has fewer different questions than asked for.
    """
    found = _parsed(source, part)
    reply = _asked(json.dumps({**found.request(part), "count": found.counts[part]}))
    _refused(source, found, reply)
    rows = reply["rows"]
    if len(rows) < found.counts[part]:
        raise UserError(
            f"{source}: the generator found {len(rows)} different questions for {part}, and {found.counts[part]} were "
            f"asked for. Write {part}={len(rows)}, or options that allow more questions."
        )
    records = tuple((number, dict(zip(COLUMNS, row, strict=True))) for number, row in enumerate(rows, 1))
    return Table(source, COLUMNS, records, unit="row")


def _refused(source: str, found: GymSource, reply: Mapping[str, Any]) -> None:
    """Raise what the library has against a source."""
    if "names" in reply and found.name not in reply["names"]:
        known = sorted({*reply["names"]} - set(REFUSED))
        raise UserError(
            f"reasoning-gym has no generator '{found.name}'.{near_miss(found.name, known)} Known: {', '.join(known)}."
        )
    if "unknown" in reply:
        options = [*SIZES, "seed", *reply["known"]]
        hint = near_miss(reply["unknown"], options)
        raise UserError(f"{source}: there is no option '{reply['unknown']}'.{hint} Known: {', '.join(options)}.")
    if "problem" in reply:
        raise UserError(f"{source}: the generator does not take these options: {reply['problem']}. Change them.")


def _parsed(source: str, part: str) -> GymSource:
    name, _, query = source.removeprefix(PREFIX).partition("?")
    if name in REFUSED:
        raise UserError(f"{PREFIX}{name} cannot be used: {REFUSED[name]}. Choose another generator.")
    options: dict[str, str] = {}
    for pair in query.split("&") if query else []:
        key, equals, value = pair.partition("=")
        if not key or not equals or not value or key in options:
            raise UserError(f"{source}: '{pair}' was read where an option was expected once, such as train=400.")
        options[key] = value
    counts = {part: _whole(source, part, options.pop(part, str(size))) for part, size in SIZES.items()}
    if not counts[part]:
        raise UserError(f"{source} has no {part} rows: give it {part}=200, or leave '{part}' out of the task.")
    return GymSource(name, counts, _whole(source, "seed", options.pop("seed", "0")), options)


def _whole(source: str, key: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or (key in SIZES and int(text) > LARGEST):
        most = f"up to {LARGEST:,}" if key in SIZES else "of at most nine digits"
        raise UserError(f"{source}: {key} is '{text}', and a whole number {most} was expected.")
    return int(text)


@lru_cache(maxsize=32)
def _asked(request: str) -> dict[str, Any]:
    """The reply of the program that uses the library; the same request is asked once."""
    if find_spec("reasoning_gym") is None:
        raise UserError("The library reasoning-gym is not installed. Install it with: pip install 'postgrad[gym]'.")
    program = str(Path(__file__).with_name("gym_program.py"))
    try:
        done = subprocess.run(
            [sys.executable, "-P", program],
            input=request,
            capture_output=True,
            text=True,
            env={**os.environ, **PYTHON_SETTINGS},
            timeout=SLOWEST_S,
        )
    except subprocess.TimeoutExpired as slow:
        raise UserError(
            f"reasoning-gym did not give its questions in {SLOWEST_S / 60:.0f} minutes. Ask for fewer of them."
        ) from slow
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"reasoning-gym's generator '{json.loads(request)['name']}' failed with these options: {last}.")
    reply: dict[str, Any] = json.loads(done.stdout)
    return reply
