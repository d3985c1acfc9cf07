"""What all records are made of."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Union

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeAliasType

SCHEMA = 1

# A named alias, because pydantic resolves recursive types by name only.
Value = TypeAliasType("Value", "Union[bool, int, float, str, None, tuple[Value, ...], dict[str, Value]]")
Split = Literal["search", "select", "sealed"]


class Record(BaseModel):
    """Base of all records."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class _Names(set[str]):
    """Names of fields that records share; a copy is a set of its own."""

    def __copy__(self) -> set[str]:
        return set(self)


@lru_cache(maxsize=4096)
def _shared(names: frozenset[str]) -> _Names:
    return _Names(names)


def lean(value: object) -> None:
    """Let records, and those inside them, share what is equal beside their values: each holds a set of the names of its
    fields, and in a long run those take more room than the fields."""
    if isinstance(value, Record):
        object.__setattr__(value, "__pydantic_fields_set__", _shared(frozenset(value.__pydantic_fields_set__)))
        for inner in value.__dict__.values():
            lean(inner)
    elif isinstance(value, tuple):
        for inner in value:
            lean(inner)


def content_hash(value: Any) -> str:
    """Return 16 hex digits that name a JSON-able value, stable over key order and Python versions."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Row(NamedTuple):
    """One example.

    Attributes:
        id: stable over files and runs: the hash of the normalised text, with a counter for repeats.
        label: the label, or the answer in words, that is to be given.
        check: what an answer is graded with where that is more than `label`, such as tests or the puzzle itself; ""
            where it is not. Models are never shown it.
    """

    id: str
    text: str
    label: str
    check: str = ""

    @property
    def told(self) -> dict[str, str]:
        """The row as a JSON object, without a check where it has none."""
        return {key: value for key, value in self._asdict().items() if key != "check" or value}
