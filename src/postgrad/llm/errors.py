"""What can go wrong between a request and its reply: three kinds, by what the caller can do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postgrad.llm.base import Usage


class ProviderError(Exception):
    """A request that got no usable reply. The text says what happened and what to do, and never holds a key.

    Attributes:
        kind: one word for it, listed at each subclass.
        status: of the HTTP answer, where there was one.
        usage: what the failed request is likely to be billed; None where no token was spent.
    """

    def __init__(self, kind: str, message: str, status: int | None = None, usage: Usage | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.usage = usage


class Outage(ProviderError):
    """The provider cannot answer now: worth asking again later.

    Kinds: timeout, connection, rate_limit, server.

    Attributes:
        retry_after_s: how long the server asks to wait, in seconds; None where it does not say.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        status: int | None = None,
        usage: Usage | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(kind, message, status, usage)
        self.retry_after_s = retry_after_s


class Refused(ProviderError):
    """The provider will not answer this request, however often it is asked.

    Kinds: key, forbidden, quota, not_found, request, too_long, redirect, certificate, script.
    """


class BadReply(ProviderError):
    """The provider answered with something that is no reply.

    Kinds: cut, empty, not_json, shape, too_large, filtered.
    """
