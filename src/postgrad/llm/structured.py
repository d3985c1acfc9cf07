"""A reply's text as an object of a pydantic model. Texts are parsed, never run; what is wrong with one is told to the
model all at once, a bounded number of times."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Callable, Generic, Sequence, TypeVar

from pydantic import BaseModel, ValidationError

from postgrad.llm.base import Message, Provider, Reply, Request, Usage, together
from postgrad.llm.errors import BadReply, ProviderError
from postgrad.llm.ladder import told
from postgrad.metrics.reading import first_json, read_json
from postgrad.quoting import escaped

T = TypeVar("T", bound=BaseModel)

LONGEST = 200_000  # characters of a text that is read for JSON
PROBLEMS, WORDS = 20, 200
_QUOTED = 20_000  # characters of a wrong reply that are shown to the model again
# A model that reasons aloud may write JSON that it then discards.
_THOUGHT = re.compile(r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_FENCE = re.compile(r"```[A-Za-z0-9]*[ \t]*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Structured(Generic[T]):
    """An object with what it took to get it.

    Attributes:
        usage: of all rounds together.
        rounds: how many replies were read; 1 where the first was right.
    """

    value: T
    reply: Reply
    usage: Usage
    rounds: int


def found_json(text: str) -> Any:
    """The JSON object of a reply: the whole text, else its first fenced block, else the first object that is balanced.

    None where there is none, where it is nested deeper than 64 levels, or where the text is too long.
    """
    if len(text) > LONGEST:
        return None
    text = _THOUGHT.sub("", text, count=1)
    fenced = _FENCE.search(text)
    for part in (text, fenced[1] if fenced else ""):
        value = read_json(part)
        if isinstance(value, dict):
            return value
    return first_json(text, "{")


def parsed(text: str, model: type[T]) -> tuple[T | None, tuple[str, ...]]:
    """The object in a text, or every problem with it; at most 20, each in at most 200 characters."""
    value = found_json(text)
    if value is None:
        return None, ("There is no JSON object in it.",)
    try:
        return model.model_validate(value), ()
    except ValidationError as wrong:
        problems = [
            _problem(error["loc"], error["msg"]) for error in wrong.errors(include_url=False, include_input=False)
        ]
    if len(problems) > PROBLEMS:
        problems[PROBLEMS:] = [f"and {len(problems) - PROBLEMS} more problems."]
    return None, tuple(problems)


def ask(
    provider: Provider,
    request: Request,
    model: type[T],
    repairs: int = 2,
    check: Callable[[T], Sequence[str]] = lambda value: (),
) -> Structured[T]:
    """Ask for an object of this model. A wrong reply is shown to the provider with its problems, for another try.

    Args:
        request: its schema is the model's where it has none.
        repairs: how often it may try again.
        check: says what is wrong with an object of the right shape; nothing where it can be used.

    Raises:
        BadReply: no round gave such an object; the usage is that of all rounds.
        ProviderError: whatever the provider raised, with the usage of all rounds.
    """
    request = request if request.schema else replace(request, schema=model.model_json_schema())
    asked, spent = request, None
    problems: tuple[str, ...] = ()
    for number in range(1, repairs + 2):
        try:
            reply = provider.complete(asked)
        except ProviderError as error:
            error.usage = together(spent, error.usage)
            raise
        spent = together(spent, reply.usage)
        value, problems = parsed(reply.text, model)
        if value is not None:
            problems = tuple(check(value))
        if value is not None and not problems and spent is not None:
            return Structured(value, reply, spent, number)
        if reply.finish == "length":
            problems = (f"It ended at the limit of {request.max_tokens} tokens. Be shorter.", *problems)
        asked = replace(request, messages=(*request.messages, *_repair(reply, problems, request.schema or {})))
    raise BadReply("shape", f"No usable reply in {repairs + 1} tries. The last one: {' '.join(problems)}", usage=spent)


def _repair(reply: Reply, problems: tuple[str, ...], schema: dict[str, Any]) -> tuple[Message, Message]:
    """The wrong reply, and what is wrong with it. The schema goes along: some servers take one and leave it unread."""
    listed = "\n".join(f"- {problem}" for problem in problems)
    words = f"That reply cannot be used. All that is wrong with it:\n{listed}\n{told(schema)}"
    return Message("assistant", reply.text[:_QUOTED].strip() or "(nothing)"), Message("user", words)


def _problem(place: tuple[int | str, ...], words: str) -> str:
    """A line about a place in the reply, of which the names may be the model's own."""
    where = ".".join(map(str, place))
    return escaped(f"{where}: {words}" if where else words)[:WORDS]
