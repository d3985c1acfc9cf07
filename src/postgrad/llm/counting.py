"""How many tokens a request and its reply have: the server's word where it can be true, else an estimate of ours.

A tokenizer on bytes makes no more tokens than there are bytes, and none of those in use makes texts of fewer than one
in 32 of them. A reply may hold hidden reasoning as well, but never more than `max_tokens`. What is believed is never
more than `dearest` has set aside of a budget.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

from postgrad.llm.base import Price, Request, Usage
from postgrad.llm.ladder import in_prompt

BYTES_PER_TOKEN = 3.0  # English has about four: an estimate errs to the dear side
_FRAME = 16  # tokens that a chat template and a schema's frame put around a message
_SERVICE = 1000  # tokens that a service adds of its own, such as words on how to use a tool
_LONGEST_TOKEN = 32  # bytes, on average over a text


@dataclass(frozen=True)
class Counts:
    """What a server says it counted, unchecked: anything at all. None is no word on it."""

    input: object = None
    output: object = None
    cached: object = None
    written: object = None


def field(value: object, name: str) -> object:
    """A part of what may be an object of an SDK, an object of JSON, or anything else; None where it has none."""
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def size(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text.encode("utf-8", "replace"))


def prompt_size(request: Request) -> int:
    """Bytes of all that is sent to be read."""
    schema = size(json.dumps(request.schema)) if request.schema else 0
    return sum(size(message.text) for message in request.messages) + schema


def most_input(request: Request) -> int:
    """More tokens than the prompt can have, whichever way it is held to its schema."""
    sent = in_prompt(request)
    return prompt_size(sent) + _FRAME * (len(sent.messages) + 1) + _SERVICE


def dearest(request: Request, price: Price | None) -> float:
    """Dollars that a request can cost at most; 0.0 where the price is not known."""
    return 0.0 if price is None else price.most(most_input(request), request.max_tokens)


def estimate(request: Request, text: str, price: Price | None) -> Usage:
    """The usage of a request whose server said nothing that can be believed. What is sent beyond `max_tokens` was not
    asked for, and is not counted."""
    frame = _FRAME * (len(request.messages) + 1)
    guessed = Usage(
        input=math.ceil(prompt_size(request) / BYTES_PER_TOKEN) + frame,
        output=min(math.ceil(size(text) / BYTES_PER_TOKEN), request.max_tokens),
        estimated=True,
    )
    return priced(guessed, price)


def priced(usage: Usage, price: Price | None) -> Usage:
    """The usage with its dollars; None where the price is not known."""
    return replace(usage, usd=None if price is None else price.usd(usage))


def believed(counts: Counts, request: Request, text: str, price: Price | None) -> Usage:
    """The usage by the server's counts, each replaced by our estimate where it cannot be true.

    An input count has to be one that the messages can have, an output count one that the text can have and at most
    `max_tokens`; cached and written ones a part of the input. A schema may be read or not.
    """
    own = estimate(request, text, price)
    sent = sum(size(message.text) for message in request.messages)
    read = _within(counts.input, max(1, sent // _LONGEST_TOKEN), most_input(request))
    least = max(1, size(text) // _LONGEST_TOKEN) if text else 0
    said = _within(counts.output, min(least, request.max_tokens), request.max_tokens)
    total = own.input if read is None else read
    cached = _within(counts.cached, 0, total) if read is not None else None
    written = _within(counts.written, 0, total - (cached or 0)) if read is not None else None
    doubtful = any(kept is None for kept in (read, said)) or any(
        given is not None and kept is None for given, kept in ((counts.cached, cached), (counts.written, written))
    )
    usage = Usage(
        input=total,
        cached_input=cached or 0,
        written_input=written or 0,
        output=own.output if said is None else said,
        estimated=doubtful,
    )
    return priced(usage, price)


def _within(value: object, least: int, most: int) -> int | None:
    """The value where it is a whole number in this range; True and 3.0 are not."""
    return value if type(value) is int and least <= value <= most else None
