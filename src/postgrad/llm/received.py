"""A reply while it comes in, whatever the protocol: its text, bounded, and what the server says about it."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from postgrad.errors import UserError
from postgrad.llm.base import Finish, Price, Reply, Request, Settings
from postgrad.llm.counting import Counts, believed, estimate, size
from postgrad.llm.errors import BadReply, Outage, ProviderError
from postgrad.llm.faults import Service
from postgrad.llm.wire import too_large

_NAME = 200


class Received:
    """Collects the pieces of one reply. Its clock starts when it is made.

    Args:
        most: bytes of text after which reading stops.
    """

    def __init__(self, service: Service, request: Request, price: Price | None, most: int) -> None:
        self.service = service
        self.finish: Finish | None = None
        self.counts = Counts()
        self.has_begun = False
        self._request, self._price, self._most = request, price, most
        self._pieces: list[str] = []
        self._bytes = 0
        self._id = self._model = ""
        self._began = time.monotonic()

    def add(self, text: str) -> None:
        """Append a piece of text."""
        self._bytes += size(text)
        if self._bytes > self._most:
            raise too_large(self._most)
        self._pieces.append(text)

    def named(self, name: str | None, model: str | None) -> None:
        """Remember what the server calls the reply and the model. Called for every piece."""
        self.has_begun = True
        self._id = self._id or self.service.told(name or "")[:_NAME]
        self._model = self._model or self.service.told(model or "")[:_NAME]

    def reply(self) -> Reply:
        """The whole reply.

        Raises:
            BadReply: it has no text and no end, or no end.
        """
        if self.finish is None:
            kind, what = ("cut", "ended in the middle") if self._pieces else ("empty", "holds no choice")
            raise self.failed(BadReply(kind, f"The reply of {self.service.place} {what}."), None)
        text = "".join(self._pieces)
        return Reply(
            text=text,
            usage=believed(self.counts, self._request, text, self._price),
            model=self._model or self.service.model,
            finish=self.finish,
            latency_s=time.monotonic() - self._began,
            id=self._id,
        )

    def failed(self, error: ProviderError, whole_s: float | None, was_sent: bool = True) -> ProviderError:
        """The error with what its request has probably cost, if the server had begun to answer, or may still be at it.

        Args:
            whole_s: the time the reply had, where that was over; the error is then a consequence.
            was_sent: False where no connection was made.
        """
        if whole_s is not None:
            error = Outage("timeout", f"{self.service.place} had not replied in full after {whole_s:g} s.")
        if self.has_begun or isinstance(error, BadReply) or (error.kind == "timeout" and was_sent):
            error.usage = estimate(self._request, "".join(self._pieces), self._price)
        return error


def checked_url(settings: Settings) -> str:
    """The address of the service.

    Raises:
        UserError: it or the model is missing, it is no address, or it holds a password.
    """
    if not settings.model:
        raise UserError(f"The provider '{settings.provider}' needs a model. Name one with `model`.")
    if not settings.base_url:
        raise UserError(f"The provider '{settings.provider}' needs `base_url`, such as http://127.0.0.1:8000/v1.")
    try:
        parts = urlsplit(settings.base_url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise UserError("`base_url` is no address. It has to look like https://api.example.com/v1.")
    if parts.username or parts.password or parts.query:
        raise UserError(
            "`base_url` holds a password or a query. Keys go into an environment variable that `key_env` names."
        )
    return settings.base_url
