"""One HTTP client for one request, that a hostile or broken server can neither hold, fill, nor lead elsewhere.

The clients of the SDKs read whatever comes for as long as it comes. This one is handed to them instead: it follows no
redirect, sends no header that the protocol does not need, stops at a number of bytes, and ends at a time on the clock,
whatever the server is doing then.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import contextmanager, suppress
from threading import Timer
from typing import TYPE_CHECKING, Any, Iterator

from postgrad.llm.base import Patience
from postgrad.llm.errors import BadReply

if TYPE_CHECKING:
    import httpx2

ERROR_BYTES = 64_000
_OVERHEAD = 16  # a streamed token of four bytes comes in some two hundred; servers that send several at once need less
_HEADERS = frozenset(
    ("host", "accept", "accept-encoding", "connection", "content-type", "content-length", "user-agent")
    + ("authorization", "x-api-key", "anthropic-version")
)
# The SDK takes these from the environment, whatever the server.
_ACCOUNT = frozenset(("openai-organization", "openai-project"))
_ACCOUNT_HOST = "api.openai.com"
_OPENED = (".connect_tcp.complete", ".start_tls.complete")


class Watch:
    """Closes the connection of one request when its time is up. `expired` says that this happened."""

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._plug: socket.socket | None = None
        self._timer = Timer(seconds, self._end)
        self._timer.daemon = True

    @property
    def connected(self) -> bool:
        """Whether there was a connection, on which the request may have gone out."""
        return self._plug is not None

    def __enter__(self) -> Watch:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def note(self, event: str, info: dict[str, Any]) -> None:
        """Remember the socket: the `trace` hook of httpcore, called when a connection is made or gets its TLS."""
        if event.endswith(_OPENED):
            self._plug = info["return_value"].get_extra_info("socket")
            if self.expired:
                self._end()

    def _end(self) -> None:
        # A read that waits in the other thread returns at once. The socket's own shutdown, below that of TLS, which is
        # not made for two threads.
        self.expired = True
        if self._plug is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._plug, socket.SHUT_RDWR)


def certificates(base_url: str) -> ssl.SSLContext:
    """Whom a client for this address trusts. To read all authorities takes a tenth of a second, and is left out where
    nothing is encrypted; such a client trusts nobody."""
    import httpx2

    is_plain = base_url.startswith("http://")
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if is_plain else httpx2.create_ssl_context()


@contextmanager
def opened(
    patience: Patience, certificates: ssl.SSLContext, watch: Watch, has_key: bool = True
) -> Iterator[httpx2.Client]:
    """A client for one request; what it reads is bounded as the patience says. Without a key it sends none.

    Reading raises BadReply (too_large, shape) beyond the bounds. The answers of failed requests end early instead: what
    failed is known by then.
    """
    import httpx2

    def leaving(request: httpx2.Request) -> None:
        kept = _HEADERS | _ACCOUNT if request.url.host == _ACCOUNT_HOST else _HEADERS
        for name in set(request.headers) - kept:
            del request.headers[name]
        if not has_key:
            request.headers.pop("authorization", None)
        request.headers["accept-encoding"] = "identity"
        request.extensions = {**request.extensions, "trace": watch.note}

    def arriving(response: httpx2.Response) -> None:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise BadReply("shape", "The server sent a compressed reply, which it was asked not to.")
        stream = response.stream
        assert isinstance(stream, httpx2.SyncByteStream)
        response.stream = Bounded(stream, response.is_success)

    class Bounded(httpx2.SyncByteStream):
        """A body that ends, with an error or quietly, when it has become too long."""

        def __init__(self, stream: httpx2.SyncByteStream, is_success: bool) -> None:
            self._stream, self._is_success = stream, is_success

        def __iter__(self) -> Iterator[bytes]:
            return bounded(self._stream, patience.reply_bytes) if self._is_success else first_bytes(self._stream)

        def close(self) -> None:
            self._stream.close()

    with httpx2.Client(
        verify=certificates,
        follow_redirects=False,
        timeout=httpx2.Timeout(patience.idle_s, connect=patience.connect_s),
        limits=httpx2.Limits(max_keepalive_connections=0),
        event_hooks={"request": [leaving], "response": [arriving]},
    ) as client:
        yield client


def bounded(pieces: Iterator[bytes] | Any, most: int) -> Iterator[bytes]:
    """The pieces as they come; BadReply when all are more than 16 times `most` bytes, or one line is more than twice.

    A line is one event of a stream, or a whole reply in one piece. Escapes in JSON can double a text.
    """
    whole = line = 0
    for piece in pieces:
        whole += len(piece)
        end = piece.rfind(b"\n")
        line = line + len(piece) if end < 0 else len(piece) - end - 1
        if whole > _OVERHEAD * most or max(line, end) > 2 * most:
            raise too_large(most)
        yield piece


def first_bytes(pieces: Iterator[bytes] | Any) -> Iterator[bytes]:
    """The pieces up to 64 kB."""
    left = ERROR_BYTES
    for piece in pieces:
        yield piece[:left]
        left -= len(piece)
        if left <= 0:
            return


def too_large(most: int) -> BadReply:
    """The reply is longer than it may be."""
    return BadReply(
        "too_large",
        f"The reply is larger than {most:,} bytes, and reading stopped there. Ask for less with `max_tokens`, or raise "
        "`patience.reply_bytes`.",
    )
