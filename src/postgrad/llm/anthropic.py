"""The Messages API of Anthropic, through the `anthropic` SDK. Always streamed."""

from __future__ import annotations

from typing import Any, Iterator

from pydantic import BaseModel, ConfigDict, SecretStr

from postgrad.errors import UserError
from postgrad.llm.base import Finish, Price, Provider, Reply, Request, Settings
from postgrad.llm.counting import Counts, field
from postgrad.llm.errors import ProviderError
from postgrad.llm.faults import Service, fault
from postgrad.llm.keys import Keys
from postgrad.llm.ladder import IN_PROMPT, Ladder, in_prompt
from postgrad.llm.prices import price_of
from postgrad.llm.received import Received, checked_url
from postgrad.llm.wire import Watch, certificates, opened

BASE_URL = "https://api.anthropic.com"
KEY_ENV = "ANTHROPIC_API_KEY"
# The newest models refuse to be forced to a tool and have the format instead; older ones have only the tool.
BY_TOOL, BY_FORMAT = "tool", "output_config"
_FINISHES: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "filtered",
}


class _Part(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class _Message(_Part):
    id: str | None = None
    model: str | None = None
    usage: Any = None


class _Delta(_Part):
    type: str | None = None
    text: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Event(_Part):
    type: str
    message: _Message | None = None
    delta: _Delta | None = None
    usage: Any = None


class AnthropicConnector:
    """Reaches Anthropic, or a server that speaks its protocol, at another `base_url` with a `key_env` of its own."""

    def connect(self, settings: Settings, keys: Keys) -> Provider:
        try:
            import anthropic  # noqa: F401
        except ModuleNotFoundError as missing:
            raise UserError(
                "The provider 'anthropic' needs the library 'anthropic'. Install it with: pip install 'postgrad[llm]'."
            ) from missing
        if settings.base_url is not None and settings.key_env is None and settings.base_url.rstrip("/") != BASE_URL:
            raise UserError("A `base_url` that is not Anthropic's needs `key_env`, so that no other key is sent there.")
        update = {"base_url": settings.base_url or BASE_URL, "key_env": settings.key_env or KEY_ENV}
        return Anthropic(settings.model_copy(update=update), keys)


class Anthropic:
    """A model behind `BASE_URL/v1/messages`. It has no seed, and newer models refuse a temperature: both are left out.

    Args:
        settings: with `base_url`, `key_env` and `model`.
    """

    def __init__(self, settings: Settings, keys: Keys) -> None:
        self._settings = settings
        base_url = checked_url(settings)
        self._key: SecretStr = keys.take(settings.key_env or KEY_ENV)
        self._service = Service(settings.provider, base_url, settings.model, settings.key_env, keys.redactor)
        self._price = settings.price or price_of(settings.provider, settings.model)
        self._ladder = Ladder((BY_TOOL, BY_FORMAT, IN_PROMPT) if settings.schema_by == "auto" else (IN_PROMPT,))
        self._certificates = certificates(base_url)
        keys.redactor.watch()

    def __repr__(self) -> str:
        return f"Anthropic(model={self.model!r}, base_url={self._service.base_url!r})"

    @property
    def model(self) -> str:
        return self._settings.model

    @property
    def price(self) -> Price | None:
        return self._price

    def complete(self, request: Request) -> Reply:
        if request.schema is None:
            return self._ask(request, IN_PROMPT)
        return self._ladder.climb(lambda rung: self._ask(in_prompt(request) if rung == IN_PROMPT else request, rung))

    def _ask(self, request: Request, rung: str) -> Reply:
        """One request on one connection; see `openai_compatible` for why errors are raised at the end."""
        import anthropic
        import httpx2

        patience = self._settings.patience
        received = Received(self._service, request, self._price, patience.reply_bytes)
        error: ProviderError | None = None
        with Watch(patience.whole_s) as watch, opened(patience, self._certificates, watch) as http:
            try:
                with anthropic.Anthropic(
                    api_key=self._key.get_secret_value(),
                    base_url=self._service.base_url,
                    http_client=http,
                    max_retries=0,
                    timeout=http.timeout,
                ) as client:
                    self._read(received, client.messages.create(**self._body(request, rung)))
            except (anthropic.AnthropicError, httpx2.HTTPError, ProviderError, ValueError, RecursionError) as found:
                error = fault(self._service, anthropic, found, received.has_begun)
        if error is not None:
            raise received.failed(error, patience.whole_s if watch.expired else None, watch.connected)
        return received.reply()

    @staticmethod
    def _read(received: Received, events: Iterator[Any]) -> None:
        """Collect the events of a stream. The end counts when the server has said it, with a reason."""
        started: object = None
        finish: Finish | None = None
        for event in map(_Event.model_validate, events):
            received.has_begun = True
            if event.message is not None:
                received.named(event.message.id, event.message.model)
                started = event.message.usage
            if event.delta is not None:
                received.add(event.delta.text or event.delta.partial_json or "")
                if event.delta.stop_reason is not None:
                    finish = _FINISHES.get(event.delta.stop_reason, "other")
            if event.usage is not None or event.message is not None:
                received.counts = _counts(started, event.usage)
            if event.type == "message_stop":
                received.finish = finish
                return

    def _body(self, request: Request, rung: str) -> dict[str, Any]:
        system = "\n\n".join(message.text for message in request.messages if message.role == "system")
        body: dict[str, Any] = {
            "model": self._settings.model,
            "messages": [
                {"role": message.role, "content": message.text}
                for message in request.messages
                if message.role != "system"
            ],
            "max_tokens": request.max_tokens,
            "stream": True,
        }
        if system.strip():
            # What stays the same from request to request is kept by the server, and read again for a tenth.
            body["system"] = [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]
        if request.schema is not None and rung == BY_TOOL:
            tool = {"name": "reply", "description": "Give the reply.", "input_schema": request.schema}
            body |= {"tools": [tool], "tool_choice": {"type": "tool", "name": "reply"}}
        elif request.schema is not None:
            body["output_config"] = {"format": {"type": "json_schema", "schema": request.schema}}
        return body


def _counts(started: object, ended: object) -> Counts:
    """What the first and the last event say. Anthropic counts cached and written input beside the other."""
    fresh, cached, written = (
        field(started, name) for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    )
    parts = [part for part in (cached, written) if part is not None]
    total = fresh
    if type(fresh) is int and all(type(part) is int and part >= 0 for part in parts):
        total = fresh + sum(part for part in parts if isinstance(part, int))
    return Counts(input=total, output=field(ended, "output_tokens"), cached=cached, written=written)
