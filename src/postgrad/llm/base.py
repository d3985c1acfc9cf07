"""The contract of a provider of text, and the records that go in and come out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field

from postgrad.records.base import Record, content_hash

if TYPE_CHECKING:
    from postgrad.llm.keys import Keys

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "filtered", "other"]


@dataclass(frozen=True)
class Message:
    """One turn. Half a surrogate pair, which no provider can be sent, becomes a question mark."""

    role: Role
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.text.encode("utf-8", "replace").decode("utf-8"))


@dataclass(frozen=True)
class Request:
    """What is asked.

    Attributes:
        messages: the conversation so far; at least one that is not the system's.
        max_tokens: the longest reply, in tokens, hidden reasoning included.
        temperature: None leaves it to the provider. Anthropic is sent none: its newer models refuse it.
        schema: JSON schema of the reply, an object at the root. The reply's text is then meant to be JSON; it may
            still be wrong, and `structured.ask` is what checks it.
        seed: for providers that have one, which Anthropic has not; most promise no more than to try.
    """

    messages: tuple[Message, ...]
    max_tokens: int = 2048
    temperature: float | None = None
    schema: dict[str, Any] | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not any(message.role != "system" for message in self.messages):
            raise ValueError("a request needs a message of the user")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}; it has to be at least 1")

    def key(self, model: str) -> str:
        """16 hex digits that name this request to this model."""
        return content_hash([model, asdict(self)])


@dataclass(frozen=True)
class Usage:
    """Tokens and dollars of one request, or of several together.

    Attributes:
        input: all tokens of the prompt, those below included.
        cached_input: of these, read from the provider's cache.
        written_input: of these, written to it, which Anthropic bills higher.
        output: tokens of the reply, hidden reasoning included.
        usd: what that costs; None where the model's price is not known.
        estimated: True where a count is ours, because the server sent none or an absurd one.
    """

    input: int = 0
    cached_input: int = 0
    written_input: int = 0
    output: int = 0
    usd: float | None = 0.0
    estimated: bool = False

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input=self.input + other.input,
            cached_input=self.cached_input + other.cached_input,
            written_input=self.written_input + other.written_input,
            output=self.output + other.output,
            usd=None if self.usd is None or other.usd is None else self.usd + other.usd,
            estimated=self.estimated or other.estimated,
        )


def together(first: Usage | None, second: Usage | None) -> Usage | None:
    """The sum of what was used, None where neither used anything."""
    return first + second if first is not None and second is not None else first or second


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        usage: of this reply, failed attempts at it included.
        model: as the server names it.
        finish: why it ended: by itself, at `max_tokens`, filtered by the provider, or something else.
        latency_s: wall seconds from asking to the last byte.
        id: the server's name for it; "" where it gave none.
    """

    text: str
    usage: Usage
    model: str
    finish: Finish
    latency_s: float
    id: str = ""


class Price(Record):
    """Dollars per million tokens. Cached and written input cost as much as other input where nothing is said."""

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    cached_input: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    written_input: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    def usd(self, usage: Usage) -> float:
        """What these tokens cost."""
        cached = self.input if self.cached_input is None else self.cached_input
        written = self.input if self.written_input is None else self.written_input
        plain = max(0, usage.input - usage.cached_input - usage.written_input)
        parts = (plain * self.input, usage.cached_input * cached, usage.written_input * written)
        return (sum(parts) + usage.output * self.output) / 1_000_000

    def most(self, read: int, written: int) -> float:
        """What so many tokens can cost at most: those of the prompt at the dearest of their prices."""
        each = max(self.input, self.cached_input or 0.0, self.written_input or 0.0)
        return (read * each + written * self.output) / 1_000_000


class Patience(Record):
    """How long a server is waited for, and how much of its reply is read.

    Attributes:
        connect_s: for the connection.
        idle_s: between two pieces of a reply; the first may take as long. Raise it for models that think in silence.
        whole_s: for the whole reply.
        reply_bytes: of the reply's text. What is on the wire may be 16 times as much: streaming repeats itself.
    """

    connect_s: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    idle_s: float = Field(default=120.0, gt=0, allow_inf_nan=False)
    whole_s: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    reply_bytes: int = Field(default=1_000_000, gt=0)


class Settings(Record):
    """How a provider is reached. No key is among them, only the name of the variable that holds it.

    Attributes:
        provider: a name of the table in `postgrad.llm`, or of `presets.PRESETS`.
        model: as the provider calls it.
        base_url: of the service; None takes the provider's own.
        key_env: the environment variable with the key; None takes the provider's own.
        price: None takes the table of `prices.py`.
        stream: False asks for the reply in one piece: for servers that cannot stream.
        schema_by: how a schema is enforced: "auto" tries what the server has, and falls back to the prompt.
        path: the file of `recorded` and `scripted`.
    """

    provider: str
    model: str = ""
    base_url: str | None = None
    key_env: str | None = None
    price: Price | None = None
    patience: Patience = Patience()
    stream: bool = True
    schema_by: Literal["auto", "prompt"] = "auto"
    path: Path | None = None


class Provider(Protocol):
    """Answers requests. May be called from several threads. Its `repr` shows no key."""

    @property
    def model(self) -> str:
        """The model that is asked, as in the settings."""
        ...

    @property
    def price(self) -> Price | None:
        """What tokens cost; None where it is not known, and then no usage has dollars."""
        ...

    def complete(self, request: Request) -> Reply:
        """Return the reply, always with its usage.

        Raises:
            Outage: not now: time-out, no connection, too many requests, a fault of the server.
            Refused: not this request: the key, the model, the length, the form.
            BadReply: something came that is no reply.
        """
        ...


class Connector(Protocol):
    """Makes providers of one kind; what the table in `postgrad.llm` names."""

    def connect(self, settings: Settings, keys: Keys) -> Provider:
        """Return the provider. Nothing is sent yet.

        Raises:
            UserError: the settings are not complete, the key is not set, or a library is missing.
        """
        ...
