"""Makes questions with the library reasoning-gym: `python gym_program.py`, one JSON request in, one JSON reply out.

A program of its own, started by `gym.py` as a file and without Postgrad: some generators walk through sets or have a
state that all of them share, and are repeatable only in a fresh process with a fixed PYTHONHASHSEED. Besides, the
library takes a second to import.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import itertools
import json
import os
import sys
import types
import typing
from typing import Any, Iterator, Mapping, Sequence

# A question belongs to the part that its own hash names, so parts are disjoint whatever their sizes and seeds.
BUCKETS = {"train": (0, 1), "dev": (2,), "test": (3,)}
PATIENCE = 2_000  # questions in a row that were there already, after which a generator has no more
# How many items a dataset is told to have: more than are drawn. Some make them all at once, one refuses more than this.
SPARE, SMALLEST, LARGEST = 10, 200, 20_000
SCALARS = (bool, int, float, str)


def main() -> None:
    request = json.load(sys.stdin)
    replies, sys.stdout = sys.stdout, sys.stderr  # generators print
    json.dump(_reply(request), replies)
    replies.flush()


def _reply(request: Mapping[str, Any]) -> dict[str, Any]:
    """{names}, and of a name that is among them {options}; {problem}; or {rows, short}."""
    if request["name"] != "game_of_life":
        # Only this one needs it, and it brings a plotting library that writes into the home folder.
        sys.modules["cellpylib"] = types.ModuleType("cellpylib")
    from reasoning_gym.factory import DATASETS

    if request["name"] not in DATASETS or "options" not in request:
        return {"names": sorted(DATASETS)}
    made, config = DATASETS[request["name"]]
    hints = typing.get_type_hints(config)
    known = sorted(field.name for field in dataclasses.fields(config) if field.name not in ("seed", "size"))
    unknown = [name for name in request["options"] if name not in known]
    if unknown:
        return {"unknown": unknown[0], "known": known}
    size = min(LARGEST, max(SMALLEST, SPARE * request.get("count", 0)))
    try:
        options = {name: _value(name, text, hints[name]) for name, text in request["options"].items()}
        dataset = made(config(**options, seed=_seed(request), size=size))
    except (AssertionError, ValueError, TypeError, KeyError) as refused:
        return {"problem": str(refused) or type(refused).__name__}
    return _rows(dataset, request, options) if request.get("count") else {"names": sorted(DATASETS)}


def _seed(request: Mapping[str, Any]) -> int:
    """Far from those of other parts and seeds: the library adds an item's number to it."""
    digest = hashlib.sha256(f"{request['seed']}\0{request['part']}".encode()).digest()
    return int.from_bytes(digest[:4], "big") // 2


def _value(name: str, text: str, hint: Any) -> Any:
    """An option's value, read as the type that the generator declares.

    Raises:
        ValueError: it is of another type, or the generator's option is of a type that a text cannot give.
    """
    options = [one for one in typing.get_args(hint) if one is not type(None)]
    if typing.get_origin(hint) is typing.Union and len(options) == 1:
        return _value(name, text, options[0])
    if hint is bool and text in ("true", "false"):
        return text == "true"
    if typing.get_origin(hint) is typing.Literal and text in options:
        return text
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(text)
    if hint in (int, float, str) and not isinstance(hint, types.GenericAlias):
        try:
            return hint(text)
        except ValueError:
            raise ValueError(f"{name} is {text!r}, and {hint.__name__} was expected") from None
    if hint is tuple or typing.get_origin(hint) in (tuple, list, Sequence, typing.get_origin(Sequence[str])):
        kinds = [one for one in options if one in SCALARS] or [str]
        parts = [_value(name, part, kinds[0]) for part in text.split(",")]
        return parts if typing.get_origin(hint) is list else tuple(parts)
    expected = "true or false" if hint is bool else " or ".join(map(str, options)) or "nothing that a text can say"
    raise ValueError(f"{name} is {text!r}, and {expected} was expected")


def _rows(dataset: Any, request: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """As many rows as are asked for, no question twice, all of this part by their hash."""
    rows: list[tuple[str, str, str]] = []
    seen: set[str] = set()
    since = 0
    told = {name: packed(value) for name, value in options.items() if not isinstance(value, enum.Enum)}
    for entry in _entries(dataset):
        since += 1
        question = entry["question"].strip()
        if question not in seen:
            seen.add(question)
            since = 0
            if hashlib.sha256(question.encode()).digest()[0] % 4 in BUCKETS[request["part"]]:
                graded = {key: value for key, value in entry.items() if key != "question"}
                check = {"generator": request["name"], "options": told, "entry": packed(graded)}
                rows.append((question, str(entry["answer"]).strip(), json.dumps(check, ensure_ascii=False)))
        if len(rows) == request["count"] or since > PATIENCE:
            break
    return {"rows": rows}


def _entries(dataset: Any) -> Iterator[Any]:
    """Items in order, until the generator says that it has no more."""
    for number in itertools.count():
        try:
            yield dataset[number]
        except (IndexError, StopIteration):
            return


def packed(value: Any) -> Any:
    """A value as JSON that `unpacked` of the scoring program reads back: tuples, sets and keys that are no texts are
    told apart. What is no plain data becomes its text."""
    if isinstance(value, enum.Enum):
        return packed(value.value)
    if value is None or isinstance(value, SCALARS):
        return value
    if hasattr(value, "tolist"):  # of numpy
        return packed(value.tolist())
    if isinstance(value, list):
        return [packed(one) for one in value]
    if isinstance(value, tuple):
        return {"()": [packed(one) for one in value]}
    if isinstance(value, set | frozenset):
        return {"{}": [packed(one) for one in sorted(value, key=repr)]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value) and not set(value) & {"()", "{}", "{:}"}:
        return {key: packed(one) for key, one in value.items()}
    if isinstance(value, dict):
        return {"{:}": [[packed(key), packed(one)] for key, one in value.items()]}
    return str(value)


if __name__ == "__main__":
    main()
    os._exit(0)  # quicker than taking down what the library imported
