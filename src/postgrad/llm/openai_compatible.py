"""Chat completions, the protocol of OpenAI that most services and local servers speak, through the `openai` SDK."""

from __future__ import annotations

import json
from typing import Any, Iterator

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from postgrad.errors import UserError
from postgrad.llm.base import Finish, Price, Provider, Reply, Request, Settings
from postgrad.llm.counting import Counts, field
from postgrad.llm.errors import BadReply, ProviderError
from postgrad.llm.faults import Service, fault
from postgrad.llm.keys import Keys
from postgrad.llm.ladder import IN_PROMPT, Ladder, in_prompt, is_strict
from postgrad.llm.prices import price_of
from postgrad.llm.received import Received, checked_url
from postgrad.llm.wire import Watch, certificates, opened

BY_FORMAT = "response_format"
_FINISHES: dict[str, Finish] = {"stop": "stop", "length": "length", "content_filter": "filtered"}
# OpenAI's own models take no other name; most other servers know only the older one.
_NEW_NAME = "api.openai.com"


class _Part(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class _Text(_Part):
    content: str | None = None
    refusal: str | None = None


class _Choice(_Part):
    delta: _Text | None = None
    message: _Text | None = None
    finish_reason: str | None = None


class _Chunk(_Part):
    """A piece of a streamed reply, or a whole one: they differ in the name of the text's place."""

    id: str | None = None
    model: str | None = None
    choices: list[_Choice] = Field(max_length=64)
    usage: Any = None


class OpenAICompatibleConnector:
    """Reaches any server that speaks the protocol; the presets are some of them."""

    def connect(self, settings: Settings, keys: Keys) -> Provider:
        try:
            import openai  # noqa: F401
        except ModuleNotFoundError as missing:
            raise UserError(
                f"The provider '{settings.provider}' needs the library 'openai'. Install it with: "
                "pip install 'postgrad[llm]'."
            ) from missing
        return OpenAICompatible(settings, keys)


class OpenAICompatible:
    """A model behind `BASE_URL/chat/completions`.

    Args:
        settings: with `base_url` and `model`; the preset's are filled in by then.
        keys: where the key comes from, if `key_env` names one.
    """

    def __init__(self, settings: Settings, keys: Keys) -> None:
        self._settings = settings
        base_url = checked_url(settings)
        self._key: SecretStr | None = keys.take(settings.key_env) if settings.key_env else None
        self._service = Service(settings.provider, base_url, settings.model, settings.key_env, keys.redactor)
        self._price = settings.price or price_of(settings.provider, settings.model)
        self._ladder = Ladder((BY_FORMAT, IN_PROMPT) if settings.schema_by == "auto" else (IN_PROMPT,))
        self._certificates = certificates(base_url)
        keys.redactor.watch()

    def __repr__(self) -> str:
        return f"OpenAICompatible(model={self.model!r}, base_url={self._service.base_url!r})"

    @property
    def model(self) -> str:
        return self._settings.model

    @property
    def price(self) -> Price | None:
        return self._price

    def complete(self, request: Request) -> Reply:
        if request.schema is None:
            return self._ask(request)
        return self._ladder.climb(lambda rung: self._ask(in_prompt(request) if rung == IN_PROMPT else request))

    def _ask(self, request: Request) -> Reply:
        """One request on one connection. What goes wrong is raised outside the handler, so that no exception of the
        SDK, which may quote the key, hangs on ours."""
        import httpx2
        import openai

        patience = self._settings.patience
        received = Received(self._service, request, self._price, patience.reply_bytes)
        error: ProviderError | None = None
        with (
            Watch(patience.whole_s) as watch,
            opened(patience, self._certificates, watch, self._key is not None) as http,
        ):
            try:
                with openai.OpenAI(
                    # The SDK insists on a key; this one is not sent.
                    api_key=self._key.get_secret_value() if self._key else "none",
                    base_url=self._service.base_url,
                    http_client=http,
                    max_retries=0,
                    timeout=http.timeout,
                ) as client:
                    for chunk in self._chunks(client, request):
                        _add(received, chunk)
            except (openai.OpenAIError, httpx2.HTTPError, ProviderError, ValueError, RecursionError) as found:
                error = fault(self._service, openai, found, received.has_begun)
        if error is not None:
            raise received.failed(error, patience.whole_s if watch.expired else None, watch.connected)
        return received.reply()

    def _chunks(self, client: Any, request: Request) -> Iterator[_Chunk]:
        """The pieces of the reply, in the protocol's form. A server that answers a request to stream with one piece of
        JSON is taken at that."""
        created = client.chat.completions.create(**self._body(request))
        if not self._settings.stream:
            yield _Chunk.model_validate(created)
        elif created.response.headers.get("content-type", "").startswith("application/json"):
            yield _Chunk.model_validate(json.loads(created.response.read()))
        else:
            for chunk in created:
                yield _Chunk.model_validate(chunk)

    def _body(self, request: Request) -> dict[str, Any]:
        longest = "max_completion_tokens" if self._service.place == _NEW_NAME else "max_tokens"
        body: dict[str, Any] = {
            "model": self._settings.model,
            "messages": [{"role": message.role, "content": message.text} for message in request.messages],
            longest: request.max_tokens,
            "stream": self._settings.stream,
        }
        if self._settings.stream:
            body["stream_options"] = {"include_usage": True}
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.seed is not None:
            body["seed"] = request.seed
        if request.schema is not None:
            form = {"name": "reply", "schema": request.schema, "strict": is_strict(request.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body


def _add(received: Received, chunk: _Chunk) -> None:
    """Take over what a piece says. Only the first choice counts: one was asked for."""
    received.named(chunk.id, chunk.model)
    if chunk.usage is not None:
        received.counts = _counts(chunk.usage)
    for choice in chunk.choices[:1]:
        text = choice.delta or choice.message or _Text()
        if text.refusal:
            raise BadReply("filtered", f"The model declined: {received.service.told(text.refusal)}")
        received.add(text.content or "")
        if choice.finish_reason is not None:
            received.finish = _FINISHES.get(choice.finish_reason, "other")


def _counts(usage: object) -> Counts:
    return Counts(
        input=field(usage, "prompt_tokens"),
        output=field(usage, "completion_tokens"),
        cached=field(field(usage, "prompt_tokens_details"), "cached_tokens"),
    )
