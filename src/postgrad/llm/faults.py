"""What the SDKs raise -> our errors. One generator made both, so their exceptions have the same names and parts."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Mapping
from urllib.parse import urlsplit

from postgrad.llm.errors import BadReply, Outage, ProviderError, Refused
from postgrad.llm.keys import Redactor

_WORDS = 500
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]+")
_TOO_LONG = re.compile(
    r"context[ _-]?(?:length|window|size)|maximum context|too many tokens|prompt is too long|exceeds? .{0,40}tokens",
    re.IGNORECASE,
)
_QUOTA = re.compile(r"insufficient_quota|credit balance|billing", re.IGNORECASE)
_BUSY = (408, 409, 425)


@dataclass(frozen=True)
class Service:
    """Whom a message is about.

    Attributes:
        name: of the provider, for messages.
        key_env: the variable of its key; None where it has none.
    """

    name: str
    base_url: str
    model: str
    key_env: str | None
    redactor: Redactor

    @property
    def place(self) -> str:
        """Host and port."""
        return urlsplit(self.base_url).netloc

    def told(self, text: object) -> str:
        """What a server said, fit for a message: no key, no control characters, not long."""
        plain = _CONTROL.sub(" ", self.redactor(str(text)))
        return plain if len(plain) <= _WORDS else plain[:_WORDS] + "..."


def status_fault(service: Service, status: int, words: str, headers: Mapping[str, str]) -> ProviderError:
    """The error of an answer with this status."""
    said = f" It said: {service.told(words)}" if words.strip() else ""
    wait = retry_after(headers)
    if status == 429 and not _QUOTA.search(words):
        return Outage("rate_limit", f"{service.name} gets too many requests (429).{said}", status, None, wait)
    if status in _BUSY or status >= 500 or status < 300:
        return Outage("server", f"{service.name} cannot answer now ({status}).{said}", status, None, wait)
    kind, message = _refusal(service, status, words, headers)
    return Refused(kind, f"{message}{said}", status)


def _refusal(service: Service, status: int, words: str, headers: Mapping[str, str]) -> tuple[str, str]:
    """Kind and message of a request that is refused for good."""
    variable = service.key_env or "the variable that `key_env` names"
    if status < 400:
        there = service.told(urlsplit(headers.get("location", "")).netloc)
        return "redirect", (
            f"{service.place} sends requests on to '{there}' ({status}), and a key is not sent after them. If that is "
            "the right server, set `base_url` to it."
        )
    if status == 401:
        return "key", f"{service.name} does not take the key (401). Put a valid one into {variable}."
    if status in (402, 429):
        return "quota", f"The account at {service.name} has nothing left to spend ({status}). Add credit, or change it."
    if status == 403:
        return "forbidden", (
            f"{service.name} does not let this key use '{service.model}' (403). Allow it there, or name another model."
        )
    if status == 404:
        return "not_found", (
            f"{service.base_url} has no model '{service.model}', or is no such service (404). Check `model` and "
            "`base_url`."
        )
    if status == 413 or _TOO_LONG.search(words):
        return "too_long", (
            f"The request is too long for '{service.model}' ({status}). Shorten it, lower `max_tokens`, or name a "
            "model with a longer context."
        )
    return "request", f"{service.name} does not take the request ({status}). Check the model's options."


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110)."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        return max(0.0, parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def fault(service: Service, sdk: Any, found: Exception, has_begun: bool) -> ProviderError:
    """The error that an exception of an SDK, or of reading what it gave, stands for.

    Args:
        sdk: the module, `openai` or `anthropic`.
        has_begun: whether a part of the reply had come; a connection that ends then has cut it.
    """
    # What our own client raises, as it is or wrapped by the SDK.
    for own in (found, found.__cause__):
        if isinstance(own, ProviderError):
            return own
    if isinstance(found, sdk.APITimeoutError):
        return Outage("timeout", f"{service.place} said nothing for too long. `patience.idle_s` is how long it may.")
    if isinstance(found, sdk.APIStatusError):
        return status_fault(service, found.status_code, _body(found), found.response.headers)
    # The SDK of OpenAI wraps what httpx2 raises in the middle of a stream, that of Anthropic does not.
    names = {kind.__name__ for kind in type(found).__mro__}
    if "TimeoutException" in names:
        return Outage("timeout", f"{service.place} said nothing for too long. `patience.idle_s` is how long it may.")
    if isinstance(found, sdk.APIConnectionError) or "TransportError" in names:
        if has_begun:
            return BadReply("cut", f"The connection to {service.place} ended in the middle of a reply.")
        cause = service.told(found.__cause__ or found)
        if "CERTIFICATE_VERIFY_FAILED" in cause:
            return Refused(
                "certificate",
                f"{service.place} is not trusted: {cause}. If it is the right server, name the file of its authority "
                "in SSL_CERT_FILE.",
            )
        return Outage(
            "connection", f"No connection to {service.place}: {cause}. Is `base_url` right, and the server up?"
        )
    if isinstance(found, sdk.APIError):
        return Outage("server", f"{service.name} gave up in the middle of a reply: {service.told(_body(found))}")
    if isinstance(found, json.JSONDecodeError | UnicodeDecodeError | RecursionError):
        return BadReply("not_json", f"{service.place} sent what is not JSON. Is `base_url` an address of its API?")
    return BadReply("shape", f"{service.place} sent JSON of another form than the protocol's: {service.told(found)}")


def _body(error: Any) -> str:
    """The server's own words in an SDK's exception."""
    body = error.body
    inner = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(inner, dict) and isinstance(inner.get("message"), str):
        return " ".join(str(inner[key]) for key in ("message", "code", "type") if inner.get(key))
    return str(inner if inner is not None else error.message)
