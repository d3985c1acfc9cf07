"""Ways to hold a model to a JSON schema, the strictest first. Which one a server takes is found out once."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, Callable

from postgrad.llm.base import Message, Reply, Request
from postgrad.llm.errors import ProviderError, Refused

IN_PROMPT = "prompt"
# What servers that cannot do it say, with a status that means something else: llama_cpp.server answers 500.
_BLAMED = re.compile(r"response_format|json_schema|json_object|output_config|tool_choice|grammar", re.IGNORECASE)


class Ladder:
    """Remembers the first rung that a server took.

    Args:
        rungs: names of ways, the strictest first; the last has to work everywhere.
    """

    def __init__(self, rungs: tuple[str, ...]) -> None:
        self._rungs = rungs
        self._is_sure = False

    def climb(self, ask: Callable[[str], Reply]) -> Reply:
        """Ask by the first rung that is left; where the server refuses that one way, by the next.

        A rung is given up when a later one has worked: what fails on all of them was not the schema's fault.
        """
        rungs = self._rungs
        for place, rung in enumerate(rungs):
            reply, error = _tried(ask, rung)
            if reply is not None:
                self._rungs, self._is_sure = rungs[place:], True
                return reply
            assert error is not None
            if self._is_sure or rung == rungs[-1] or not _may_be_the_schema(error):
                raise error
        raise AssertionError("a ladder has a rung")


def _tried(ask: Callable[[str], Reply], rung: str) -> tuple[Reply | None, ProviderError | None]:
    try:
        return ask(rung), None
    except ProviderError as error:
        return None, error


def _may_be_the_schema(error: ProviderError) -> bool:
    """Whether the server may have refused the way it was asked and not the question."""
    if isinstance(error, Refused) and error.kind == "request":
        return True
    return error.status in (404, 500, 501) and _BLAMED.search(str(error)) is not None


def in_prompt(request: Request) -> Request:
    """The request without a schema, and with a message that describes it."""
    if request.schema is None:
        return request
    return replace(request, messages=(*request.messages, Message("user", told(request.schema))), schema=None)


def told(schema: dict[str, Any]) -> str:
    """The words that ask for JSON of this schema."""
    return f"Reply with one JSON object and nothing else. It has to fit this JSON schema:\n{json.dumps(schema)}"


def is_strict(schema: object) -> bool:
    """Whether OpenAI's strict mode takes the schema: each object requires all its properties and allows no other."""
    if isinstance(schema, list):
        return all(is_strict(part) for part in schema)
    if not isinstance(schema, dict):
        return True
    named = schema.get("properties")
    if isinstance(named, dict) or schema.get("type") == "object":
        named = named or {}
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(named):
            return False
        return all(is_strict(part) for part in [*named.values(), schema.get("$defs", {})])
    return all(is_strict(part) for part in schema.values())
