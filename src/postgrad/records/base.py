"""What all records are made of."""

from __future__ import annotations

import hashlib
import json
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
